/** How far a journal's log is alive: as a recovery finds its end (Documentation/filesystems/ext4/journal.rst). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { logEndsWithin } from "../../firmware-ts/wire/ext4/log.ts";

const blockBytes = 1024;
const magic = 0xc03b3998;
const features = { revocations: 0x1, wide: 0x2, checksums2: 0x8, checksums3: 0x10, fast: 0x20 };
const usual = features.revocations | features.wide | features.checksums3;

function superblock(incompatible: number, sequence: number, version = 4): Buffer {
  const block = Buffer.alloc(1024);
  block.writeUInt32BE(magic, 0);
  block.writeUInt32BE(version, 4);
  block.writeUInt32BE(blockBytes, 0xc);
  block.writeUInt32BE(sequence, 0x18);
  block.writeUInt32BE(incompatible, 0x28);
  return block;
}

function head(kind: number, sequence: number): Buffer {
  const block = Buffer.alloc(blockBytes);
  block.writeUInt32BE(magic, 0);
  block.writeUInt32BE(kind, 4);
  block.writeUInt32BE(sequence >>> 0, 8);
  return block;
}

/** A descriptor of so many blocks and the blocks, which look like anything. Only the first tag of a descriptor has the UUID of the journal. */
function described(sequence: number, count: number, incompatible: number, data = head(2, 0)) {
  const block = head(1, sequence);
  const is3 = (incompatible & features.checksums3) !== 0;
  const is2 = (incompatible & features.checksums2) !== 0;
  const size = is3 ? 16 : 8 + ((incompatible & features.wide) === 0 ? 0 : 4) + (is2 ? 2 : 0);
  let at = 12;
  for (let i = 0; i < count; i += 1) {
    const flags = (i === 0 ? 0 : 0x2) | (i === count - 1 ? 0x8 : 0);
    if (is3) block.writeUInt32BE(flags, at + 4);
    else block.writeUInt16BE(flags, at + 6);
    at += size + (i === 0 ? 16 : 0);
  }
  return [block, ...Array.from({ length: count }, () => data)];
}

const commit = (sequence: number) => head(2, sequence);
const revocation = (sequence: number) => head(5, sequence);
const old = head(1, 3);
const ends = (blocks: readonly Buffer[], incompatible = usual, sequence = 7) =>
  logEndsWithin(superblock(incompatible, sequence), Buffer.concat(blocks));

describe("a log ends", () => {
  const transaction = [...described(7, 3, usual), commit(7)];

  test.each<[string, readonly Buffer[]]>([
    ["at a block of an older life", [...transaction, old]],
    ["at a block that is none of its own", [...transaction, Buffer.alloc(blockBytes, 1)]],
    ["at a kind of block that it does not have", [...transaction, head(3, 8)]],
    ["where it begins", [old]],
    [
      "after a transaction that was not committed",
      [...transaction, ...described(8, 2, usual), old],
    ],
    ["after a revocation", [...transaction, revocation(8), commit(8), old]],
  ])("%s", (_, blocks) => {
    expect(ends(blocks)).toBe(true);
    // Without the last block nobody knows.
    expect(ends(blocks.slice(0, -1))).toBe(false);
  });

  test("not at data, whatever they look like", () => {
    expect(ends([...described(7, 3, usual, old), commit(7)])).toBe(false);
  });

  test("not before the data of a descriptor have passed, of which not all are here", () => {
    expect(ends(described(7, 9, usual).slice(0, 4))).toBe(false);
  });

  test("with sequences that begin anew", () => {
    const blocks = [...described(0xffffffff, 1, usual), commit(0xffffffff), commit(0), old];
    expect(ends(blocks, usual, 0xffffffff)).toBe(true);
    expect(ends(blocks.slice(0, -1), usual, 0xffffffff)).toBe(false);
  });

  test.each<[string, number]>([
    ["without features", 0],
    ["with numbers of 64 bits", features.wide],
    ["with the second kind of checksums", features.checksums2],
    ["with it and 64 bits", features.checksums2 | features.wide],
    ["with the third kind", features.checksums3],
  ])("%s: the tags of a full descriptor are counted", (_, incompatible) => {
    for (const count of [1, 2, 40]) {
      const blocks = [...described(7, count, incompatible), commit(7)];
      expect(ends([...blocks, old], incompatible)).toBe(true);
      expect(ends(blocks, incompatible)).toBe(false);
    }
  });

  test("a descriptor whose last tag says nothing is full", () => {
    const block = head(1, 7);
    for (let at = 12; at + 16 <= blockBytes; at += 16) block.writeUInt32BE(0x2, at + 4);
    // 1008 bytes without the checksum: 62 tags of 16, and one UUID less than that would take.
    const full = Math.floor((blockBytes - 4 - 12) / 16);
    const data = Array.from({ length: full }, () => old);
    expect(ends([block, ...data, commit(7)])).toBe(false);
    expect(ends([block, ...data, commit(7), old])).toBe(true);
    expect(ends([block, ...data.slice(1), commit(7)])).toBe(false);
  });
});

describe("nobody knows", () => {
  test.each<[string, Buffer]>([
    ["with a feature that is not known", superblock(usual | features.fast, 7)],
    ["without a journal", Buffer.alloc(1024)],
    ["with a superblock that was cut short", superblock(usual, 7).subarray(0, 100)],
  ])("%s", (_, block) => {
    expect(logEndsWithin(block, old)).toBe(false);
  });

  test("but features are the second version's: before, there were none", () => {
    expect(logEndsWithin(superblock(features.fast, 7, 3), old)).toBe(true);
  });

  test("with blocks of no size", () => {
    const block = superblock(usual, 7);
    block.writeUInt32BE(0, 0xc);
    expect(logEndsWithin(block, old)).toBe(false);
  });
});

test("whatever is there, it comes to an answer", () => {
  const bytes = (length: number) =>
    fc.uint8Array({ minLength: length, maxLength: length }).map((each) => Buffer.from(each));
  const begins = fc.tuple(fc.constantFrom(1, 2, 3, 5), bytes(blockBytes)).map(([kind, block]) => {
    head(kind, 7).copy(block, 0, 0, 12);
    return block;
  });
  fc.assert(
    fc.property(fc.array(begins, { maxLength: 8 }), fc.nat(0x3f), (blocks, incompatible) => {
      expect(typeof ends(blocks, incompatible)).toBe("boolean");
    }),
  );
});
