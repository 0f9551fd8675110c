/**
 * What a mount will read, asked of the disk in large pieces before it asks in small ones. After a crash the kernel recovers the journal: it reads it
 * block by block, each when the last has come, which is several hundred round trips for one mebibyte (counted: 390), and most of what a
 * takeover of many virtual servers cost. Afterwards it reads the metadata at the beginning in another twenty, and the start of a file service that of its
 * own directories, in a dozen. All of it comes from the device's page cache then, which is what the file system reads through.
 *
 * Obligations: nothing but time depends on it. It reads only, from a device that is attached, hence ours (hal/block/attach); whatever
 * is not as it should be is left to the mount, which says so. It never waits for what is foreseen.
 */
import { type FileHandle, open } from "node:fs/promises";
import type { Foreseen, Range } from "../../firmware-ts/schema/range.ts";
import { firstGroupAhead } from "../../firmware-ts/wire/ext4/inode.ts";
import {
  type Journal,
  journalAt,
  journalOf,
  logAhead,
} from "../../firmware-ts/wire/ext4/journal.ts";
import { logEndsWithin } from "../../firmware-ts/wire/ext4/log.ts";
import {
  blockSizeOf,
  superblockAt,
  superblockBytes,
} from "../../firmware-ts/wire/ext4/superblock.ts";
import type { LocalDevice } from "../port/storage.ts";
import { adviseLater, ioctlLater } from "./syscalls.ts";

/** Superblock, and descriptors of a thousand groups. */
const beginning: Range = { fromBytes: 0, lengthBytes: 64 << 10 };

/** Of a journal: most are quiet, and their logs end within this. */
const firstLogBytes = 128 << 10;
/** More of it than this is rarely alive, and a disk reads so much while a client waits for one lost packet. */
const logBytesMax = 4 << 20;

/**
 * ext4 begins with blocks of this size, and a change of the size empties the page cache: with others, reading ahead of the mount would be in vain, and only
 * what is wanted after it can be read ahead.
 */
const firstBlockSizeBytes = 1024;

/** After the mount, until what is foreseen has come. The file service is about to read it itself then. */
const lateMsMax = 250;

/** <linux/fs.h>: _IOW(0x12, 113, size_t) */
const BLKBSZSET = 0x40081271;
/** <linux/fadvise.h> */
const POSIX_FADV_WILLNEED = 3;

/** What was read of the device on the way: nothing of what could not be read, or is not there. */
export interface FirstRead {
  readonly superblock?: Buffer;
  readonly journalSuperblock?: Buffer;
}

/** Of one mount: `first`, then `mounted` or `end`. */
export class ReadAhead {
  /** Open as long as what was read is to be kept: the page cache of a device goes with the last who has it open. */
  readonly #file: FileHandle | undefined;
  readonly #foreseen: Promise<Foreseen | undefined>;
  /** Once it has come. */
  #known: Foreseen | undefined;
  #advised: Promise<unknown> | undefined;
  /** The size of the device's blocks is that of the file system, and stays so. */
  #isSettled = false;
  #isEnded = false;
  #advising: Promise<unknown> = Promise.resolve();

