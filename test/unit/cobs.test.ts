import { describe, expect, test } from "vitest";
import { CobsDecoder, cobsBytesMax, encodeCobs } from "../../firmware-ts/wire/cobs.ts";

const run = (from: number, to: number) =>
  Uint8Array.from({ length: to - from + 1 }, (_, i) => (from + i) & 255);

describe("COBS by the published examples", () => {
  test.each([
    ["an empty frame", [], [1, 0]],
    ["a zero", [0], [1, 1, 0]],
    ["two zeros", [0, 0], [1, 1, 1, 0]],
    ["zeros around a byte", [0, 0x11, 0], [1, 2, 0x11, 1, 0]],
    ["a zero in the middle", [0x11, 0x22, 0, 0x33], [3, 0x11, 0x22, 2, 0x33, 0]],
    ["no zero", [0x11, 0x22, 0x33, 0x44], [5, 0x11, 0x22, 0x33, 0x44, 0]],
    ["254 bytes without a zero", run(1, 254), [255, ...run(1, 254), 0]],
    ["a zero before 254 bytes", [0, ...run(1, 254)], [1, 255, ...run(1, 254), 0]],
    ["255 bytes without a zero", run(1, 255), [255, ...run(1, 254), 2, 255, 0]],
    ["254 bytes and a zero", [...run(2, 255), 0], [255, ...run(2, 255), 1, 1, 0]],
  ])("%s", (_, frame, line) => {
    expect([...encodeCobs(Uint8Array.from(frame))]).toEqual([...line]);
    expect(new CobsDecoder(300).push(Uint8Array.from(line))).toEqual([Uint8Array.from(frame)]);
  });
});

describe("COBS decoder limits", () => {
  test("a frame at the limit passes, one byte more is counted once and skipped", () => {
    const decoder = new CobsDecoder(10);
    expect(decoder.push(encodeCobs(new Uint8Array(10).fill(5)))).toHaveLength(1);
    expect(decoder.push(encodeCobs(new Uint8Array(11).fill(5)))).toEqual([]);
    expect(decoder.push(encodeCobs(new Uint8Array(11)))).toEqual([]);
    expect(decoder.counters()).toEqual({ truncated: 0, oversize: 2 });
    expect(decoder.push(encodeCobs(Uint8Array.of(1, 0, 2)))).toEqual([Uint8Array.of(1, 0, 2)]);
  });

  test("an endless run without a delimiter costs one count and no memory", () => {
    const decoder = new CobsDecoder(10);
    for (let i = 0; i < 100; i++) decoder.push(new Uint8Array(10_000).fill(9));
    expect(decoder.counters()).toEqual({ truncated: 0, oversize: 1 });
  });

  test("a frame cut short is counted", () => {
    const decoder = new CobsDecoder(10);
    expect(decoder.push(Uint8Array.of(5, 1, 2, 0))).toEqual([]);
    expect(decoder.counters()).toEqual({ truncated: 1, oversize: 0 });
  });

  test("idle delimiters are no frames", () => {
    const decoder = new CobsDecoder(10);
    expect(decoder.push(new Uint8Array(100))).toEqual([]);
    expect(decoder.counters()).toEqual({ truncated: 0, oversize: 0 });
  });

  test("a reset forgets the half frame of the port that vanished", () => {
    const decoder = new CobsDecoder(10);
    decoder.push(Uint8Array.of(5, 1));
    decoder.reset();
    expect(decoder.push(encodeCobs(Uint8Array.of(7)))).toEqual([Uint8Array.of(7)]);
    expect(decoder.counters()).toEqual({ truncated: 0, oversize: 0 });
  });

  test.each([
    [0, 2],
    [253, 255],
    [254, 257],
    [508, 512],
  ])("a frame of %i bytes takes %i at most: a code for each 254 bytes", (bytes, most) => {
    expect(cobsBytesMax(bytes)).toBe(most);
  });

  test.each([0, -1, 1.5])("a limit of %d makes no sense: a broken invariant", (limit) => {
    expect(() => new CobsDecoder(limit)).toThrow(RangeError);
    expect(new CobsDecoder(1).push(encodeCobs(Uint8Array.of(9)))).toEqual([Uint8Array.of(9)]);
  });
});
