/** The tables and sentences that a person reads. Pure: shapes in, text out; loaded only when a person reads. */
import Table from "cli-table3";
import picocolors from "picocolors";
import type { DefinitionView } from "../schema/api-change.ts";
import type { CommandAnswer, OperatorEvent, Status, Veto } from "../schema/status.ts";
import { plain } from "./io.ts";

export type Colours = ReturnType<typeof picocolors.createColors>;
type VirtualServer = Status["virtualServers"][number];
type Disk = Status["disks"][number];

export function coloursFor(colour: boolean): Colours {
  return picocolors.createColors(colour);
}

/** Columns without borders, two blanks apart, as operators' tools print them. */
function table(head: string[], rows: readonly (readonly string[])[]): string {
  const none = ["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left"];
  const lines = ["bottom-right", "left", "left-mid", "mid", "mid-mid", "right", "right-mid"];
  const chars = Object.fromEntries([...none, ...lines].map((name) => [name, ""]));
  const drawn = new Table({
    head,
    chars: { ...chars, middle: "  " },
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
  });
  drawn.push(...rows.map((row) => [...row]));
  return `${drawn
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n")}\n`;
}

const healthWords = {
  ok: "OK",
  degraded: "DEGRADED",
  takenOver: "TAKEN OVER",
  notServing: "NOT SERVING",
} as const;

/** The whole state, with *status:* and *action:* lines. */
export function statusText(status: Status, colours: Colours): string {
  const { partner } = status;
  const health = healthWords[status.health];
  const painted =
    status.health === "ok"
      ? colours.green(health)
      : status.health === "degraded"
        ? colours.yellow(health)
        : colours.red(health);
  const partnerText = partner.heard
    ? `heard${partner.mode ? `, ${partner.mode}` : ""}${partner.epoch === undefined ? "" : `, epoch ${partner.epoch}`}`
    : colours.red("not heard");
  const labelled: [string, string][] = [
    ["controller", `${status.controller} (${status.mode}, epoch ${status.epoch})`],
    ["health", painted],
    ["status", plain(status.statusText)],
    ["action", plain(status.actionText)],
    ["partner", partnerText + (partner.dataLinkDown === true ? ", its data link is down" : "")],
    ["data link", status.dataLinkUp ? "up" : colours.red("down")],
    ["up for", duration(status.uptimeMs)],
    ["takeover", possible(status.takeover)],
    ["giveback", possible(status.giveback)],
  ];
  const head = labelled.map(([label, text]) => `${`${label}:`.padStart(11)} ${text}\n`).join("");
  const refused = Object.entries(status.refusedFrames).map(([why, count]) => `${why} ${count}`);
  return [
    head,
    linksText(status, colours),
    virtualServersText(status.virtualServers, colours) + faultsText(status, colours),
    disksText(status.disks, colours),
    ...(refused.length === 0 ? [] : [`refused frames: ${plain(refused.join(", "))}\n`]),
  ].join("\n");
}

/** A command with nothing but soft vetoes is possible, but not without force. */
function possible(command: Status["takeover"]): string {
  const reasons = command.vetoes.map((veto) => plain(veto.message)).join("; ");
  const word = command.possible
    ? reasons === ""
      ? "possible"
      : "only by force"
    : "not possible now";
  return `${word}${reasons === "" ? "" : `: ${reasons}`}`;
}

function linksText(status: Status, colours: Colours): string {
  const paint = { green: colours.green, yellow: colours.yellow, red: colours.red, absent: String };
  return table(
    ["LINK", "LIGHT", "SILENT", "MALFORMED"],
    status.links.map((link) => [
      link.name,
      paint[link.colour](link.colour),
      link.silentMs === undefined ? "-" : duration(link.silentMs),
      String(link.malformed),
    ]),
  );
}

/** What the table has no room for. */
function faultsText(status: Status, colours: Colours): string {
  return status.virtualServers
    .flatMap(({ name, fault }) =>
      fault === undefined ? [] : [`${plain(name)}: ${colours.red(plain(fault))}\n`],
    )
    .join("");
}

export function virtualServersText(servers: readonly VirtualServer[], colours: Colours): string {
  return table(
    ["VSERVER", "HOME", "OWNER", "STATE", "ADDRESSES", "EXPORTS"],
    servers.map((server) => [
      plain(server.name),
      server.home,
      server.owner === server.home ? server.owner : colours.yellow(server.owner),
      stateText(server, colours),
      plain(server.addresses.join(" ")),
      plain([...server.exports, ...(server.shares ?? []).map((name) => `smb:${name}`)].join(" ")),
    ]),
  );
}

function stateText(server: VirtualServer, colours: Colours): string {
  const text = server.state + (server.step === undefined ? "" : ` (${plain(server.step)})`);
  if (server.state === "serving") return colours.green(text);
  if (["failed", "nowhere", "silent"].includes(server.state)) return colours.red(text);
  return text;
}

