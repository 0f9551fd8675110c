/** The model of state that everyone is shown (schema/status), made from the decisions' state alone; pure. */
import type { DefinitionView } from "../schema/api-change.ts";
import { linkNames, partnerOf } from "../schema/ids.ts";
import type { Status, UsageStatus } from "../schema/status.ts";
import { type ControllerState, isQueued, partnerOwns } from "./controller-state.ts";
import { isDeleted, isWanted } from "./definitions.ts";
import { parseKey } from "./keys.ts";
import { claimsServer } from "./mandate.ts";
import { planMoves, vetoes } from "./vetoes.ts";
import type { VirtualServerState } from "./vserver-types.ts";

/** What the loop counts and the decisions do not need. */
export interface Counted {
  readonly uptimeMs: number;
  readonly links: Readonly<
    Record<string, { readonly malformed: number; readonly silentMs: number | undefined }>
  >;
  readonly refusedFrames: Readonly<Record<string, number>>;
  /** By the name of the virtual server; absent where nobody looks. */
  readonly usage?: ReadonlyMap<string, UsageStatus>;
}

export function statusOf(state: ControllerState, counted: Counted): Status {
  const health = healthOf(state);
  return {
    version: 1,
    controller: state.me,
    mode: state.mode,
    epoch: state.epoch,
    health,
    ...sentences(state, health),
    uptimeMs: Math.round(counted.uptimeMs),
    partner: state.partner
      ? {
          heard: true,
          mode: state.partner.mode,
          epoch: state.partner.epoch,
          dataLinkDown: state.partner.dataLinkDown,
        }
      : { heard: false },
    dataLinkUp: state.dataLinkUp,
    links: linkNames.map((name) => {
      const view = counted.links[name];
      return {
        name,
        colour: state.colours[name],
        ...(view?.silentMs === undefined ? {} : { silentMs: view.silentMs }),
        malformed: view?.malformed ?? 0,
      };
    }),
    disks: [...coordinators(state), ...dataDisks(state)],
    virtualServers: state.servers
      .filter((server) => !isDeleted(server))
      .map((server) => serverStatus(state, server, counted.usage?.get(server.config.name))),
    takeover: possible(state, "takeover"),
    giveback: possible(state, "giveback"),
    refusedFrames: { ...counted.refusedFrames },
  };
}

function possible(state: ControllerState, kind: "takeover" | "giveback"): Status["takeover"] {
  const request = { dryRun: true, force: false, reason: "" };
  const reasons = vetoes(state, planMoves(state, { id: 0, kind, request, by: "status" }));
  return { possible: !reasons.some((veto) => veto.severity === "hard"), vetoes: reasons };
}

/**
 * Alone, gates live on the beats that a majority of the coordinators lets through. Without them the kernel has closed them, or
 * is about to, and opens none; nothing else of a virtual server changes, so that it answers again as soon as one may.
 */
function isSilenced(state: ControllerState): boolean {
  return state.mode === "alone" && !state.soloFresh;
}

function healthOf(state: ControllerState): Status["health"] {
  if (state.mode === "alone") return isSilenced(state) ? "notServing" : "takenOver";
  if (state.mode !== "paired" && state.mode !== "racing") return "notServing";
  const whole =
    state.mode === "paired" &&
    state.dataLinkUp &&
    state.pathsDown.length === 0 &&
    Object.values(state.colours).every((colour) => colour !== "red") &&
    state.blocked.length === 0 &&
    state.servers.every((server) => {
      if (!isWanted(state, server)) return true;
      const ours = server.phase.kind === "serving";
      return (ours || partnerOwns(state, server.index)) && server.phase.kind !== "failed";
    });
  return whole ? "ok" : "degraded";
}

/** The two sentences of an operator's first look: how things stand, and what to do. */
function sentences(
  state: ControllerState,
  health: Status["health"],
): { statusText: string; actionText: string } {
  const partner = partnerOf(state.me);
  switch (state.mode) {
    case "starting":
      return {
        statusText: "Registering on the coordinator disks; nothing is served here.",
        actionText: "None, if it lasts seconds. Else check the path to the shelf.",
      };
    case "joining":
      return joiningText(state, partner);
    case "racing":
      return {
        statusText: `Controller ${partner} is lost; arbitrating on the coordinator disks.`,
        actionText: "None.",
      };
    case "alone":
      if (isSilenced(state))
        return {
          statusText: `Not serving: controller ${partner} is lost, and no majority of the coordinator disks lets this one write.`,
          actionText: "Repair the paths to the coordinator disks; service comes back by itself.",
        };
      return {
        statusText: `Controller ${partner} is lost; this controller serves alone.`,
        actionText: `Repair controller ${partner}; it rejoins by itself. Then give back.`,
      };
    case "out":
      return {
        statusText: `Not serving: ${state.outReason}. Cleaning up.`,
        actionText: "None, if it lasts seconds.",
      };
    case "leaving":
      return { statusText: "Leaving, as asked.", actionText: "None." };
    case "paired":
      return pairedText(state, health, partner);
    default:
      throw new Error(`sentences: unknown mode ${String(state.mode)}`);
  }
}

