/**
 * Pieces of the disk, by number, that were written and not flushed since: what a leg may forget when its power goes. A flush covers what was
 * answered before it began; flushes may overlap.
 */
export class Unflushed {
  /** Oldest first; the last one grows. A flush that began when there were n of them covers these. */
  #sets: Set<number>[] = [new Set()];
  /** How many sets were dropped before the first one here. */
  #dropped = 0;

  add(first: number, last: number): void {
    const newest = this.#sets.at(-1);
    for (let number = first; number <= last; number += 1) newest?.add(number);
  }

  /** How many there are at most: one that was written again since a flush began counts twice. */
  get size(): number {
    return this.#sets.reduce((sum, { size }) => sum + size, 0);
  }

  /** All of them, in ascending order. */
  all(): number[] {
    const numbers = new Set(this.#sets.flatMap((one) => [...one]));
    return [...numbers].sort((a, b) => a - b);
  }

  /** A flush begins. Returns what `flushed` is to be called with when it has succeeded. */
  flushing(): number {
    if (this.#sets.at(-1)?.size !== 0) this.#sets.push(new Set());
    return this.#dropped + this.#sets.length - 1;
  }

  /** Drops what the flush has covered. Returns the numbers of which nothing is left. */
  flushed(upTo: number): number[] {
    const count = Math.max(0, upTo - this.#dropped);
    const covered = new Set(this.#sets.splice(0, count).flatMap((one) => [...one]));
    this.#dropped += count;
    for (const later of this.#sets) for (const number of later) covered.delete(number);
    return [...covered];
  }
}

/** The first and the last piece that a range of at least one byte touches. */
export function piecesOf(
  { offset, length }: { readonly offset: number; readonly length: number },
  pieceBytes: number,
): readonly [number, number] {
  return [Math.floor(offset / pieceBytes), Math.floor((offset + length - 1) / pieceBytes)];
}

/** Ascending numbers of pieces as ranges, neighbours together, within the disk. */
export function rangesOf(
  numbers: readonly number[],
  pieceBytes: number,
  sizeBytes: number,
): { offset: number; length: number }[] {
  const ranges: { offset: number; length: number }[] = [];
  for (const number of numbers) {
    const offset = number * pieceBytes;
    const length = Math.min(pieceBytes, sizeBytes - offset);
    const last = ranges.at(-1);
    if (last && last.offset + last.length === offset) last.length += length;
    else ranges.push({ offset, length });
  }
  return ranges;
}
