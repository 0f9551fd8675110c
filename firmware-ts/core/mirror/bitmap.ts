/**
 * The dirty bitmap of a replica in memory: one bit for each piece of `granularityBytes`, set where the other replica may differ.
 *
 * Bits are kept in the pages that they have on the disk (wire/mirror/bitmap-page), with the number of set bits of each, so that what is
 * empty is skipped and what has changed is known. Costs: 16 TiB at 64 KiB are 2^28 bits, 32 MiB, in 8,225 pages. Setting or clearing a range is
 * linear in its words; finding the next set bit looks at the counts of the pages between, and at the words of one page.
 */
import { bitsMax, pageBits } from "../../schema/mirror.ts";

const wordBits = 32;
const pageWords = pageBits / wordBits;

export interface BitRange {
  readonly from: number;
  /** Behind the last one. */
  readonly to: number;
}

export class DirtyBitmap {
  readonly bits: number;
  readonly #words: Uint32Array;
  /** Set bits, by page. */
  readonly #counts: Uint16Array;
  /** Pages that differ from what is on the disk. */
  readonly #changed = new Set<number>();
  #count = 0;

  /** All clear. `bits`: 1 to 2^28. */
  constructor(bits: number) {
    if (!Number.isInteger(bits) || bits < 1 || bits > bitsMax)
      throw new RangeError(`DirtyBitmap: ${bits} bits`);
    this.bits = bits;
    const pages = Math.ceil(bits / pageBits);
    this.#words = new Uint32Array(pages * pageWords);
    this.#counts = new Uint16Array(pages);
  }

  get count(): number {
    return this.#count;
  }

  get pages(): number {
    return this.#counts.length;
  }

  has(bit: number): boolean {
    this.#check({ from: bit, to: bit + 1 });
    return (((this.#words[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
  }

  /** How many were clear. */
  setRange(range: BitRange): number {
    return this.#apply(range, true);
  }

  /** How many were set. */
  clearRange(range: BitRange): number {
    return this.#apply(range, false);
  }

  setAll(): void {
    this.setRange({ from: 0, to: this.bits });
  }

  /** The first set bits at or behind `from`, at most `bitsAtMost` in a row; undefined: none is set there. */
  nextDirty(from: number, bitsAtMost: number): BitRange | undefined {
    const first = this.#nextSet(from);
    if (first === undefined) return undefined;
    let to = first + 1;
    while (to < this.bits && to - first < bitsAtMost && this.has(to)) to++;
    return { from: first, to };
  }

  /** Sets what is set in the other one, of the same size. */
  merge(other: DirtyBitmap): void {
    if (other.bits !== this.bits) throw new RangeError("DirtyBitmap.merge: another size");
    for (let page = 0; page < this.pages; page++)
      if ((other.#counts[page] ?? 0) > 0) this.mergePage(page, other.page(page));
  }

  /** Sets what is set in these words of a page, of the other replica for instance. Bits behind the end are ignored. */
  mergePage(page: number, words: Uint32Array): void {
    const start = page * pageWords;
    for (let index = 0; index < pageWords; index++) {
      const bits = (words[index] ?? 0) & this.#valid(start + index);
      if (bits !== 0) this.#write(start + index, (this.#words[start + index] ?? 0) | bits);
    }
  }

  /** The words of a page, a copy, the lowest bit first. */
  page(page: number): Uint32Array {
    return this.#words.slice(page * pageWords, (page + 1) * pageWords);
  }

  /** Takes a page as it is on the disk. */
  load(page: number, words: Uint32Array): void {
    const start = page * pageWords;
    for (let index = 0; index < pageWords; index++)
      this.#write(start + index, (words[index] ?? 0) & this.#valid(start + index));
    this.#changed.delete(page);
  }

  /** Pages to be written, in the order of the disk. Each counts as written from here on: whoever fails at that says so by `touch`. */
  takeChanged(): readonly number[] {
    const pages = [...this.#changed].toSorted((one, other) => one - other);
    this.#changed.clear();
    return pages;
  }

  /** The page has to be written again. */
  touch(page: number): void {
    this.#changed.add(page);
  }

  #apply(range: BitRange, isSet: boolean): number {
    this.#check(range);
    const before = this.#count;
    let { from } = range;
    while (from < range.to) {
      const word = from >>> 5;
      const to = Math.min(range.to, (word + 1) * wordBits);
      const mask = maskOf(from & 31, to - from);
      const was = this.#words[word] ?? 0;
      this.#write(word, isSet ? was | mask : was & ~mask);
      from = to;
    }
    return Math.abs(this.#count - before);
  }

  #write(word: number, bits: number): void {
    const was = this.#words[word] ?? 0;
    const is = bits >>> 0;
    if (was === is) return;
    const page = Math.floor(word / pageWords);
    const more = onesIn(is) - onesIn(was);
    this.#words[word] = is;
    this.#counts[page] = (this.#counts[page] ?? 0) + more;
    this.#count += more;
    this.#changed.add(page);
  }

  #nextSet(from: number): number | undefined {
    const words = this.#words;
    let word = from >>> 5;
    let bits = (words[word] ?? 0) & (0xffff_ffff << (from & 31));
    while (bits === 0) {
      word++;
      if (word % pageWords === 0) while (this.#counts[word / pageWords] === 0) word += pageWords;
      if (word >= words.length) return undefined;
      bits = words[word] ?? 0;
    }
    return word * wordBits + (31 - Math.clz32(bits & -bits));
  }

  /** Which bits of a word are bits of the volume. */
  #valid(word: number): number {
    return maskOf(0, Math.max(0, Math.min(wordBits, this.bits - word * wordBits)));
  }

  #check({ from, to }: BitRange): void {
    if (!(Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from <= to))
      throw new RangeError(`DirtyBitmap: from ${from} to ${to}`);
    if (to > this.bits) throw new RangeError(`DirtyBitmap: bit ${to - 1} of ${this.bits}`);
  }
}

/** `length` ones, from bit `from` of a word on. */
function maskOf(from: number, length: number): number {
  if (length === wordBits) return 0xffff_ffff;
  return ((1 << length) - 1) << from;
}

function onesIn(word: number): number {
  let bits = word - ((word >>> 1) & 0x5555_5555);
  bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
  return (((bits + (bits >>> 4)) & 0x0f0f_0f0f) * 0x0101_0101) >>> 24;
}
