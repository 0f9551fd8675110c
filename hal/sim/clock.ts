/**
 * The monotonic clock of one controller: it begins anywhere and runs a little too fast or too slow. Durations that a kernel or a
 * decision counts are of this clock; the world's own time is nobody's.
 */
import type { Timeline } from "./timeline.ts";

export class Clock {
  readonly #timeline: Timeline;
  readonly #rate: number;
  readonly #originMs: number;

  /** `driftPpm`: how much faster than the world it runs. */
  constructor(timeline: Timeline, driftPpm = 0, originMs = 0) {
    this.#timeline = timeline;
    this.#rate = 1 + driftPpm / 1e6;
    this.#originMs = originMs;
  }

  get nowMs(): number {
    return this.#timeline.nowMs * this.#rate + this.#originMs;
  }

  /** World time that passes while this clock counts `ms`. */
  worldMs(ms: number): number {
    return ms / this.#rate;
  }
}
