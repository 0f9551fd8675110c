/** A slot of the common volume, byte by byte, and what each of its spoilt forms is taken for. */
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  bodyBytesMax,
  coordinatorBytesMin,
  decodePair,
  decodeSlot,
  emptyPair,
  emptySlot,
  encodeRecord,
  newestOf,
  pairOffsetBytes,
  type Slot,
  type SlotPair,
  slotBytes,
  slotToWrite,
  withoutState,
} from "../../firmware-ts/wire/common-volume.ts";
import { recordOf } from "../support/volume-records.ts";

const record = recordOf({
  generation: 7,
  owner: "b",
  epoch: 0x0102,
  sequence: 5,
  state: { mounts: ["/dev/nbd0 /srv/d1 ext4 rw"], routes: ["default via 10.0.0.1"], devices: [] },
});

function encoded(of = record): Buffer {
  const slot = encodeRecord(of);
  if (!slot.ok) throw new Error(slot.fault.message);
  return Buffer.from(slot.value);
}

/** Changes a whole slot and gives it the checksum that belongs to it. */
function sealed(change: (slot: Buffer) => void, of = record): Buffer {
  const slot = encoded(of);
  change(slot);
  slot.writeUInt32BE(crc32(slot.subarray(28), crc32(slot.subarray(0, 24))), 24);
  return slot;
}

function withBody(body: string): Buffer {
  return sealed((slot) => {
    slot.fill(0, 28);
    slot.writeUInt32BE(slot.write(body, 28), 20);
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
    expect(slot.subarray(0, 28).toString("hex")).toBe(
      [
        "44594144564f4c0a", // magic
        "0001", // format
        "03", // number
        "02", // owner b
        "00000102", // epoch
        "00000007", // generation
        "0000012f", // bytes of the body
        "6c466901", // checksum
      ].join(""),
    );
    const text =
      '{"sequence":5,"wanted":"started","server":{"name":"alpha","home":"a","addresses":["10.0.0.100/24"],' +
      '"routes":[{"to":"default","via":"10.0.0.1"}],"rules":[],"volumes":[{"id":1,"disk":"d1","export":"/alpha"}]},' +
      '"state":{"mounts":["/dev/nbd0 /srv/d1 ext4 rw"],"routes":["default via 10.0.0.1"],"devices":[]}}';
    expect(slot.subarray(28, 28 + text.length).toString()).toBe(text);
    expect(slot.subarray(28 + text.length).every((byte) => byte === 0)).toBe(true);
  });

  test("lies behind the beats, 32 KiB for each number", () => {
    expect(pairOffsetBytes(0)).toBe(32_768);
    expect(pairOffsetBytes(63)).toBe(32_768 + 63 * 32_768);
    expect(coordinatorBytesMin).toBe(2_129_920);
  });

  test("of zeros was never written", () => {
    expect(decodeSlot(3, Buffer.alloc(slotBytes))).toEqual(emptySlot);
  });

  test("is read at an odd place in memory", () => {
    const memory = Buffer.alloc(slotBytes + 1);
    encoded().copy(memory, 1);
    expect(decodeSlot(3, memory.subarray(1))).toEqual({ kind: "record", record });
  });

  test("that is too small for a record says by how much, and has room for the definition", () => {
    const lines = (count: number) => new Array<string>(count).fill("x".repeat(200));
    const state = { mounts: lines(32), routes: lines(64), devices: lines(32) };
    const large = { ...record, state };
    const refused = encodeRecord(large);
    expect(refused).toMatchObject({ ok: false, fault: { code: "badInput" } });
    expect(refused.ok ? "" : refused.fault.message).toMatch(
      new RegExp(`^26[0-9]{3} bytes, and .* room for ${bodyBytesMax}$`),
    );
    expect(decodeSlot(3, encoded(withoutState(large)))).toMatchObject({ kind: "record" });
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
      sealed((slot) => slot.writeUInt32BE(bodyBytesMax + 1, 20)),
      unknown(`a body of ${bodyBytesMax + 1} bytes`),
    ],
    [
      "a key that format 1 does not have",
      withBody(JSON.stringify({ ...body, server: { ...body.server, colour: "red" } })),
      unknown('not understood at definition.server: Unrecognized key: "colour"'),
    ],
    [
      "an owner that there is not",
      sealed((slot) => slot.writeUInt8(3, 11)),
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
    expect(decodeSlot(3, bytes)).toEqual(slot);
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[1,2]"],
    ["null", "null"],
    ["a body without state", JSON.stringify({ ...body, state: undefined })],
    ["a sequence that there is not", JSON.stringify({ ...body, sequence: -1 })],
    ["nothing", ""],
  ])("a whole slot with %s is kept", (_, text) => {
    expect(decodeSlot(3, withBody(text))).toMatchObject({
      kind: "unknown",
      reason: expect.stringMatching(/^not understood at /),
    });
  });

  test("bytes that are no UTF-8 are kept too", () => {
    const slot = sealed((bytes) => bytes.fill(0xff, 28, 40));
    expect(decodeSlot(3, slot)).toMatchObject({ kind: "unknown" });
  });
});

