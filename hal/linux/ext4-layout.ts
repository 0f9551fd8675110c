/**
 * As much of ext4's layout on the disk as is needed to know what a mount will read: where the superblock is, where the journal lies, and which part
 * of it a recovery starts at (Documentation/filesystems/ext4: super.rst, ifork.rst, journal.rst). Nothing is believed that is out of bounds.
 */
export const superblockAt = 1024;
export const superblockBytes = 1024;

/** Of the superblock, little endian. */
const logBlockSizeAt = 0x18;
const magicAt = 0x38;
const magic = 0xef53;
const stateAt = 0x3a;
const hasErrors = 0x2;
const compatibleAt = 0x5c;
const hasJournal = 0x4;
const journalBackupTypeAt = 0xfd;
/** s_jnl_blocks is a copy of the journal inode's block map. */
const backupIsBlockMap = 1;
const journalMapAt = 0x10c;

/** Of an extent tree's root, little endian: a header of 12 bytes, then at most four extents of 12. */
const extentMagic = 0xf30a;
const extentBytes = 12;
const extentsMax = 4;
/** A longer one is not initialised. */
const extentBlocksMax = 32_768;

/** Of the journal's superblock (jbd2), big endian. */
const journalMagic = 0xc03b3998;
const journalLengthAt = 0x10;
const journalFirstAt = 0x14;
const journalStartAt = 0x1c;
const journalErrorAt = 0x20;

/** Blocks of the file system, one after another, that hold a part of the journal. */
interface Extent {
  readonly atBlock: number;
  readonly blocks: number;
}

export interface Journal {
  readonly blockSizeBytes: number;
  /** In the order of the journal, without gaps. */
  readonly extents: readonly Extent[];
}

/** A piece of a device. */
export interface Range {
  readonly fromBytes: number;
  readonly lengthBytes: number;
}

/** Whether these are the 1024 bytes of an ext4 superblock. */
export function isExt4(superblock: Buffer): boolean {
  return superblock.length >= superblockBytes && superblock.readUInt16LE(magicAt) === magic;
}

/** Whether the kernel has found an error in it since it was checked. */
export function remembersError(superblock: Buffer): boolean {
  return isExt4(superblock) && (superblock.readUInt16LE(stateAt) & hasErrors) !== 0;
}

/** The same, written by an aborted journal, which the next mount would hand on to the superblock. */
export function journalRemembersError(block: Buffer): boolean {
  return isJournal(block) && block.readUInt32BE(journalErrorAt) !== 0;
}

function isJournal(block: Buffer): boolean {
  return block.length >= superblockBytes && block.readUInt32BE(0) === journalMagic;
}

/** The journal, if the superblock says where it is: undefined for one that is elsewhere, scattered, or not there. */
export function journalOf(superblock: Buffer): Journal | undefined {
  if (!isExt4(superblock) || (superblock.readUInt32LE(compatibleAt) & hasJournal) === 0) return;
  if (superblock.readUInt8(journalBackupTypeAt) !== backupIsBlockMap) return;
  const logBlockSize = superblock.readUInt32LE(logBlockSizeAt);
  if (logBlockSize > 6) return;
  const extents = extentsOf(superblock.subarray(journalMapAt));
  return extents && { blockSizeBytes: 1024 << logBlockSize, extents };
}

function extentsOf(root: Buffer): readonly Extent[] | undefined {
  const count = root.readUInt16LE(2);
  const depth = root.readUInt16LE(6);
  if (root.readUInt16LE(0) !== extentMagic || depth !== 0) return;
  if (count === 0 || count > extentsMax) return;
  const extents: Extent[] = [];
  let next = 0;
  for (let i = 1; i <= count; i += 1) {
    const at = i * extentBytes;
    const blocks = root.readUInt16LE(at + 4);
    if (root.readUInt32LE(at) !== next || blocks === 0 || blocks > extentBlocksMax) return;
    const atBlock = root.readUInt16LE(at + 6) * 2 ** 32 + root.readUInt32LE(at + 8);
    extents.push({ atBlock, blocks });
    next += blocks;
  }
  return extents;
}

/** Where the journal begins on the device, bytes: there its superblock is. */
export function journalAt({ blockSizeBytes, extents }: Journal): number {
  return (extents[0]?.atBlock ?? 0) * blockSizeBytes;
}

/**
 * What a recovery reads first, `lengthBytesMax` at most: from the block at which the journal's superblock says that the log starts, round
 * its end. Empty: there is nothing to recover, or it cannot be told.
 */
export function logAhead(
  journal: Journal,
  journalSuperblock: Buffer,
  lengthBytesMax: number,
): readonly Range[] {
  if (!isJournal(journalSuperblock)) return [];
  const length = journalSuperblock.readUInt32BE(journalLengthAt);
  const first = journalSuperblock.readUInt32BE(journalFirstAt);
  const start = journalSuperblock.readUInt32BE(journalStartAt);
  const there = journal.extents.reduce((sum, { blocks }) => sum + blocks, 0);
  if (start === 0 || first === 0 || start < first || start >= length || length > there) return [];
  const wanted = Math.floor(lengthBytesMax / journal.blockSizeBytes);
  const toEnd = Math.min(wanted, length - start);
  const fromFirst = Math.min(wanted - toEnd, start - first);
  return [...piecesOf(journal, start, toEnd), ...piecesOf(journal, first, fromFirst)];
}

/** Where `count` blocks of the journal, from its block `from` on, lie on the device. */
function piecesOf({ blockSizeBytes, extents }: Journal, from: number, count: number): Range[] {
  const pieces: Range[] = [];
  let begins = 0;
  for (const { atBlock, blocks } of extents) {
    const begin = Math.max(from, begins);
    const end = Math.min(from + count, begins + blocks);
    if (begin < end)
      pieces.push({
        fromBytes: (atBlock + begin - begins) * blockSizeBytes,
        lengthBytes: (end - begin) * blockSizeBytes,
      });
    begins += blocks;
  }
  return pieces;
}
