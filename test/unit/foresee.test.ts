import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Foreseen } from "../../firmware-ts/schema/range.ts";
import { foresee } from "../../hal/block/foresee.ts";
import { Ext4Image, imageBytes } from "../support/ext4-image.ts";
import { limitsMs } from "../support/limits.ts";

const seen = (image: Ext4Image) => foresee(image.reader(), limitsMs.condition);

const has = (foreseen: Foreseen | undefined, atBytes: number) =>
  foreseen?.ranges.some(
    ({ fromBytes, lengthBytes }) => fromBytes <= atBytes && atBytes < fromBytes + lengthBytes,
  ) ?? false;

describe("what a start will read", () => {
  test.each([
    [1024, 128],
    [1024, 256],
    [2048, 256],
  ])("blocks of %i bytes, inodes of %i", async (blockSizeBytes, inodeBytes) => {
    const image = new Ext4Image({ blockSizeBytes, inodeBytes }).withRecords();
    const foreseen = await seen(image);
    expect(foreseen?.blockSizeBytes).toBe(blockSizeBytes);
    for (const inode of [2, 33, 65, 97, 129, 161])
      expect([inode, has(foreseen, image.inodeAt(inode))]).toEqual([inode, true]);
    const blocks = [1000, 720, 740, 760, 780];
    for (const group of [1, 2, 3, 4])
      blocks.push(image.blockBitmapOf(group), image.inodeBitmapOf(group));
    for (const block of blocks)
      expect([block, has(foreseen, block * blockSizeBytes)]).toEqual([block, true]);
    // Neither what is beside it, nor the groups in which nothing is made.
    for (const block of [image.blockBitmapOf(0), image.inodeBitmapOf(5), 990, 800])
      expect([block, has(foreseen, block * blockSizeBytes)]).toEqual([block, false]);
  });

  test("each piece is read once, and the levels of the tree one after the other", async () => {
    const reads: [number, number][] = [];
    await foresee(new Ext4Image().withRecords().reader(reads), limitsMs.condition);
    expect(reads[0]).toEqual([0, 65_536]);
    expect(new Set(reads.map(([from]) => from)).size).toBe(reads.length);
    // Of five directories the inode and the block. The file's inode is for the kernel to read.
    expect(reads).toHaveLength(1 + 5 * 2);
  });

  test("a hashed directory: all leaves, nothing of what its index looks like", async () => {
    const image = new Ext4Image().withRecords();
    image.directory(
      97,
      760,
      [],
      [{ inode: 0, name: "" }],
      [{ inode: 129, name: "client" }],
      [{ inode: 193, name: "other" }],
    );
    image.directory(193, 900, []);
    const foreseen = await seen(image);
    for (const block of [760, 761, 762, 763, 780, 900])
      expect([block, has(foreseen, block * 1024)]).toEqual([block, true]);
  });

  test("a directory in many pieces, whose tree has leaves", async () => {
    const image = new Ext4Image().withRecords();
    const inode = image.inode(97);
    image.block(870).set(inode.subarray(0x28, 0x28 + 24));
    inode.writeUInt16LE(1, 0x28 + 6);
    inode.fill(0, 0x28 + 12).writeUInt32LE(870, 0x28 + 12 + 4);
    const foreseen = await seen(image);
    for (const block of [870, 760, 780]) expect(has(foreseen, block * 1024)).toBe(true);
    // A deeper one is left to the kernel.
    inode.writeUInt16LE(2, 0x28 + 6);
    expect(has(await seen(image), 870 * 1024)).toBe(false);
  });

  test("without kinds in entries the inodes tell", async () => {
    const image = new Ext4Image().withRecords([{ inode: 193, name: "file", kind: 0 }]);
    image.inode(193).writeUInt16LE(0x8180, 0);
    image.entries(740, [{ inode: 97, name: "clients", kind: 0 }]);
    const foreseen = await seen(image);
    expect(has(foreseen, 780 * 1024)).toBe(true);
    expect(has(foreseen, image.inodeAt(193))).toBe(true);
  });

  test("the journal's superblock, beside that of the file system", async () => {
    const image = new Ext4Image();
    const { superblock } = image;
    superblock.writeUInt32LE(0x4, 0x5c);
    superblock.writeUInt8(1, 0xfd);
    superblock.writeUInt16LE(0xf30a, 0x10c);
    superblock.writeUInt16LE(1, 0x10c + 2);
    superblock.writeUInt16LE(1024, 0x10c + 16);
    superblock.writeUInt32LE(2000, 0x10c + 20);
    expect((await seen(image))?.ranges).toContainEqual({ fromBytes: 2_048_000, lengthBytes: 4096 });
  });

  test("no state on the volume: the root alone was looked at", async () => {
    const image = new Ext4Image();
    image.directory(2, 1000, [{ inode: 12, name: "share" }]);
    const reads: [number, number][] = [];
    const foreseen = await foresee(image.reader(reads), limitsMs.condition);
    expect(reads).toHaveLength(3);
    expect(foreseen?.ranges).toHaveLength(3);
  });
});

