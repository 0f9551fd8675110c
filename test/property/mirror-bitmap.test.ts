/** The dirty bitmap and the activity log in memory, beside models that are too simple to be wrong. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ActivityLog, extentsOf } from "../../firmware-ts/core/mirror/activity-log.ts";
import { DirtyBitmap } from "../../firmware-ts/core/mirror/bitmap.ts";
import {
  activeExtentsMax,
  bitsMax,
  extentBytes,
  pageBits,
} from "../../firmware-ts/schema/mirror.ts";

/** Around the edges of words and pages. */
const bits = 2 * pageBits + 77;
const anyBit = fc.oneof(
  fc.integer({ min: 0, max: bits - 1 }),
  fc.constantFrom(0, 31, 32, pageBits - 1, pageBits, 2 * pageBits - 1, 2 * pageBits, bits - 1),
);
const anyRange = fc
  .tuple(anyBit, fc.oneof(fc.integer({ min: 0, max: 70 }), fc.integer({ min: 0, max: bits })))
  .map(([from, length]) => ({ from, to: Math.min(bits, from + length) }));
const anyOrder = fc.tuple(fc.boolean(), anyRange);

class Naive {
  readonly set = new Set<number>();
  apply([isSet, { from, to }]: readonly [boolean, { from: number; to: number }]): number {
    const before = this.set.size;
    for (let bit = from; bit < to; bit++) isSet ? this.set.add(bit) : this.set.delete(bit);
    return Math.abs(this.set.size - before);
  }
  next(from: number, atMost: number) {
    for (let bit = from; bit < bits; bit++) {
      if (!this.set.has(bit)) continue;
      let to = bit + 1;
      while (this.set.has(to) && to - bit < atMost) to++;
      return { from: bit, to };
    }
    return undefined;
  }
}

function both(orders: readonly (readonly [boolean, { from: number; to: number }])[]) {
  const bitmap = new DirtyBitmap(bits);
  const naive = new Naive();
  for (const order of orders) {
    const [isSet, range] = order;
    const changed = isSet ? bitmap.setRange(range) : bitmap.clearRange(range);
    expect(changed).toBe(naive.apply(order));
  }
  return { bitmap, naive };
}

const anyOrders = fc.array(anyOrder, { maxLength: 12 });

