/** Group descriptors and inodes of ext4 (Documentation/filesystems/ext4: group_descr.rst, inodes.rst), as much as is needed to follow a directory. */

import type { Range } from "../../schema/range.ts";
import { rootBytes } from "./extents.ts";
import { type Geometry, geometryOf, superblockAt } from "./superblock.ts";

export const rootInode = 2;

/** Of a descriptor, little endian: the lower half of each number, and the upper one where there is one. */
const numbersAt = {
  blockBitmap: [0x0, 0x20],
  inodeBitmap: [0x4, 0x24],
  inodeTable: [0x8, 0x28],
} as const;

/** Of a file system with flexible groups, as mke2fs makes them: bitmaps of sixteen groups, then the first inodes. */
const firstInodesBytes = 48 << 10;
const firstGroupBytesMax = 384 << 10;

/** Of an inode, little endian. */
const modeAt = 0x0;
const kindMask = 0xf000;
const directoryKind = 0x4000;
const flagsAt = 0x20;
const hasExtents = 0x80000;
const mapAt = 0x28;

/** Numbers of blocks: nothing says that they are on the disk. */
export interface Group {
  readonly blockBitmap: number;
  readonly inodeBitmap: number;
  readonly inodeTable: number;
}

/** Where an inode is: bytes from the begin of its group's table. */
export interface Place {
  readonly group: number;
  readonly atBytes: number;
}

/** Undefined for a number that no inode has. */
export function placeOf(geometry: Geometry, inode: number): Place | undefined {
  if (inode < 1 || inode > geometry.inodes) return undefined;
  const { inodesPerGroup, inodeBytes } = geometry;
  const index = inode - 1;
  return {
    group: Math.floor(index / inodesPerGroup),
    atBytes: (index % inodesPerGroup) * inodeBytes,
  };
}

/** Where a group's descriptor is on the device, bytes. They follow the superblock's block. */
export function descriptorAt({ blockSizeBytes, descriptorBytes }: Geometry, group: number): number {
  const superblock = Math.floor(superblockAt / blockSizeBytes);
  return (superblock + 1) * blockSizeBytes + group * descriptorBytes;
}

export function groupOf({ descriptorBytes, isWide }: Geometry, bytes: Buffer): Group | undefined {
  if (bytes.length < descriptorBytes) return undefined;
  const number = ([low, high]: readonly [number, number]) =>
    bytes.readUInt32LE(low) + (isWide ? bytes.readUInt32LE(high) * 2 ** 32 : 0);
  return {
    blockBitmap: number(numbersAt.blockBitmap),
    inodeBitmap: number(numbersAt.inodeBitmap),
    inodeTable: number(numbersAt.inodeTable),
  };
}

/**
 * The metadata of the first groups, which a mount reads. Between the descriptors and them there may be a quarter of a mebibyte that is kept for more
 * descriptors, which nobody reads. `descriptors` begin with that of the first group. Empty: it cannot be told.
 */
export function firstGroupAhead(superblock: Buffer, descriptors: Buffer): readonly Range[] {
  const geometry = geometryOf(superblock);
  const group = geometry && groupOf(geometry, descriptors);
  if (!geometry || !group) return [];
  const { blockSizeBytes } = geometry;
  const from = Math.min(group.blockBitmap, group.inodeBitmap, group.inodeTable);
  const end = group.inodeTable * blockSizeBytes + firstInodesBytes;
  const fromBytes = from * blockSizeBytes;
  // It says what was written there, whatever that is.
  if (!Number.isSafeInteger(end)) return [];
  return [{ fromBytes, lengthBytes: Math.min(end - fromBytes, firstGroupBytesMax) }];
}

/** The root of a directory's extent tree. Undefined for other files, and for a directory that has none. */
export function directoryOf(inode: Buffer): Buffer | undefined {
  if (inode.length < mapAt + rootBytes) return undefined;
  if ((inode.readUInt16LE(modeAt) & kindMask) !== directoryKind) return undefined;
  if ((inode.readUInt32LE(flagsAt) & hasExtents) === 0) return undefined;
  return inode.subarray(mapAt, mapAt + rootBytes);
}
