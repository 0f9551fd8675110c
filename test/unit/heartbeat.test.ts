import { createHmac } from "node:crypto";
import { describe, expect, test } from "vitest";
import { type Beat, messageBytesMax } from "../../firmware-ts/schema/beat.ts";
import { encodeCobs } from "../../firmware-ts/wire/cobs.ts";
import {
  beatBytesMax,
  beatBytesMin,
  decodeBeat,
  encodeBeat,
} from "../../firmware-ts/wire/heartbeat.ts";

const pair = { pairId: 0x1234, key: Uint8Array.from({ length: 32 }, (_, i) => i) };
const plain: Beat = {
  sender: "b",
  session: 0xa1b2c3d4,
  sequence: 7,
  ack: { session: 0x01020304, sequence: 6 },
  granting: true,
  mode: "paired",
  epoch: 9,
  configuration: 0xcafebabe,
  progressAgeMs: 12,
  goodbye: false,
  dyingGasp: false,
  dataLinkDown: true,
  owned: "11",
  serving: "01",
  messageAck: 5,
};

describe("beat layout", () => {
  test("these bytes are version 3 for ever: a partner of another release reads them", () => {
    // The code was computed with: openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f
    expect(Buffer.from(encodeBeat(plain, pair)).toString("hex")).toBe(
      "44d70329123402a1b2c3d400000000000701020304000000000006" +
        "00000009cafebabe000c00000005010302" +
        "ef0d4723f5ca985d7181bfeb1f42b41e",
    );
  });

  test("a message stands between the fields and the code: its id, its length, its bytes", () => {
    const message = { id: 0x0a0b0c0d, body: Uint8Array.of(0xe1, 0xe2, 0xe3) };
    // The code was computed with openssl, as above.
    expect(Buffer.from(encodeBeat({ ...plain, message }, pair)).toString("hex")).toBe(
      "44d70339123402a1b2c3d400000000000701020304000000000006" +
        "00000009cafebabe000c00000005010302" +
        "0a0b0c0d0003e1e2e3" +
        "e73af5c30f7ec2d23a8818e23003c7ad",
    );
  });

  test("a beat without a message takes less than 5.6 ms of a line of 115,200 baud", () => {
    const bytes = encodeCobs(encodeBeat(plain, pair)).length;
    expect((bytes * 10 * 1000) / 115_200).toBeLessThan(5.6);
  });

  test("the longest beat fits one sector of the disk link", () => {
    const message = { id: 1, body: new Uint8Array(messageBytesMax) };
    const beat: Beat = { ...plain, owned: "1".repeat(64), serving: "1".repeat(64), message };
    const longest = encodeBeat(beat, pair);
    expect(longest).toHaveLength(beatBytesMax);
    expect(decodeBeat(longest, pair, "b")).toEqual({ ok: true, beat });
    expect(beatBytesMax).toBeLessThanOrEqual(512);
  });

  test("sequences go on after 497 days of beats every 10 ms, where 32 bits end", () => {
    const ack = { session: 3, sequence: 2 ** 48 - 1 };
    for (const sequence of [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 48 - 1]) {
      const decoding = decodeBeat(encodeBeat({ ...plain, sequence, ack }, pair), pair, "b");
      expect(decoding.ok && decoding.beat).toMatchObject({ sequence, ack });
    }
  });

  test("an age that no longer fits stays at the top", () => {
    const decoding = decodeBeat(encodeBeat({ ...plain, progressAgeMs: 1e9 }, pair), pair, "b");
    expect(decoding.ok && decoding.beat.progressAgeMs).toBe(65_535);
  });

  test("an age is never rounded down: it bounds what the hearer may believe", () => {
    const decoding = decodeBeat(encodeBeat({ ...plain, progressAgeMs: 0.01 }, pair), pair, "b");
    expect(decoding.ok && decoding.beat.progressAgeMs).toBe(1);
  });
});

describe("beat refusals", () => {
  const frame = encodeBeat(plain, pair);
  const withByte = (at: number, value: number) => {
    const changed = frame.slice();
    changed[at] = value;
    return changed;
  };
  test.each([
    ["nothing", new Uint8Array(0), "short"],
    ["one byte less than the least", frame.subarray(0, beatBytesMin - 1), "short"],
    ["one byte more than the most", new Uint8Array(beatBytesMax + 1), "long"],
    ["another protocol", withByte(0, 0), "magic"],
    ["another release", withByte(2, 1), "version"],
    ["another pair", encodeBeat(plain, { ...pair, pairId: 1 }), "pair"],
    ["another key", encodeBeat(plain, { ...pair, key: new Uint8Array(32) }), "mac"],
    ["damage", withByte(12, 99), "mac"],
    ["our own voice", encodeBeat({ ...plain, sender: "a" }, pair), "sender"],
  ])("%s", (_, bytes, reason) => {
    expect(decodeBeat(bytes, pair, "b")).toEqual({ ok: false, reason });
  });
});