describe("a dirty bitmap", () => {
  test("says what a set of numbers says", () => {
    fc.assert(
      fc.property(anyOrders, anyBit, fc.integer({ min: 1, max: 100 }), (orders, from, atMost) => {
        const { bitmap, naive } = both(orders);
        expect(bitmap.count).toBe(naive.set.size);
        expect(bitmap.has(from)).toBe(naive.set.has(from));
        expect(bitmap.nextDirty(from, atMost)).toEqual(naive.next(from, atMost));
      }),
    );
  });

  test("goes to the disk and comes back page by page", () => {
    fc.assert(
      fc.property(anyOrders, anyOrders, (orders, later) => {
        const { bitmap } = both(orders);
        const disk = new DirtyBitmap(bits);
        for (const page of bitmap.takeChanged()) disk.load(page, bitmap.page(page));
        expect(disk.count).toBe(bitmap.count);
        for (const [isSet, range] of later)
          isSet ? bitmap.setRange(range) : bitmap.clearRange(range);
        for (const page of bitmap.takeChanged()) disk.load(page, bitmap.page(page));
        for (let page = 0; page < bitmap.pages; page++)
          expect(disk.page(page)).toEqual(bitmap.page(page));
        expect(disk.takeChanged()).toEqual([]);
        expect(bitmap.takeChanged()).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });

  test("two of them together have what either has", () => {
    fc.assert(
      fc.property(anyOrders, anyOrders, (mine, theirs) => {
        const one = both(mine);
        const other = both(theirs);
        one.bitmap.merge(other.bitmap);
        const union = new Set([...one.naive.set, ...other.naive.set]);
        expect(one.bitmap.count).toBe(union.size);
        for (const bit of union) if (!one.bitmap.has(bit)) expect.fail(`bit ${bit} is missing`);
      }),
      { numRuns: 50 },
    );
  });

  test("a page that could not be read sets what it has of the volume, and no more", () => {
    const bitmap = new DirtyBitmap(pageBits + 5);
    bitmap.load(1, new Uint32Array(pageBits / 32).fill(0xffff_ffff));
    expect(bitmap.count).toBe(5);
    bitmap.mergePage(0, new Uint32Array(pageBits / 32).fill(0xffff_ffff));
    expect(bitmap.count).toBe(pageBits + 5);
    bitmap.takeChanged();
    bitmap.touch(1);
    expect(bitmap.takeChanged()).toEqual([1]);
  });

  test("the largest one: all set, and the last bit found past everything that is clear", () => {
    const bitmap = new DirtyBitmap(bitsMax);
    bitmap.setAll();
    expect(bitmap.count).toBe(bitsMax);
    bitmap.clearRange({ from: 0, to: bitsMax - 1 });
    expect(bitmap.nextDirty(0, 8)).toEqual({ from: bitsMax - 1, to: bitsMax });
    expect(bitmap.nextDirty(bitsMax - 1, 8)).toEqual({ from: bitsMax - 1, to: bitsMax });
    expect(() => new DirtyBitmap(bitsMax + 1)).toThrow(RangeError);
    expect(() => new DirtyBitmap(0)).toThrow(RangeError);
  });

  test("what is not in it is a mistake of the caller", () => {
    const bitmap = new DirtyBitmap(10);
    expect(() => bitmap.setRange({ from: 0, to: 11 })).toThrow(RangeError);
    expect(() => bitmap.clearRange({ from: -1, to: 1 })).toThrow(RangeError);
    expect(() => bitmap.setRange({ from: 3, to: 2 })).toThrow(RangeError);
    expect(() => bitmap.merge(new DirtyBitmap(11))).toThrow(RangeError);
  });
});

describe("an activity log", () => {
  /** Writes one transaction and says what it is. */
  const commit = (log: ActivityLog) => {
    const transaction = log.nextTransaction();
    if (transaction) log.committed();
    return transaction;
  };

  test("a write begins in an active extent, and waits for its transaction in any other", () => {
    const log = new ActivityLog(2, 7);
    expect(log.begin(3)).toBe(false);
    expect(log.begin(1)).toBe(false);
    expect(log.nextTransaction()).toEqual({ sequence: 8, extents: [1, 3], dropped: [] });
    expect(log.begin(3)).toBe(false);
    expect(log.nextTransaction()).toBeUndefined();
    log.committed();
    expect(log.begin(3)).toBe(true);
    expect(log.begin(1)).toBe(true);
  });

  test("the least recently used one that is idle makes room; one in use never does", () => {
    const log = new ActivityLog(2, 0);
    log.begin(1);
    log.begin(2);
    commit(log);
    log.begin(1);
    log.begin(2);
    log.end(1);
    log.begin(3);
    expect(commit(log)).toEqual({ sequence: 2, extents: [2, 3], dropped: [1] });
    log.begin(3);
    log.begin(4);
    expect(commit(log)).toBeUndefined();
    log.end(2);
    expect(commit(log)).toEqual({ sequence: 3, extents: [3, 4], dropped: [2] });
    expect(log.begin(2)).toBe(false);
  });

  test("whatever is asked for in which order: no write is under way outside the log on the disk", () => {
    const anyStep = fc.tuple(fc.constantFrom("begin", "end", "write", "commit"), fc.nat(6));
    fc.assert(
      fc.property(
        fc.array(anyStep, { maxLength: 80 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, capacity) => {
          const log = new ActivityLog(capacity, 0);
          const underWay = new Map<number, number>();
          let onDisk: readonly number[] = [];
          let writing: readonly number[] | undefined;
          for (const [what, extent] of steps) {
            if (what === "begin" && log.begin(extent))
              underWay.set(extent, (underWay.get(extent) ?? 0) + 1);
            if (what === "end" && underWay.has(extent)) {
              log.end(extent);
              const left = (underWay.get(extent) ?? 0) - 1;
              left === 0 ? underWay.delete(extent) : underWay.set(extent, left);
            }
            if (what === "write") writing = log.nextTransaction()?.extents ?? writing;
            if (what === "commit" && writing) {
              log.committed();
              onDisk = writing;
              writing = undefined;
            }
            for (const each of underWay.keys()) {
              expect(onDisk).toContain(each);
              if (writing) expect(writing).toContain(each);
            }
            expect(onDisk.length).toBeLessThanOrEqual(capacity);
          }
        },
      ),
    );
  });

  test("an extent that is asked for again while its transaction is written keeps the writes that begin behind it", () => {
    const log = new ActivityLog(1, 0);
    log.begin(5);
    log.nextTransaction();
    expect(log.begin(5)).toBe(false);
    log.committed();
    expect(log.begin(5)).toBe(true);
    log.begin(6);
    expect(log.nextTransaction()).toBeUndefined();
    log.end(5);
    expect(log.nextTransaction()).toMatchObject({ extents: [6], dropped: [5] });
  });

  test("a write touches the extents that its bytes are in", () => {
    expect(extentsOf(0, extentBytes)).toEqual([0, 0]);
    expect(extentsOf(extentBytes - 1, 2)).toEqual([0, 1]);
    expect(extentsOf(extentBytes, 1)).toEqual([1, 1]);
  });

  test("what ends without having begun is a mistake of the caller, and so is no room", () => {
    const log = new ActivityLog(1, 0);
    expect(() => log.end(1)).toThrow("no write");
    expect(() => log.committed()).toThrow("no transaction");
    log.begin(1);
    commit(log);
    expect(() => log.end(1)).toThrow("no write");
    expect(() => new ActivityLog(0, 0)).toThrow(RangeError);
    expect(() => new ActivityLog(activeExtentsMax + 1, 0)).toThrow(RangeError);
  });
});
