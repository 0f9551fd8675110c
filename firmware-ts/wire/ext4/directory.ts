/**
 * Entries of a block of a directory (Documentation/filesystems/ext4/directory.rst). A hashed directory is read alike: its leaves are such blocks, and its
 * index nodes hide behind entries that are not in use.
 */

/** Little endian. */
const lengthAt = 4;
const nameLengthAt = 6;
const kindAt = 7;
const nameAt = 8;

/** Without the feature `filetype` the byte belongs to the name's length, and is 0. */
const kinds = { unknown: 0, directory: 2 } as const;

export interface Entry {
  readonly inode: number;
  readonly name: string;
  /** Without the inode it cannot always be told. */
  readonly mayBeDirectory: boolean;
}

/** Without the directory itself and the one above. Ends at the first entry that is not as it should be. */
export function entriesOf(block: Buffer): readonly Entry[] {
  const entries: Entry[] = [];
  let at = 0;
  while (at + nameAt <= block.length) {
    const length = lengthOf(block.readUInt16LE(at + lengthAt));
    const nameLength = block.readUInt8(at + nameLengthAt);
    if (length < nameAt + nameLength || at + length > block.length) break;
    const inode = block.readUInt32LE(at);
    const kind = block.readUInt8(at + kindAt);
    // One byte is one character: a name is a string of bytes in no known encoding.
    const name = block.toString("latin1", at + nameAt, at + nameAt + nameLength);
    if (inode !== 0 && nameLength > 0 && name !== "." && name !== "..")
      entries.push({
        inode,
        name,
        mayBeDirectory: kind === kinds.unknown || kind === kinds.directory,
      });
    at += length;
  }
  return entries;
}

/** A block of 64 KiB is longer than 16 bits can say (ext4_rec_len_from_disk). */
function lengthOf(stored: number): number {
  if (stored === 0 || stored === 0xffff) return 0x10000;
  return (stored & 0xfffc) | ((stored & 3) << 16);
}