describe("given up on", () => {
  test.each<[string, (superblock: Buffer) => void]>([
    ["no ext4", (block) => block.writeUInt16LE(0, 0x38)],
    ["descriptors all over the disk", (block) => block.writeUInt32LE(0x10, 0x60)],
    ["a journal's device", (block) => block.writeUInt32LE(0x8, 0x60)],
    ["blocks of more than 64 KiB", (block) => block.writeUInt32LE(7, 0x18)],
    ["no inodes in a group", (block) => block.writeUInt32LE(0, 0x28)],
    ["more inodes than a bitmap has bits", (block) => block.writeUInt32LE(8193, 0x28)],
    ["inodes of an odd size", (block) => block.writeUInt16LE(200, 0x58)],
    ["inodes larger than a block", (block) => block.writeUInt16LE(2048, 0x58)],
    ["descriptors that are too small", (block) => block.writeUInt16LE(32, 0xfe)],
  ])("the file system: %s", async (_, change) => {
    const image = new Ext4Image().withRecords();
    change(image.superblock);
    expect(await seen(image)).toBeUndefined();
  });

  test.each<[string, (image: Ext4Image) => void]>([
    ["not a directory", (image) => image.inode(97).writeUInt16LE(0x8180, 0)],
    ["a map of blocks", (image) => image.inode(97).writeUInt32LE(0, 0x20)],
    ["a deep tree", (image) => image.inode(97).writeUInt16LE(2, 0x28 + 6)],
    ["leaves that are none", (image) => image.inode(97).writeUInt16LE(1, 0x28 + 6)],
    ["more entries than have room", (image) => image.inode(97).writeUInt16LE(5, 0x28 + 2)],
    ["blocks beyond the disk", (image) => image.inode(97).writeUInt16LE(0xffff, 0x28 + 18)],
    ["entries of no length", (image) => image.block(760).writeUInt16LE(0, 4)],
    ["entries that lead out of the block", (image) => image.block(760).writeUInt16LE(0x7fc, 4)],
    ["a name longer than its entry", (image) => image.block(760).writeUInt8(99, 6)],
    ["an inode that there is not", (image) => image.block(760).writeUInt32LE(9999, 24)],
    ["a table beyond the disk", (image) => image.descriptor(4).writeUInt32LE(9999, 8)],
  ])("a directory: %s", async (_, change) => {
    const image = new Ext4Image().withRecords();
    change(image);
    const foreseen = await seen(image);
    expect(has(foreseen, 740 * 1024)).toBe(true);
    expect(has(foreseen, 780 * 1024)).toBe(false);
  });

  test("directories that lead to each other are looked at once", async () => {
    const image = new Ext4Image().withRecords();
    image.directory(129, 780, [
      { inode: 33, name: "up" },
      { inode: 129, name: "self" },
      { inode: 2, name: "root" },
    ]);
    const reads: [number, number][] = [];
    await foresee(image.reader(reads), limitsMs.condition);
    expect(reads).toHaveLength(1 + 5 * 2);
  });
});

describe("bounds", () => {
  test("what is more than half a mebibyte is left to the kernel", async () => {
    const image = new Ext4Image({ blockSizeBytes: 4096, inodeBytes: 4096 });
    const clients = Array.from({ length: 250 }, (_, i) => ({ inode: i + 6, name: `${i}` }));
    image.directory(2, 1000, [{ inode: 3, name: ".dyad" }]);
    image.directory(3, 1001, clients.slice(0, 200));
    for (const { inode } of clients.slice(0, 120)) image.directory(inode, 700 + inode, []);
    const foreseen = await seen(image);
    const lengths = foreseen?.ranges.map(({ lengthBytes }) => lengthBytes) ?? [];
    expect(lengths.reduce((sum, bytes) => sum + bytes, 0)).toBe(512 << 10);
  });

  test("no more than a few reads at once", async () => {
    const image = new Ext4Image({ blockSizeBytes: 4096, inodeBytes: 4096 });
    const clients = Array.from({ length: 60 }, (_, i) => ({ inode: i + 6, name: `${i}` }));
    image.directory(2, 1000, [{ inode: 3, name: ".dyad" }]);
    image.directory(3, 1001, clients);
    let underWay = 0;
    let most = 0;
    const { sizeBytes, read } = image.reader();
    const slow = async (from: number, length: number) => {
      underWay += 1;
      most = Math.max(most, underWay);
      await new Promise((resolve) => setImmediate(resolve));
      underWay -= 1;
      return await read(from, length);
    };
    await foresee({ sizeBytes, read: slow }, limitsMs.condition);
    expect(most).toBe(16);
  });

  test("a disk that gives no more is not asked again, and what was found before is told", async () => {
    const image = new Ext4Image().withRecords();
    let reads = 0;
    const { read } = image.reader();
    const revoked = async (from: number, length: number) => {
      reads += 1;
      return reads > 5 ? undefined : await read(from, length);
    };
    const foreseen = await foresee({ sizeBytes: imageBytes, read: revoked }, limitsMs.condition);
    expect(reads).toBe(6);
    expect(has(foreseen, 720 * 1024)).toBe(true);
  });

  describe("at the deadline", () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
    afterEach(() => void vi.useRealTimers());
    const turn = () => new Promise((resolve) => setImmediate(resolve));

    test("what was found by then; nothing is read afterwards", async () => {
      const image = new Ext4Image().withRecords();
      let reads = 0;
      let goOn: (() => void) | undefined;
      const { read } = image.reader();
      const hanging = async (from: number, length: number) => {
        reads += 1;
        if (reads === 4)
          await new Promise<void>((resolve) => {
            goOn = resolve;
          });
        return await read(from, length);
      };
      const looked = foresee({ sizeBytes: imageBytes, read: hanging }, 500);
      while (goOn === undefined) await turn();
      vi.advanceTimersByTime(500);
      expect(has(await looked, 1000 * 1024)).toBe(true);
      goOn();
      await turn();
      expect(reads).toBe(4);
    });

    test("nothing of a disk that does not answer at all", async () => {
      const read = () => new Promise<undefined>(() => {});
      const looked = foresee({ sizeBytes: imageBytes, read }, 500);
      vi.advanceTimersByTime(500);
      expect(await looked).toBeUndefined();
    });
  });
});
