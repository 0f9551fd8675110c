/**
 * Making a pair, and giving the partner our word. Both need more than a mode that fits: the partner must have answered in our present turn
 * (docs/design/0021-turns.md). Both are asked at every step: a partner whose mode does not change shows that it has heard of ours, and
 * neither waits for more.
 */
import type { PartnerView } from "./beat-types.ts";
import { andThen, type ControllerState, type Part, setMode } from "./controller-state.ts";
import type { Effect } from "./effects.ts";

/**
 * Only ever turned on here: the beat machine turns it off by itself, in the very step in which it declares the partner lost. A grant
 * names its contact, so that one still on its way then is void.
 */
export function grant(state: ControllerState): Part {
  const { partner } = state;
  if (!partner || state.granted === partner.contact || !mayGrant(state, partner)) return undefined;
  const { contact } = partner;
  return [{ ...state, granted: contact }, [{ kind: "grant", on: true, contact }]];
}

/**
 * Modes of a partner with which a joining or alone controller makes a pair. What was said before the partner knew our present mode was said
 * to somebody else: to the guest that we were before we fell out, or to the member that we were before we won.
 */
function pairsWith(state: ControllerState, view: PartnerView): boolean {
  if (view.configuration !== state.configuration || !view.granting) return false;
  if (view.answersTurn !== state.turn) return false;
  if (state.mode === "joining") return view.mode === "joining" || view.mode === "paired";
  return state.mode === "alone" && view.mode === "joining";
}

/**
 * Whether our acknowledgements may keep the partner's gates open. Alone we answer at its addresses ourselves: only a guest, which
 * answers at none and knows that we are alone, may have our word then. While racing or out nobody has it.
 */
function mayGrant(state: ControllerState, view: PartnerView): boolean {
  if (view.configuration !== state.configuration) return false;
  if (state.mode === "alone") return view.mode === "joining" && view.answersTurn === state.turn;
  return state.mode === "joining" || state.mode === "paired";
}

/** Makes a pair if both are ready for it. */
export function pairUp(state: ControllerState, nowMs: number): Part {
  const { partner } = state;
  if (!partner || !pairsWith(state, partner)) return undefined;
  const joining = state.mode === "joining";
  // Keys that either left on a disk in an earlier life are then of an older epoch.
  const epoch = joining ? Math.max(state.epochSeen, partner.epoch) + 1 : state.epoch;
  // Alone we may have learnt of a newer one, from a disk or a beat: whatever is started next must be above it.
  const epochSeen = Math.max(state.epochSeen, epoch);
  const next = { ...state, epoch, epochSeen, pairedSinceMs: nowMs, loss: undefined };
  const persist: Effect[] = joining ? [{ kind: "persist", record: { version: 1, epoch } }] : [];
  return andThen([next, persist], (after) =>
    setMode(after, "paired", nowMs, "the partner is here"),
  );
}
