/** A slot of the common volume, byte by byte, and what each of its spoilt forms is taken for. */
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  bodyBytesMax,
  coordinatorBytesMin,
  decodePair,
  decodeSlot,
  decodeStamps,
  emptySlot,
  encodeRecord,
  frontBytes,
  frontOffsetBytes,
  hasRest,
  restOffsetBytes,
  type Slot,
  type StampPair,
  slotBytes,
  slotToWrite,
  stampOf,
  withoutState,
} from "../../firmware-ts/wire/common-volume.ts";
import { recordOf } from "../support/volume-records.ts";

const pair = 17;
const place = { number: 3, pair };

const record = recordOf({
  generation: 7,
  owner: "b",
  epoch: 0x0102,
  sequence: 5,
  state: { mounts: ["/dev/nbd0 /srv/d1 ext4 rw"], routes: ["default via 10.0.0.1"], devices: [] },
});

function encoded(of = record): Buffer {
  const slot = encodeRecord(of, pair);
  if (!slot.ok) throw new Error(slot.fault.message);
  return Buffer.from(slot.value);
}

/** One that does not fit the front of a slot. */
const long = recordOf({
  state: { mounts: [], routes: new Array(32).fill("r".repeat(200)), devices: [] },
});

/** Changes a whole slot and gives it the checksum that belongs to it. */
function sealed(change: (slot: Buffer) => void, of = record): Buffer {
  const slot = encoded(of);
  change(slot);
  slot.writeUInt32BE(crc32(slot.subarray(32), crc32(slot.subarray(0, 28))), 28);
  return slot;
}

function withBody(body: string): Buffer {
  return sealed((slot) => {
    slot.fill(0, 32);
    slot.writeUInt32BE(slot.write(body, 32), 24);
  });
}

const body = {
  sequence: 5,
  wanted: "started",
  server: record.definition.server,
  state: record.state,
};

const damaged = (ours: boolean, reason: string): Slot => ({ kind: "damaged", ours, reason });

