/**
 * What a mount of an ext4 volume and the start of its file service will read, found out where a read is cheapest: beside the disk, before there is a
 * device. Both go through small pieces of metadata, each known when the last has come, and for the kernel each goes through a loop device, FUSE
 * and NBD. So the same way is gone here first: superblock, descriptors, `/`, and whatever is below `/.dyad`, one level after the other.
 *
 * Obligations: it only reads, and stops at the first read that fails, as reads do of a disk that is ours no more. What it tells may be
 * out of date (the journal is not recovered yet) or nonsense (nobody has checked the disk); it is bounded all the same, in reads, in
 * memory and in time, and lies on the disk.
 */
import type { Foreseen, Range } from "../../firmware-ts/schema/range.ts";
import { type Entry, entriesOf } from "../../firmware-ts/wire/ext4/directory.ts";
import { type Extent, extentsOf, leavesOf } from "../../firmware-ts/wire/ext4/extents.ts";
import {
  descriptorAt,
  directoryOf,
  type Group,
  groupOf,
  placeOf,
  rootInode,
} from "../../firmware-ts/wire/ext4/inode.ts";
import { journalAt, journalOf } from "../../firmware-ts/wire/ext4/journal.ts";
import {
  type Geometry,
  geometryOf,
  superblockAt,
  superblockBytes,
} from "../../firmware-ts/wire/ext4/superblock.ts";

/** Where file services keep their state on a volume. */
const stateName = ".dyad";

/** Superblock and descriptors of a thousand groups. */
const firstBytes = 64 << 10;
/** The kernel reads pages. */
const pageBytes = 4096;
/** Reading over a gap of this is cheaper than another read. */
const gapBytesMax = 3 * pageBytes;

/** Of what is foreseen. Since all that is read here is foreseen, it bounds that, too. */
const totalBytesMax = 512 << 10;
/** Of one directory. Most are one block; `/` may hold whatever its users put there. */
const directoryBytesMax = 64 << 10;
const entriesMax = 1024;
const depthMax = 16;
const readsAtOnceMax = 16;

/** A disk to be read; undefined: it could not be, or is not to be read any more. */
export interface Readable {
  readonly sizeBytes: number;
  read(fromBytes: number, lengthBytes: number): Promise<Buffer | undefined>;
}

/** What was found within `deadlineMs`; undefined when there is no file system. */
export async function foresee(disk: Readable, deadlineMs: number): Promise<Foreseen | undefined> {
  let walk: Walk | undefined;
  let isLate = false;
  const walked = Walk.begin(disk).then(async (begun) => {
    walk = isLate ? undefined : begun;
    await walk?.follow();
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, deadlineMs);
  });
  await Promise.race([walked, late]);
  clearTimeout(timer);
  isLate = true;
  return walk?.end();
}

class Walk {
  readonly #disk: Readable;
  readonly #geometry: Geometry;
  /** A block, or a page if that is larger: what is read at once. */
  readonly #pieceBytes: number;
  /** Numbers of the pieces that will be read. */
  readonly #foreseen = new Set<number>();
  readonly #pieces = new Map<number, Promise<Buffer | undefined>>();
  readonly #directories = new Set<number>([rootInode]);
  /** Reads that are under way, and those that wait until one of them has ended. */
  #underWay = 0;
  readonly #waiting: (() => void)[] = [];
  #isOver = false;