  private constructor(file: FileHandle | undefined, foreseen: Promise<Foreseen | undefined>) {
    this.#file = file;
    this.#foreseen = foreseen.then((known) => {
      this.#known = known;
      return known;
    });
  }

  static async of({ path, foreseen }: LocalDevice): Promise<ReadAhead> {
    // The mount meets the same trouble, and tells it.
    const file = await open(path, "r").catch(() => undefined);
    return new ReadAhead(file, foreseen ?? Promise.resolve(undefined));
  }

  /** Asks for what the mount will read. It need not have come by the end of this. */
  async first(): Promise<FirstRead> {
    if (this.#file === undefined) return {};
    return (await this.#first(this.#file).catch(() => undefined)) ?? {};
  }

  /** Asks for the rest, in the background, then ends. */
  mounted(): void {
    this.#isSettled = true;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, lateMsMax);
    });
    const advised = this.#foreseen.then(() => this.#adviseForeseen());
    void Promise.race([advised, late]).then(() => {
      clearTimeout(timer);
      return this.end();
    });
  }

  /** Lets go of the device. May be called again. */
  async end(): Promise<void> {
    if (this.#isEnded) return;
    this.#isEnded = true;
    // A descriptor that is closed under a call may be somebody else's by then.
    await this.#advising;
    await this.#file?.close().catch(() => undefined);
  }

  async #first(file: FileHandle): Promise<FirstRead> {
    const size = Buffer.alloc(8);
    size.writeUInt32LE(firstBlockSizeBytes);
    // Refused for a device that is mounted: then it is not mounted again.
    const isReady = (await ioctlLater(file.fd, BLKBSZSET, size)) >= 0;
    const isKept = (bytes: number | undefined) => isReady && bytes === firstBlockSizeBytes;
    if (isReady && (this.#known === undefined || isKept(this.#known.blockSizeBytes)))
      await this.#advise([beginning]);
    void this.#foreseen.then((known) => {
      if (isKept(known?.blockSizeBytes)) this.#isSettled = true;
      return this.#adviseForeseen();
    });
    const blocks = await bytesAt(file, superblockAt, 2 * superblockBytes);
    const superblock = blocks.subarray(0, superblockBytes);
    if (isKept(blockSizeOf(superblock)))
      await this.#advise(firstGroupAhead(superblock, blocks.subarray(superblockBytes)));
    const journal = journalOf(superblock);
    if (journal === undefined) return { superblock };
    const journalSuperblock = await blockAt(file, journalAt(journal)).catch(() => undefined);
    // What the superblock says counts all the same.
    if (journalSuperblock === undefined) return { superblock };
    // The mount meets the same trouble.
    if (isKept(journal.blockSizeBytes))
      await this.#adviseLog(file, journal, journalSuperblock).catch(() => undefined);
    return { superblock, journalSuperblock };
  }

  /**
   * Its first part, and the rest unless it ends there. That is waited for: the mount would read the same, and one that begins meanwhile is quicker than what
   * is to be read ahead of it (counted: 523 reads of single blocks).
   */
  async #adviseLog(file: FileHandle, journal: Journal, journalSuperblock: Buffer): Promise<void> {
    const first = logAhead(journal, journalSuperblock, firstLogBytes);
    await this.#advise(first);
    if (first.length === 0 || logEndsWithin(journalSuperblock, await logOf(file, first))) return;
    await this.#advise(logAhead(journal, journalSuperblock, logBytesMax));
  }

  async #adviseForeseen(): Promise<void> {
    if (!this.#isSettled || this.#known === undefined) return;
    this.#advised ??= this.#advise(this.#known.ranges);
    await this.#advised;
  }

  #advise(ranges: readonly Range[]): Promise<unknown> {
    const advised = this.#adviseEach(ranges);
    this.#advising = Promise.all([this.#advising, advised]);
    return advised;
  }

  async #adviseEach(ranges: readonly Range[]): Promise<void> {
    for (const { fromBytes, lengthBytes } of ranges) {
      if (this.#file === undefined || this.#isEnded) return;
      await adviseLater(this.#file.fd, fromBytes, lengthBytes, POSIX_FADV_WILLNEED);
    }
  }
}

/** The 1024 bytes at a place of a device, or what there is of them. */
export function blockAt(file: FileHandle, at: number): Promise<Buffer> {
  return bytesAt(file, at, superblockBytes);
}

async function bytesAt(file: FileHandle, at: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  const { bytesRead } = await file.read(bytes, 0, lengthBytes, at);
  return bytes.subarray(0, bytesRead);
}

/** The blocks of a log that lie there, one after the other. */
async function logOf(file: FileHandle, ranges: readonly Range[]): Promise<Buffer> {
  const pieces = await Promise.all(
    ranges.map(({ fromBytes, lengthBytes }) => bytesAt(file, fromBytes, lengthBytes)),
  );
  return Buffer.concat(pieces);
}
