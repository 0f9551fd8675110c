/** A mirror's metadata in memory, whose durability a test controls. */
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ActivityPort, DirtyPort, Range } from "../../hal/block/mirror/ports.ts";

function piecesOf({ offset, length }: Range, pieceBytes: number): number[] {
  const first = Math.floor(offset / pieceBytes);
  const last = Math.floor((offset + length - 1) / pieceBytes);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

export class MemoryDirty implements DirtyPort {
  readonly grainBytes: number;
  readonly #sizeBytes: number;
  readonly #marked = new Set<number>();
  /** Marks that survive the primary's death. */
  readonly durable = new Set<number>();
  readonly waiting: (() => void)[] = [];
  /** Whether marks are durable without the test. */
  prompt = true;
  broken = false;

  constructor(sizeBytes: number, grainBytes: number) {
    this.#sizeBytes = sizeBytes;
    this.grainBytes = grainBytes;
  }

  mark(ranges: readonly Range[]): Promise<Outcome> | undefined {
    const grains = ranges.flatMap((range) => piecesOf(range, this.grainBytes));
    for (const grain of grains) this.#marked.add(grain);
    if (this.broken) return Promise.resolve(failed("ioError", "mark", "as the test wants"));
    if (grains.every((grain) => this.durable.has(grain))) return undefined;
    const persist = () => {
      // A grain that was cleaned meanwhile was not marked again.
      for (const grain of grains) if (this.#marked.has(grain)) this.durable.add(grain);
      return done;
    };
    if (this.prompt) return Promise.resolve(persist());
    return new Promise((resolve) => this.waiting.push(() => resolve(persist())));
  }

  async clean(ranges: readonly Range[]): Promise<Outcome> {
    if (this.broken) return failed("ioError", "clean", "as the test wants");
    for (const grain of ranges.flatMap((range) => piecesOf(range, this.grainBytes))) {
      this.#marked.delete(grain);
      this.durable.delete(grain);
    }
    return done;
  }

  next(fromBytes: number): Range | undefined {
    const from = Math.floor(fromBytes / this.grainBytes);
    const sorted = [...this.#marked].filter((grain) => grain >= from).sort((a, b) => a - b);
    const [first] = sorted;
    if (first === undefined) return undefined;
    let count = 1;
    while (sorted[count] === first + count) count += 1;
    const offset = first * this.grainBytes;
    const length = Math.min(count * this.grainBytes, this.#sizeBytes - offset);
    return { offset, length };
  }

  get dirtyBytes(): number {
    return this.#marked.size * this.grainBytes;
  }
}

export class MemoryActivity implements ActivityPort {
  readonly extentBytes: number;
  readonly active = new Set<number>();
  readonly waiting: (() => void)[] = [];
  prompt = true;
  broken = false;

  constructor(extentBytes: number) {
    this.extentBytes = extentBytes;
  }

  activate(range: Range): Promise<Outcome> | undefined {
    // What is there already is not asked for again: it has to stay until the change is sent.
    const missing = piecesOf(range, this.extentBytes).filter((extent) => !this.active.has(extent));
    if (missing.length === 0) return undefined;
    if (this.broken) return Promise.resolve(failed("ioError", "activate", "as the test wants"));
    const persist = () => {
      for (const extent of missing) this.active.add(extent);
      return done;
    };
    if (this.prompt) return Promise.resolve(persist());
    return new Promise((resolve) => this.waiting.push(() => resolve(persist())));
  }

  mayRest(extents: readonly number[]): void {
    for (const extent of extents) this.active.delete(extent);
  }

  covers(range: Range): boolean {
    return piecesOf(range, this.extentBytes).every((extent) => this.active.has(extent));
  }
}
