/** Draws the model as lines of exactly `width` columns, `height` of them; made for 80×24, more room goes to the events. Pure. */

import { panelBox } from "../../firmware-ts/cli/panel-box.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { LinkColour, OperatorEvent, Status } from "../../firmware-ts/schema/status.ts";
import { helpLines } from "./keys.ts";
import type { ClientModel, ControllerModel, LiveModel, ServerModel } from "./model.ts";
import { columns, fitTo, type Style, styled } from "./text.ts";

export const widthMin = 80;
export const heightMin = 24;

/** A smaller terminal gets one line that says so. */
export function draw(model: LiveModel, width: number, height: number): string[] {
  if (width < widthMin || height < heightMin)
    return [fitTo(`dyad: this view needs ${widthMin}×${heightMin}, not ${width}×${height}`, width)];
  const half = Math.floor(width / 2);
  const top = [
    headline(model, width),
    ...beside(
      controllerBox("a", model.controllers.a, model.selected === "a", half),
      controllerBox("b", model.controllers.b, model.selected === "b", width - half),
    ),
    ...serverTable(model, width),
    diskLine(model, width),
    ...beside(
      panelOf(model).map((line) => fitTo(line, half)),
      clientLines(model, width - half),
    ),
  ];
  const bottom = [noteLine(model), ...helpLines].map((line) => fitTo(line, width));
  const room = height - top.length - bottom.length;
  const events = model.events.slice(-Math.max(0, room)).map((event) => eventLine(event, width));
  const filled = [
    ...events,
    ...Array.from({ length: room - events.length }, () => fitTo("", width)),
  ];
  return [...top, ...filled, ...bottom].slice(0, height);
}

function headline(model: LiveModel, width: number): string {
  const seconds = Math.floor(model.elapsedMs / 1000);
  const clock = `${String(Math.floor(seconds / 60)).padStart(2, "0")}:${String(seconds % 60).padStart(2, "0")}`;
  const faults = model.faults.length === 0 ? "nothing is broken" : model.faults.join(", ");
  const left = fitTo(` DYAD  ${faults}`, width - clock.length - 1);
  return styled(`${left}${clock} `, "inverse", "bold");
}

function beside(left: readonly string[], right: readonly string[]): string[] {
  return left.map((line, i) => line + (right[i] ?? ""));
}

const modeStyles: { readonly [mode in Status["mode"]]: Style } = {
  starting: "yellow",
  joining: "yellow",
  paired: "green",
  racing: "yellow",
  alone: "yellow",
  out: "red",
  leaving: "yellow",
};

function controllerBox(
  id: ControllerId,
  controller: ControllerModel,
  selected: boolean,
  width: number,
): string[] {
  const inner = width - 4;
  const name = ` controller ${id} `;
  const title = selected ? styled(name, "inverse") : styled(name, "bold");
  const rule = "─".repeat(width - 3 - name.length);
  const rows = controllerRows(controller, inner).map((row) => `│ ${fitTo(row, inner)} │`);
  return [`┌─${title}${rule}┐`, ...rows, `└${"─".repeat(width - 2)}┘`];
}

function controllerRows({ status, powered, memory }: ControllerModel, width: number): string[] {
  if (!powered) return [styled("no power", "red"), "", "", ""];
  const held = memory ? `${memory.daemonPssMb.toFixed(0)} MB` : "";
  if (!status) return [styled("no answer", "red"), "", styled(held, "dim"), ""];
  const [first = "", ...rest] = wrapped(status.statusText, width);
  const links = status.links.map((each) => lamp(each.name, each.colour));
  return [
    `${styled(status.mode, modeStyles[status.mode], "bold")}  epoch ${status.epoch}  ${status.health}  ${styled(held, "dim")}`,
    [...links, lamp("data", status.dataLinkUp ? "green" : "red")].join("  "),
    styled(first, "dim"),
    styled(rest.join(" "), "dim"),
  ];
}

/** Lines of whole words, each at most `width` long if its words are. */
function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function lamp(name: string, colour: LinkColour): string {
  if (colour === "absent") return styled(`○ ${name}`, "dim");
  return `${styled("●", colour)} ${name}`;
}

