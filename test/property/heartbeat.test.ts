import { createHmac } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Beat, messageBytesMax, modes } from "../../firmware-ts/schema/beat.ts";
import { setOf } from "../../firmware-ts/schema/server-set.ts";
import {
  beatBytesMax,
  beatBytesMin,
  decodeBeat,
  encodeBeat,
} from "../../firmware-ts/wire/heartbeat.ts";

const pair = { pairId: 4711, key: new Uint8Array(32).fill(3) };
const uint16 = fc.integer({ min: 0, max: 0xffff });
const uint32 = fc.integer({ min: 0, max: 0xffffffff });
const uint48 = fc.maxSafeNat().map((value) => value % 2 ** 48);
const positive = fc.integer({ min: 1, max: 0xffffffff });
const serverSet = fc
  .array(fc.boolean(), { maxLength: 64 })
  .map((members) => setOf(members.length, (number) => members[number] === true));
const beatArbitrary: fc.Arbitrary<Beat> = fc.record({
  sender: fc.constantFrom("a" as const, "b" as const),
  session: positive,
  sequence: uint48,
  ack: fc.record({ session: uint32, sequence: uint48 }),
  granting: fc.boolean(),
  mode: fc.constantFrom(...modes),
  epoch: uint32,
  configuration: uint32,
  progressAgeMs: uint16,
  goodbye: fc.boolean(),
  dyingGasp: fc.boolean(),
  dataLinkDown: fc.boolean(),
  owned: serverSet,
  serving: serverSet,
  messageAck: uint32,
  message: fc.option(
    fc.record({ id: positive, body: fc.uint8Array({ maxLength: messageBytesMax, size: "max" }) }),
    { nil: undefined },
  ),
});

describe("beat codec", () => {
  test("what was said is what is heard", () => {
    fc.assert(
      fc.property(beatArbitrary, (beat) => {
        const frame = encodeBeat(beat, pair);
        expect(frame.length).toBeLessThanOrEqual(beatBytesMax);
        expect(decodeBeat(frame, pair, beat.sender)).toEqual({ ok: true, beat });
      }),
    );
  });

  test("every flipped bit is refused", () => {
    fc.assert(
      fc.property(beatArbitrary, fc.nat(), (beat, where) => {
        const frame = encodeBeat(beat, pair);
        const bit = where % (frame.length * 8);
        frame[bit >> 3] = (frame[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(decodeBeat(frame, pair, beat.sender).ok).toBe(false);
      }),
      { numRuns: 2000 },
    );
  });

  test("every truncation and every extension is refused", () => {
    fc.assert(
      fc.property(
        beatArbitrary,
        fc.nat(),
        fc.uint8Array({ minLength: 1, maxLength: 600, size: "max" }),
        (beat, cut, tail) => {
          const frame = encodeBeat(beat, pair);
          expect(decodeBeat(frame.subarray(0, cut % frame.length), pair, beat.sender).ok).toBe(
            false,
          );
          expect(decodeBeat(Uint8Array.of(...frame, ...tail), pair, beat.sender).ok).toBe(false);
        },
      ),
    );
  });

  test("our own beat that comes back is a reflection", () => {
    fc.assert(
      fc.property(beatArbitrary, (beat) => {
        const partner = beat.sender === "a" ? "b" : "a";
        const frame = encodeBeat(beat, pair);
        expect(decodeBeat(frame, pair, partner)).toEqual({ ok: false, reason: "sender" });
      }),
    );
  });

  test("any bytes are refused without an exception", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600, size: "max" }), (noise) => {
        expect(decodeBeat(noise, pair, "b").ok).toBe(false);
      }),
    );
  });

  test("any authentic body is either a beat that encodes to the same bytes or a refused field", () => {
    const head = Uint8Array.of(0x44, 0xd7, 3);
    const bodies = fc.uint8Array({
      minLength: beatBytesMin - 16 - 3,
      maxLength: beatBytesMin - 16 + 9,
    });
    fc.assert(
      fc.property(bodies, fc.integer({ min: 0, max: 63 }), (body, flags) => {
        body[0] = flags | 32;
        body[1] = pair.pairId >> 8;
        body[2] = pair.pairId & 255;
        body[3] = (body[3] ?? 0) % 9;
        body[38] = (body[38] ?? 0) % 4;
        const signed = Uint8Array.of(...head, ...body);
        const mac = createHmac("sha256", pair.key).update(signed).digest().subarray(0, 16);
        const frame = Uint8Array.of(...signed, ...mac);
        const decoding = decodeBeat(frame, pair, "b");
        if (decoding.ok) expect(encodeBeat(decoding.beat, pair)).toEqual(frame);
        else expect(decoding.reason).toBe("field");
      }),
      { numRuns: 2000 },
    );
  });
});
