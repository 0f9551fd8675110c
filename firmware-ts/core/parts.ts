/**
 * What has to be done here so that a virtual server is as its definition wants it. Looked at in every step, from the state alone:
 *
 *     not wanted     stopped in good order; a deleted one then loses its place, and the gate forgets its addresses last
 *     off            the gate learns the addresses, then place, disks and spare are made; now it may be started
 *     served here    beside the run: made, and nothing else
 *                    service:        made, then the restart in place that a service gets which died
 *                    disks:          stopped, made, started here again; made first, if none goes
 *
 * What a change gives to one that runs waits until nobody else uses it, at the partner (`isAgreed`) or here (`userOf`); until then it runs as it
 * did. Nothing is done while the controller races, is out, or leaves.
 */
import { isSame } from "../schema/definition-digest.ts";
import { explain, type Outcome } from "../schema/outcome.ts";
import {
  type ControllerState,
  join,
  joinParts,
  none,
  nothing,
  onServer,
  type Part,
  partnerOwns,
  pathlessOf,
  replaceServer,
  type Step,
  tell,
  withEntry,
} from "./controller-state.ts";
import type { Parts } from "./definition-types.ts";
import {
  differenceOf,
  isAgreed,
  isDeleted,
  isElsewhere,
  isMade,
  isWanted,
  leftNothing,
  mayStart,
  userOf,
} from "./definitions.ts";
import { gateTick, isGateAgreed, isGated } from "./gate-list.ts";
import { takeServer } from "./takeover.ts";
import { changeInPlace } from "./vserver.ts";
import { stopServer } from "./vserver-stop.ts";
import { disksOf, type VirtualServerState } from "./vserver-types.ts";

/** Making a place, opening its disks, getting a spare ready; and the reverse. */
const limitMs = 10_000;

const againMs = 1000;
const againMsMax = 30_000;

/** What cannot be made here so often is left to the partner, if it was stopped here only for its change. */
const resumesMax = 3;

/** Modes in which definitions are carried out. */
const isActive = ({ mode }: ControllerState) =>
  mode === "starting" || mode === "joining" || mode === "paired" || mode === "alone";

export function partsTick(state: ControllerState, nowMs: number): Part {
  if (state.parts === none) return undefined;
  let step: Part;
  for (const key in state.parts)
    step = joinParts(step, goOn(step ? step[0] : state, Number(key), nowMs));
  return joinParts(step, gateTick(step ? step[0] : state, nowMs));
}

function setParts(
  state: ControllerState,
  index: number,
  parts: Parts | undefined,
): ControllerState {
  return { ...state, parts: withEntry(state.parts, index, parts) };
}

function goOn(state: ControllerState, index: number, nowMs: number): Part {
  const parts = state.parts[index];
  const server = state.servers[index];
  if (!parts || !server) throw new Error(`parts: no virtual server ${index}`);
  // A place can be made and removed in any mode; everything else waits for better times.
  if (parts.token !== undefined || nowMs < parts.againAtMs || !isActive(state)) return undefined;
  if (state.transfers[index]) return undefined;
  switch (server.phase.kind) {
    case "starting":
      // One that has begun is soon served, and stops then; a wait may be long, and nothing is attached yet.
      return server.phase.waitsForTurn && !isWanted(state, server)
        ? stop(state, server, "stopped", parts, nowMs)
        : undefined;
    case "stopping":
      return undefined;
    case "serving":
      return isWanted(state, server)
        ? whileServing(state, server, parts, nowMs)
        : stop(state, server, "stopped", parts, nowMs);
    case "failed":
      return isWanted(state, server)
        ? whileOff(state, server, parts, nowMs)
        : stop(state, server, "stopped", parts, nowMs);
    case "off":
      return whileOff(state, server, parts, nowMs);
    default:
      throw new Error(`parts: unknown phase ${JSON.stringify(server.phase)}`);
  }
}

function stop(
  state: ControllerState,
  server: VirtualServerState,
  reason: "stopped" | "changed",
  parts: Parts,
  nowMs: number,
): Step {
  const isResumed = reason === "changed";
  const next = setParts(state, server.index, { ...parts, isResumed });
  const why = isResumed ? "stops for its change" : "stops, as its definition wants it";
  const said = tell("info", "vserver.stopping", `${server.config.name} ${why}`);
  const forced = pathlessOf(state, server.config).length > 0;
  return onServer([next, [said]], server.index, nowMs, (each, context) =>
    stopServer(each, reason, forced, context),
  );
}