describe("an authentic beat that no release may send is refused as well", () => {
  const body = Uint8Array.of(1, 2, 3);
  const bare = encodeBeat(plain, pair).subarray(0, -16);
  const said = encodeBeat({ ...plain, message: { id: 1, body } }, pair).subarray(0, -16);
  /** Changed here and there, and signed again: the sender knows the key. */
  const signed = (frame: Uint8Array, ...changes: readonly (readonly [number, number])[]) => {
    const changed = frame.slice();
    for (const [at, value] of changes) changed[at] = value;
    const mac = createHmac("sha256", pair.key).update(changed).digest().subarray(0, 16);
    return Uint8Array.of(...changed, ...mac);
  };
  const flagsOf = (frame: Uint8Array) => frame[3] ?? 0;
  const noSession = [7, 8, 9, 10].map((at) => [at, 0] as const);
  const messageFlag = 16;

  test("unchanged it is heard", () => {
    expect(decodeBeat(signed(bare), pair, "b").ok).toBe(true);
    expect(decodeBeat(signed(said), pair, "b").ok).toBe(true);
  });

  const zeros = new Array<number>(7).fill(0);
  const withSets = (owned: readonly number[], serving: readonly number[]) =>
    Uint8Array.from([...bare.subarray(0, 41), owned.length, ...owned, ...serving]);

  test("sets as long as the longer of the two wants are taken", () => {
    const decoded = decodeBeat(signed(withSets([3, 0], [0, 1])), pair, "b");
    expect(decoded.ok && decoded.beat).toMatchObject({ owned: "11", serving: "000000001" });
  });

  test.each([
    ["a mode that there is not", signed(bare, [6, 200])],
    ["session 0", signed(bare, ...noSession)],
    ["a flag of another release", signed(bare, [3, flagsOf(bare) | 64])],
    ["a flag of another release, and the highest", signed(bare, [3, flagsOf(bare) | 128])],
    [
      "sets of more servers than there may be",
      signed(withSets([3, ...zeros, 1], [...zeros, 0, 0])),
    ],
    ["sets that are not there", signed(bare, [41, 2])],
    ["sets with room for servers that neither names", signed(withSets([3, 0], [2, 0]))],
    ["a message that is not announced", signed(said, [3, flagsOf(said) & ~messageFlag])],
    ["a message that is not there", signed(bare, [3, flagsOf(bare) | messageFlag])],
    ["a message without its whole head", signed(said.subarray(0, 49))],
    ["message 0", signed(said, [47, 0])],
    ["a message that is longer than it says", signed(said, [49, 2])],
    ["a message that is shorter than it says", signed(said, [49, 4])],
  ])("%s", (_, bytes) => {
    expect(decodeBeat(bytes, pair, "b")).toEqual({ ok: false, reason: "field" });
  });

  test("a flag of another release alone", () => {
    expect(decodeBeat(signed(bare, [3, 64]), pair, "a")).toEqual({ ok: false, reason: "field" });
  });

  test("all flags that are known may be set", () => {
    const every = { granting: true, goodbye: true, dyingGasp: true, dataLinkDown: true };
    const beat: Beat = { ...plain, ...every, message: { id: 1, body } };
    expect(decodeBeat(encodeBeat(beat, pair), pair, "b")).toEqual({ ok: true, beat });
  });
});

describe("a beat that cannot be said is a broken invariant", () => {
  test.each([
    ["a session of 0", { session: 0 }],
    ["a sequence past 48 bits", { sequence: 2 ** 48 }],
    ["a fractional epoch", { epoch: 1.5 }],
    ["a 65th virtual server", { owned: `${"0".repeat(64)}1` }],
    ["an epoch past 32 bits", { epoch: 2 ** 32 }],
    ["a negative epoch", { epoch: -1 }],
    ["a negative age", { progressAgeMs: -1 }],
    ["no age", { progressAgeMs: Number.NaN }],
    ["message id 0", { message: { id: 0, body: new Uint8Array(1) } }],
    ["a message too long", { message: { id: 1, body: new Uint8Array(messageBytesMax + 1) } }],
  ])("%s", (_, change) => {
    expect(() => encodeBeat({ ...plain, ...change }, pair)).toThrow(RangeError);
  });
});
