/**
 * Whether the partner's silence counts. A beat process that did not run itself (the machine stood still, a hypervisor had the processor,
 * memory was collected) has heard nothing either, and what it was told meanwhile may still lie unread in its sockets. So a tick that comes
 * late is a stall; it judges nothing, and its time is taken off the silence of each link (docs/design/0023-stalls.md).
 *
 *     heard ──nobody within the limits──▶ lost                    when we ran all the time
 *       ▲               │
 *       │               └───────────────▶ doubted ─────▶ lost     when silence, less our stalls, reaches the limits; or after
 *       └───── a beat ──────────────────────┘                     stallGraceMs, however often we stall
 *
 * SAFETY: an excuse postpones a loss and does nothing else. No time at which something was heard, sent or granted is touched by it; while
 * the partner is doubted nothing is granted to it, as if it were lost already; and it speaks of the partner's silence only: our own
 * leases end when they end.
 */
import type { BeatState } from "./beat-state.ts";
import { excuseStall, nobodyHeard, nobodyHeardWhileRunning } from "./links.ts";
import { tickMs } from "./timing.ts";

/** How long this process did not run before a tick; 0 when the tick is as late as any may be. */
export function stalledFor({ tickedAtMs, timing }: BeatState, nowMs: number): number {
  if (tickedAtMs === undefined) return 0;
  const lateMs = nowMs - tickedAtMs - tickMs;
  return lateMs > timing.stallMs ? lateMs : 0;
}

/** Notes that we run, and the stall that ends with this tick. */
export function noteTick(state: BeatState, stallMs: number, nowMs: number): BeatState {
  const links = stallMs > 0 ? excuseStall(state.links, stallMs, nowMs) : state.links;
  return { ...state, tickedAtMs: nowMs, links };
}

/** `stallMs`: of the stall that ends with this tick, whose excuse is counted in the links already. */
export function judge(
  state: BeatState,
  stallMs: number,
  nowMs: number,
): "heard" | "doubted" | "lost" {
  const { links, timing, doubtedSinceMs } = state;
  if (!nobodyHeard(links, timing, nowMs)) return "heard";
  // Even a process that stalls all the time must come to an end with a partner that is really gone.
  if (doubtedSinceMs !== undefined && nowMs - doubtedSinceMs >= timing.stallGraceMs) return "lost";
  if (stallMs > 0) return "doubted";
  return nobodyHeardWhileRunning(links, timing, nowMs) ? "lost" : "doubted";
}
