/** What a mirror keeps on its disks, under whatever may happen to the bytes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { activeExtentsMax, bitsMax, pageBits } from "../../firmware-ts/schema/mirror.ts";
import { crc32c } from "../../firmware-ts/wire/crc32c.ts";
import {
  activityBlockOf,
  encodeActivity,
  replayActivity,
} from "../../firmware-ts/wire/mirror/activity-block.ts";
import {
  decodeBitmapPage,
  encodeBitmapPage,
  spoiltBitmapPage,
} from "../../firmware-ts/wire/mirror/bitmap-page.ts";
import {
  activityBlocks,
  blockBytes,
  granularityBytesDefault,
  granularityBytesMax,
  granularityBytesMin,
  layOut,
  slotOffsetsBytes,
} from "../../firmware-ts/wire/mirror/layout.ts";
import {
  decodeSuperblock,
  encodeSuperblock,
  newestSuperblock,
  type SuperblockSlot,
  slotOf,
  superblockBytes,
} from "../../firmware-ts/wire/mirror/superblock.ts";
import { anyReplica, replicaAt } from "../support/replicas.ts";

const volume = "0123456789abcdef";
const sectorBytes = 512;
const anySequence = fc.integer({ min: 0, max: 2 ** 40 });
const anyFlip = fc.integer({ min: 1, max: 255 });

function superblock(metadata = replicaAt(7), sequence = 3): Buffer {
  const slot = encodeSuperblock({ sequence, metadata });
  if (!slot.ok) throw new Error(slot.fault.message);
  return slot.value;
}

/** With one byte changed and, if `isSealed`, the checksum made to fit. */
function altered(block: Buffer, offset: number, flip: number, isSealed = false): Buffer {
  const copy = Buffer.from(block);
  copy.writeUInt8(copy.readUInt8(offset) ^ flip, offset);
  if (isSealed)
    copy.writeUInt32BE(crc32c(copy.subarray(0, superblockBytes - 4)), superblockBytes - 4);
  return copy;
}

/** Sectors of the new block where the mask says so, of the old one elsewhere. */
function torn(old: Buffer, fresh: Buffer, mask: readonly boolean[]): Buffer {
  const block = Buffer.from(old);
  for (const [sector, isFresh] of mask.entries())
    if (isFresh)
      fresh.copy(block, sector * sectorBytes, sector * sectorBytes, (sector + 1) * sectorBytes);
  return block;
}

const anyMask = fc.array(fc.boolean(), {
  minLength: blockBytes / sectorBytes,
  maxLength: blockBytes / sectorBytes,
});

