/**
 * How many planned moves are under way at once. The others are queued: they go on being served where they are, hold nothing, and
 * are unknown to the partner, until it is their turn or they make no sense any more. So a queued move is safe whatever happens:
 * all that is said and done meanwhile is said and done as if it had not been asked for.
 *
 * What the partner begins counts here too, but waits for nothing here: no move that is under way ever waits for one that is queued,
 * so two queues cannot wait for each other.
 */
import {
  type ControllerState,
  dropQueued,
  isQueued,
  joinParts,
  ownsServer,
  type Part,
  partnerOwns,
  pathlessOf,
  type QueuedMove,
  type Step,
  type Transfer,
  tell,
} from "./controller-state.ts";
import { offerServer, reasonToLeave, requestServer } from "./transfer.ts";
import { isHeld } from "./vserver-stop.ts";
import type { VirtualServerState } from "./vserver-types.ts";

/**
 * An address is dark from the closing of its gate to the opening of the other. The more moves there are at once, the longer each is dark, for
 * they wait for the same processors and disks, while all together take about as long (bench, eight to move: docs/design/0026). Two, because one
 * that hangs must not hold up the others.
 */
export const movesAtOnce = 2;

/**
 * A target that has declined does nothing more than to leave it alone for a while. And nothing comes here any more while this controller
 * leaves: what was on its way here must not hold up its goodbye.
 */
function isFull(state: ControllerState): boolean {
  const counts = ({ role, at }: Transfer) =>
    state.mode === "leaving" ? role === "source" : at !== "declined";
  return Object.values(state.transfers).filter(counts).length >= movesAtOnce;
}

/** Offers it to the partner as soon as it is its turn. */
export function offerInTurn(
  state: ControllerState,
  index: number,
  why: string,
  nowMs: number,
): Step {
  return inTurn(state, { index, role: "source", why }, nowMs);
}

/** Asks the partner for it as soon as it is its turn. */
export function requestInTurn(
  state: ControllerState,
  index: number,
  why: string,
  nowMs: number,
): Step {
  return inTurn(state, { index, role: "target", why }, nowMs);
}

function inTurn(state: ControllerState, move: QueuedMove, nowMs: number): Step {
  // Nobody overtakes those that wait.
  if (!isFull(state) && state.queuedMoves.length === 0) return begin(state, move, false, nowMs);
  if (isQueued(state, move.index)) return [state, []];
  return [{ ...state, queuedMoves: [...state.queuedMoves, move] }, []];
}

function begin(
  state: ControllerState,
  { index, role, why }: QueuedMove,
  urgent: boolean,
  nowMs: number,
): Step {
  return role === "source"
    ? offerServer(state, index, urgent, why, nowMs)
    : requestServer(state, index, why, nowMs);
}

/** Begins what waits, in its order, as far as there is room, and strikes off what makes no sense any more. */
export function beginQueued(state: ControllerState, nowMs: number): Part {
  // What has not begun by now is stopped in this very step (core/leave).
  if (state.mode === "leaving" && nowMs >= state.leaveDeadlineMs) return undefined;
  let step: Part;
  for (const move of state.queuedMoves)
    step = joinParts(step, lookAt(step ? step[0] : state, move, nowMs));
  return step;
}

function lookAt(state: ControllerState, move: QueuedMove, nowMs: number): Part {
  const server = state.servers[move.index];
  if (!server) throw new Error(`beginQueued: no virtual server ${move.index}`);
  const gone = whyGone(state, move, server);
  if (gone !== undefined) return strike(state, server, gone);
  // It starts, or has just failed: where it stands is known in a moment, and the others need not wait for it.
  if (server.phase.kind === "starting" || server.phase.kind === "stopping") return undefined;
  const urgent = isUrgent(state, move, server);
  if (isFull(state) && !urgent) return undefined;
  const obstacle = whyNot(state, move, server);
  if (obstacle !== undefined) return strike(state, server, obstacle);
  return begin(state, move, urgent, nowMs);
}

/**
 * One that cannot be served here any more need not be kept waiting here. Within a pair `evacuate` sees to that, and to how often; a
 * controller that leaves has nothing else, and tries nothing again: what has failed is dark until the partner has it.
 */
function isUrgent(state: ControllerState, { role }: QueuedMove, server: VirtualServerState) {
  const isAsked = state.mode === "leaving" && role === "source";
  return isAsked && (server.phase.kind === "failed" || reasonToLeave(state, server) !== undefined);
}

/** It is not where it was to be moved from. */
function whyGone(
  state: ControllerState,
  { index, role }: QueuedMove,
  server: VirtualServerState,
): string | undefined {
  if (role === "target") {
    if (ownsServer(server)) return "it is here";
    return partnerOwns(state, index) ? undefined : "the partner does not have it any more";
  }
  const { phase } = server;
  const leaves = phase.kind === "stopping" && (phase.reason !== "failed" || isHeld(server));
  return phase.kind === "off" || leaves ? "it is not served here any more" : undefined;
}

/** What speaks against it now that it is its turn: what the vetoes of the command asked when it was given. */
function whyNot(
  state: ControllerState,
  { role }: QueuedMove,
  { config }: VirtualServerState,
): string | undefined {
  const { mode, partner } = state;
  const mayBegin = mode === "paired" || (mode === "leaving" && role === "source");
  if (!mayBegin) return `this controller is ${mode}`;
  if (!partner) return "the partner is not heard";
  if (partner.mode !== "paired") return `the partner is ${partner.mode}`;
  if (role === "source")
    return partner.dataLinkDown ? "the partner's data link has no carrier" : undefined;
  if (!state.dataLinkUp) return "the data link here has no carrier";
  const pathless = pathlessOf(state, config);
  return pathless.length > 0 ? `no path to ${pathless.join(", ")}` : undefined;
}

function strike(state: ControllerState, { index, config }: VirtualServerState, why: string): Step {
  const said = tell("warning", "transfer.dropped", `${config.name} is not moved: ${why}`);
  return [dropQueued(state, index), [said]];
}