function joiningText(state: ControllerState, partner: string): ReturnType<typeof sentences> {
  if (state.partner && state.partner.configuration !== state.configuration)
    return {
      statusText: `Not serving: the configuration of controller ${partner} differs.`,
      actionText: "Make both configurations agree, and restart.",
    };
  if (state.partner)
    return { statusText: `Controller ${partner} is heard; pairing.`, actionText: "None." };
  if (!state.diskReadable)
    return {
      statusText: `Not serving: controller ${partner} is not heard, and the disks cannot tell whether it lives.`,
      actionText: "Repair the links or the path to the coordinator disks.",
    };
  return {
    statusText: `Listening for controller ${partner} before arbitrating alone.`,
    actionText: "None.",
  };
}

function pairedText(
  state: ControllerState,
  health: Status["health"],
  partner: string,
): ReturnType<typeof sentences> {
  if (health === "ok") {
    const away = state.servers.some(
      (server) =>
        isWanted(state, server) &&
        (server.phase.kind === "serving") !== (server.config.home === state.me),
    );
    return away
      ? {
          statusText: `Both controllers work; not every virtual server is at home.`,
          actionText: "Give back when it suits: dyad giveback.",
        }
      : { statusText: "Both controllers work, everything is at home.", actionText: "None." };
  }
  const causes: string[] = [];
  for (const name of linkNames)
    if (state.colours[name] === "red") causes.push(`the ${name} link is red`);
  if (!state.dataLinkUp) causes.push("the data link has no carrier");
  if (state.pathsDown.length > 0) causes.push(`no path to ${state.pathsDown.join(", ")}`);
  for (const server of state.servers) {
    const { phase, index } = server;
    const config = shownOf(server);
    if (state.blocked.includes(index)) causes.push(`${config.name} contradicts another one`);
    if (!isWanted(state, server)) continue;
    if (phase.kind === "failed") causes.push(`${config.name} failed (${phase.fault})`);
    else if (phase.kind !== "serving" && !partnerOwns(state, server.index))
      causes.push(`${config.name} is ${phase.kind === "off" ? "not served" : phase.kind}`);
  }
  return {
    statusText: `Paired with controller ${partner}, but ${causes.join("; ") || "not whole"}.`,
    actionText: "Repair what is named; see dyad events.",
  };
}

const silencedText =
  "its addresses are closed: no majority of the coordinator disks proves that only this controller answers";

/** What runs is shown as it runs; of anything else, what it is to be. */
function shownOf({ phase, config, definition }: VirtualServerState) {
  return phase.kind === "off" ? definition.server : config;
}

function serverStatus(
  state: ControllerState,
  server: VirtualServerState,
  usage: UsageStatus | undefined,
): Status["virtualServers"][number] {
  const { phase } = server;
  const config = shownOf(server);
  const theirs = partnerOwns(state, server.index);
  const owner = claimsServer(state, server) ? state.me : theirs ? partnerOf(state.me) : "none";
  const shares = config.volumes.flatMap((volume) => volume.share ?? []);
  const silent = phase.kind === "serving" && isSilenced(state);
  const shown = silent ? "silent" : phase.kind === "off" ? offState(server, theirs) : phase.kind;
  const waits = phase.kind === "starting" ? phase.waitsForTurn : isQueued(state, server.index);
  const step = waits ? "queued" : "step" in phase ? phase.step : undefined;
  const fault = silent ? silencedText : phase.kind === "failed" ? phase.fault : server.fault;
  return {
    name: config.name,
    home: config.home,
    owner,
    state: shown,
    ...(step === undefined ? {} : { step }),
    addresses: [...config.addresses],
    exports: config.volumes.flatMap((volume) => volume.export ?? []),
    ...(shares.length > 0 ? { shares } : {}),
    limits: { ...config.limits },
    ...(usage === undefined ? {} : { usage: { ...usage } }),
    ...(server.lastStartMs === undefined ? {} : { lastStartMs: Math.round(server.lastStartMs) }),
    ...(server.failures > 0 ? { failures: server.failures } : {}),
    ...(fault === undefined || shown === "serving" ? {} : { fault }),
  };
}

/** What every virtual server that is not deleted is to be, and what is known of its last start. */
export function definitionsOf({ servers, volume }: ControllerState): DefinitionView[] {
  return servers
    .filter((server) => !isDeleted(server))
    .map(({ index, definition }) => {
      const known = volume.known[index];
      if (!known) return definition;
      const { owner, epoch, state } = known;
      return { ...definition, lastStart: { owner, epoch, ...state } };
    });
}

function offState({ definition }: VirtualServerState, theirs: boolean) {
  if (definition.wanted !== "started") return "stopped";
  return theirs ? "elsewhere" : "nowhere";
}

function coordinators(state: ControllerState): Status["disks"] {
  return Object.entries(state.registrations).map(([serial, registration]) => ({
    serial,
    role: "coordinator",
    owner: registration.at === "registered" ? state.me : "unknown",
    path: registration.at === "registered" ? "up" : "unknown",
  }));
}

function dataDisks(state: ControllerState): Status["disks"] {
  const servers = state.servers.filter((server) => !isDeleted(server));
  return servers.flatMap((server) =>
    shownOf(server).volumes.map(({ disk }): Status["disks"][number] => {
      const owned = server.claims[disk]?.at === "owned";
      const epoch = owned && server.key !== undefined ? parseKey(server.key)?.epoch : undefined;
      const theirs = partnerOwns(state, server.index) ? partnerOf(state.me) : "unknown";
      return {
        serial: disk,
        role: "data",
        virtualServer: shownOf(server).name,
        owner: owned ? state.me : theirs,
        ...(epoch === undefined ? {} : { epoch }),
        path: state.pathsDown.includes(disk) ? "down" : "up",
      };
    }),
  );
}
