/** Whatever is on the disk, what is foreseen of it is bounded, and lies on it. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { entriesOf } from "../../firmware-ts/wire/ext4/directory.ts";
import { directoryOf } from "../../firmware-ts/wire/ext4/inode.ts";
import { geometryOf } from "../../firmware-ts/wire/ext4/superblock.ts";
import { foresee } from "../../hal/block/foresee.ts";
import { Ext4Image, imageBytes } from "../support/ext4-image.ts";
import { limitsMs } from "../support/limits.ts";

const bytes = (lengthMax: number) =>
  fc.uint8Array({ maxLength: lengthMax }).map((each) => Buffer.from(each));

async function judge(image: Ext4Image): Promise<void> {
  const reads: [number, number][] = [];
  const foreseen = await foresee(image.reader(reads), limitsMs.condition);
  for (const [from, length] of reads) {
    expect(Number.isSafeInteger(from) && from >= 0 && from % 512 === 0).toBe(true);
    expect(length > 0 && length % 512 === 0 && from + length <= imageBytes).toBe(true);
  }
  expect(reads.length).toBeLessThanOrEqual(129);
  if (foreseen === undefined) return;
  expect(foreseen.ranges.length).toBeLessThanOrEqual(256);
  let end = -1;
  let total = 0;
  for (const { fromBytes, lengthBytes } of foreseen.ranges) {
    expect(fromBytes).toBeGreaterThan(end);
    end = fromBytes + lengthBytes;
    total += lengthBytes;
  }
  expect(end).toBeLessThanOrEqual(imageBytes);
  expect(total).toBeLessThanOrEqual(512 << 10);
}

/** Where everything is that is looked at: each word of it decides about what is read next. */
const places = (image: Ext4Image) => [
  image.superblock,
  image.descriptor(0).subarray(0, 512),
  ...[2, 33, 65, 97, 129].map((inode) => image.inode(inode)),
  ...[1000, 720, 740, 760, 780].map((block) => image.block(block).subarray(0, 64)),
];

const word = fc.oneof(
  fc.nat(0xffff_ffff),
  fc.constantFrom(0, 1, 2, 11, 33, 0xffff, 0xffff_ffff, 0x7fff_ffff),
  fc.nat(4096),
);

test("a file system of which some words are others", async () => {
  const change = fc.record({
    place: fc.nat(11),
    at: fc.nat(1023),
    word,
    size: fc.constantFrom(1, 2, 4),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 8 }), async (changes) => {
      const image = new Ext4Image().withRecords();
      for (const { place, at, word, size } of changes) {
        const target = places(image)[place] ?? image.superblock;
        target.writeUIntLE(word % 2 ** (8 * size), at % (target.length - size + 1), size);
      }
      await judge(image);
    }),
    { numRuns: 300 },
  );
});

test("a file system whose directories are random", async () => {
  const shape = fc.record({
    blockSizeBytes: fc.constantFrom(1024, 2048, 4096),
    inodeBytes: fc.constantFrom(128, 256, 1024),
  });
  const entry = fc.record({
    inode: fc.nat(300),
    name: fc.stringMatching(/^[a-z.]{1,12}$/),
    kind: fc.constantFrom(0, 1, 2, 7),
  });
  const directory = fc.record({
    inode: fc.integer({ min: 2, max: 256 }),
    atBlock: fc.integer({ min: 1, max: 1020 }),
    entries: fc.array(entry, { maxLength: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(shape, fc.array(directory, { maxLength: 40 }), async (form, directories) => {
      const image = new Ext4Image(form);
      for (const { inode, atBlock, entries } of directories)
        image.directory(inode, atBlock, entries);
      image.directory(2, 1000, [{ inode: 3, name: ".dyad" }]);
      await judge(image);
    }),
    { numRuns: 100 },
  );
});

test("random bytes are read without a fault", () => {
  fc.assert(
    fc.property(bytes(1024), bytes(1024), (superblock, block) => {
      if (superblock.length >= 0x3a) superblock.writeUInt16LE(0xef53, 0x38);
      geometryOf(superblock);
      directoryOf(block);
      for (const { inode, name } of entriesOf(block)) {
        expect(inode).toBeGreaterThan(0);
        expect(name.length).toBeGreaterThan(0);
      }
    }),
  );
});
