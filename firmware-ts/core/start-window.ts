/**
 * How many virtual servers claim their disks, and go from their disks to their exports, at once. After a takeover of many all are dark, and wait for the
 * same processors: begun together, all of them end together, at the end; a few at a time, half of them answer after half of the time (bench,
 * 32 taken over: docs/design/0037-starts-in-turn.md).
 *
 * For safety a start that waits is one that takes longer: what nobody has claimed here nobody serves here.
 */
import {
  type ControllerState,
  nothing,
  onServer,
  type Part,
  pathlessOf,
  type Step,
  waitsForTurn,
} from "./controller-state.ts";
import { goOnInTurn } from "./vserver.ts";
import type { StartStep, VirtualServerState } from "./vserver-types.ts";

/** Enough to keep the processors of a controller busy while one of them waits for its disk. */
export const startsAtOnce = 4;

/** So many have claimed, or are claiming, their disks before their turn to attach them: a claim takes less time than a start. */
export const claimsAhead = 4;

/**
 * One that hangs must not hold up the others: after this time its place is another's, while it goes on. Alone on a busy machine a start takes about 60 ms,
 * and a claim 10.
 */
export const turnMsMax = 300;

const heavySteps: ReadonlySet<StartStep> = new Set(["attach", "mount", "address", "export"]);

/** Begins what waits, the longest decided first, as far as there is room; last of all what waits for a path to its disk. */
export function beginStarts(state: ControllerState, nowMs: number): Part {
  if (!state.servers.some(waitsForTurn)) return undefined;
  const attached = goOn([state, nothing], "attach", startsAtOnce - starting(state, nowMs), nowMs);
  // Who attaches makes room for a claim.
  const step = goOn(attached, "claim", claimsAhead - ahead(attached[0], nowMs), nowMs);
  return step[0] === state ? undefined : step;
}

/** Whether one more may claim its disks at once. */
export function hasRoomForClaim(state: ControllerState, nowMs: number): boolean {
  return ahead(state, nowMs) < claimsAhead;
}

function goOn(step: Step, at: StartStep, room: number, nowMs: number): Step {
  if (room <= 0) return step;
  const [state] = step;
  const isLame = ({ config }: VirtualServerState) => pathlessOf(state, config).length > 0;
  const inOrder = state.servers
    .filter((each) => waitsForTurn(each) && stepOf(each) === at)
    .toSorted(
      (one, other) =>
        Number(isLame(one)) - Number(isLame(other)) || decidedMs(one) - decidedMs(other),
    );
  let next = step;
  for (const { index } of inOrder.slice(0, room)) next = onServer(next, index, nowMs, goOnInTurn);
  return next;
}

function starting(state: ControllerState, nowMs: number): number {
  const holds = (server: VirtualServerState) => {
    const step = stepOf(server);
    return step !== undefined && heavySteps.has(step) && isInTurn(server, nowMs);
  };
  return state.servers.filter(holds).length;
}

function ahead(state: ControllerState, nowMs: number): number {
  const holds = (server: VirtualServerState) =>
    stepOf(server) === "claim"
      ? isInTurn(server, nowMs)
      : stepOf(server) === "attach" && waitsForTurn(server);
  return state.servers.filter(holds).length;
}

function isInTurn({ phase }: VirtualServerState, nowMs: number): boolean {
  if (phase.kind !== "starting" || phase.waitsForTurn || phase.turnMs === undefined) return false;
  return nowMs - phase.turnMs < turnMsMax;
}

function stepOf({ phase }: VirtualServerState): StartStep | undefined {
  return phase.kind === "starting" ? phase.step : undefined;
}

function decidedMs({ phase }: VirtualServerState): number {
  return phase.kind === "starting" ? phase.decidedMs : 0;
}
