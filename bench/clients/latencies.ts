/**
 * How long operations took, as a histogram: its size does not depend on how many there were. Pure.
 *
 * Classes grow by 1.1 %, which is finer than any difference between two runs on one machine.
 */

const classesPerOctave = 64;
const leastMs = 0.01;
const octaves = 24;
const classes = classesPerOctave * octaves;

export class Latencies {
  readonly #counts = new Uint32Array(classes);
  #total = 0;

  add(ms: number): void {
    const index = Math.floor(Math.log2(Math.max(ms, leastMs) / leastMs) * classesPerOctave);
    const at = Math.min(index, classes - 1);
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#total += 1;
  }

  clear(): void {
    this.#counts.fill(0);
    this.#total = 0;
  }

  /** The time that a part of all operations did not exceed, ms, the middle of its class; 0 when there were none. `part` is above 0 and at most 1. */
  quantileMs(part: number): number {
    const wanted = Math.ceil(this.#total * part);
    if (wanted === 0) return 0;
    let seen = 0;
    const at = this.#counts.findIndex((count) => {
      seen += count;
      return seen >= wanted;
    });
    return leastMs * 2 ** ((at + 0.5) / classesPerOctave);
  }
}
