/** How long service may be away, derived from the times of core/timing and from what this world takes for its works. */
import { type Timing, tickMs } from "../../firmware-ts/core/timing.ts";
import { cleanUpMs } from "./controller.ts";
import { pollEveryMs } from "./disk-beats.ts";
import type { PlainLoss } from "./plan.ts";
import { workMs } from "./works.ts";

/** Longer than any limit of a step and any back-off that can be under way when everything is mended. */
export function mendedWithinMs(timing: Timing): number {
  const steps = Object.values(timing.stepTimeoutMs).reduce((sum, ms) => sum + ms, 0);
  const starts = timing.startupWaitMs + timing.lossMs + timing.raceTimeoutMs;
  return 2 * steps + timing.transferStartMs + 2 * starts;
}

/** Claim, attach, mount, state, address and export of this world at their slowest, with the ticks and commands between them. */
const startMs = 75;

/** A loss is noticed by silence on every link; that of a main loop which hangs, by what its beats say of it. */
function noticedWithinMs(timing: Timing, isHung: boolean): number {
  return isHung ? timing.progressTimeoutMs + timing.beatIntervalMs : timing.lossMs;
}

/**
 * How long an address of the lost controller may be dark in a plain loss: until the loss is noticed and the race is over, or until the
 * partner's gates have ended, whichever is later; then what is left of the start. See the timeline in core/timing.
 */
export function darkBoundMs(timing: Timing, how: PlainLoss["how"] | "crash"): number {
  const noticedMs = noticedWithinMs(timing, how === "hang");
  const silentMs = (how === "hang" ? noticedMs : 0) + timing.partnerSilentMs;
  // The last beat on the disks may be found there a look later than it was written, and everything counts from its hearing.
  return (
    Math.max(noticedMs + timing.raceBudgetMs + startMs, silentMs) + 4 * tickMs + pollEveryMs(timing)
  );
}

/** A supervisor waits for so long before it starts again what has ended (`RestartSec=` of systemd.service(5), as it is by default). */
export const restartMs = 100;

/** A new life in this world: it cleans up, a tick makes it register, and that is three commands to each coordinator, 3 ms each at the slowest. */
const registeredMs = cleanUpMs + tickMs + 10;

/** What is served is taken down: flushed, closed, sealed, released and tidied away, or torn off, each step at its slowest in this world. */
const putAwayMs = 50;

/**
 * A change that is found by whoever takes over is carried out as soon as that one serves what held before: put away, its place made anew at the slowest, and
 * started again.
 */
export const changeMs = putAwayMs + 1.5 * workMs.define + startMs + 2 * tickMs;

/**
 * How long service may be away when a controller is struck at any moment and nothing else is wrong, by who is left.
 *
 * - `member`: a member of the pair is left, which has been one for longer than the leases of an earlier time live. It takes over as in a plain
 *   loss; what it was handing over itself it has put away by then.
 * - `together`: both start, and hear each other.
 * - `lone`: the one that is left has to begin anew: it is not of the pair, or starts again, or leaves first.
 */
export type LeftOver = "member" | "together" | "lone";

/** `isHung`: the other one goes on beating while its main loop hangs, so that its loss is noticed by that. */
export function serviceBoundMs(timing: Timing, left: LeftOver, isHung = false): number {
  const { beatIntervalMs, startupWaitMs, raceBudgetMs, soloSilentMs } = timing;
  switch (left) {
    case "member":
      return darkBoundMs(timing, "kill");
    case "together":
      return (
        restartMs +
        registeredMs +
        // It is heard, it answers, and it is known to answer to one that is a guest: a beat each, and one that was just too early.
        4 * beatIntervalMs +
        startMs +
        4 * tickMs
      );
    case "lone":
      return (
        // What it does at that moment comes to its end: it leaves, or has fallen out.
        putAwayMs +
        restartMs +
        registeredMs +
        // A partner that it has just heard is lost: waiting begins with that.
        noticedWithinMs(timing, isHung) +
        pollEveryMs(timing) +
        startupWaitMs +
        raceBudgetMs +
        // An unheard partner may have been alone: its gates live for so long after the race, and longer than our start takes.
        Math.max(soloSilentMs, startMs) +
        4 * tickMs
      );
    default:
      throw new Error(`serviceBoundMs: unknown ${String(left)}`);
  }
}