describe("a slot", () => {
  test("is these bytes, which every later firmware reads", () => {
    const slot = encoded();
    expect(slot.length).toBe(4096);
    expect(slot.subarray(0, 32).toString("hex")).toBe(
      [
        "44594144564f4c0a", // magic
        "0001", // format
        "0011", // pair
        "03", // number
        "02", // owner b
        "0000",
        "00000102", // epoch
        "00000007", // generation
        "0000015a", // bytes of the body
        "72476be5", // checksum
      ].join(""),
    );
    const text =
      '{"sequence":5,"wanted":"started","server":{"name":"alpha","home":"a","addresses":["10.0.0.100/24"],' +
      '"routes":[{"to":"default","via":"10.0.0.1"}],"rules":[],"volumes":[{"id":1,"disk":"d1","export":"/alpha"}],' +
      '"limits":{"cpuWeight":100,"processes":512}},' +
      '"state":{"mounts":["/dev/nbd0 /srv/d1 ext4 rw"],"routes":["default via 10.0.0.1"],"devices":[]}}';
    expect(slot.subarray(32, 32 + text.length).toString()).toBe(text);
    expect(slot.subarray(32 + text.length).every((byte) => byte === 0)).toBe(true);
  });

  test("lies behind the beats: all fronts, then all rests", () => {
    expect([frontOffsetBytes(0, 0), frontOffsetBytes(0, 1)]).toEqual([32_768, 36_864]);
    expect(frontOffsetBytes(63, 1) + frontBytes).toBe(557_056);
    expect([restOffsetBytes(0, 0), restOffsetBytes(0, 1)]).toEqual([557_056, 569_344]);
    expect(restOffsetBytes(63, 1) + 12_288).toBe(2_129_920);
    expect(coordinatorBytesMin).toBe(2_129_920);
  });

  test("of zeros was never written, whatever lies in its rest", () => {
    expect(decodeSlot(place, Buffer.alloc(frontBytes))).toEqual(emptySlot);
    expect(decodeSlot(place, Buffer.alloc(slotBytes).fill(7, frontBytes))).toEqual(emptySlot);
  });

  test("with a body of up to 4064 bytes is its front alone", () => {
    const bodyOf = (of: typeof record) => encoded(of).readUInt32BE(24);
    const filled = (bytes: number) => {
      const routes = new Array<string>(19).fill("r".repeat(190));
      const of = (last: number) =>
        recordOf({ state: { mounts: ["m".repeat(last)], routes, devices: [] } });
      return of(bytes - bodyOf(of(0)));
    };
    const [fits, exceeds] = [filled(4064), filled(4065)];
    expect([bodyOf(fits), bodyOf(exceeds)]).toEqual([4064, 4065]);
    expect(encoded(fits).length).toBe(frontBytes);
    const whole = encoded(exceeds);
    expect(whole.length).toBe(slotBytes);
    expect([hasRest(encoded(fits)), hasRest(whole)]).toEqual([false, true]);
    // What lies behind a short one is of an earlier writing.
    const behind = Buffer.concat([encoded(fits), Buffer.alloc(slotBytes - frontBytes, 9)]);
    expect(decodeSlot(place, behind)).toEqual({ kind: "record", record: fits });
    expect(decodeSlot(place, whole)).toEqual({ kind: "record", record: exceeds });
    expect(decodeSlot(place, whole.subarray(0, frontBytes))).toEqual(
      damaged(false, "4096 bytes are no slot"),
    );
  });

  test("is known by its front to go on, and nothing else does", () => {
    const front = encoded(long).subarray(0, frontBytes);
    expect(hasRest(front)).toBe(true);
    for (const other of [Buffer.alloc(frontBytes), Buffer.alloc(frontBytes, 0xe5), Buffer.alloc(0)])
      expect(hasRest(other)).toBe(false);
    expect(hasRest(front.subarray(0, 512))).toBe(false);
  });

  test("is read at an odd place in memory", () => {
    const memory = Buffer.alloc(frontBytes + 1);
    encoded().copy(memory, 1);
    expect(decodeSlot(place, memory.subarray(1))).toEqual({ kind: "record", record });
  });

  test("that is too small for a record says by how much, and has room for the definition", () => {
    const lines = (count: number) => new Array<string>(count).fill("x".repeat(200));
    const state = { mounts: lines(32), routes: lines(64), devices: lines(32) };
    const large = { ...record, state };
    const refused = encodeRecord(large, pair);
    expect(refused).toMatchObject({ ok: false, fault: { code: "badInput" } });
    expect(refused.ok ? "" : refused.fault.message).toMatch(
      new RegExp(`^26[0-9]{3} bytes, and .* room for ${bodyBytesMax}$`),
    );
    expect(decodeSlot(place, encoded(withoutState(large)))).toMatchObject({ kind: "record" });
  });
});

const unknown = (reason: string): Slot => ({
  kind: "unknown",
  stamp: { epoch: 0x0102, generation: 7, owner: 2 },
  reason,
});

