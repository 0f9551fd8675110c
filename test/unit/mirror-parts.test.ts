/** The parts of a mirror: the order of what overlaps, what is unflushed, and the pace of a resync. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { defaultPace, Pace } from "../../hal/block/mirror/pace.ts";
import { RangeOrder, type RangeTicket } from "../../hal/block/mirror/range-order.ts";
import { rangesOf, Unflushed } from "../../hal/block/mirror/unflushed.ts";

describe("the order of operations that overlap", () => {
  test("is that of their asking, whoever leaves when; others do not wait", () => {
    const operation = fc.record({
      offset: fc.nat(20),
      length: fc.integer({ min: 1, max: 8 }),
      writes: fc.boolean(),
    });
    fc.assert(
      fc.property(
        fc.array(fc.oneof(operation, fc.nat(10)), { maxLength: 60, size: "max" }),
        (steps) => {
          const order = new RangeOrder();
          const entered: { offset: number; length: number; writes: boolean }[] = [];
          const begun = new Set<number>();
          const left = new Set<number>();
          const tickets: RangeTicket[] = [];
          const blocks = (earlier: number, later: number) => {
            const [one, other] = [entered[earlier], entered[later]];
            if (one === undefined || other === undefined || !(one.writes || other.writes))
              return false;
            return (
              one.offset < other.offset + other.length && other.offset < one.offset + one.length
            );
          };
          const check = () => {
            for (const index of entered.keys()) {
              const before = [...entered.keys()].filter((one) => one < index && blocks(one, index));
              expect(begun.has(index)).toBe(before.every((one) => left.has(one)));
            }
          };
          for (const step of steps) {
            if (typeof step === "number") {
              const inside = [...begun].filter((index) => !left.has(index));
              const index = inside[step % Math.max(1, inside.length)];
              if (index === undefined) continue;
              left.add(index);
              order.leave(tickets[index] as RangeTicket);
            } else {
              const index = entered.push(step) - 1;
              tickets.push(
                order.enter(step.offset, step.length, step.writes, () => begun.add(index)),
              );
            }
            check();
          }
        },
      ),
    );
  });

  test("leaving twice, or before one's turn, is a broken invariant", () => {
    const order = new RangeOrder();
    const first = order.enter(0, 8, true, () => {});
    const second = order.enter(4, 8, false, () => {});
    expect(() => order.leave(second)).toThrow("without having begun");
    order.leave(first);
    expect(() => order.leave(first)).toThrow("without having begun");
    order.leave(second);
  });
});

describe("what is unflushed", () => {
  test("a flush covers what was answered before it began, and nothing that came later, in whatever order flushes end", () => {
    const pieces = new Unflushed();
    pieces.add(1, 3);
    const first = pieces.flushing();
    pieces.add(3, 4);
    const second = pieces.flushing();
    pieces.add(9, 9);
    expect(pieces.all()).toEqual([1, 2, 3, 4, 9]);
    expect(pieces.flushed(first)).toEqual([1, 2]);
    expect(pieces.all()).toEqual([3, 4, 9]);
    expect(pieces.flushed(second)).toEqual([3, 4]);
    expect(pieces.flushed(first)).toEqual([]);
    expect(pieces.all()).toEqual([9]);
    expect(pieces.size).toBe(1);
  });

  test("the later of two flushes covers what the earlier one would", () => {
    const pieces = new Unflushed();
    pieces.add(1, 1);
    const first = pieces.flushing();
    pieces.add(2, 2);
    expect(pieces.flushed(pieces.flushing())).toEqual([1, 2]);
    pieces.add(3, 3);
    expect(pieces.flushed(first)).toEqual([]);
    expect(pieces.all()).toEqual([3]);
  });

  test("is told in ranges, neighbours together, within the disk", () => {
    expect(rangesOf([0, 1, 3], 100, 350)).toEqual([
      { offset: 0, length: 200 },
      { offset: 300, length: 50 },
    ]);
    expect(rangesOf([], 100, 350)).toEqual([]);
  });
});

describe("the pace of a resync", () => {
  const mebibyte = 1024 * 1024;
  const options = { latencyMs: 5, bytesPerSecondMin: mebibyte, bytesPerSecondMax: 64 * mebibyte };

  /** One window of clients' writes, of which every tenth but one more is late; then what a copy has to wait. */
  function window(pace: Pace, atMs: number, late: number): void {
    for (let count = 0; count < 10; count += 1) pace.note(count < late ? 9 : 1);
    pace.copied(atMs, 0);
  }

  test("is the highest while nobody is late, and owes no more than its rate", () => {
    const pace = new Pace(0, options);
    expect(pace.bytesPerSecond).toBe(64 * mebibyte);
    // A tenth of a second's worth is there from the start, as after each pause.
    expect(pace.copied(0, 8 * mebibyte)).toBeCloseTo(125, 0);
    expect(pace.copied(125, 8 * mebibyte)).toBeCloseTo(125, 0);
    expect(pace.copied(5000, mebibyte)).toBe(0);
  });

  test("halves while writes are late, down to the least, and comes back", () => {
    const pace = new Pace(0, options);
    for (let at = 100; at <= 1000; at += 100) window(pace, at, 2);
    expect(pace.bytesPerSecond).toBe(mebibyte);
    window(pace, 1100, 1);
    expect(pace.bytesPerSecond).toBe(mebibyte);
    window(pace, 1200, 0);
    expect(pace.bytesPerSecond).toBe(1.5 * mebibyte);
    for (let at = 1300; at <= 3000; at += 100) window(pace, at, 0);
    expect(pace.bytesPerSecond).toBe(64 * mebibyte);
  });

  test("is judged once in a window", () => {
    const pace = new Pace(0, options);
    for (let at = 0; at < 100; at += 1) window(pace, at, 5);
    expect(pace.bytesPerSecond).toBe(64 * mebibyte);
    expect(new Pace(0).bytesPerSecond).toBe(defaultPace.bytesPerSecondMax);
  });
});
