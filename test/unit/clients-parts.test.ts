import { describe, expect, it } from "vitest";
import { Latencies } from "../../bench/clients/latencies.ts";
import { Merge } from "../../bench/clients/merge.ts";
import { Meter } from "../../bench/clients/meter.ts";
import { decodeRecord, encodeRecord } from "../../bench/clients/record.ts";

describe("record", () => {
  it("reads back what was written", () => {
    expect(decodeRecord("k", encodeRecord("k", 7, 512), 512)).toEqual({ ok: true, seq: 7 });
  });

  it("a register before its first write is sequence number 0", () => {
    expect(decodeRecord("k", Buffer.alloc(512), 512)).toEqual({ ok: true, seq: 0 });
    expect(decodeRecord("k", Buffer.alloc(0), 512)).toEqual({ ok: true, seq: 0 });
  });

  it("notices any single changed byte", () => {
    const good = encodeRecord("k", 7, 64);
    for (let at = 0; at < good.length; at += 1) {
      const bad = Buffer.from(good);
      bad.writeUInt8((bad.readUInt8(at) + 1) % 256, at);
      expect(decodeRecord("k", bad, 64).ok, `byte ${at}`).toBe(false);
    }
  });

  it("notices a mixture of two writes, a short record, and another register's record", () => {
    const mixture = Buffer.concat([
      encodeRecord("k", 7, 512).subarray(0, 256),
      encodeRecord("k", 8, 512).subarray(256),
    ]);
    expect(decodeRecord("k", mixture, 512)).toEqual({ ok: false, reason: "crc" });
    const short = encodeRecord("k", 7, 512).subarray(0, 511);
    expect(decodeRecord("k", short, 512).ok).toBe(false);
    expect(decodeRecord("other", encodeRecord("k", 7, 512), 512).ok).toBe(false);
  });
});

describe("meter", () => {
  it("the longest gap is between successive completions, the one under way included", () => {
    const meter = new Meter(0);
    meter.complete(0, 2, 100);
    meter.complete(2, 40, 100);
    meter.complete(40, 42, 100);
    expect(meter.read(50, false)).toMatchObject({ gapMs: 8, longestGapMs: 38, slowestMs: 38 });
    expect(meter.read(142, false)).toMatchObject({ gapMs: 100, longestGapMs: 100 });
  });

  it("a mark forgets earlier gaps; a pause on purpose is none", () => {
    const meter = new Meter(0);
    meter.complete(0, 500, 1);
    meter.mark(510);
    meter.complete(510, 520, 1);
    meter.resume(900);
    meter.complete(900, 903, 1);
    expect(meter.read(904, false)).toMatchObject({ longestGapMs: 10, operations: 2 });
  });

  it("throughput is counted anew for each window", () => {
    const meter = new Meter(0);
    for (let i = 0; i < 100; i += 1) meter.complete(i, i + 1, 10_000);
    expect(meter.read(1000, true)).toMatchObject({ operationsPerS: 100, megabytesPerS: 1 });
    expect(meter.read(2000, true)).toMatchObject({ operationsPerS: 0, megabytesPerS: 0 });
  });
});

describe("latencies", () => {
  const of = (values: readonly number[]) => {
    const latencies = new Latencies();
    for (const ms of values) latencies.add(ms);
    return latencies;
  };

  it("the median and the 99th part in a hundred are within a class of 1.1 % of the true ones", () => {
    const values = Array.from({ length: 1000 }, (_, i) => 0.05 * 1.008 ** i);
    const latencies = of(values.toReversed());
    for (const part of [0.001, 0.5, 0.99, 1]) {
      const real = values[Math.ceil(values.length * part) - 1] ?? 0;
      expect(latencies.quantileMs(part) / real).toBeGreaterThan(1 / 1.011);
      expect(latencies.quantileMs(part) / real).toBeLessThan(1.011);
    }
  });

  it("none is 0; what is too short or too long for a class is counted in the nearest", () => {
    expect(of([]).quantileMs(0.5)).toBe(0);
    expect(of([0, 1e9]).quantileMs(0.5)).toBeCloseTo(0.01, 3);
    expect(of([0, 1e9]).quantileMs(1)).toBeGreaterThan(100_000);
    const cleared = of([5, 5]);
    cleared.clear();
    cleared.add(1);
    expect(cleared.quantileMs(1)).toBeCloseTo(1, 1);
  });

  it("a meter counts what was begun since its mark", () => {
    const meter = new Meter(0);
    meter.mark(10);
    meter.complete(5, 25, 1);
    for (let i = 0; i < 10; i += 1) meter.complete(30, 34, 1);
    const { medianMs, p99Ms } = meter.read(40, false);
    expect(medianMs).toBeCloseTo(4, 1);
    expect(p99Ms).toBeCloseTo(4, 1);
  });
});

describe("merge", () => {
  const at = (completedAtMs: number) => ({ completedAtMs });

  it("releases nothing before every source has passed it, and then in order", () => {
    const merge = new Merge<{ completedAtMs: number }>(["a", "b"]);
    expect(merge.push("a", [at(1), at(5)], 6)).toEqual([]);
    expect(merge.push("b", [at(2)], 4)).toEqual([at(1), at(2)]);
    expect(merge.push("b", [], 10)).toEqual([at(5)]);
  });

  it("holds back what completed exactly at a watermark: more of that instant may come", () => {
    const merge = new Merge<{ completedAtMs: number }>(["a"]);
    expect(merge.push("a", [at(3)], 3)).toEqual([]);
    expect(merge.push("a", [at(3)], 4)).toEqual([at(3), at(3)]);
  });
});
