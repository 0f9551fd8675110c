/** The common volume under whatever may happen to its bytes and its disks. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compareWritings, type VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import {
  decodePair,
  decodeSlot,
  emptyPair,
  encodeRecord,
  frontBytes,
  hasRest,
  type SlotPair,
  slotBytes,
  slotStamp,
  slotToWrite,
  stampOf,
  withoutState,
} from "../../firmware-ts/wire/common-volume.ts";
import { type DiskContent, resolveVolume } from "../../firmware-ts/wire/volume-view.ts";
import { anyRecord, recordOf } from "../support/volume-records.ts";

const pair = 17;
const placeOf = (number: number) => ({ number, pair });

function bytesOf(record: VolumeRecord): Buffer {
  const slot = encodeRecord(record, pair);
  if (!slot.ok) throw new Error(slot.fault.message);
  return Buffer.from(slot.value);
}

/** The slot on a disk after this record was written over it, front and rest in a row. */
function slotAfter(record: Buffer, before: Buffer = Buffer.alloc(slotBytes)): Buffer {
  const slot = Buffer.from(before);
  record.copy(slot);
  return slot;
}

/** Whether the slot holds every byte of this record. */
const holds = (slot: Buffer, record: Buffer) => slot.subarray(0, record.length).equals(record);

const small = anyRecord.map(withoutState);
/** Short and long ones. */
const fitting = anyRecord.map((record) =>
  encodeRecord(record, pair).ok ? record : withoutState(record),
);
const sectorBytes = 512;
const sectors = slotBytes / sectorBytes;
const frontSectors = frontBytes / sectorBytes;

/** New sectors where the mask says so, old ones elsewhere. */
function mixed(old: Buffer, fresh: Buffer, mask: readonly boolean[]): Buffer {
  const slot = Buffer.from(old);
  mask.forEach((isFresh, index) => {
    const from = index * sectorBytes;
    if (isFresh) fresh.copy(slot, from, from, from + sectorBytes);
  });
  return slot;
}

