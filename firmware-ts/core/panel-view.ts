/** What the front panel shows: a function of its state and the controller's status, always 2 × 20 printable ASCII. */
import type { PanelView, Status } from "../schema/status.ts";
import type { PanelState } from "./panel.ts";
import { faultsOf, linesOf, type PanelLines, panelColumns, spread } from "./panel-lists.ts";

/** The panel's lines and lights. */
export function view(state: PanelState, status: Status): PanelView {
  const [first, second] = lines(state, status);
  return { lines: [display(first), display(second)], lights: lights(status) };
}

/** A display of this kind has no characters but printable ASCII. */
function display(text: string): string {
  return text
    .replaceAll(/[^\x20-\x7e]/g, "?")
    .slice(0, panelColumns)
    .padEnd(panelColumns);
}

function lines(state: PanelState, status: Status): PanelLines {
  switch (state.kind) {
    case "pages":
      return pageLines(state.page, status);
    case "list": {
      const entries = linesOf(state.page, status);
      const entry = entries[Math.min(state.entry, entries.length - 1)];
      return entry ?? pageLines(state.page, status);
    }
    case "confirm":
      return [titles[state.command], state.yes ? spread(" no  [YES]", "OK=go") : "[NO]  yes"];
    case "waiting":
      return [titles[state.command], "asking..."];
    case "result":
      return state.accepted
        ? [titles[state.command], "under way"]
        : ["Refused:", state.veto?.message ?? "no reason given"];
    default:
      return unknownState(state);
  }
}

function unknownState(state: never): never {
  throw new Error(`panel: unknown state ${JSON.stringify(state)}`);
}

const titles = { takeover: "Take over partner?", giveback: "Give all back?" } as const;

const healthWords: Readonly<Record<Status["health"], string>> = {
  ok: "OK",
  degraded: "DEGRADED",
  takenOver: "TAKEOVER",
  notServing: "DOWN",
};

function pageLines(page: PanelState["page"], status: Status): PanelLines {
  const count = linesOf(page, status).length;
  switch (page) {
    case "status": {
      const who = `${status.controller.toUpperCase()} ${status.mode.toUpperCase()}`;
      return [spread(who, healthWords[status.health]), placement(status)];
    }
    case "servers":
      return [spread("Virtual servers", String(count)), "OK: look"];
    case "links":
      return ["Links", status.links.map((link) => `${link.name[0]}:${link.colour}`).join(" ")];
    case "addresses":
      return [spread("Addresses", String(count)), "OK: look"];
    case "faults": {
      const faults = faultsOf(status).length;
      return [spread("Faults", String(faults)), faults === 0 ? "none" : "OK: look"];
    }
    case "takeover":
    case "giveback":
      return [titles[page], status[page].possible ? "OK: choose" : "not now. OK: reasons"];
    default:
      return unknownPage(page);
  }
}

function unknownPage(page: never): never {
  throw new Error(`panel: unknown page ${JSON.stringify(page)}`);
}

/** Where the virtual servers are, as many words as there is something to say. */
function placement(status: Status): string {
  const count = (states: readonly string[]) =>
    status.virtualServers.filter((server) => states.includes(server.state)).length;
  const here = count(["serving"]);
  const partner = count(["elsewhere"]);
  const moving = count(["starting", "stopping"]);
  const down = count(["nowhere", "failed", "silent"]);
  const rest = down > 0 ? ` down ${down}` : moving > 0 ? ` move ${moving}` : "";
  return `here ${here} ptnr ${partner}${rest}`;
}

function lights(status: Status): PanelView["lights"] {
  const health = {
    ok: "green",
    degraded: "amber",
    takenOver: "red",
    notServing: "blinkRed",
  } as const;
  const moving = status.virtualServers.some(
    (server) => server.state === "starting" || server.state === "stopping",
  );
  const serving = status.virtualServers.some((server) => server.state === "serving");
  return {
    power: status.mode === "leaving" ? "amber" : "green",
    health: health[status.health],
    partner: !status.partner.heard
      ? "red"
      : status.partner.mode === "paired" || status.partner.mode === "alone"
        ? "green"
        : "amber",
    activity: moving ? "blinkGreen" : serving ? "green" : "off",
  };
}
