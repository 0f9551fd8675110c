/**
 * Virtual time: what happens when, in one deterministic order. Things of one instant happen in the order in which they were
 * asked for. All delays of a world come from one seeded generator, so a seed is a history.
 */

export interface Cancellable {
  cancel(): void;
}

interface Entry {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class Timeline {
  #nowMs = 0;
  #order = 0;
  readonly #heap: Entry[] = [];

  get nowMs(): number {
    return this.#nowMs;
  }

  at(atMs: number, run: () => void): Cancellable {
    const entry: Entry = {
      atMs: Math.max(atMs, this.#nowMs),
      order: this.#order++,
      run,
      cancelled: false,
    };
    this.#push(entry);
    return {
      cancel: () => {
        entry.cancelled = true;
      },
    };
  }

  after(delayMs: number, run: () => void): Cancellable {
    return this.at(this.#nowMs + delayMs, run);
  }

  /** Runs everything up to and including `untilMs`; `each` is called after every event. */
  runUntil(untilMs: number, each: () => void): void {
    for (let next = this.#heap[0]; next && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop();
      if (next.cancelled) continue;
      this.#nowMs = next.atMs;
      next.run();
      each();
    }
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  /** Runs one event if there is one before `untilMs`; false when there was none. */
  step(untilMs: number): boolean {
    for (let next = this.#heap[0]; next && next.atMs <= untilMs; next = this.#heap[0]) {
      this.#pop();
      if (next.cancelled) continue;
      this.#nowMs = next.atMs;
      next.run();
      return true;
    }
    return false;
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    heap.push(entry);
    let i = heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(heap, i, parent)) break;
      swap(heap, i, parent);
      i = parent;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    swap(heap, 0, heap.length - 1);
    heap.pop();
    let i = 0;
    for (;;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2])
        if (child < heap.length && isBefore(heap, child, least)) least = child;
      if (least === i) return;
      swap(heap, i, least);
      i = least;
    }
  }
}

function isBefore(heap: readonly Entry[], i: number, j: number): boolean {
  const one = heap[i];
  const other = heap[j];
  if (!one || !other) throw new Error("timeline: index out of range");
  return one.atMs !== other.atMs ? one.atMs < other.atMs : one.order < other.order;
}

function swap(heap: Entry[], i: number, j: number): void {
  const one = heap[i];
  const other = heap[j];
  if (!one || !other) throw new Error("timeline: index out of range");
  heap[i] = other;
  heap[j] = one;
}

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

  send(arrive: () => void): void {
    this.#lastMs = Math.max(this.#lastMs, this.#timeline.nowMs + this.#delayMs());
    this.#timeline.at(this.#lastMs, arrive);
  }
}