  private constructor(disk: Readable, geometry: Geometry, first: Buffer) {
    this.#disk = disk;
    this.#geometry = geometry;
    this.#pieceBytes = Math.max(pageBytes, geometry.blockSizeBytes);
    for (let at = 0; at + this.#pieceBytes <= first.length; at += this.#pieceBytes) {
      const piece = first.subarray(at, at + this.#pieceBytes);
      this.#pieces.set(at / this.#pieceBytes, Promise.resolve(piece));
    }
  }

  static async begin(disk: Readable): Promise<Walk | undefined> {
    const first = await disk.read(0, Math.min(firstBytes, disk.sizeBytes));
    const superblock = first?.subarray(superblockAt, superblockAt + superblockBytes);
    const geometry = superblock && geometryOf(superblock);
    if (!first || !geometry) return undefined;
    const walk = new Walk(disk, geometry, first);
    walk.#expect(superblockAt, superblockBytes);
    const journal = journalOf(superblock);
    if (journal) walk.#expect(journalAt(journal), superblockBytes);
    return walk;
  }

  /** Nothing is read any more from here on. */
  end(): Foreseen {
    this.#isOver = true;
    const { blockSizeBytes } = this.#geometry;
    const places = [...this.#foreseen].sort((one, other) => one - other);
    return { blockSizeBytes, ranges: this.#merged(places) };
  }

  async follow(): Promise<void> {
    const inRoot = await this.#entriesOf(rootInode);
    let level = inRoot.filter(({ name }) => name === stateName);
    let left = entriesMax;
    for (let depth = 0; depth < depthMax && level.length > 0; depth += 1) {
      const below = await Promise.all(level.map((entry) => this.#below(entry)));
      level = below.flat().slice(0, left);
      left -= level.length;
    }
  }

  /** What an entry leads to. Of a file, the inode alone is read at a start, and by the kernel only. */
  async #below({ inode, mayBeDirectory }: Entry): Promise<readonly Entry[]> {
    if (!mayBeDirectory) {
      await this.#placeOf(inode);
      return [];
    }
    // What is damaged may lead back to where we were.
    if (this.#directories.has(inode)) return [];
    this.#directories.add(inode);
    return await this.#entriesOf(inode);
  }

  async #entriesOf(inode: number): Promise<readonly Entry[]> {
    const place = await this.#placeOf(inode);
    if (place === undefined) return [];
    const bytes = await this.#read(place.atBytes, this.#geometry.inodeBytes);
    const root = bytes && directoryOf(bytes);
    if (root === undefined) return [];
    // A start makes directories in there, and removes some.
    if (inode !== rootInode) {
      this.#expectBlock(place.group.blockBitmap);
      this.#expectBlock(place.group.inodeBitmap);
    }
    const extents = await this.#extentsOf(root);
    const blocks = await Promise.all(
      this.#blocksOf(extents).map((block) => this.#readBlock(block)),
    );
    return blocks.flatMap((block) => (block ? entriesOf(block) : []));
  }

  /** A directory that has grown among others is in many pieces, and its tree has leaves. Deeper ones have thousands of entries. */
  async #extentsOf(root: Buffer): Promise<readonly Extent[]> {
    const inRoot = extentsOf(root);
    if (inRoot) return inRoot;
    const nodes = (leavesOf(root) ?? []).map(async ({ first, atBlock }) => {
      const node = await this.#readBlock(atBlock);
      return (node && extentsOf(node, first)) ?? [];
    });
    return (await Promise.all(nodes)).flat();
  }

  /** Where an inode is, bytes from the begin of the disk; it is expected to be read there. */
  async #placeOf(inode: number): Promise<{ readonly atBytes: number; group: Group } | undefined> {
    const place = placeOf(this.#geometry, inode);
    if (place === undefined) return undefined;
    const { blockSizeBytes, descriptorBytes, inodeBytes } = this.#geometry;
    const descriptor = await this.#read(descriptorAt(this.#geometry, place.group), descriptorBytes);
    const group = descriptor && groupOf(this.#geometry, descriptor);
    if (group === undefined) return undefined;
    const atBytes = group.inodeTable * blockSizeBytes + place.atBytes;
    return this.#expect(atBytes, inodeBytes) ? { atBytes, group } : undefined;
  }

  #blocksOf(extents: readonly Extent[]): readonly number[] {
    const countMax = directoryBytesMax / this.#geometry.blockSizeBytes;
    const blocks: number[] = [];
    for (const { atBlock, blocks: count } of extents)
      for (let i = 0; i < count && blocks.length < countMax; i += 1) blocks.push(atBlock + i);
    return blocks;
  }

  #readBlock(block: number): Promise<Buffer | undefined> {
    const { blockSizeBytes } = this.#geometry;
    return this.#read(block * blockSizeBytes, blockSizeBytes);
  }

  #expectBlock(block: number): void {
    const { blockSizeBytes } = this.#geometry;
    this.#expect(block * blockSizeBytes, blockSizeBytes);
  }

  /** What lies within one piece, as everything does that is asked for here. Read by the mount, too, hence foreseen. */
  async #read(atBytes: number, lengthBytes: number): Promise<Buffer | undefined> {
    if (!this.#expect(atBytes, lengthBytes)) return undefined;
    const piece = Math.floor(atBytes / this.#pieceBytes);
    const begin = piece * this.#pieceBytes;
    const read = this.#pieces.get(piece) ?? this.#inTurn(begin);
    this.#pieces.set(piece, read);
    const bytes = await read;
    const found = bytes?.subarray(atBytes - begin, atBytes - begin + lengthBytes);
    return found?.length === lengthBytes ? found : undefined;
  }

  /** The piece that begins there, when few enough others are being read. */
  async #inTurn(begin: number): Promise<Buffer | undefined> {
    while (this.#underWay >= readsAtOnceMax)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let bytes: Buffer | undefined;
    this.#underWay += 1;
    if (!this.#isOver)
      bytes = await this.#disk.read(
        begin,
        Math.min(this.#pieceBytes, this.#disk.sizeBytes - begin),
      );
    this.#underWay -= 1;
    // Whoever gives nothing once is not asked again.
    if (bytes === undefined) this.#isOver = true;
    this.#waiting.shift()?.();
    return bytes;
  }

  /** False for what is not on the disk, and for more than is to be foreseen. */
  #expect(atBytes: number, lengthBytes: number): boolean {
    // Block 0 is what a number says that is not set, and the superblock's.
    if (atBytes < superblockAt || atBytes + lengthBytes > this.#disk.sizeBytes) return false;
    const piece = Math.floor(atBytes / this.#pieceBytes);
    if (this.#foreseen.has(piece)) return true;
    if (this.#isOver || (this.#foreseen.size + 1) * this.#pieceBytes > totalBytesMax) return false;
    this.#foreseen.add(piece);
    return true;
  }

  /** Small gaps are filled as long as there is room. */
  #merged(pieces: readonly number[]): readonly Range[] {
    let leftBytes = totalBytesMax - pieces.length * this.#pieceBytes;
    const ranges: { fromBytes: number; lengthBytes: number }[] = [];
    for (const piece of pieces) {
      const fromBytes = piece * this.#pieceBytes;
      const lengthBytes = Math.min(this.#pieceBytes, this.#disk.sizeBytes - fromBytes);
      const last = ranges.at(-1);
      const gapBytes = last ? fromBytes - last.fromBytes - last.lengthBytes : Number.NaN;
      if (last && gapBytes <= Math.min(gapBytesMax, leftBytes)) {
        last.lengthBytes += gapBytes + lengthBytes;
        leftBytes -= gapBytes;
      } else ranges.push({ fromBytes, lengthBytes });
    }
    return ranges;
  }
}