function whileServing(
  state: ControllerState,
  server: VirtualServerState,
  parts: Parts,
  nowMs: number,
): Part {
  const { definition, config, index } = server;
  const difference = differenceOf(config, definition.server);
  if (difference !== "none" && difference !== "beside") {
    const isTheirs = state.mode === "paired" && partnerOwns(state, index);
    if (!isAgreed(state, index) || isTheirs || userOf(state, server)) return undefined;
    // What only gets more disks goes on until these are here.
    if (losesDisks(server) || isElsewhere(config, definition.server))
      return stop(state, server, "changed", parts, nowMs);
  }
  if (!isGated(state, server)) return undefined;
  if (!isMade(server)) return holderOf(state, server) ? undefined : define(state, server, parts);
  if (difference === "disks") return stop(state, server, "changed", parts, nowMs);
  if (difference === "service")
    return onServer([state, nothing], index, nowMs, (each, context) =>
      changeInPlace(each, definition.server, Math.max(nowMs, state.openNotBeforeMs), context),
    );
  return settled(following(state, server), server, parts);
}

function losesDisks({ config, definition }: VirtualServerState): boolean {
  const disks = disksOf(definition.server);
  return disksOf(config).some((disk) => !disks.includes(disk));
}

/** From now on it is used as it is defined. */
function following(state: ControllerState, server: VirtualServerState): ControllerState {
  const config = server.definition.server;
  return server.config === config ? state : replaceServer(state, { ...server, config });
}

/** Nothing is left to be done; the gate is the last to hear of it. */
function settled(state: ControllerState, server: VirtualServerState, parts: Parts): Part {
  const { index } = server;
  if (parts.isResumed || !isGateAgreed(state)) {
    const isSameState = state.servers[index] === server;
    return isSameState ? undefined : [state, nothing];
  }
  return [setParts(state, index, undefined), nothing];
}

function whileOff(
  state: ControllerState,
  server: VirtualServerState,
  parts: Parts,
  nowMs: number,
): Part {
  // What contradicts another one keeps nothing here that this one may need.
  const isNothing = isDeleted(server) || state.blocked.includes(server.index);
  if (isNothing) return whileNothing(state, server, parts);
  if (!isMade(server)) return make(state, server, parts);
  const goes = server.leftover.filter((each) => !server.definition.server.addresses.includes(each));
  if (goes.length > 0) return clear(state, server, parts);
  const next = following(state, server);
  const now = next.servers[server.index] ?? server;
  if (parts.isResumed) return resume(next, now, parts, nowMs);
  return settled(next, now, parts) ?? (next === state ? undefined : [next, nothing]);
}

function whileNothing(state: ControllerState, server: VirtualServerState, parts: Parts): Part {
  const { made } = server;
  if (made) return forget(state, server, made, parts);
  return settled(leftNothing(state, server.index), server, { ...parts, isResumed: false });
}

/** Its place is made anew where it had another name or interface, or holds what somebody else waits for. */
function make(state: ControllerState, server: VirtualServerState, parts: Parts): Part {
  const { made, definition } = server;
  const isAnother =
    made !== undefined &&
    (made.config.name !== definition.server.name || isElsewhere(made.config, definition.server));
  const holder = holderOf(state, server);
  if (made && (isAnother || (holder && differenceOf(made.config, definition.server) === "disks")))
    return forget(state, server, made, parts);
  if (!holder && !userOf(state, server) && isGated(state, server))
    return define(state, server, parts);
  // A making that failed has left nobody knows what: whoever is waited for here may be waiting for a disk of that.
  return made && !made.isWhole ? forget(state, server, made, parts) : undefined;
}

/** Another place here has its name, or a disk of it. Places that are made for what holds no more are changed or removed themselves. */
function holderOf(
  state: ControllerState,
  { index, definition }: VirtualServerState,
): VirtualServerState | undefined {
  const disks = disksOf(definition.server);
  return state.servers.find((other) => {
    if (other.index === index || !other.made) return false;
    const { config } = other.made;
    return (
      config.name === definition.server.name || disksOf(config).some((disk) => disks.includes(disk))
    );
  });
}

function define(before: ControllerState, server: VirtualServerState, parts: Parts): Step {
  const { index, definition, made, leftover } = server;
  const making = definition.server;
  const token = `parts:${index}:${definition.sequence}:${parts.failures}:define`;
  // Until it is made they may be on the interface: a service that started anew has got them.
  const had = made?.config.addresses.filter((each) => !making.addresses.includes(each)) ?? [];
  const state = replaceServer(before, {
    ...server,
    made: { config: making, isWhole: false },
    leftover: [...new Set([...leftover, ...had])],
  });
  const drops = [...(parts.drops ?? []), ...had];
  return [
    setParts(state, index, { ...parts, at: "defining", token, making, drops }),
    [{ kind: "define", token, definition, limitMs }],
  ];
}

