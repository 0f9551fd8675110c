/**
 * Which extents of a volume its primary may write to: those that its log on the disk names. After a crash only they can differ from the
 * partner's, beside what the bitmap says. Least recently used ones make room for others.
 *
 * The order, which the data plane keeps:
 *
 * 1. `begin` a write; if its extent is not active, wait for a transaction.
 * 2. `nextTransaction`. Before it is written: what was written to the extents that it leaves out is flushed on both legs, and the pages of
 *    the bitmap that cover them are on the disk. For neither is looked for after a crash.
 * 3. Write it, durably. Then `committed`: the writes that waited begin.
 * 4. `end` each write when nothing of it is under way any more at either leg.
 *
 * A transaction names all active extents, so that the newest whole one is the log (wire/mirror/activity-block).
 */
import { activeExtentsMax, extentBytes } from "../../schema/mirror.ts";

export interface ActivityTransaction {
  readonly sequence: number;
  /** All extents that are active behind it, in ascending order. */
  readonly extents: readonly number[];
  /** Extents that were active before it and are not any more. */
  readonly dropped: readonly number[];
}

/** The extents that a write of `lengthBytes` (more than none) from `offsetBytes` on touches: the first and the last. */
export function extentsOf(offsetBytes: number, lengthBytes: number): readonly [number, number] {
  const last = offsetBytes + lengthBytes - 1;
  return [Math.floor(offsetBytes / extentBytes), Math.floor(last / extentBytes)];
}

export class ActivityLog {
  readonly #capacity: number;
  /** Active extents with the number of their writes under way, the least recently used first. */
  readonly #active = new Map<number, number>();
  readonly #wanted = new Set<number>();
  #sequence: number;
  #adding: readonly number[] | undefined;

  /**
   * Nothing is active. `capacity`: at most 1,000 extents, and more than there can be writes under way, or one may wait for all others.
   * `sequence`: of the last transaction on the disk.
   */
  constructor(capacity: number, sequence: number) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > activeExtentsMax)
      throw new RangeError(`ActivityLog: ${capacity} extents`);
    this.#capacity = capacity;
    this.#sequence = sequence;
  }

  /** Whether a write to this extent may begin now; it has begun then. Otherwise the extent is wanted in the next transaction. */
  begin(extent: number): boolean {
    const writes = this.#active.get(extent);
    if (writes === undefined) {
      this.#wanted.add(extent);
      return false;
    }
    this.#active.delete(extent);
    this.#active.set(extent, writes + 1);
    return true;
  }

  /** A write that had begun has ended. */
  end(extent: number): void {
    const writes = this.#active.get(extent);
    if (writes === undefined || writes === 0)
      throw new Error(`ActivityLog.end: no write is under way in extent ${extent}`);
    this.#active.set(extent, writes - 1);
  }

  /** What to write next; undefined: nothing is wanted, one is being written, or every active extent is in use. */
  nextTransaction(): ActivityTransaction | undefined {
    if (this.#adding || this.#wanted.size === 0) return undefined;
    const idle = [...this.#active].filter(([, writes]) => writes === 0).map(([extent]) => extent);
    const free = this.#capacity - this.#active.size;
    const adding = [...this.#wanted].slice(0, free + idle.length);
    if (adding.length === 0) return undefined;
    const dropped = idle.slice(0, Math.max(0, adding.length - free));
    for (const extent of dropped) this.#active.delete(extent);
    for (const extent of adding) this.#wanted.delete(extent);
    this.#adding = adding;
    this.#sequence += 1;
    const extents = [...this.#active.keys(), ...adding].toSorted((one, other) => one - other);
    return { sequence: this.#sequence, extents, dropped };
  }

  /** The last transaction is durable: writes to its extents may begin. */
  committed(): void {
    if (!this.#adding) throw new Error("ActivityLog.committed: no transaction is being written");
    for (const extent of this.#adding) {
      // Asked for again while it was being written: it is there now, and no later transaction may begin its count anew.
      this.#wanted.delete(extent);
      this.#active.set(extent, 0);
    }
    this.#adding = undefined;
  }
}
