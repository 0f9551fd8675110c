/**
 * How fast a resync may go beside clients: as fast as it can while nobody writes, and slower, step by step, while writes take longer than
 * they should. A function of what it is told; the clock is the caller's.
 */

export interface PaceOptions {
  /** Writes may take so long before the resync gives way. */
  readonly latencyMs: number;
  /** What a resync gets whatever the clients do: it has to end some day. */
  readonly bytesPerSecondMin: number;
  readonly bytesPerSecondMax: number;
}

export const defaultPace: PaceOptions = {
  latencyMs: 5,
  bytesPerSecondMin: 4 * 1024 * 1024,
  bytesPerSecondMax: 1024 * 1024 * 1024,
};

/** The rate is judged anew after so long. */
const windowMs = 100;

export class Pace {
  readonly #options: PaceOptions;
  #bytesPerSecond: number;
  #windowEndMs: number;
  #latencies = 0;
  #late = 0;
  /** When the bytes that were copied are paid for. */
  #paidMs: number;

  constructor(nowMs: number, options: Partial<PaceOptions> = {}) {
    this.#options = { ...defaultPace, ...options };
    this.#bytesPerSecond = this.#options.bytesPerSecondMax;
    this.#windowEndMs = nowMs + windowMs;
    this.#paidMs = nowMs;
  }

  get bytesPerSecond(): number {
    return this.#bytesPerSecond;
  }

  /** A write of a client took so long. */
  note(latencyMs: number): void {
    this.#latencies += 1;
    if (latencyMs > this.#options.latencyMs) this.#late += 1;
  }

  /** Bytes were copied. Returns how long to wait before the next are. */
  copied(nowMs: number, bytes: number): number {
    if (nowMs >= this.#windowEndMs) this.#judge(nowMs);
    // Time in which nothing was copied is not saved up for a burst.
    this.#paidMs = Math.max(this.#paidMs, nowMs - windowMs) + (bytes / this.#bytesPerSecond) * 1000;
    return Math.max(0, this.#paidMs - nowMs);
  }

  /** A tenth of late writes halves the rate; a window without any raises it by half. */
  #judge(nowMs: number): void {
    const { bytesPerSecondMin, bytesPerSecondMax } = this.#options;
    if (this.#late * 10 > this.#latencies)
      this.#bytesPerSecond = Math.max(this.#bytesPerSecond / 2, bytesPerSecondMin);
    else if (this.#late === 0)
      this.#bytesPerSecond = Math.min(this.#bytesPerSecond * 1.5, bytesPerSecondMax);
    this.#latencies = 0;
    this.#late = 0;
    this.#windowEndMs = nowMs + windowMs;
  }
}
