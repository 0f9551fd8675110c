/**
 * The superblock of ext4 (Documentation/filesystems/ext4/super.rst), as much of it as is needed to find things on the disk. It is read while nobody has
 * checked it: nothing of it is believed that is out of bounds.
 */
export const superblockAt = 1024;
export const superblockBytes = 1024;

/** Little endian. */
const inodesAt = 0x0;
const logBlockSizeAt = 0x18;
const inodesPerGroupAt = 0x28;
const magicAt = 0x38;
const magic = 0xef53;
const stateAt = 0x3a;
const hasErrors = 0x2;
const revisionAt = 0x4c;
const inodeBytesAt = 0x58;
const incompatibleAt = 0x60;
const descriptorBytesAt = 0xfe;

/** 64 KiB. */
const logBlockSizeMax = 6;

/** Of the features without which nothing can be read: those that say where something is. */
const isJournalDevice = 0x8;
/** The descriptors are all over the disk. */
const hasMetaGroups = 0x10;
const has64Bits = 0x80;

const inodeBytesMin = 128;
const descriptorBytesMin = { narrow: 32, wide: 64 } as const;
const descriptorBytesMax = 1024;

/** Where things are on the disk. */
export interface Geometry {
  readonly blockSizeBytes: number;
  readonly inodes: number;
  readonly inodesPerGroup: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  /** Numbers of blocks in descriptors have 64 bits. */
  readonly isWide: boolean;
}

/** Whether these are the 1024 bytes of an ext4 superblock. */
export function isExt4(superblock: Buffer): boolean {
  return superblock.length >= superblockBytes && superblock.readUInt16LE(magicAt) === magic;
}

/** Whether the kernel has found an error in it since it was checked. */
export function remembersError(superblock: Buffer): boolean {
  return isExt4(superblock) && (superblock.readUInt16LE(stateAt) & hasErrors) !== 0;
}

export function blockSizeOf(superblock: Buffer): number | undefined {
  if (!isExt4(superblock)) return undefined;
  const log = superblock.readUInt32LE(logBlockSizeAt);
  return log <= logBlockSizeMax ? 1024 << log : undefined;
}

/** Undefined for what is no file system, is not as it should be, or has its descriptors elsewhere. */
export function geometryOf(superblock: Buffer): Geometry | undefined {
  const blockSizeBytes = blockSizeOf(superblock);
  if (blockSizeBytes === undefined) return undefined;
  const incompatible = superblock.readUInt32LE(incompatibleAt);
  if ((incompatible & (isJournalDevice | hasMetaGroups)) !== 0) return undefined;
  const isWide = (incompatible & has64Bits) !== 0;
  const inodesPerGroup = superblock.readUInt32LE(inodesPerGroupAt);
  // A bitmap is one block.
  if (inodesPerGroup === 0 || inodesPerGroup > 8 * blockSizeBytes) return undefined;
  const isFirstRevision = superblock.readUInt32LE(revisionAt) === 0;
  const inodeBytes = isFirstRevision ? inodeBytesMin : superblock.readUInt16LE(inodeBytesAt);
  if (!isPowerWithin(inodeBytes, inodeBytesMin, blockSizeBytes)) return undefined;
  const descriptorBytes = isWide
    ? superblock.readUInt16LE(descriptorBytesAt)
    : descriptorBytesMin.narrow;
  const { narrow, wide } = descriptorBytesMin;
  if (!isPowerWithin(descriptorBytes, isWide ? wide : narrow, descriptorBytesMax)) return undefined;
  return {
    ...{ blockSizeBytes, inodesPerGroup, inodeBytes, descriptorBytes, isWide },
    inodes: superblock.readUInt32LE(inodesAt),
  };
}

function isPowerWithin(value: number, min: number, max: number): boolean {
  return value >= min && value <= max && (value & (value - 1)) === 0;
}