/** From here on nothing starts in its place, whether it goes or not. */
function forget(
  before: ControllerState,
  server: VirtualServerState,
  made: NonNullable<VirtualServerState["made"]>,
  parts: Parts,
): Step {
  const { index: number } = server;
  const { name } = made.config;
  const token = `parts:${number}:${server.definition.sequence}:${parts.failures}:forget`;
  const state = replaceServer(before, { ...server, made: { ...made, isWhole: false } });
  return [
    setParts(state, number, { ...parts, at: "forgetting", token }),
    [{ kind: "forget", token, number, name, limitMs }],
  ];
}

/** Addresses that it does not have any more, and that did not go from its interface when it stopped. */
function clear(state: ControllerState, server: VirtualServerState, parts: Parts): Step {
  const { index, leftover, config } = server;
  const token = `parts:${index}:${server.definition.sequence}:${parts.failures}:clear`;
  const work = { op: "removeAddresses", addresses: leftover } as const;
  return [
    setParts(state, index, { ...parts, at: "clearing", token }),
    [{ kind: "work", token, virtualServer: config.name, work, limitMs }],
  ];
}

/** It was stopped here only for its change. */
function resume(
  state: ControllerState,
  server: VirtualServerState,
  parts: Parts,
  nowMs: number,
): Part {
  const { index } = server;
  const isOver = !isWanted(state, server) || partnerOwns(state, index);
  if (isOver) return [setParts(state, index, { ...parts, isResumed: false }), nothing];
  const may =
    (state.mode === "paired" && state.dataLinkUp) || (state.mode === "alone" && state.soloFresh);
  if (!may || !mayStart(state, server)) return undefined;
  const next = setParts(state, index, { ...parts, isResumed: false });
  return takeServer(next, index, Math.max(nowMs, state.openNotBeforeMs), nowMs);
}

/** The outcome of what was asked for. What was asked for an earlier definition is looked at anew. */
export function partsDone(
  state: ControllerState,
  token: string,
  outcome: Outcome<string | undefined>,
  nowMs: number,
): Step {
  const index = Number(token.split(":")[1]);
  const parts = state.parts[index];
  const server = state.servers[index];
  if (!server || parts?.token !== token) return [state, nothing];
  const due: Parts = { ...parts, at: "due", token: undefined, making: undefined };
  if (!outcome.ok) return [...failed(state, server, parts, due, explain(outcome.fault), nowMs)];
  const over = { ...due, failures: 0, told: undefined, drops: undefined };
  const next = setParts(state, index, over);
  switch (parts.at) {
    case "defining":
      return join([next, told(parts, server)], made(next, server, parts));
    case "forgetting":
      return [replaceServer(next, { ...server, made: undefined, leftover: [] }), nothing];
    case "clearing":
      return [leftNothing(next, index), nothing];
    case "due":
      return [next, nothing];
    default:
      throw new Error(`parts: unknown step ${JSON.stringify(parts)}`);
  }
}

function told({ told: why }: Parts, { definition }: VirtualServerState) {
  if (why === undefined) return nothing;
  return [tell("info", "definition.made", `${definition.server.name} is here as it is defined`)];
}

/** What has failed with its former definition is tried again at once. */
function made(
  state: ControllerState,
  server: VirtualServerState,
  { making, drops = [] }: Parts,
): Step {
  if (!making) throw new Error(`parts: nothing was made of ${server.index}`);
  const isFailed = server.phase.kind === "failed" && isSame(making, server.definition.server);
  const phase = isFailed ? { ...server.phase, retryAtMs: 0 } : server.phase;
  const leftover = server.leftover.filter((each) => !drops.includes(each));
  const next = { ...server, phase, leftover, made: { config: making, isWhole: true } };
  return [replaceServer(state, next as VirtualServerState), nothing];
}

function failed(
  state: ControllerState,
  server: VirtualServerState,
  parts: Parts,
  due: Parts,
  why: string,
  nowMs: number,
): Step {
  const failures = parts.failures + 1;
  const waitMs = Math.min(againMsMax, againMs * 2 ** (failures - 1));
  const isResumed = parts.isResumed && failures < resumesMax;
  const next = { ...due, failures, againAtMs: nowMs + waitMs, isResumed, told: why };
  const doing = parts.at === "forgetting" ? "cannot be removed here" : "cannot be made here";
  const { name } = server.definition.server;
  const said = tell("error", "definition.failed", `${name} ${doing}: ${why}; it is tried again`);
  return [setParts(state, server.index, next), why === parts.told ? nothing : [said]];
}
