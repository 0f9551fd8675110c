/** Crashes that strike at a step: who is hit, what is left of it, and when it comes back. */
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { ids, type Pair } from "./pair.ts";

export interface Blow {
  /** Whoever does the step, the other one, or both. */
  readonly whom: "doer" | "other" | "both";
  /** The main process, and the beat process says its last words; all processes, and the kernel goes on; everything. */
  readonly how: "crash" | "kill" | "power";
  /** Started again a moment later, as by a supervisor; or not before all is served again, if there is somebody left to serve it. */
  readonly back: "soon" | "late";
}

export const blowNames = ["main", "kill", "power", "other", "both", "bothKilled"] as const;
export type BlowName = (typeof blowNames)[number];

export const blows: Readonly<Record<BlowName, Blow>> = {
  main: { whom: "doer", how: "crash", back: "soon" },
  kill: { whom: "doer", how: "kill", back: "soon" },
  power: { whom: "doer", how: "power", back: "late" },
  other: { whom: "other", how: "kill", back: "late" },
  both: { whom: "both", how: "power", back: "soon" },
  // Their kernels go on: gates end when their leases do, and what is mounted stays so until the next life cleans up.
  bothKilled: { whom: "both", how: "kill", back: "soon" },
};

/** What runs of a controller. */
export type Up = "nothing" | "beat" | "all";

export function upOf(pair: Pair, who: ControllerId): Up {
  const controller = pair.controllers[who];
  if (controller?.main.alive) return "all";
  return controller?.beat.process.alive ? "beat" : "nothing";
}

/** Whom a blow hits that strikes at a step of `doer`. Empty where there is nothing left to hit. */
export function victimsOf(
  blow: Blow,
  doer: ControllerId,
  up: Readonly<Record<ControllerId, Up>>,
): readonly ControllerId[] {
  const isHit = (who: ControllerId) =>
    blow.how === "crash" ? up[who] === "all" : up[who] !== "nothing";
  const meant = { doer: [doer], other: [partnerOf(doer)], both: ids }[blow.whom];
  const hit = meant.filter(isHit);
  // Both, when the other one is down already, is both all the same: they start together.
  return blow.whom === "both" && !hit.includes(doer) ? [] : hit;
}

/** Strikes, and sees that it has. */
export function strikeDown(pair: Pair, { how }: Blow, victims: readonly ControllerId[]): void {
  for (const who of victims) {
    pair[how](who);
    const left = upOf(pair, who);
    if (left === "all" || (how !== "crash" && left !== "nothing"))
      throw new Error(`blow: ${who} goes on after ${how}`);
  }
}
