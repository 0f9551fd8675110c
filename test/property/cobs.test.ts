import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CobsDecoder, cobsBytesMax, encodeCobs } from "../../firmware-ts/wire/cobs.ts";

const frameBytesMax = 600;
/** Zeros and runs of more than 254 other bytes are what the code is about; plain random bytes hardly make either. */
const frameArbitrary = fc
  .array(
    fc.oneof(
      fc.constant([0]),
      fc.uint8Array({ minLength: 1, maxLength: 20, size: "max" }).map((bytes) => [...bytes]),
      fc.integer({ min: 250, max: 260 }).map((length) => new Array<number>(length).fill(7)),
    ),
    { maxLength: 8 },
  )
  .map((parts) => Uint8Array.from(parts.flat()).slice(0, frameBytesMax));

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let at = 0;
  for (let i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1;
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return chunks;
}

describe("COBS", () => {
  test("a frame survives, holds no zero inside and is as long as promised at most", () => {
    fc.assert(
      fc.property(frameArbitrary, (frame) => {
        const line = encodeCobs(frame);
        expect(line.indexOf(0)).toBe(line.length - 1);
        expect(line.length).toBeLessThanOrEqual(cobsBytesMax(frame.length));
        expect(new CobsDecoder(frameBytesMax).push(line)).toEqual([frame]);
      }),
      { numRuns: 2000 },
    );
  });

  test("frames survive however the stream is split and merged", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(fc.array(frameArbitrary, { maxLength: 6 }), sizes, (frames, chunkSizes) => {
        const decoder = new CobsDecoder(frameBytesMax);
        const line = Buffer.concat(frames.map((frame) => encodeCobs(frame)));
        const received = cut(line, chunkSizes).flatMap((chunk) => decoder.push(chunk));
        expect(received).toEqual(frames);
        expect(decoder.counters()).toEqual({ truncated: 0, oversize: 0 });
      }),
    );
  });

  test("after any garbage the frame behind the next delimiter is whole", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 3000, size: "max" }),
        frameArbitrary,
        (garbage, frame) => {
          const decoder = new CobsDecoder(frameBytesMax);
          decoder.push(garbage);
          decoder.push(Uint8Array.of(0));
          expect(decoder.push(encodeCobs(frame))).toEqual([frame]);
        },
      ),
    );
  });

  test("every stream is frames, counted damage, or empty runs: nothing disappears", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000, size: "max" }), (noise) => {
        const decoder = new CobsDecoder(20);
        const frames = decoder.push(Uint8Array.of(...noise, 0)).length;
        const { truncated, oversize } = decoder.counters();
        const runs = Buffer.from(noise)
          .toString("latin1")
          .split("\0")
          .filter((run) => run !== "").length;
        expect(frames + truncated + oversize).toBe(runs);
      }),
    );
  });

  test("a decoded frame encodes to the bytes it came from", () => {
    fc.assert(
      fc.property(fc.uint8Array({ min: 1, minLength: 1, maxLength: 600, size: "max" }), (run) => {
        const decoder = new CobsDecoder(frameBytesMax);
        const [frame] = decoder.push(Uint8Array.of(...run, 0));
        // A block of 254 bytes may be followed by an empty last block: the one form with two spellings.
        if (frame && run.at(-1) !== 1) expect(encodeCobs(frame)).toEqual(Uint8Array.of(...run, 0));
      }),
    );
  });
});
