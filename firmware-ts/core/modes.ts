/**
 * The modes of a controller, the only transitions between them, and their enforcement.
 *
 *     starting ──registered on a majority──▶ joining ──partner heard, both agree──▶ paired
 *        ▲                                     │  ▲                                 │   ▲
 *        │                     nobody heard for│  │                    partner lost │   │ partner
 *        │                     startupWait and │  │                                 │   │ heard again
 *        │                     the shelf silent▼  │                                 ▼   │
 *        │                                    racing ◀──────────────────────────────┘   │
 *        │                                     │  │                                     │
 *        │                     majority lost   │  └──majority won──▶ alone ─────────────┘
 *        │                                     ▼                       │
 *        └─────────cleaned up────────────────  out  ◀──────────────────┘ preempted by the partner
 *
 *     any ──SIGTERM──▶ leaving
 */
import type { Mode } from "../schema/beat.ts";

const allowed: Readonly<Record<Mode, readonly Mode[]>> = {
  starting: ["joining", "leaving"],
  joining: ["paired", "racing", "out", "leaving"],
  paired: ["racing", "out", "leaving"],
  racing: ["alone", "out", "leaving"],
  alone: ["paired", "out", "leaving"],
  out: ["starting", "leaving"],
  leaving: [],
};

/** Whether it says something when the coordinator disks refuse our writes: others have not registered yet, find out by racing, or are out already. */
export function heedsRefusal(mode: Mode): boolean {
  return mode === "joining" || mode === "paired" || mode === "alone";
}

/** All transitions, for the coverage report of the simulator and for the documentation. */
export const modeTransitions: readonly (readonly [Mode, Mode])[] = (
  Object.keys(allowed) as Mode[]
).flatMap((from) => allowed[from].map((to) => [from, to] as const));

/** Throws when the machine does what the diagram does not show: a broken invariant. */
export function checkTransition(from: Mode, to: Mode, who: string): void {
  if (!allowed[from].includes(to))
    throw new Error(`controller ${who}: no transition from ${from} to ${to}`);
}
