/**
 * Puts the operations of several processes into one order. Each process sends what it completed and a *watermark*: nothing it will send
 * later completed before that. Operations are released once every process has passed them. Pure.
 */

export class Merge<T extends { readonly completedAtMs: number }> {
  readonly #sources = new Map<string, { watermarkMs: number }>();
  #held: T[] = [];

  constructor(sources: readonly string[]) {
    for (const source of sources) this.#sources.set(source, { watermarkMs: 0 });
  }

  /** Takes a batch; returns the operations that are now in their final order. */
  push(source: string, operations: readonly T[], watermarkMs: number): T[] {
    const entry = this.#sources.get(source);
    if (entry === undefined) throw new Error(`unknown source ${source}`);
    entry.watermarkMs = watermarkMs;
    this.#held.push(...operations);
    const passedMs = Math.min(...[...this.#sources.values()].map((each) => each.watermarkMs));
    // Sorting keeps the order of equal times, and a process sends its own operations in order.
    this.#held.sort((a, b) => a.completedAtMs - b.completedAtMs);
    const firstHeld = this.#held.findIndex((each) => each.completedAtMs >= passedMs);
    const count = firstHeld === -1 ? this.#held.length : firstHeld;
    return this.#held.splice(0, count);
  }
}