describe("a superblock", () => {
  test("comes back as it was written", () => {
    fc.assert(
      fc.property(anyReplica, anySequence, (metadata, sequence) => {
        const slot = decodeSuperblock(superblock(metadata, sequence));
        expect(slot).toEqual({ kind: "superblock", sequence, metadata });
      }),
    );
  });

  test("no changed byte is overlooked, wherever it is", () => {
    const block = superblock();
    for (let offset = 0; offset < superblockBytes; offset++)
      expect(decodeSuperblock(altered(block, offset, 0x40)).kind).toBe("damaged");
  });

  test("a torn writing is the old one, the new one, or damage", () => {
    fc.assert(
      fc.property(anyReplica, anyReplica, anyMask, (one, other, mask) => {
        const [old, fresh] = [superblock(one, 4), superblock(other, 6)];
        const block = torn(old, fresh, mask);
        const slot = decodeSuperblock(block);
        if (block.equals(old)) expect(slot).toMatchObject({ sequence: 4, metadata: one });
        else if (block.equals(fresh)) expect(slot).toMatchObject({ sequence: 6, metadata: other });
        else expect(slot.kind).toBe("damaged");
      }),
    );
  });

  test("whatever is whole is understood or refused, and never throws", () => {
    fc.assert(
      fc.property(
        anyReplica,
        fc.integer({ min: 0, max: superblockBytes - 5 }),
        anyFlip,
        (metadata, offset, flip) => {
          const slot = decodeSuperblock(altered(superblock(metadata), offset, flip, true));
          if (slot.kind !== "superblock") return;
          expect(encodeSuperblock(slot).ok).toBe(true);
        },
      ),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2 * superblockBytes }), (bytes) => {
        expect(["empty", "damaged"]).toContain(decodeSuperblock(bytes).kind);
      }),
    );
  });

  test("of a newer format it is told from damage, and nothing older is taken for it", () => {
    const newer = decodeSuperblock(altered(superblock(replicaAt(8), 5), 9, 3, true));
    expect(newer).toMatchObject({ kind: "unknown", sequence: 5 });
    const older = decodeSuperblock(superblock(replicaAt(7), 4));
    const newest = newestSuperblock([older, newer]);
    expect(newest.ok ? "" : newest.fault.message).toContain("newer firmware (format 2)");
    const none = decodeSuperblock(altered(superblock(), 9, 1, true));
    expect(none).toMatchObject({ kind: "unknown", reason: expect.stringContaining("format 0") });
  });

  test("more generations than there is room for, and flags nobody knows, are not understood", () => {
    expect(decodeSuperblock(altered(superblock(), 73, 17, true)).kind).toBe("unknown");
    expect(decodeSuperblock(altered(superblock(), 11, 16, true)).kind).toBe("unknown");
  });

  test("who and why are cut at a character, and metadata that are none are refused", () => {
    const proof = { kind: "override", who: "ä".repeat(40), why: "€".repeat(100) } as const;
    const slot = decodeSuperblock(superblock(replicaAt(7, { continued: { epoch: 2, proof } })));
    expect(slot).toMatchObject({
      metadata: { continued: { proof: { who: "ä".repeat(32), why: "€".repeat(85) } } },
    });
    const bad = replicaAt(7, { current: "0".repeat(16) });
    expect(encodeSuperblock({ sequence: 1, metadata: bad }).ok).toBe(false);
    expect(encodeSuperblock({ sequence: -1, metadata: replicaAt(7) }).ok).toBe(false);
    const coarse = replicaAt(7, { granularityBytes: 2 ** 32 });
    expect(encodeSuperblock({ sequence: 1, metadata: coarse }).ok).toBe(false);
  });
});

describe("two slots", () => {
  const whole = (sequence: number): SuperblockSlot =>
    decodeSuperblock(superblock(replicaAt(7), sequence));
  const empty: SuperblockSlot = { kind: "empty" };
  const damaged: SuperblockSlot = { kind: "damaged", reason: "torn or damaged" };

  test("the newer whole one counts, wherever it is", () => {
    for (const slots of [
      [whole(4), whole(5)],
      [whole(5), whole(4)],
      [whole(5), damaged],
      [damaged, whole(5)],
      [whole(5), empty],
    ] as const)
      expect(newestSuperblock(slots)).toMatchObject({ ok: true, value: { sequence: 5 } });
  });

  test("an unused disk is not one whose metadata are lost", () => {
    expect(newestSuperblock([empty, empty])).toEqual({ ok: true, value: undefined });
    expect(newestSuperblock([damaged, empty]).ok).toBe(false);
    expect(newestSuperblock([damaged, damaged]).ok).toBe(false);
  });

  test("a writing never goes where the last one is", () => {
    fc.assert(
      fc.property(anySequence, (sequence) => {
        expect(slotOf(sequence + 1)).not.toBe(slotOf(sequence));
      }),
    );
  });
});

