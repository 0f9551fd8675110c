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
  pairOffsetBytes,
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

describe("a slot", () => {
  test("is these bytes, which every later firmware reads", () => {
    const slot = encoded();
    expect(slot.length).toBe(16_384);
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
        "94c051b0", // checksum
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

  test("lies behind the beats, 32 KiB for each number", () => {
    expect(pairOffsetBytes(0)).toBe(32_768);
    expect(pairOffsetBytes(63)).toBe(32_768 + 63 * 32_768);
    expect(coordinatorBytesMin).toBe(2_129_920);
  });

  test("of zeros was never written", () => {
    expect(decodeSlot(place, Buffer.alloc(slotBytes))).toEqual(emptySlot);
  });

  test("is read at an odd place in memory", () => {
    const memory = Buffer.alloc(slotBytes + 1);
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
const damaged = (ours: boolean, reason: string): Slot => ({ kind: "damaged", ours, reason });

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
      sealed((slot) => slot.writeUInt32BE(bodyBytesMax + 1, 24)),
      unknown(`a body of ${bodyBytesMax + 1} bytes`),
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
    ["half a slot", encoded().subarray(0, slotBytes / 2), damaged(false, "8192 bytes are no slot")],
    ["nothing at all", Buffer.alloc(0), damaged(false, "0 bytes are no slot")],
    [
      "what another use of the disk left",
      Buffer.alloc(slotBytes, 0xe5),
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

test("a pair is two slots in a row; whoever writes needs no more than their heads", () => {
  const bytes = Buffer.concat([Buffer.alloc(slotBytes), encoded()]);
  expect(decodePair(place, bytes)).toEqual([emptySlot, { kind: "record", record }]);
  expect(decodePair(place, bytes.subarray(0, slotBytes))).toEqual([
    emptySlot,
    damaged(false, "0 bytes are no slot"),
  ]);
  expect(decodeStamps(place, bytes)).toEqual([undefined, at(0x0102, 7, 2)]);
  const later = sealed((slot) => slot.writeUInt16BE(2, 8));
  const torn = encoded().fill(1, 600, 700);
  expect(decodeStamps(place, Buffer.concat([later, torn]))).toEqual([at(0x0102, 7, 2), undefined]);
});

test("whoever only looks sees the records of every pair", () => {
  expect(decodeSlot({ number: 3, pair: undefined }, encoded())).toEqual({ kind: "record", record });
});
