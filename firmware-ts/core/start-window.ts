/**
 * How many virtual servers go from their disk to their export at once. After a takeover of many all are dark, and wait for the same
 * processors: begun together, all of them end together, at the end; a few at a time, half of them answer after half of the time (bench,
 * 32 taken over: docs/design/0037-starts-in-turn.md).
 *
 * Disks are claimed before, all at once: a disk that a dead partner holds is waited for by nobody else, and to be fenced from it is not to wait.
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
import { attachInTurn } from "./vserver.ts";
import type { StartStep, VirtualServerState } from "./vserver-types.ts";

/** Enough to keep the processors of a controller busy while one of them waits for its disk. */
export const startsAtOnce = 4;

/** One that hangs must not hold up the others: after this time its place is another's, while it goes on. Alone on a busy machine a start takes about 60 ms. */
export const turnMsMax = 300;

const heavySteps: ReadonlySet<StartStep> = new Set(["attach", "mount", "address", "export"]);

/** Begins what waits, the longest decided first, as far as there is room; last of all what waits for a path to its disk. */
export function beginStarts(state: ControllerState, nowMs: number): Part {
  const waiting = state.servers.filter(waitsForTurn);
  if (waiting.length === 0) return undefined;
  const room = startsAtOnce - state.servers.filter((each) => holdsPlace(each, nowMs)).length;
  if (room <= 0) return undefined;
  const isLame = ({ config }: VirtualServerState) => pathlessOf(state, config).length > 0;
  const inOrder = waiting.toSorted(
    (one, other) =>
      Number(isLame(one)) - Number(isLame(other)) || decidedMs(one) - decidedMs(other),
  );
  let step: Step = [state, nothing];
  for (const { index } of inOrder.slice(0, room)) step = onServer(step, index, nowMs, attachInTurn);
  return step;
}

function holdsPlace({ phase }: VirtualServerState, nowMs: number): boolean {
  if (phase.kind !== "starting" || phase.turnMs === undefined) return false;
  return heavySteps.has(phase.step) && nowMs - phase.turnMs < turnMsMax;
}

function decidedMs({ phase }: VirtualServerState): number {
  return phase.kind === "starting" ? phase.decidedMs : 0;
}
