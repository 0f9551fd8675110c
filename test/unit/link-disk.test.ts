/** The disk link over disks whose every answer the test gives, in virtual time. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type DiskSlots, openDiskLink } from "../../hal/linux/disk-link.ts";
import type { Link } from "../../hal/port/link.ts";

type Written = "good" | "conflict" | "failed";

/** A disk that answers at once, unless it hangs. */
class Disk implements DiskSlots {
  readonly sectors = new Map<number, Uint8Array>();
  readonly waiting: (() => void)[] = [];
  hangs = false;
  readable = true;
  verdict: Written = "good";
  commands = 0;

  read(lba: number): Promise<Uint8Array | undefined> {
    return this.#answer(() => (this.readable ? this.sectors.get(lba) : undefined));
  }

  write(lba: number, sector: Uint8Array): Promise<Written> {
    return this.#answer(() => {
      if (this.verdict === "good") this.sectors.set(lba, sector);
      return this.verdict;
    });
  }

  release(): void {
    this.hangs = false;
    for (const go of this.waiting.splice(0)) go();
  }

  #answer<T>(result: () => T): Promise<T> {
    this.commands++;
    if (!this.hangs) return Promise.resolve(result());
    return new Promise((resolve) => this.waiting.push(() => resolve(result())));
  }
}

const periodMs = 20;
const open: Link[] = [];

function setUp(me: "a" | "b", disks: readonly Disk[]) {
  const frames: Uint8Array[] = [];
  const remnants: Uint8Array[] = [];
  const carriers: boolean[] = [];
  const written: (readonly [number, number, number])[] = [];
  const link = openDiskLink({
    me,
    slots: disks,
    periodMs,
    handlers: {
      frame: (frame) => frames.push(frame),
      remnant: (frame) => remnants.push(frame),
      carrier: (up) => carriers.push(up),
      written: (_sentAtMs, accepted, refused, total) => written.push([accepted, refused, total]),
    },
  });
  open.push(link);
  return { link, frames, remnants, carriers, written };
}

const three = () =>
  [0, 1, 2].map(() => {
    const disk = new Disk();
    for (const lba of [8, 16]) disk.sectors.set(lba, new Uint8Array(512));
    return disk;
  });
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

