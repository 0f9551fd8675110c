/** The decisions' state of a controller whose pair is whole, to be changed by a test: controller a serves alpha (0), b serves beta (1). */
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect, Report } from "../../firmware-ts/core/effects.ts";
import type { Phase, VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { Pair, type PairSetup } from "../../hal/sim/pair.ts";

/** Controller a, two seconds after both have started. */
export function wholeOf(setup: PairSetup = {}): ControllerState {
  const pair = new Pair(setup);
  pair.start("a");
  pair.start("b");
  pair.run(2000);
  const state = pair.controllers.a?.state;
  if (state?.mode !== "paired") throw new Error("the pair is not whole");
  return state;
}

export const whole: ControllerState = wholeOf();

export const off: Phase = { kind: "off" };
export const servingPhase: Phase = { kind: "serving", sinceMs: 0 };
export const failedPhase = { kind: "failed", fault: "broken here", retryAtMs: 1e9 } as const;
/** In the middle of a start or a stop. */
export const busyPhase = (kind: "starting" | "stopping", more = {}): Phase =>
  ({
    kind,
    step: kind === "starting" ? "mount" : "seal",
    pending: ["token"],
    deadlineMs: 1e9,
    reason: "transfer",
    forced: false,
    hasLetGo: false,
    ...more,
  }) as Phase;
/** Released, and what is left of it here is held by somebody. */
export const heldPhase = busyPhase("stopping", {
  step: "detach",
  hasLetGo: true,
  isHeld: true,
  pending: [],
});

/** One of its virtual servers is otherwise. */
export function withServer(
  index: number,
  more: Partial<VirtualServerState>,
  state = whole,
): ControllerState {
  const servers = state.servers.map((each) => (each.index === index ? { ...each, ...more } : each));
  return { ...state, servers };
}

export function withPartner(
  more: Partial<NonNullable<ControllerState["partner"]>>,
  state = whole,
): ControllerState {
  if (!state.partner) throw new Error("no partner");
  return { ...state, partner: { ...state.partner, ...more } };
}

export function reportsOf(effects: readonly Effect[]): Report[] {
  return effects.flatMap((each) => (each.kind === "report" ? [each.report] : []));
}