describe("a slot", () => {
  test("what was written is what is read, or it does not fit and says so", () => {
    fc.assert(
      fc.property(anyRecord, (record) => {
        const slot = encodeRecord(record, pair);
        if (!slot.ok) return expect(slot.fault.code).toBe("badInput");
        expect([frontBytes, slotBytes]).toContain(slot.value.length);
        expect(decodeSlot(placeOf(record.definition.number), slot.value)).toEqual({
          kind: "record",
          record,
        });
      }),
    );
  });

  test("a definition always fits", () => {
    fc.assert(fc.property(anyRecord, (record) => encodeRecord(withoutState(record), pair).ok));
    const widest = "\u0001".repeat(63);
    const server = {
      addresses: new Array<string>(8).fill(`${"1".repeat(61)}/32`),
      routes: new Array(16).fill({ to: "1".repeat(64), via: "f".repeat(45), table: 252 }),
      rules: new Array(16).fill({ from: "1".repeat(64), table: 252 }),
      volumes: new Array(8).fill({
        ...{ id: 8, disk: "D".repeat(32), export: `/${widest}`, share: "S".repeat(32) },
      }),
      limits: {
        cpuWeight: 10_000,
        cpuPercent: 25_600,
        memoryMb: 1_048_576,
        processes: 32_768,
        bandwidthMbit: 100_000,
      },
      smb: {
        ...{ workgroup: "W".repeat(15), guest: false, writeThrough: false },
        users: new Array(64).fill({ name: "u".repeat(31), uid: 2 ** 31 - 1, gid: 2 ** 31 - 1 }),
      },
    };
    expect(encodeRecord(recordOf({ server, sequence: 0xffff_ffff }), pair).ok).toBe(true);
  });

  test("cut short after any sector it is no record, unless nothing is missing", () => {
    fc.assert(
      fc.property(fitting, fitting, (older, newer) => {
        const { number } = newer.definition;
        const old = bytesOf({ ...older, definition: { ...older.definition, number } });
        const fresh = bytesOf(newer);
        const [before, after] = [slotAfter(old), slotAfter(fresh, slotAfter(old))];
        // The rest first, where there is one, then the front.
        const order = Array.from({ length: sectors }, (_, i) => (i + frontSectors) % sectors);
        for (let written = 0; written <= sectors; written += 1) {
          const done = new Set(order.slice(0, written));
          const mask = Array.from({ length: sectors }, (_, index) => done.has(index));
          const slot = mixed(before, after, mask);
          const found = decodeSlot(placeOf(number), slot);
          if (holds(slot, fresh)) expect(found).toEqual({ kind: "record", record: newer });
          else if (holds(slot, old)) expect(found.kind).toBe("record");
          else expect(found).toMatchObject({ kind: "damaged", ours: true });
        }
      }),
      { numRuns: 50 },
    );
  });

  test("with any mixture of old and new sectors it is one of them or none", () => {
    const masks = fc.array(fc.boolean(), { minLength: sectors, maxLength: sectors });
    fc.assert(
      fc.property(anyRecord, anyRecord, masks, (older, newer, mask) => {
        const { number } = newer.definition;
        const old = encodeRecord({ ...older, definition: { ...older.definition, number } }, pair);
        const fresh = encodeRecord(newer, pair);
        fc.pre(old.ok && fresh.ok);
        if (!old.ok || !fresh.ok) return;
        const before = slotAfter(Buffer.from(old.value));
        const slot = mixed(before, slotAfter(Buffer.from(fresh.value), before), mask);
        const found = decodeSlot(placeOf(number), slot);
        if (holds(slot, fresh.value)) expect(found).toEqual({ kind: "record", record: newer });
        else if (!holds(slot, old.value)) expect(found.kind).toBe("damaged");
      }),
    );
  });

  test("with any bit flipped it is no record", () => {
    fc.assert(
      fc.property(fitting, fc.nat(8 * slotBytes - 1), (record, drawn) => {
        const slot = bytesOf(record);
        const bit = drawn % (8 * slot.length);
        slot[bit >> 3] = (slot[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        expect(decodeSlot(placeOf(record.definition.number), slot).kind).toBe("damaged");
      }),
    );
  });

  test("in another number's place it is no record", () => {
    fc.assert(
      fc.property(small, fc.nat(63), (record, number) => {
        fc.pre(number !== record.definition.number);
        expect(decodeSlot(placeOf(number), bytesOf(record))).toMatchObject({
          kind: "damaged",
          ours: true,
        });
      }),
    );
  });

  test("of any bytes is read without an exception", () => {
    const magic = Buffer.from("DYADVOL\n");
    const wild = fc
      .tuple(fc.uint8Array({ maxLength: 2048 }), fc.boolean(), fc.boolean())
      .map(([bytes, begins, isWhole]) => {
        const slot = Buffer.alloc(isWhole ? slotBytes : bytes.length);
        slot.set(bytes);
        if (begins) magic.copy(slot);
        return slot;
      });
    fc.assert(
      fc.property(wild, fc.nat(63), (bytes, number) => {
        expect(["empty", "damaged"]).toContain(decodeSlot(placeOf(number), bytes).kind);
        expect(decodePair(placeOf(number), [bytes, bytes])).toHaveLength(2);
        expect(hasRest(bytes)).toBeTypeOf("boolean");
      }),
    );
  });
});

/** A disk as it is written to by the rules, in memory. */
class Disk {
  pair: SlotPair = emptyPair;

  /** False: what is there is newer. `torn`: the power fails meanwhile. */
  write(record: VolumeRecord, torn = false): boolean {
    const [first, second] = this.pair;
    const slot = slotToWrite([slotStamp(first), slotStamp(second)], stampOf(record));
    if (slot === "overtaken") return false;
    const written = torn
      ? ({ kind: "damaged", ours: true, reason: "torn or damaged" } as const)
      : ({ kind: "record", record } as const);
    this.pair = slot === 0 ? [written, second] : [first, written];
    return !torn;
  }
}

const contents = (disks: readonly Disk[], which: readonly number[]): DiskContent[] =>
  which.map((index) => ({
    serial: `c${index}`,
    pairs: new Map([[3, disks[index]?.pair ?? emptyPair]]),
  }));

/** What one writing comes to on each disk. */
const fates = fc.array(fc.constantFrom("whole", "torn", "missed"), { minLength: 3, maxLength: 3 });
type Fate = "whole" | "torn" | "missed";
const majorities = [
  [0, 1],
  [0, 2],
  [1, 2],
  [0, 1, 2],
];

describe("three disks", () => {
  test("after any history of writings whoever reads a majority finds the last that was accepted, or a newer one", () => {
    fc.assert(
      fc.property(fc.array(fates, { maxLength: 12 }), (history: Fate[][]) => {
        const disks = [new Disk(), new Disk(), new Disk()];
        let accepted = 0;
        history.forEach((each, index) => {
          const generation = index + 1;
          const record = recordOf({ generation });
          let good = 0;
          each.forEach((fate, disk) => {
            if (fate !== "missed" && disks[disk]?.write(record, fate === "torn")) good += 1;
          });
          if (good >= 2) accepted = generation;
        });
        for (const which of majorities) {
          const view = resolveVolume(contents(disks, which), 3);
          if (!view.ok) throw new Error(view.fault.message);
          const found = view.value.records[0]?.generation ?? 0;
          expect(found).toBeGreaterThanOrEqual(accepted);
          if (accepted > 0) expect(view.value.reserved).toEqual([]);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("every combination of generations: the newest that is read counts, and is thin unless two hold it", () => {
    const generations = [0, 1, 2, 3];
    for (const first of generations)
      for (const second of generations)
        for (const third of generations)
          for (const which of majorities) {
            const all = [first, second, third];
            const disks = all.map((last) => {
              const disk = new Disk();
              for (let generation = 1; generation <= last; generation += 1)
                disk.write(recordOf({ generation }));
              return disk;
            });
            const read = which.map((index) => all[index] ?? 0);
            const newest = Math.max(...read);
            const view = resolveVolume(contents(disks, which), 3);
            if (!view.ok) throw new Error(view.fault.message);
            expect(view.value.records.map(({ generation }) => generation)).toEqual(
              newest === 0 ? [] : [newest],
            );
            const isThin = newest > 0 && read.filter((each) => each === newest).length < 2;
            expect(view.value.thin).toEqual(isThin ? [3] : []);
          }
  });

  test("the order in which disks were read does not matter", () => {
    const slotted = fc.array(fc.tuple(fc.nat(3), fc.nat(3), fc.constantFrom("a", "b")), {
      minLength: 3,
      maxLength: 3,
    });
    fc.assert(
      fc.property(slotted, (written) => {
        const disks = written.map(([epoch, generation, owner]) => {
          const disk = new Disk();
          disk.write(recordOf({ epoch, generation, owner: owner as "a" | "b" }));
          return disk;
        });
        const forward = resolveVolume(contents(disks, [0, 1, 2]), 3);
        expect(resolveVolume(contents(disks, [2, 1, 0]), 3)).toEqual(forward);
        const stamps = disks.flatMap(({ pair: [slot] }) =>
          slot.kind === "record" ? [stampOf(slot.record)] : [],
        );
        const newest = stamps.toSorted(compareWritings).at(-1);
        const found = forward.ok ? forward.value.records[0] : undefined;
        expect(found && stampOf(found)).toEqual(newest);
      }),
    );
  });

  test("a writing is never put over the newest whole record", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(4), fc.nat(4), fc.boolean())), (writings) => {
        const disk = new Disk();
        let newest: VolumeRecord | undefined;
        for (const [epoch, generation, torn] of writings) {
          const record = recordOf({ epoch, generation });
          if (disk.write(record, torn)) newest = record;
          const kept = disk.pair.flatMap((slot) => (slot.kind === "record" ? [slot.record] : []));
          if (newest) expect(kept).toContainEqual(newest);
        }
      }),
    );
  });
});
