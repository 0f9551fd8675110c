/**
 * The gates within the beat machine: when one may be opened, how far one is renewed, and what follows when the
 * kernel refuses. Two leases exist, one for each ground (SAFETY): the partner's acknowledgement, and a write
 * that the coordinators let through. Only the lease of the ground now in force counts.
 */

import { type BeatState, nothing, observe, type Part, type Step } from "./beat-state.ts";
import type { BeatEffect, BeatEvent } from "./beat-types.ts";

/** A gate is renewed when its lease can be moved by at least this much: not at each of three links' frames. */
const worthMs = 4;

/** A gate is not opened on a lease that ends sooner than this: it would close before anyone had used it. */
const leaseMsMin = 10;

/** End of the lease that the present ground gives, or 0 when nothing may be renewed. */
function leaseEnd(state: BeatState, nowMs: number): number {
  if (nowMs - state.progressAtMs >= state.timing.progressTimeoutMs) return 0;
  switch (state.mandate.ground) {
    case "none":
      return 0;
    case "acknowledged":
      return state.ackLeaseMs;
    case "solo":
      return state.soloLeaseMs;
    default:
      throw new Error("beat: unknown ground");
  }
}

/** Renews every kept gate to the end of the lease, never to "now plus something". */
export function renewGates(state: BeatState, nowMs: number): Part {
  const untilMs = leaseEnd(state, nowMs);
  if (untilMs <= nowMs) return undefined;
  const addresses: string[] = [];
  for (const [address, endMs] of state.kept)
    if (untilMs - endMs >= worthMs) addresses.push(address);
  if (addresses.length === 0) return undefined;
  const kept = new Map(state.kept);
  for (const address of addresses) kept.set(address, untilMs);
  return [{ ...state, kept }, [{ kind: "renew", token: "", addresses, untilMs }]];
}

export function queueOpen(state: BeatState, event: Extract<BeatEvent, { kind: "gateOpen" }>): Step {
  const { token, addresses, notBeforeMs } = event;
  return [{ ...state, opens: [...state.opens, { token, addresses, notBeforeMs }] }, []];
}

/** Opens what is due with a short first lease; the main loop lengthens it after it has checked the reservation again. */
export function openDue(state: BeatState, nowMs: number): Part {
  if (state.opens.length === 0) return undefined;
  const due = state.opens.filter((open) => open.notBeforeMs <= nowMs);
  if (due.length === 0) return undefined;
  const lease = leaseEnd(state, nowMs);
  const untilMs = Math.min(lease, nowMs + state.timing.firstLeaseMs);
  const effects: BeatEffect[] = [];
  const waiting = state.opens.filter((open) => open.notBeforeMs > nowMs);
  for (const open of due) {
    if (untilMs - nowMs >= leaseMsMin)
      effects.push({ kind: "open", token: open.token, addresses: open.addresses, untilMs });
    else
      effects.push(
        observe({
          kind: "gateRefused",
          token: open.token,
          reason: `no proof that we alone may answer (ground: ${state.mandate.ground})`,
        }),
      );
  }
  return [{ ...state, opens: waiting }, effects];
}

/** From now on the gate is renewed; it was opened with the first lease a moment ago. */
export function keepGates(state: BeatState, addresses: readonly string[]): Step {
  const kept = new Map(state.kept);
  for (const address of addresses) kept.set(address, kept.get(address) ?? 0);
  return [{ ...state, kept }, []];
}

export function closeGates(state: BeatState, token: string, addresses: readonly string[]): Step {
  const kept = new Map(state.kept);
  for (const address of addresses) kept.delete(address);
  const opens = state.opens.filter(
    (open) => !open.addresses.some((address) => addresses.includes(address)),
  );
  return [{ ...state, kept, opens }, [{ kind: "close", token, addresses }]];
}

/** The kernel closes what is not in the list any more before it forgets it; whoever waited to open or to renew one of these waits in vain. */
export function knowGates(state: BeatState, token: string, addresses: readonly string[]): Step {
  const kept = new Map([...state.kept].filter(([address]) => addresses.includes(address)));
  const opens = state.opens.filter((open) =>
    open.addresses.every((address) => addresses.includes(address)),
  );
  return [{ ...state, kept, opens }, [{ kind: "know", token, addresses }]];
}

/**
 * The main loop is gone, so nothing here will open a gate again. All are closed now, also one that this life opened with its
 * first lease and does not keep yet. Whether that is said depends on the kernel's answer (`gateOutcome`).
 */
export function closeForGood(state: BeatState): Step {
  const mandate = { ...state.mandate, ground: "none" } as const;
  const silent = { ...state, mandate, ending: "closing", kept: new Map(), opens: [] } as const;
  return [silent, [{ kind: "seal", token: "", addresses: [] }]];
}

export function gateOutcome(
  state: BeatState,
  event: Extract<BeatEvent, { kind: "gateOutcome" }>,
): Step {
  const { action, token, addresses, ok, reason } = event;
  // Not closed: nothing is said, the beats stop, and the leases end by themselves.
  if (action === "seal") return [ok ? { ...state, ending: "closed" } : state, []];
  if (action === "open")
    return [
      state,
      [
        ok
          ? observe({ kind: "gateOpened", token, addresses })
          : observe({ kind: "gateRefused", token, reason }),
      ],
    ];
  if (action === "close") return [state, [observe({ kind: "gateClosed", token, ok, reason })]];
  if (action === "know") return [state, [observe({ kind: "gateKnown", token, ok, reason })]];
  if (ok) return [state, nothing];
  // The kernel closed it while we were not looking: reopening is a step of its own, with all its checks.
  const kept = new Map(state.kept);
  const lapsed = addresses.filter((address) => kept.delete(address));
  return lapsed.length === 0
    ? [{ ...state, kept }, []]
    : [{ ...state, kept }, [observe({ kind: "gateLapsed", addresses: lapsed })]];
}
