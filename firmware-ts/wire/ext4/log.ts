/**
 * How far the log of an ext4 journal is alive (Documentation/filesystems/ext4/journal.rst): transactions follow each other from the block at which the
 * journal's superblock says that it starts, and what lies behind the last of them is older. A recovery goes the same way and stops at the same block.
 */
import { isJournal, journalMagic } from "./journal.ts";

/** Of the journal's superblock, big endian. */
const blockBytesAt = 0xc;
const firstSequenceAt = 0x18;
const incompatibleAt = 0x28;
const versionAt = 0x4;
const secondVersion = 4;

/** Of its features without which the log cannot be read. */
const has64Bits = 0x2;
const hasChecksums2 = 0x8;
const hasChecksums3 = 0x10;
/** Those, revoked blocks (0x1) and commits that are not waited for (0x4). */
const known = 0x1f;

/** Of each block that is no data: magic, kind, sequence. */
const headerBytes = 12;
const kindAt = 0x4;
const sequenceAt = 0x8;
const kinds = { descriptor: 1, commit: 2, revocation: 5 } as const;

/** Of a tag, which says where one of the blocks belongs that follow the descriptor. */
const sameUuid = 0x2;
const isLast = 0x8;
const uuidBytes = 16;
/** At the end of a descriptor. */
const checksumBytes = 4;

interface Tags {
  readonly bytes: number;
  readonly flagsOf: (block: Buffer, at: number) => number;
  readonly endBytes: number;
}

/**
 * Whether the log ends within these blocks, which are its first ones: whole, and in the order of the journal. False also when it cannot be told. `log`
 * is at least one block.
 */
export function logEndsWithin(journalSuperblock: Buffer, log: Buffer): boolean {
  if (!isJournal(journalSuperblock)) return false;
  const blockBytes = journalSuperblock.readUInt32BE(blockBytesAt);
  if (blockBytes < 1024) return false;
  const tags = tagsOf(journalSuperblock, blockBytes);
  if (tags === undefined) return false;
  let sequence = journalSuperblock.readUInt32BE(firstSequenceAt);
  for (let at = 0; at + blockBytes <= log.length; ) {
    const block = log.subarray(at, at + blockBytes);
    if (block.readUInt32BE(0) !== journalMagic) return true;
    if (block.readUInt32BE(sequenceAt) !== sequence) return true;
    const kind = block.readUInt32BE(kindAt);
    if (kind === kinds.commit) sequence = (sequence + 1) >>> 0;
    else if (kind !== kinds.descriptor && kind !== kinds.revocation) return true;
    at += blockBytes * (kind === kinds.descriptor ? 1 + countOf(tags, block) : 1);
  }
  return false;
}

/** Undefined: there is something in the log that is not known here. */
function tagsOf(journalSuperblock: Buffer, blockBytes: number): Tags | undefined {
  const features =
    journalSuperblock.readUInt32BE(versionAt) === secondVersion
      ? journalSuperblock.readUInt32BE(incompatibleAt)
      : 0;
  if ((features & ~known) !== 0) return undefined;
  if ((features & hasChecksums3) !== 0) {
    const flagsOf = (block: Buffer, at: number) => block.readUInt32BE(at + 4);
    return { bytes: 16, flagsOf, endBytes: blockBytes - checksumBytes };
  }
  const isChecked = (features & hasChecksums2) !== 0;
  return {
    bytes: 8 + ((features & has64Bits) === 0 ? 0 : 4) + (isChecked ? 2 : 0),
    flagsOf: (block, at) => block.readUInt16BE(at + 6),
    endBytes: blockBytes - (isChecked ? checksumBytes : 0),
  };
}

/** How many blocks follow a descriptor. */
function countOf({ bytes, flagsOf, endBytes }: Tags, block: Buffer): number {
  let count = 0;
  for (let at = headerBytes; at + bytes <= endBytes; ) {
    count += 1;
    const flags = flagsOf(block, at);
    if ((flags & isLast) !== 0) break;
    at += bytes + ((flags & sameUuid) === 0 ? uuidBytes : 0);
  }
  return count;
}
