/** The beat machine loses its partner: nothing is granted any more, and what bounds the partner's gates is told with the loss. */
import { type BeatState, observe, type Step } from "./beat-state.ts";
import type { LossReason } from "./beat-types.ts";

/** "No bound is known": far beyond any clock, and still a number in the journal. */
const unknownBoundMs = Number.MAX_SAFE_INTEGER;

/** Ends the partner's session in our eyes: from here on nothing is granted. */
export function lose(state: BeatState, reason: LossReason): Step {
  const soloBoundMs = soloBound(state);
  const next: BeatState = {
    ...state,
    contact: state.contact + 1,
    granting: false,
    partner: undefined,
    doubtedSinceMs: undefined,
    pairedHeardAtMs: undefined,
  };
  return [
    next,
    [
      observe({
        kind: "partnerLost",
        reason,
        lastGrantedMs: state.lastGrantedMs,
        soloBoundMs,
        leasedAtMs:
          state.ackLeaseMs > 0 ? state.ackLeaseMs - state.timing.gateTimeoutMs : undefined,
      }),
    ],
  ];
}

/**
 * A partner that was alone renews by its coordinator writes until it turns paired; what it renewed just before lives for
 * soloGateTimeout more. We learn of the turn when a beat says so, hence from that moment, and without one, from now on.
 */
function soloBound(state: BeatState): number {
  if (!state.partner) return 0;
  const turned = state.pairedHeardAtMs;
  if (turned === undefined) return unknownBoundMs;
  return turned + state.timing.soloSilentMs;
}