describe("what is no record of this firmware", () => {
  test.each<[string, Buffer, Slot]>([
    [
      "a later format",
      sealed((slot) => slot.writeUInt16BE(2, 8)),
      unknown("written by a newer firmware (format 2)"),
    ],
    [
      "format 0",
      sealed((slot) => slot.writeUInt16BE(0, 8)),
      unknown("of format 0, which this firmware does not read"),
    ],
    [
      "a body that is longer than the slot",
      sealed((slot) => slot.writeUInt32BE(bodyBytesMax + 1, 24), long),
      { ...unknown(`a body of ${bodyBytesMax + 1} bytes`), stamp: stampOf(long) } as Slot,
    ],
    [
      "a key that format 1 does not have",
      withBody(JSON.stringify({ ...body, server: { ...body.server, colour: "red" } })),
      unknown('not understood at definition.server: Unrecognized key: "colour"'),
    ],
    [
      "an owner that there is not",
      sealed((slot) => slot.writeUInt8(3, 13)),
      {
        ...unknown('not understood at owner: Invalid option: expected one of "a"|"b"'),
        stamp: { epoch: 0x0102, generation: 7, owner: 3 },
      } as Slot,
    ],
    [
      "another place's record",
      encoded(recordOf({ number: 4 })),
      damaged(true, "a record of number 4"),
    ],
    [
      "another pair's record",
      sealed((slot) => slot.writeUInt16BE(5, 10)),
      damaged(false, "a record of pair 5"),
    ],
    [
      "half a front",
      encoded().subarray(0, frontBytes / 2),
      damaged(false, "2048 bytes are no slot"),
    ],
    ["half a slot", encoded(long).subarray(0, 8192), damaged(false, "8192 bytes are no slot")],
    [
      "a rest that was not written",
      Buffer.concat([encoded(long).subarray(0, frontBytes), Buffer.alloc(slotBytes - frontBytes)]),
      damaged(true, "torn or damaged"),
    ],
    ["nothing at all", Buffer.alloc(0), damaged(false, "0 bytes are no slot")],
    [
      "what another use of the disk left",
      Buffer.alloc(frontBytes, 0xe5),
      damaged(false, "no record"),
    ],
    [
      "a first writing whose beginning is missing",
      Buffer.concat([Buffer.alloc(512), encoded().subarray(512).fill(1, 0, 10)]),
      damaged(false, "no record"),
    ],
  ])("%s", (_, bytes, slot) => {
    expect(decodeSlot(place, bytes)).toEqual(slot);
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[1,2]"],
    ["null", "null"],
    ["a body without state", JSON.stringify({ ...body, state: undefined })],
    ["a sequence that there is not", JSON.stringify({ ...body, sequence: -1 })],
    ["nothing", ""],
  ])("a whole slot with %s is kept", (_, text) => {
    expect(decodeSlot(place, withBody(text))).toMatchObject({
      kind: "unknown",
      reason: expect.stringMatching(/^not understood at /),
    });
  });

  test("bytes that are no UTF-8 are kept too", () => {
    const slot = sealed((bytes) => bytes.fill(0xff, 32, 40));
    expect(decodeSlot(place, slot)).toMatchObject({ kind: "unknown" });
  });
});

const at = (epoch: number, generation: number, owner = 1) => ({ epoch, generation, owner });
const none = undefined;

describe("the slot of the next writing", () => {
  test.each<[string, StampPair, 0 | 1 | "overtaken"]>([
    ["nothing whole", [none, none], 0],
    ["one record", [at(1, 1), none], 1],
    ["one record in the other", [none, at(1, 1)], 0],
    ["the newer one second", [at(1, 3), at(1, 4)], 0],
    ["the newer one first", [at(1, 5), at(1, 4)], 1],
    ["an epoch before a generation", [at(2, 1), at(1, 4)], 1],
    ["a missed writing: parity says nothing", [at(1, 1), at(1, 3)], 0],
    ["the same record once more", [at(2, 9), at(1, 4)], 1],
    ["something newer", [at(2, 10), none], "overtaken"],
    ["something newer in the other", [at(2, 8), at(3, 0)], "overtaken"],
    ["the same by the other controller, which is newer", [at(2, 9, 2), none], "overtaken"],
  ])("%s", (_, stamps, slot) => {
    expect(slotToWrite(stamps, stampOf(recordOf({ epoch: 2, generation: 9 })))).toBe(slot);
  });
});

test("a pair is two slots; whoever writes needs no more than their heads", () => {
  const empty = Buffer.alloc(frontBytes);
  expect(decodePair(place, [empty, encoded()])).toEqual([emptySlot, { kind: "record", record }]);
  expect(decodePair(place, [empty, Buffer.alloc(0)])).toEqual([
    emptySlot,
    damaged(false, "0 bytes are no slot"),
  ]);
  expect(decodeStamps(place, [empty, encoded()])).toEqual([undefined, at(0x0102, 7, 2)]);
  const later = sealed((slot) => slot.writeUInt16BE(2, 8));
  const torn = encoded().fill(1, 600, 700);
  expect(decodeStamps(place, [later, torn])).toEqual([at(0x0102, 7, 2), undefined]);
});

test("whoever only looks sees the records of every pair", () => {
  expect(decodeSlot({ number: 3, pair: undefined }, encoded())).toEqual({ kind: "record", record });
});
