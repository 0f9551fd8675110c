/** A small ext4 file system, written by hand: groups of 32 inodes whose metadata lie where a test can tell by heart. */
import type { Readable } from "../../hal/block/foresee.ts";

export const imageBytes = 4 << 20;
const inodesPerGroup = 32;
const groups = 8;
const descriptorBytes = 64;

export interface NamedInode {
  readonly inode: number;
  readonly name: string;
  /** As the kernel counts kinds: 2 is a directory. */
  readonly kind?: number;
}

export interface Shape {
  readonly blockSizeBytes: number;
  readonly inodeBytes: number;
}

export class Ext4Image {
  readonly bytes = Buffer.alloc(imageBytes);
  readonly shape: Shape;

  constructor(shape: Shape = { blockSizeBytes: 1024, inodeBytes: 256 }) {
    this.shape = shape;
    const { blockSizeBytes, inodeBytes } = shape;
    const block = this.superblock;
    block.writeUInt32LE(groups * inodesPerGroup, 0x0);
    block.writeUInt32LE(imageBytes / blockSizeBytes, 0x4);
    block.writeUInt32LE(Math.log2(blockSizeBytes / 1024), 0x18);
    block.writeUInt32LE(inodesPerGroup, 0x28);
    block.writeUInt16LE(0xef53, 0x38);
    block.writeUInt32LE(1, 0x4c);
    block.writeUInt16LE(inodeBytes, 0x58);
    // Kinds in entries, extents, 64 bits.
    block.writeUInt32LE(0x2 | 0x40 | 0x80, 0x60);
    block.writeUInt16LE(descriptorBytes, 0xfe);
    for (let group = 0; group < groups; group += 1) {
      const descriptor = this.descriptor(group);
      descriptor.writeUInt32LE(this.blockBitmapOf(group), 0x0);
      descriptor.writeUInt32LE(this.inodeBitmapOf(group), 0x4);
      descriptor.writeUInt32LE(this.tableOf(group), 0x8);
    }
  }

  get superblock(): Buffer {
    return this.bytes.subarray(1024, 2048);
  }

  descriptor(group: number): Buffer {
    const from = this.shape.blockSizeBytes === 1024 ? 2048 : this.shape.blockSizeBytes;
    return this.bytes.subarray(from + group * descriptorBytes);
  }

  /** Far enough from each other that no two are in one page, nor in a gap that is worth filling. */
  blockBitmapOf = (group: number) => 100 + group * 20;
  inodeBitmapOf = (group: number) => 300 + group * 20;
  tableOf = (group: number) => 500 + group * 20;

  inode(number: number): Buffer {
    const { blockSizeBytes, inodeBytes } = this.shape;
    const group = Math.floor((number - 1) / inodesPerGroup);
    const index = (number - 1) % inodesPerGroup;
    const at = this.tableOf(group) * blockSizeBytes + index * inodeBytes;
    return this.bytes.subarray(at, at + inodeBytes);
  }

  /** Where its bytes begin. */
  inodeAt(number: number): number {
    return this.inode(number).byteOffset - this.bytes.byteOffset;
  }

  block(number: number): Buffer {
    const { blockSizeBytes } = this.shape;
    return this.bytes.subarray(number * blockSizeBytes, (number + 1) * blockSizeBytes);
  }

  /** A directory of one block for each list of entries, one after the other. */
  directory(number: number, atBlock: number, ...blocks: readonly (readonly NamedInode[])[]): void {
    const inode = this.inode(number);
    inode.writeUInt16LE(0x41ed, 0x0);
    inode.writeUInt32LE(0x80000, 0x20);
    inode.writeUInt16LE(0xf30a, 0x28);
    inode.writeUInt16LE(1, 0x28 + 2);
    inode.writeUInt16LE(4, 0x28 + 4);
    inode.writeUInt16LE(blocks.length, 0x28 + 12 + 4);
    inode.writeUInt32LE(atBlock, 0x28 + 12 + 8);
    for (const [i, entries] of blocks.entries())
      this.entries(atBlock + i, [
        ...(i === 0 ? [".", ".."].map((name) => ({ inode: number, name })) : []),
        ...entries,
      ]);
  }

  /** The last entry takes what is left. */
  entries(atBlock: number, entries: readonly NamedInode[]): void {
    const block = this.block(atBlock).fill(0);
    let at = 0;
    for (const [i, { inode, name, kind }] of entries.entries()) {
      const bytes = Buffer.from(name, "latin1");
      const isLast = i === entries.length - 1;
      const length = isLast ? block.length - at : 8 + 4 * Math.ceil(bytes.length / 4);
      block.writeUInt32LE(inode, at);
      block.writeUInt16LE(length % 65_536, at + 4);
      block.writeUInt8(bytes.length, at + 6);
      block.writeUInt8(kind ?? 2, at + 7);
      bytes.copy(block, at + 8);
      at += length;
    }
  }

  /** `/.dyad/nfs4/clients` with one client's directory, each in a group of its own; `records` are beside that client. */
  withRecords(records: readonly NamedInode[] = []): this {
    this.directory(2, 1000, [
      { inode: 12, name: "share" },
      { inode: 33, name: ".dyad" },
    ]);
    this.directory(33, 720, [{ inode: 65, name: "nfs4" }]);
    this.directory(65, 740, [{ inode: 97, name: "clients" }]);
    this.directory(97, 760, [{ inode: 129, name: "client" }, ...records]);
    this.directory(129, 780, [{ inode: 161, name: "revoked", kind: 1 }]);
    return this;
  }

  /** What its reads are, in `log`. */
  reader(log: [number, number][] = []): Readable {
    return {
      sizeBytes: imageBytes,
      read: async (fromBytes, lengthBytes) => {
        log.push([fromBytes, lengthBytes]);
        return this.bytes.subarray(fromBytes, fromBytes + lengthBytes);
      },
    };
  }
}
