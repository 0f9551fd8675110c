import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  journalAt,
  journalOf,
  journalRemembersError,
  logAhead,
} from "../../firmware-ts/wire/ext4/journal.ts";
import { isExt4, remembersError } from "../../firmware-ts/wire/ext4/superblock.ts";

interface Extent {
  readonly at: number;
  readonly blocks: number;
}

/** A superblock with a journal; `change` spoils it. */
function superblock(extents: readonly Extent[], change?: (block: Buffer) => void): Buffer {
  const block = Buffer.alloc(1024);
  block.writeUInt32LE(0, 0x18);
  block.writeUInt16LE(0xef53, 0x38);
  block.writeUInt32LE(0x4, 0x5c);
  block.writeUInt8(1, 0xfd);
  block.writeUInt16LE(0xf30a, 0x10c);
  block.writeUInt16LE(extents.length, 0x10c + 2);
  let logical = 0;
  for (const [i, { at, blocks }] of extents.entries()) {
    const entry = 0x10c + 12 * (i + 1);
    block.writeUInt32LE(logical, entry);
    block.writeUInt16LE(blocks, entry + 4);
    block.writeUInt16LE(Math.floor(at / 2 ** 32), entry + 6);
    block.writeUInt32LE(at % 2 ** 32, entry + 8);
    logical += blocks;
  }
  change?.(block);
  return block;
}

function journalSuperblock(start: number, length: number, first = 1): Buffer {
  const block = Buffer.alloc(1024);
  block.writeUInt32BE(0xc03b3998, 0);
  block.writeUInt32BE(length, 0x10);
  block.writeUInt32BE(first, 0x14);
  block.writeUInt32BE(start, 0x1c);
  return block;
}

function ahead(extents: readonly Extent[], start: number, lengthBytesMax: number) {
  const journal = journalOf(superblock(extents));
  if (!journal) throw new Error("no journal");
  const length = extents.reduce((sum, { blocks }) => sum + blocks, 0);
  return logAhead(journal, journalSuperblock(start, length), lengthBytesMax);
}

describe("where the journal is", () => {
  test("in one piece, beyond 32 bits of blocks", () => {
    const journal = journalOf(superblock([{ at: 2 ** 32 + 5, blocks: 1024 }]));
    expect(journal).toEqual({
      blockSizeBytes: 1024,
      extents: [{ atBlock: 2 ** 32 + 5, blocks: 1024 }],
    });
    expect(journal && journalAt(journal)).toBe((2 ** 32 + 5) * 1024);
  });

  test.each<[string, (block: Buffer) => void]>([
    ["no ext4", (block) => block.writeUInt16LE(0, 0x38)],
    ["no journal", (block) => block.writeUInt32LE(0, 0x5c)],
    ["its map is not in the superblock", (block) => block.writeUInt8(0, 0xfd)],
    ["blocks of more than 64 KiB", (block) => block.writeUInt32LE(7, 0x18)],
    ["no extents", (block) => block.writeUInt16LE(0, 0x10c)],
    ["none of them", (block) => block.writeUInt16LE(0, 0x10c + 2)],
    ["more than have room", (block) => block.writeUInt16LE(5, 0x10c + 2)],
    ["a tree", (block) => block.writeUInt16LE(1, 0x10c + 6)],
    ["a gap", (block) => block.writeUInt32LE(7, 0x10c + 12)],
    ["an extent of nothing", (block) => block.writeUInt16LE(0, 0x10c + 16)],
    ["an extent that is not initialised", (block) => block.writeUInt16LE(32_769, 0x10c + 16)],
  ])("not said: %s", (_, change) => {
    expect(journalOf(superblock([{ at: 9, blocks: 1024 }], change))).toBeUndefined();
  });

  test("a superblock that was cut short is none", () => {
    expect(isExt4(superblock([]).subarray(0, 1023))).toBe(false);
    expect(journalOf(Buffer.alloc(0))).toBeUndefined();
  });
});

