/**
 * When a virtual server yields the processors to all others: while the kernel refuses its programs new processes, many at a time. What does that has
 * gone off (a fork bomb), and keeps every processor busy with trying; a file server at its limit asks a few times, and not again and again. Pure.
 */

/** What was seen of a group, from one look to the next. */
export interface Yielding {
  /** Forks refused in all its life. */
  readonly refused: number;
  /** Defined while it yields: when that ends. */
  readonly untilMs: number | undefined;
}

/** Time between two looks, each of 0.02 ms. */
export const lookMs = 250;
/** Refusals from one look to the next that no file server comes to. */
const refusalsMin = 16;
/** It yields until there were fewer for so long. */
const calmMs = 5000;

/** `refused` as the group counts it now; the first look says nothing of when they were. */
export function lookAt(former: Yielding | undefined, refused: number, nowMs: number): Yielding {
  if (!former) return { refused, untilMs: undefined };
  if (refused - former.refused >= refusalsMin) return { refused, untilMs: nowMs + calmMs };
  const isOver = former.untilMs !== undefined && nowMs >= former.untilMs;
  return { refused, untilMs: isOver ? undefined : former.untilMs };
}