function serverTable(model: LiveModel, width: number): string[] {
  const heads = ["VIRTUAL SERVER", "HOME", "ON", "STATE", "ADDRESS", "ANSWERS", "LAST START"];
  const widths = [16, 6, 5, 12, 15, 12, width - 66] as const;
  const row = (cells: readonly string[]) =>
    columns(widths.map((each, i) => [` ${cells[i] ?? ""}`, each] as const));
  return [
    styled(row(heads), "dim"),
    ...model.servers.map((server) => row(serverCells(model, server))),
  ];
}

function serverCells(model: LiveModel, server: ServerModel): string[] {
  const seen = (["a", "b"] as const).flatMap((id) => {
    const there = model.controllers[id].status?.virtualServers.find((s) => s.name === server.name);
    return there && there.state !== "elsewhere" && there.state !== "nowhere"
      ? [{ id, ...there }]
      : [];
  });
  const [first] = seen;
  const state = first ? (first.step ? `${first.state} ${first.step}` : first.state) : "nowhere";
  const good = first?.state === "serving";
  const answers =
    server.answeredBy === undefined
      ? styled(`silent ${Math.round(server.silentMs ?? 0)}`, "red")
      : styled(`yes, ${server.answeredBy}`, "green");
  return [
    styled(server.name, "bold"),
    server.home,
    seen.map((each) => each.id).join(",") || "-",
    styled(state, good ? "green" : "yellow"),
    server.address,
    answers,
    first?.lastStartMs === undefined ? "" : `${Math.round(first.lastStartMs)} ms`,
  ];
}

function diskLine(model: LiveModel, width: number): string {
  const status = model.controllers.a.status ?? model.controllers.b.status;
  const disks = (status?.disks ?? []).map((disk) => {
    const style: Style = disk.path === "down" ? "red" : disk.owner === "none" ? "dim" : "cyan";
    const owner = disk.role === "data" ? `:${disk.owner}` : "";
    return styled(`${disk.serial}${owner}`, style);
  });
  return fitTo(` ${styled("DISKS", "dim")}  ${disks.join("  ") || "unknown"}`, width);
}

const noPanel = ["", "  (no panel: no controller answers)", "", "", "", ""];

/** The panel of the selected controller, or of the one that answers. */
function panelOf(model: LiveModel): string[] {
  const other = model.selected === "a" ? "b" : "a";
  const panel = model.controllers[model.selected].panel ?? model.controllers[other].panel;
  return panel ? panelBox(panel, true) : noPanel;
}

function clientLines(model: LiveModel, width: number): string[] {
  const head = columns([
    [" CLIENT", 12],
    ["READ/s", 8],
    ["WRITE/s", 8],
    ["MB/s", 6],
    ["GAP ms", width - 34],
  ]);
  const rows = model.clients.flatMap((client) => clientRows(client, width));
  const wrong = model.clients.reduce(
    (sum, { state }) => sum + (state ? state.lostAckedWrites + state.staleReads : 0),
    0,
  );
  const verdict =
    wrong === 0
      ? styled(" every byte read was right", "green")
      : styled(` ${wrong} lost or stale`, "red", "bold");
  const lines = [styled(head, "dim"), ...rows.slice(0, 4)];
  while (lines.length < 5) lines.push("");
  return [...lines, verdict].map((line) => fitTo(line, width));
}

function clientRows({ name, virtualServer, state }: ClientModel, width: number): string[] {
  if (!state) return [` ${name} ${virtualServer} mounts`];
  return state.engines.map(({ engine, read, write }) => {
    const gap = Math.max(read.longestGapMs, write.longestGapMs);
    const now = Math.max(read.gapMs, write.gapMs);
    const style: Style = now > 300 ? "red" : gap > 1000 ? "yellow" : "green";
    return columns([
      [` ${name} ${engine}`, 12],
      [String(read.operationsPerS), 8],
      [String(write.operationsPerS), 8],
      [(read.megabytesPerS + write.megabytesPerS).toFixed(1), 6],
      [styled(now > 300 ? `${Math.round(now)} now` : String(Math.round(gap)), style), width - 34],
    ]);
  });
}

const severityStyles: { readonly [severity in OperatorEvent["severity"]]: Style[] } = {
  info: [],
  warning: ["yellow"],
  error: ["red"],
};

function eventLine(event: OperatorEvent, width: number): string {
  const time = event.at.slice(11, 23);
  const text = styled(event.message, ...severityStyles[event.severity]);
  return fitTo(` ${styled(time, "dim")} ${event.controller} ${text}`, width);
}

function noteLine(model: LiveModel): string {
  return ` ${styled(model.note, "cyan")}`;
}
