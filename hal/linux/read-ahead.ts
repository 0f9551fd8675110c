/**
 * What a mount will read, asked of the disk in large pieces before it asks in small ones. After a crash the kernel recovers the journal: it reads it
 * block by block, each when the last has come, which is several hundred round trips for one mebibyte (counted: 390), and most of what a
 * takeover of many virtual servers cost. Afterwards it reads the metadata at the beginning in another twenty. All of it comes from the device's page
 * cache then, which is what the file system reads through.
 *
 * Obligations: nothing but time depends on it. It reads only, from a device that is attached, hence ours (hal/block/attach); whatever
 * is not as it should be is left to the mount, which says so.
 */
import { type FileHandle, open } from "node:fs/promises";
import {
  journalAt,
  journalOf,
  logAhead,
  type Range,
  superblockAt,
  superblockBytes,
} from "./ext4-layout.ts";
import { adviseLater, ioctlLater } from "./syscalls.ts";

/** Group descriptors, bitmaps and the first inodes of a file system with flexible groups, as mke2fs makes them. */
const metadata: Range = { fromBytes: 0, lengthBytes: 384 << 10 };

/** Of a journal: more of it than this is rarely alive, and a disk reads so much while a client waits for one lost packet. */
const logBytesMax = 4 << 20;

/** ext4 begins with blocks of this size, and a change of the size empties the page cache: with others, reading ahead would be in vain. */
const blockSizeBytes = 1024;

/** <linux/fs.h>: _IOW(0x12, 113, size_t) */
const BLKBSZSET = 0x40081271;
/** <linux/fadvise.h> */
const POSIX_FADV_WILLNEED = 3;

/** What was read of the device on the way: nothing of what could not be read, or is not there. */
export interface FirstRead {
  readonly superblock?: Buffer;
  readonly journalSuperblock?: Buffer;
}

/**
 * Calls `then` while what was asked for is kept: the page cache of a device goes with the last who has it open. What was asked for need not have come
 * by then.
 */
export async function withReadAhead<T>(
  device: string,
  then: (read: FirstRead) => Promise<T>,
): Promise<T> {
  const file = await open(device, "r").catch(() => undefined);
  try {
    // The mount meets the same trouble, and tells it.
    const read = file ? await readAheadOf(file).catch(() => undefined) : undefined;
    return await then(read ?? {});
  } finally {
    await file?.close().catch(() => undefined);
  }
}

async function readAheadOf(file: FileHandle): Promise<FirstRead> {
  const size = Buffer.alloc(8);
  size.writeUInt32LE(blockSizeBytes);
  // Refused for a device that is mounted: then it is not mounted again.
  const isReady = (await ioctlLater(file.fd, BLKBSZSET, size)) >= 0;
  if (isReady) await advise(file, metadata);
  const superblock = await blockAt(file, superblockAt);
  const journal = journalOf(superblock);
  if (journal === undefined) return { superblock };
  const journalSuperblock = await blockAt(file, journalAt(journal)).catch(() => undefined);
  // What the superblock says counts all the same.
  if (journalSuperblock === undefined) return { superblock };
  if (isReady && journal.blockSizeBytes === blockSizeBytes)
    for (const piece of logAhead(journal, journalSuperblock, logBytesMax))
      await advise(file, piece);
  return { superblock, journalSuperblock };
}

function advise(file: FileHandle, { fromBytes, lengthBytes }: Range): Promise<number> {
  return adviseLater(file.fd, fromBytes, lengthBytes, POSIX_FADV_WILLNEED);
}

/** The 1024 bytes at a place of a device, or what there is of them. */
export async function blockAt(file: FileHandle, at: number): Promise<Buffer> {
  const block = Buffer.alloc(superblockBytes);
  const { bytesRead } = await file.read(block, 0, superblockBytes, at);
  return block.subarray(0, bytesRead);
}