describe("a layout", () => {
  const anyDisk = fc.integer({ min: 0, max: 2 ** 44 });
  const anyGranularity = fc.integer({ min: 12, max: 20 }).map((power) => 2 ** power);

  test("nothing overlaps, everything fits, and the bitmap has a bit for each piece", () => {
    fc.assert(
      fc.property(anyDisk, anyGranularity, (diskBytes, granularityBytes) => {
        const laid = layOut(diskBytes, granularityBytes);
        if (!laid.ok) return;
        const layout = laid.value;
        expect(layout.dataBytes).toBe(layout.bits * granularityBytes);
        expect(layout.bits).toBeLessThanOrEqual(layout.bitmapPages * pageBits);
        expect(layout.dataBytes).toBeLessThanOrEqual(layout.bitmapOffsetBytes);
        expect(layout.bitmapOffsetBytes - layout.dataBytes).toBeLessThan(granularityBytes);
        const ends = [
          layout.bitmapOffsetBytes + layout.bitmapPages * blockBytes,
          layout.activityOffsetBytes + activityBlocks * blockBytes,
          layout.slotOffsetsBytes[0] + superblockBytes,
        ];
        expect(ends).toEqual([layout.activityOffsetBytes, ...layout.slotOffsetsBytes]);
        expect(layout.slotOffsetsBytes[1] + superblockBytes).toBeLessThanOrEqual(diskBytes);
        expect(layout.bitmapOffsetBytes % blockBytes).toBe(0);
        expect(layout.slotOffsetsBytes).toEqual(slotOffsetsBytes(diskBytes));
      }),
    );
  });

  test("16 TiB at the default granularity have a bitmap of 32 MiB; a disk that is larger needs coarser pieces", () => {
    const size = bitsMax * granularityBytesDefault;
    const pages = Math.ceil(bitsMax / pageBits);
    const diskBytes = size + (pages + activityBlocks + 2) * blockBytes;
    expect(layOut(diskBytes, granularityBytesDefault)).toMatchObject({
      ok: true,
      value: { dataBytes: size, bits: bitsMax, bitmapPages: pages },
    });
    const more = layOut(diskBytes + 2 * granularityBytesDefault, granularityBytesDefault);
    expect(more.ok ? "" : more.fault.message).toContain("coarser");
    expect(layOut(diskBytes + 2 * granularityBytesDefault, 2 * granularityBytesDefault).ok).toBe(
      true,
    );
  });

  test("too small a disk, and pieces that are no granularity, are refused", () => {
    const metadataBytes = (1 + activityBlocks + 2) * blockBytes;
    expect(layOut(metadataBytes + granularityBytesMin, granularityBytesMin).ok).toBe(true);
    expect(layOut(metadataBytes + granularityBytesMin - 1, granularityBytesMin).ok).toBe(false);
    for (const size of [0, 8191, Number.NaN, 2 ** 60])
      expect(layOut(size, granularityBytesMin).ok).toBe(false);
    for (const granularity of [
      granularityBytesMin / 2,
      granularityBytesMax * 2,
      12_288,
      Number.NaN,
    ])
      expect(layOut(2 ** 30, granularity).ok).toBe(false);
  });
});

describe("a page of the bitmap", () => {
  const anyWords = fc
    .uint8Array({ minLength: pageBits / 8, maxLength: pageBits / 8 })
    .map((bytes) => new Uint32Array(Uint8Array.from(bytes).buffer));

  test("comes back as it was written, at its place and for its volume only", () => {
    fc.assert(
      fc.property(anyWords, fc.integer({ min: 0, max: 8224 }), (words, page) => {
        const block = encodeBitmapPage(volume, page, words);
        expect(decodeBitmapPage(volume, page, block)).toEqual(words);
        expect(decodeBitmapPage(volume, page + 1, block)).toBeUndefined();
        expect(decodeBitmapPage("0123456789abcdee", page, block)).toBeUndefined();
      }),
      { numRuns: 20 },
    );
  });

  test("no changed byte is overlooked, and neither is a torn writing", () => {
    const words = new Uint32Array(pageBits / 32).fill(0x0f0f_0f0f);
    const block = encodeBitmapPage(volume, 3, words);
    for (let offset = 0; offset < blockBytes; offset++)
      expect(decodeBitmapPage(volume, 3, altered(block, offset, 1))).toBeUndefined();
    const old = encodeBitmapPage(volume, 3, spoiltBitmapPage());
    fc.assert(
      fc.property(anyMask, (mask) => {
        const mixture = torn(old, block, mask);
        const isWhole = mixture.equals(old) || mixture.equals(block);
        expect(decodeBitmapPage(volume, 3, mixture) !== undefined).toBe(isWhole);
      }),
    );
    expect(decodeBitmapPage(volume, 3, block.subarray(1))).toBeUndefined();
    expect(() => encodeBitmapPage(volume, 3, words.subarray(1))).toThrow("no page");
  });
});