/** How it is, what it is to be, and what the common volume says of its last start. */
export function virtualServerText(
  server: VirtualServer,
  { number, sequence, wanted, lastStart }: DefinitionView,
  colours: Colours,
): string {
  const lines = (of: readonly string[] | undefined) => (of?.length ? of.map(plain) : ["-"]);
  const labelled: [string, readonly string[] | string | undefined][] = [
    ["vserver", plain(server.name)],
    ["number", String(number)],
    ["wanted", `${wanted} (definition ${sequence})`],
    ["home", server.home],
    ["owner", server.owner],
    ["state", stateText(server, colours)],
    ["fault", server.fault === undefined ? undefined : colours.red(plain(server.fault))],
    ["addresses", plain(server.addresses.join(", "))],
    ["exports", server.exports.length === 0 ? undefined : plain(server.exports.join(", "))],
    ["shares", server.shares === undefined ? undefined : plain(server.shares.join(", "))],
    ["limits", server.limits === undefined ? undefined : limitsText(server.limits)],
    ["uses", server.usage === undefined ? undefined : usageText(server.usage)],
    ["last start", server.lastStartMs === undefined ? undefined : duration(server.lastStartMs)],
    [
      "failures",
      server.failures === undefined ? undefined : `${server.failures} since it served for a minute`,
    ],
    ["last by", lastStart && `${lastStart.owner}, epoch ${lastStart.epoch}`],
    ["mounts", lastStart && lines(lastStart.mounts)],
    ["routes", lastStart && lines(lastStart.routes)],
    ["devices", lastStart && lines(lastStart.devices)],
  ];
  return labelled.map(([label, text]) => labelledLines(label, text)).join("");
}

/** The label stands before the first line; the others begin below it. */
function labelledLines(label: string, text: readonly string[] | string | undefined): string {
  if (text === undefined) return "";
  const [first = "", ...others] = typeof text === "string" ? [text] : text;
  return [
    `${`${label}:`.padStart(11)} ${first}\n`,
    ...others.map((line) => `${"".padStart(12)}${line}\n`),
  ].join("");
}

function limitsText(limits: NonNullable<VirtualServer["limits"]>): string {
  const { cpuWeight, cpuPercent, memoryMb, processes, bandwidthMbit } = limits;
  return [
    `processor weight ${cpuWeight}`,
    ...(cpuPercent === undefined ? [] : [`${cpuPercent} % of a processor`]),
    ...(memoryMb === undefined ? [] : [`${memoryMb} MiB`]),
    `${processes} processes`,
    ...(bandwidthMbit === undefined ? [] : [`${bandwidthMbit} Mbit/s`]),
  ].join(", ");
}

function usageText(usage: NonNullable<VirtualServer["usage"]>): string {
  const told: [number | undefined, (value: number) => string][] = [
    [usage.cpuSeconds, (value) => `${value} s of processor time`],
    [usage.memoryMb, (value) => `${value} MiB`],
    [usage.processes, (value) => `${value} processes`],
    // What has not happened is not told.
    [usage.throttledSeconds || undefined, (value) => `throttled for ${value} s`],
    [usage.oomKills || undefined, (value) => `${value} killed for want of memory`],
    [usage.forksRefused || undefined, (value) => `${value} forks refused`],
  ];
  const texts = told.flatMap(([value, text]) => (value === undefined ? [] : [text(value)]));
  return texts.join(", ") || "nothing that this kernel tells";
}

export function disksText(disks: readonly Disk[], colours: Colours): string {
  return table(
    ["DISK", "ROLE", "VSERVER", "OWNER", "EPOCH", "PATH"],
    disks.map((disk) => [
      plain(disk.serial),
      disk.role,
      plain(disk.virtualServer ?? "-"),
      disk.owner,
      disk.epoch === undefined ? "-" : String(disk.epoch),
      disk.path === "up" ? colours.green("up") : colours.red(disk.path),
    ]),
  );
}

/** One line per event. */
export function eventText(event: OperatorEvent, colours: Colours): string {
  const paint = { info: String, warning: colours.yellow, error: colours.red };
  const severity = paint[event.severity](event.severity.padEnd(7));
  return `${plain(event.at)} ${event.controller} ${severity} ${plain(event.code)}: ${plain(event.message)}\n`;
}

/** What would be done, or is being done. Virtual servers move at the same time: the slowest one counts. */
export function planText(plan: CommandAnswer["plan"], nothing = "nothing has to be moved"): string {
  if (plan.length === 0) return `${nothing}\n`;
  const longest = Math.max(...plan.map((step) => step.predictedMs));
  const rows = plan.map((step) => [
    plain(step.virtualServer),
    plain(step.action),
    `${step.predictedMs} ms`,
  ]);
  const each = plan.length > 1 ? " each, a few at a time" : "";
  return `${table(["VSERVER", "ACTION", "PREDICTED"], rows)}predicted duration: ${longest} ms${each}\n`;
}

/** ONTAP's words for it, because that is what operators search for. */
export function vetoesText(what: string, vetoes: readonly Veto[]): string {
  const lines = vetoes.map(
    (veto) => `  ${plain(veto.code)} (${veto.severity}): ${plain(veto.message)}\n`,
  );
  return `${what} is not possible due to reason(s):\n${lines.join("")}`;
}

export function duration(ms: number): string {
  if (ms < 10) return `${Math.round(ms * 10) / 10} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const hours = Math.floor(seconds / 3600);
  if (hours < 48) return `${hours} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
