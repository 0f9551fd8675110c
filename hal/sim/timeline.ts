/**
 * Virtual time: what happens when, in one deterministic order. Things of one instant happen in the order in which they were
 * asked for. All delays of a world come from one seeded generator, so a seed is a history.
 *
 * The queue is a binary heap over three parallel arrays: an event costs no object of its own. Nearly every event asks for another one, so the
 * place of the event that runs stays free at the top until it has ended: the first that it asks for goes in there.
 */

export type Run = () => void;

export class Timeline {
  #nowMs = 0;
  #order = 0;
  #size = 0;
  /** The top has been taken out and nothing has been put in its place yet. */
  #vacant = false;
  #times = new Float64Array(64);
  #orders = new Float64Array(64);
  readonly #runs: Run[] = [];
  /** Events that have happened: a digest of a history, and the measure of a simulator's speed. */
  events = 0;

  get nowMs(): number {
    return this.#nowMs;
  }

  at(atMs: number, run: Run): void {
    const order = this.#order++;
    const notBeforeMs = Math.max(atMs, this.#nowMs);
    if (this.#vacant) {
      this.#vacant = false;
      this.#sink(notBeforeMs, order, run);
    } else this.#rise(notBeforeMs, order, run);
  }

  after(delayMs: number, run: Run): void {
    this.at(this.#nowMs + delayMs, run);
  }

  /** Runs everything up to and including `untilMs`; `each` is called after every event. */
  runUntil(untilMs: number, each: Run): void {
    while (this.step(untilMs)) each();
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  /** Runs one event if there is one before `untilMs`; false when there was none. */
  step(untilMs: number): boolean {
    if (this.#vacant) this.#close();
    if (this.#size === 0) return false;
    const atMs = this.#times[0] as number;
    if (atMs > untilMs) return false;
    const run = this.#runs[0] as Run;
    this.#vacant = true;
    this.#nowMs = atMs;
    this.events += 1;
    run();
    return true;
  }

  /** Nothing took the place at the top: the last of the heap does. */
  #close(): void {
    this.#vacant = false;
    const last = --this.#size;
    const run = this.#runs[last] as Run;
    this.#runs[last] = nothing;
    if (last > 0) this.#sink(this.#times[last] as number, this.#orders[last] as number, run);
  }

  #grow(): void {
    const wider = (old: Float64Array<ArrayBuffer>) => {
      const made = new Float64Array(2 * old.length);
      made.set(old);
      return made;
    };
    this.#times = wider(this.#times);
    this.#orders = wider(this.#orders);
  }

  /** Puts an event at the end of the heap, and lets it rise. */
  #rise(atMs: number, order: number, run: Run): void {
    if (this.#size === this.#times.length) this.#grow();
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

  /** Puts an event at the top of the heap, and lets it sink. */
  #sink(atMs: number, order: number, run: Run): void {
    const times = this.#times;
    const orders = this.#orders;
    const runs = this.#runs;
    const size = this.#size;
    let i = 0;
    for (let child = 1; child < size; child = 2 * i + 1) {
      let childMs = times[child] as number;
      const right = child + 1;
      if (right < size) {
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

export type Random = () => number;

export function pick<T>(random: Random, list: readonly T[]): T {
  const found = list[Math.floor(random() * list.length)];
  if (found === undefined) throw new Error("simulator: nothing to pick from");
  return found;
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