test("an error is remembered in the superblock, or in the journal's", () => {
  expect(remembersError(superblock([]))).toBe(false);
  expect(remembersError(superblock([], (block) => block.writeUInt16LE(0x3, 0x3a)))).toBe(true);
  const log = journalSuperblock(1, 200);
  expect(journalRemembersError(log)).toBe(false);
  // -EIO, as jbd2 writes it
  log.writeInt32BE(-5, 0x20);
  expect(journalRemembersError(log)).toBe(true);
  expect(journalRemembersError(log.subarray(0, 1000))).toBe(false);
});

describe("what a recovery reads first", () => {
  const extents = [
    { at: 1000, blocks: 100 },
    { at: 5000, blocks: 100 },
  ];

  test.each([
    ["from its start on, as far as is wanted", 10, 4, [[1010, 4]]],
    [
      "over two pieces",
      98,
      4,
      [
        [1098, 2],
        [5000, 2],
      ],
    ],
    [
      "round the end, without the superblock",
      198,
      4,
      [
        [5098, 2],
        [1001, 2],
      ],
    ],
    [
      "all of it but the superblock, once",
      50,
      999,
      [
        [1050, 50],
        [5000, 100],
        [1001, 49],
      ],
    ],
  ] as const)("%s", (_, start, blocks, expected) => {
    const pieces = ahead(extents, start, blocks * 1024);
    expect(pieces).toEqual(
      expected.map(([at, count]) => ({ fromBytes: at * 1024, lengthBytes: count * 1024 })),
    );
  });

  test.each([
    ["nothing to recover", journalSuperblock(0, 200)],
    ["starts behind its end", journalSuperblock(200, 200)],
    ["longer than its file", journalSuperblock(1, 201)],
    ["no first block", journalSuperblock(1, 200, 0)],
    ["starts before its first block", journalSuperblock(1, 200, 2)],
    ["no journal", Buffer.alloc(1024)],
    ["cut short", journalSuperblock(1, 200).subarray(0, 100)],
  ])("nothing: %s", (_, block) => {
    const journal = journalOf(superblock(extents));
    expect(journal && logAhead(journal, block, 1 << 20)).toEqual([]);
  });

  test("whatever is there: no piece outside of the journal, no block twice, never more than is wanted", () => {
    const word = fc.nat(300);
    fc.assert(
      fc.property(
        fc.array(fc.record({ at: fc.nat(2 ** 40), blocks: fc.integer({ min: 1, max: 90 }) }), {
          minLength: 1,
          maxLength: 4,
        }),
        fc.tuple(word, word, word),
        fc.nat(400_000),
        (pieces, [start, length, first], lengthBytesMax) => {
          const journal = journalOf(superblock(pieces));
          if (!journal) throw new Error("no journal");
          const ranges = logAhead(journal, journalSuperblock(start, length, first), lengthBytesMax);
          const total = ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
          expect(total).toBeLessThanOrEqual(lengthBytesMax);
          for (const { fromBytes, lengthBytes } of ranges) {
            const isInside = pieces.some(
              ({ at, blocks }) =>
                fromBytes >= at * 1024 && fromBytes + lengthBytes <= (at + blocks) * 1024,
            );
            expect(isInside).toBe(true);
          }
          expect(total / 1024).toBeLessThanOrEqual(length);
        },
      ),
    );
  });

  test("random bytes are no superblock, and nothing is thrown", () => {
    const bytes = (length: number) =>
      fc.uint8Array({ minLength: length, maxLength: length }).map((each) => Buffer.from(each));
    fc.assert(
      fc.property(bytes(1024), bytes(1024), (random, log) => {
        random.writeUInt16LE(0xef53, 0x38);
        random.writeUInt16LE(0xf30a, 0x10c);
        log.writeUInt32BE(0xc03b3998, 0);
        const journal = journalOf(random);
        if (journal) logAhead(journal, log, 4 << 20);
      }),
    );
  });
});