describe("an activity log", () => {
  const blank = (): Buffer[] =>
    Array.from({ length: activityBlocks }, () => Buffer.alloc(blockBytes));
  const anyExtents = fc.uniqueArray(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 40 });

  test("what was written last is what it says, torn or not", () => {
    fc.assert(
      fc.property(
        fc.array(anyExtents, { minLength: 1, maxLength: 20 }),
        anySequence,
        anyMask,
        (lists, first, mask) => {
          const blocks = blank();
          lists.forEach((extents, index) => {
            const sequence = first + index;
            blocks[activityBlockOf(sequence)] = encodeActivity(volume, { sequence, extents });
          });
          const last = first + lists.length - 1;
          expect(replayActivity(volume, blocks)).toEqual({
            kind: "log",
            sequence: last,
            extents: lists.at(-1),
          });
          const next = encodeActivity(volume, { sequence: last + 1, extents: [1, 2, 3] });
          const place = activityBlockOf(last + 1);
          const before = blocks[place] ?? Buffer.alloc(0);
          blocks[place] = torn(before, next, mask);
          const isDone = blocks[place].equals(next);
          expect(replayActivity(volume, blocks)).toEqual(
            isDone
              ? { kind: "log", sequence: last + 1, extents: [1, 2, 3] }
              : { kind: "log", sequence: last, extents: lists.at(-1) },
          );
        },
      ),
    );
  });

  test("no changed byte is overlooked", () => {
    const blocks = blank();
    blocks[1] = encodeActivity(volume, { sequence: 1, extents: [5] });
    const newer = encodeActivity(volume, { sequence: 2, extents: [5, 9] });
    for (let offset = 0; offset < blockBytes; offset++) {
      blocks[2] = altered(newer, offset, 0x80);
      expect(replayActivity(volume, blocks)).toMatchObject({ sequence: 1, extents: [5] });
    }
  });

  test("what was never written is told from what is lost: damaged, of another volume, or at another place", () => {
    expect(replayActivity(volume, blank())).toEqual({ kind: "empty" });
    const lost = { kind: "lost" };
    const whole = encodeActivity(volume, { sequence: 1, extents: [5] });
    const others = encodeActivity("00000000000000ff", { sequence: 1, extents: [5] });
    const elsewhere = encodeActivity(volume, { sequence: 4, extents: [6] });
    for (const block of [altered(whole, 40, 1), others, elsewhere]) {
      const blocks = blank();
      blocks[1] = block;
      expect(replayActivity(volume, blocks)).toEqual(lost);
      blocks[2] = encodeActivity(volume, { sequence: 2, extents: [7] });
      expect(replayActivity(volume, blocks)).toEqual({ kind: "log", sequence: 2, extents: [7] });
    }
    expect(replayActivity(volume, [Buffer.alloc(3)])).toEqual({ kind: "empty" });
    expect(replayActivity(volume, [Buffer.alloc(3, 1)])).toEqual(lost);
  });

  test("as many extents as it can name, and not one more", () => {
    const extents = Array.from({ length: activeExtentsMax }, (_, index) => index);
    const blocks = blank();
    blocks[1] = encodeActivity(volume, { sequence: 1, extents });
    expect(replayActivity(volume, blocks)).toMatchObject({ kind: "log", extents });
    const more = { sequence: 2, extents: [...extents, activeExtentsMax] };
    expect(() => encodeActivity(volume, more)).toThrow("1001 extents");
    const claims = encodeActivity(volume, { sequence: 1, extents });
    claims.writeUInt32BE(activeExtentsMax + 1, 4);
    claims.writeUInt32BE(crc32c(claims.subarray(32), crc32c(claims.subarray(0, 28))), 28);
    blocks[1] = claims;
    expect(replayActivity(volume, blocks)).toEqual({ kind: "lost" });
  });
});
