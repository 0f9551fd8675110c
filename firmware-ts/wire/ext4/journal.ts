/**
 * Where the journal of an ext4 file system lies, and which part of it a recovery starts at (Documentation/filesystems/ext4: super.rst, journal.rst).
 * Nothing is believed that is out of bounds.
 */
import type { Range } from "../../schema/range.ts";
import { type Extent, extentsOf, rootBytes } from "./extents.ts";
import { blockSizeOf, superblockBytes } from "./superblock.ts";

/** Of the file system's superblock, little endian. */
const compatibleAt = 0x5c;
const hasJournal = 0x4;
const journalBackupTypeAt = 0xfd;
/** s_jnl_blocks is a copy of the journal inode's block map. */
const backupIsBlockMap = 1;
const journalMapAt = 0x10c;

/** Of the journal's superblock (jbd2), big endian. */
export const journalMagic = 0xc03b3998;
const journalLengthAt = 0x10;
const journalFirstAt = 0x14;
const journalStartAt = 0x1c;
const journalErrorAt = 0x20;

export interface Journal {
  readonly blockSizeBytes: number;
  /** In the order of the journal, without gaps. */
  readonly extents: readonly Extent[];
}

/** Whether an aborted journal has written down its error, which the next mount would hand on to the superblock. */
export function journalRemembersError(block: Buffer): boolean {
  return isJournal(block) && block.readUInt32BE(journalErrorAt) !== 0;
}

export function isJournal(block: Buffer): boolean {
  return block.length >= superblockBytes && block.readUInt32BE(0) === journalMagic;
}

/** The journal, if the superblock says where it is: undefined for one that is elsewhere, scattered, or not there. */
export function journalOf(superblock: Buffer): Journal | undefined {
  const blockSizeBytes = blockSizeOf(superblock);
  if (blockSizeBytes === undefined) return undefined;
  if ((superblock.readUInt32LE(compatibleAt) & hasJournal) === 0) return undefined;
  if (superblock.readUInt8(journalBackupTypeAt) !== backupIsBlockMap) return undefined;
  const extents = extentsOf(superblock.subarray(journalMapAt, journalMapAt + rootBytes));
  return extents && { blockSizeBytes, extents };
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
