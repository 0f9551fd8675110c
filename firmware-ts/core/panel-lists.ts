/** The entries behind the panel's pages, two lines each, made from the status. Lines may be longer than the display. */
import { bareAddress } from "../schema/ip-address.ts";
import type { Status } from "../schema/status.ts";

export const panelPages = [
  "status",
  "servers",
  "links",
  "addresses",
  "faults",
  "takeover",
  "giveback",
] as const;
export type PanelPage = (typeof panelPages)[number];

export const panelColumns = 20;

export type PanelLines = readonly [string, string];

/** The entries that OK opens on a page; empty when there is nothing to look at. */
export function linesOf(page: PanelPage, status: Status): readonly PanelLines[] {
  switch (page) {
    case "status":
      return statusLines(status);
    case "servers":
      return status.virtualServers.map(serverLines);
    case "links":
      return status.links.map((link) => [
        spread(link.name, link.colour.toUpperCase()),
        link.silentMs === undefined ? "never heard" : `heard ${duration(link.silentMs)} ago`,
      ]);
    case "addresses":
      return status.virtualServers.flatMap((server) =>
        server.addresses.map((address) => addressLines(server.name, address)),
      );
    case "faults":
      return faultsOf(status);
    case "takeover":
    case "giveback":
      return status[page].vetoes.map((veto) => splitLines(veto.message));
    default:
      return unknownPage(page);
  }
}

function unknownPage(page: never): never {
  throw new Error(`panel: unknown page ${JSON.stringify(page)}`);
}

function statusLines(status: Status): PanelLines[] {
  return [
    [spread("Controller", status.controller.toUpperCase()), spread("epoch", String(status.epoch))],
    [
      spread("Partner", status.partner.heard ? "heard" : "SILENT"),
      status.partner.mode === undefined ? "" : `it is ${status.partner.mode}`,
    ],
    ["Up for", duration(status.uptimeMs)],
  ];
}

/** Four letters, so that a name of 15 fits beside them. */
const shortStates: Readonly<Record<Status["virtualServers"][number]["state"], string>> = {
  serving: "HERE",
  silent: "MUTE",
  elsewhere: "PTNR",
  stopped: "STOP",
  nowhere: "NONE",
  starting: "STRT",
  stopping: "STOP",
  failed: "FAIL",
};

function serverLines(server: Status["virtualServers"][number]): PanelLines {
  const home = `home ${server.home.toUpperCase()}`;
  const detail =
    server.fault ??
    (server.step === undefined
      ? spread(home, server.lastStartMs === undefined ? "" : `in ${duration(server.lastStartMs)}`)
      : spread(home, server.step));
  return [spread(server.name, shortStates[server.state]), detail];
}

/** An IPv6 address may need both lines; then the name gives way. */
function addressLines(name: string, addressAndPrefix: string): PanelLines {
  if (addressAndPrefix.length <= panelColumns) return [name, addressAndPrefix];
  const address = bareAddress(addressAndPrefix);
  if (address.length <= panelColumns) return [name, address];
  return splitLines(address);
}

function splitLines(text: string): PanelLines {
  if (text.length <= panelColumns || text[panelColumns] === " ")
    return [text.slice(0, panelColumns), text.slice(panelColumns).trimStart()];
  const space = text.lastIndexOf(" ", panelColumns);
  const cut = space > 0 ? space : panelColumns;
  return [text.slice(0, cut), text.slice(cut).trimStart()];
}

/** Everything that is not as it should be, the gravest first. */
export function faultsOf(status: Status): readonly PanelLines[] {
  const faults: PanelLines[] = [];
  for (const server of status.virtualServers) {
    if (server.state === "failed") faults.push([`${server.name} FAILED`, server.fault ?? ""]);
    if (server.state === "silent") faults.push([`${server.name} SILENT`, "no disk majority"]);
    if (server.state === "nowhere") faults.push([server.name, "served by nobody"]);
  }
  if (!status.partner.heard) faults.push(["Partner is silent", "no redundancy"]);
  if (!status.dataLinkUp) faults.push(["Data link here", "no carrier"]);
  if (status.partner.dataLinkDown === true) faults.push(["Data link of partner", "no carrier"]);
  for (const disk of status.disks)
    if (disk.path === "down") faults.push([disk.serial, `${disk.role} disk lost`]);
  for (const link of status.links)
    if (link.colour === "red" || link.colour === "yellow")
      faults.push([`Link ${link.name}`, link.colour === "red" ? "dead" : "overdue"]);
  return faults;
}

/** Left and right on one line, at least one blank between them if there is room. */
export function spread(left: string, right: string): string {
  return left + " ".repeat(Math.max(1, panelColumns - left.length - right.length)) + right;
}

function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}