const slotAt = (epoch: number, generation: number, owner: "a" | "b" = "a"): Slot => ({
  kind: "record",
  record: recordOf({ epoch, generation, owner }),
});
const torn = damaged(true, "torn or damaged");
const later: Slot = { ...unknown("later"), stamp: { epoch: 9, generation: 1, owner: 1 } } as Slot;

describe("the slot of the next writing", () => {
  test.each<[string, SlotPair, 0 | 1 | "overtaken"]>([
    ["nothing yet", emptyPair, 0],
    ["a first writing that was cut short", [torn, emptySlot], 0],
    ["one record", [slotAt(1, 1), emptySlot], 1],
    ["one record in the other", [emptySlot, slotAt(1, 1)], 0],
    ["the newer one second", [slotAt(1, 3), slotAt(1, 4)], 0],
    ["the newer one first", [slotAt(1, 5), slotAt(1, 4)], 1],
    ["an epoch before a generation", [slotAt(2, 1), slotAt(1, 4)], 1],
    ["a missed writing: parity says nothing", [slotAt(1, 1), slotAt(1, 3)], 0],
    ["the last writing cut short", [torn, slotAt(1, 4)], 0],
    ["the same record once more", [slotAt(2, 9), slotAt(1, 4)], 1],
    ["something newer", [slotAt(2, 10), emptySlot], "overtaken"],
    [
      "the same by the other controller, which is newer",
      [slotAt(2, 9, "b"), emptySlot],
      "overtaken",
    ],
    ["something newer that is not understood", [later, slotAt(1, 1)], "overtaken"],
    ["something older that is not understood", [unknownOf(1, 8), slotAt(1, 7)], 1],
    ["both spoilt", [torn, torn], 0],
  ])("%s", (_, pair, slot) => {
    expect(slotToWrite(pair, recordOf({ epoch: 2, generation: 9 }))).toBe(slot);
  });

  test("newest of a pair is the whole one", () => {
    expect(newestOf([torn, emptySlot])).toBeUndefined();
    expect(newestOf([torn, slotAt(0, 0)])).toBe(1);
    expect(newestOf([later, slotAt(8, 100)])).toBe(0);
  });
});

function unknownOf(epoch: number, generation: number): Slot {
  return { kind: "unknown", stamp: { epoch, generation, owner: 1 }, reason: "later" };
}

test("a pair is two slots in a row", () => {
  const bytes = Buffer.concat([Buffer.alloc(slotBytes), encoded()]);
  expect(decodePair(3, bytes)).toEqual([emptySlot, { kind: "record", record }]);
  expect(decodePair(3, bytes.subarray(0, slotBytes))).toEqual([
    emptySlot,
    damaged(false, "0 bytes are no slot"),
  ]);
});
