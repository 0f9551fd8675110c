/**
 * Virtual time: what happens when, in one deterministic order. Things of one instant happen in the order in which they were
 * asked for. All delays of a world come from one seeded generator, so a seed is a history.
 *
 * The queue is a binary heap over three parallel arrays: an event costs no object of its own.
 */

export type Run = () => void;

export class Timeline {
  #nowMs = 0;
  #order = 0;
  #size = 0;
  readonly #times: number[] = [];
  readonly #orders: number[] = [];
  readonly #runs: Run[] = [];
  /** Events that have happened: a digest of a history, and the measure of a simulator's speed. */
  events = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  at(atMs: number, run: Run): void {
    this.#push(Math.max(atMs, this.#nowMs), this.#order++, run);
  }

  after(delayMs: number, run: Run): void {
    this.at(this.#nowMs + delayMs, run);
  }

  /** Time of the next event; infinite when there is none. */
  get nextMs(): number {
    return this.#size === 0 ? Number.POSITIVE_INFINITY : (this.#times[0] as number);
  }

  /** Runs everything up to and including `untilMs`; `each` is called after every event. */
  runUntil(untilMs: number, each: Run): void {
    while (this.step(untilMs)) each();
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  /** Runs one event if there is one before `untilMs`; false when there was none. */
  step(untilMs: number): boolean {
    if (this.#size === 0) return false;
    const atMs = this.#times[0] as number;
    if (atMs > untilMs) return false;
    const run = this.#runs[0] as Run;
    this.#pop();
    this.#nowMs = atMs;
    this.events += 1;
    run();
    return true;
  }

  #push(atMs: number, order: number, run: Run): void {
    const times = this.#times;
    const orders = this.#orders;
    const runs = this.#runs;
    let i = this.#size++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const parentMs = times[parent] as number;
      // A new event has the highest order: of one instant it comes last.
      if (parentMs <= atMs) break;
      times[i] = parentMs;
      orders[i] = orders[parent] as number;
      runs[i] = runs[parent] as Run;
      i = parent;
    }
    times[i] = atMs;
    orders[i] = order;
    runs[i] = run;
  }

  #pop(): void {
    const times = this.#times;
    const orders = this.#orders;
    const runs = this.#runs;
    const last = --this.#size;
    const atMs = times[last] as number;
    const order = orders[last] as number;
    const run = runs[last] as Run;
    runs[last] = nothing;
    if (last === 0) return;
    let i = 0;
    for (let child = 1; child < last; child = 2 * i + 1) {
      let childMs = times[child] as number;
      const right = child + 1;
      if (right < last) {
        const rightMs = times[right] as number;
        const isRight =
          rightMs < childMs ||
          (rightMs === childMs && (orders[right] as number) < (orders[child] as number));
        if (isRight) {
          child = right;
          childMs = rightMs;
        }
      }
      if (atMs < childMs || (atMs === childMs && order < (orders[child] as number))) break;
      times[i] = childMs;
      orders[i] = orders[child] as number;
      runs[i] = runs[child] as Run;
      i = child;
    }
    times[i] = atMs;
    orders[i] = order;
    runs[i] = run;
  }
}

/** Takes the place of what has run, so that it can be forgotten. */
const nothing: Run = () => undefined;

/** A small seeded generator (mulberry32): uniform in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A way that keeps the order: a pipe between processes, or the commands of one nexus to one disk. */
export class Channel {
  readonly #timeline: Timeline;
  readonly #delayMs: () => number;
  #lastMs = 0;

  constructor(timeline: Timeline, delayMs: () => number) {
    this.#timeline = timeline;
    this.#delayMs = delayMs;
  }

  send(arrive: Run): void {
    this.#lastMs = Math.max(this.#lastMs, this.#timeline.nowMs + this.#delayMs());
    this.#timeline.at(this.#lastMs, arrive);
  }
}
