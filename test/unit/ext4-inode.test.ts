/** Where the metadata of the first groups are, by the first descriptor. */
import { expect, test } from "vitest";
import { firstGroupAhead } from "../../firmware-ts/wire/ext4/inode.ts";

const kib = 1024;

/** As mke2fs makes it with blocks of 1 KiB; `wide` has descriptors of 64 bytes. */
function superblock(wide: boolean): Buffer {
  const block = Buffer.alloc(kib);
  block.writeUInt32LE(4096, 0x0);
  block.writeUInt32LE(512, 0x28);
  block.writeUInt16LE(0xef53, 0x38);
  block.writeUInt32LE(1, 0x4c);
  block.writeUInt16LE(256, 0x58);
  block.writeUInt32LE(wide ? 0x80 : 0, 0x60);
  block.writeUInt16LE(64, 0xfe);
  return block;
}

/** High halves of the numbers are `high`. */
function descriptor(blockBitmap: number, inodeBitmap: number, inodeTable: number, high = 0) {
  const bytes = Buffer.alloc(kib);
  for (const [at, number] of [blockBitmap, inodeBitmap, inodeTable].entries()) {
    bytes.writeUInt32LE(number, 4 * at);
    bytes.writeUInt32LE(high, 0x20 + 4 * at);
  }
  return bytes;
}

test("from the bitmaps, behind what is kept for descriptors, to the first inodes", () => {
  const first = descriptor(259, 267, 275);
  for (const wide of [false, true])
    expect(firstGroupAhead(superblock(wide), first)).toEqual([
      { fromBytes: 259 * kib, lengthBytes: (275 - 259 + 48) * kib },
    ]);
});

test("numbers of 64 bits where there are such, and no more than is reasonable at once", () => {
  const far = descriptor(10, 20, 30_000, 1);
  expect(firstGroupAhead(superblock(true), far)).toEqual([
    { fromBytes: (2 ** 32 + 10) * kib, lengthBytes: 384 * kib },
  ]);
  expect(firstGroupAhead(superblock(false), far)[0]?.fromBytes).toBe(10 * kib);
});

test.each<[string, Buffer, Buffer]>([
  ["without a file system", Buffer.alloc(kib), descriptor(259, 267, 275)],
  ["with a descriptor that was cut short", superblock(true), descriptor(1, 2, 3).subarray(0, 63)],
  ["with numbers beyond all disks", superblock(true), descriptor(1, 2, 3, 2 ** 32 - 1)],
])("nothing can be told %s", (_, block, first) => {
  expect(firstGroupAhead(block, first)).toEqual([]);
});