describe("disk link", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });

  afterEach(async () => {
    for (const link of open.splice(0)) await link.close();
    vi.useRealTimers();
  });

  test("a beat reaches the partner once, though it lies on three disks", async () => {
    const disks = three();
    const [a, b] = [setUp("a", disks), setUp("b", disks)];
    await pass(periodMs);
    a.link.send(Uint8Array.of(1, 2, 3));
    b.link.send(new Uint8Array(a.link.maxFrameBytes).fill(7));
    await pass(periodMs);
    expect(b.frames).toEqual([Uint8Array.of(1, 2, 3)]);
    expect(a.frames).toEqual([new Uint8Array(a.link.maxFrameBytes).fill(7)]);
    await pass(10 * periodMs);
    expect(b.frames).toHaveLength(1);
    expect(a.link.counters()).toEqual({ sent: 1, received: 1, dropped: 0, malformed: 0 });
  });

  test("what lay there before we looked is no beat, but a remnant", async () => {
    const disks = three();
    setUp("a", disks).link.send(Uint8Array.of(9));
    await pass(periodMs);
    const late = setUp("b", disks);
    await pass(5 * periodMs);
    expect(late.frames).toEqual([]);
    expect(late.remnants).toEqual(disks.map(() => Uint8Array.of(9)));
    expect(late.link.counters()).toMatchObject({ received: 0, malformed: 0 });
  });

  test("what a lost disk says when it is back is as old as its absence", async () => {
    const disks = three();
    const [a, b] = [setUp("a", disks), setUp("b", disks)];
    await pass(periodMs);
    for (const disk of disks) disk.readable = false;
    await pass(6 * periodMs);
    a.link.send(Uint8Array.of(1));
    await pass(periodMs);
    for (const disk of disks) disk.readable = true;
    await pass(2 * periodMs);
    expect(b.frames).toEqual([]);
    expect(b.remnants).toEqual(disks.map(() => Uint8Array.of(1)));
    a.link.send(Uint8Array.of(2));
    await pass(periodMs);
    expect(b.frames).toEqual([Uint8Array.of(2)]);
    expect(b.carriers).toEqual([false, true, false, true]);
  });

  test("the count of a beat: accepted, refused, total", async () => {
    const disks = three();
    const a = setUp("a", disks);
    a.link.send(Uint8Array.of(1));
    await pass(0);
    const [first, second, third] = disks;
    if (!first || !second || !third) throw new Error("three disks");
    first.verdict = "conflict";
    second.verdict = "conflict";
    a.link.send(Uint8Array.of(2));
    await pass(0);
    second.verdict = "failed";
    a.link.send(Uint8Array.of(3));
    await pass(0);
    expect(a.written).toEqual([
      [2, 0, 3], // A majority is enough to say so.
      [0, 2, 3],
      [1, 1, 3],
    ]);
  });

  test("one slow disk delays nothing: the majority is reported at once", async () => {
    const disks = three();
    const a = setUp("a", disks);
    const [slow] = disks;
    if (!slow) throw new Error("a disk");
    slow.hangs = true;
    for (let i = 1; i <= 50; i++) {
      a.link.send(Uint8Array.of(i));
      await pass(0);
      expect(a.written).toHaveLength(i);
      await pass(periodMs);
    }
    expect(a.written.every(([accepted]) => accepted === 2)).toBe(true);
    // The first read was answered before it hung; then one write and one read wait, and no more.
    expect(slow.waiting).toHaveLength(2);
    slow.release();
    await pass(0);
    expect(a.written).toHaveLength(50);
    a.link.send(Uint8Array.of(51));
    await pass(0);
    expect(slow.sectors.get(8)?.[2]).toBe(51);
  });

  test("a write that is answered too late counts as neither", async () => {
    const disks = three();
    const a = setUp("a", disks);
    for (const disk of disks) disk.hangs = true;
    a.link.send(Uint8Array.of(1));
    await pass(2 * periodMs - 1);
    expect(a.written).toEqual([]);
    await pass(1);
    expect(a.written).toEqual([[0, 0, 3]]);
    a.link.send(Uint8Array.of(2));
    expect(a.written).toHaveLength(2);
    for (const disk of disks) disk.release();
    await pass(periodMs);
    expect(a.written).toEqual([
      [0, 0, 3],
      [0, 0, 3],
    ]);
    expect(a.link.counters()).toMatchObject({ sent: 1, dropped: 1 });
  });

  test("carrier is a majority of readable disks", async () => {
    const disks = three();
    const a = setUp("a", disks);
    await pass(periodMs);
    const [first, second] = disks;
    if (!first || !second) throw new Error("two disks");
    first.readable = false;
    await pass(10 * periodMs);
    expect(a.carriers).toEqual([false, true]);
    second.hangs = true;
    await pass(10 * periodMs);
    expect(a.carriers).toEqual([false, true, false]);
  });

  test.each([
    ["a length beyond the sector", Uint8Array.from([2, 0, ...new Array<number>(510).fill(1)])],
    ["a short sector", Uint8Array.of(0, 1, 5)],
  ])("%s is counted", async (_, sector) => {
    const disks = three();
    const a = setUp("a", disks);
    await pass(periodMs);
    disks[0]?.sectors.set(16, sector);
    await pass(periodMs);
    expect(a.frames).toEqual([]);
    expect(a.link.counters().malformed).toBe(1);
  });

  test("closed: no more commands, no more reports", async () => {
    const disks = three();
    const a = setUp("a", disks);
    for (const disk of disks) disk.hangs = true;
    a.link.send(Uint8Array.of(1));
    await pass(0);
    await a.link.close();
    const told = a.carriers.length;
    const commands = disks.map((disk) => disk.commands);
    for (const disk of disks) disk.release();
    await pass(20 * periodMs);
    expect(a.written).toEqual([]);
    expect(a.carriers).toHaveLength(told);
    expect(disks.map((disk) => disk.commands)).toEqual(commands);
  });

  test("a frame that no link can carry is a broken invariant", () => {
    const { link } = setUp("a", three());
    expect(() => link.send(new Uint8Array(link.maxFrameBytes + 1))).toThrow(RangeError);
  });
});
