/**
 * What libblkid would find out about the volumes, told to it in advance. ganesha asks it for the UUID of each file system (it is part of
 * every file handle), and without a cache libblkid looks for the marks of every file system it knows, at some thirty places
 * all over the device: on a disk behind a network that is most of a start.
 *
 * Obligations: never more than what the kernel and the superblock say at this very moment. libblkid believes an entry for two seconds
 * (BLKID_PROBE_MIN) and only if the device node is older; afterwards it looks for itself. An entry that cannot be made is left
 * out, and costs time only. The mounted file system knows its UUID, so no disk is asked; but that, too, may wait for a superblock that is being
 * written to a disk that hangs, and a kernel that does not tell makes us read the disk. So it is done in worker threads, waited for briefly,
 * and what still hangs from the last time holds no second thread.
 */
import { constants, readlinkSync, statSync, writeFileSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { isExt4, superblockAt } from "../../../firmware-ts/wire/ext4/superblock.ts";
import { major, minor } from "../place/devices.ts";
import { blockAt } from "../read-ahead.ts";
import { ioctlLater } from "../syscalls.ts";
import { Turns } from "../turns.ts";

/** s_uuid of the superblock (Documentation/filesystems/ext4/super.rst). */
const uuidAt = 0x68;

/** <linux/ext4.h> (fs/ext4/ext4.h before 6.11): _IOR('f', 44, struct fsuuid), which is the length, flags, and the bytes. */
const EXT4_IOC_GETFSUUID = 0x8008662c;
const fsuuidAt = 8;
const uuidBytes = 16;

/** Asking takes a tenth of a millisecond on a quiet machine, and the disk is rarely needed. */
const readMs = 100;
const readings = new Turns();

/**
 * Writes the cache file for the file systems at `paths` and above, which ganesha looks at as well. It takes `readMs` at most
 * for each way of asking. Never rejects.
 */
export async function writeBlkidCache(file: string, paths: readonly string[]): Promise<void> {
  try {
    const seen = await fileSystemsAt(paths);
    const entries = await Promise.all([...seen].map(([dev, path]) => entryOf(dev, path)));
    writeFileSync(file, entries.filter((entry) => entry !== undefined).join(""));
  } catch {
    // Without the file libblkid looks for itself.
  }
}

/** A folder of each file system that paths are on, or lie below, by the number of its device. */
async function fileSystemsAt(paths: readonly string[]): Promise<ReadonlyMap<number, string>> {
  const seen = new Map<number, string>();
  // A volume's root is in memory while it is mounted.
  for (const path of paths) seen.set((await stat(path)).dev, path);
  // Those are on the controller's own disk, or in memory.
  for (const path of new Set(paths.flatMap(foldersAbove))) {
    const { dev } = statSync(path);
    if (!seen.has(dev)) seen.set(dev, path);
  }
  return seen;
}

/** The folders that a path lies in. */
function foldersAbove(path: string): readonly string[] {
  const above = dirname(path);
  return above === path ? [] : [above, ...foldersAbove(above)];
}

/** Of the file system that is seen at `path`, if it is an ext4 and `dev` the number of its device. */
async function entryOf(dev: number, path: string): Promise<string | undefined> {
  const device = nodeOf(dev);
  if (device === undefined) return undefined;
  const uuid = (await uuidMountedAt(path)) ?? (await readUuid(device));
  if (uuid === undefined) return undefined;
  const now = Date.now();
  const time = `${Math.floor(now / 1000)}.${String((now % 1000) * 1000).padStart(6, "0")}`;
  const devno = `0x${dev.toString(16).padStart(4, "0")}`;
  return `<device DEVNO="${devno}" TIME="${time}" UUID="${uuid}" TYPE="ext4">${device}</device>\n`;
}

/**
 * The node of a block device by the kernel's own name for it, which is what a volume is mounted from. Not from the mount table: it has hundreds of lines
 * with many virtual servers, and each start would read them all. Undefined when there is no such device, or it is called otherwise.
 */
function nodeOf(dev: number): string | undefined {
  try {
    const node = `/dev/${basename(readlinkSync(`/sys/dev/block/${major(dev)}:${minor(dev)}`))}`;
    // The node is in memory (devtmpfs), whatever becomes of the disk.
    return statSync(node).rdev === dev ? node : undefined;
  } catch {
    return undefined;
  }
}

/** UUID of the ext4 file system that is mounted there; undefined when the kernel does not tell, or not at once. Never rejects. */
export async function uuidMountedAt(path: string): Promise<string | undefined> {
  const asked = await readings.take(path, "ask for UUID", readMs, () => uuidFromKernel(path));
  return asked.ok ? asked.value : undefined;
}

async function uuidFromKernel(path: string): Promise<Outcome<string | undefined>> {
  const answer = Buffer.alloc(fsuuidAt + uuidBytes);
  answer.writeUInt32LE(uuidBytes);
  try {
    const root = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      if ((await ioctlLater(root.fd, EXT4_IOC_GETFSUUID, answer)) < 0) return good(undefined);
    } finally {
      await root.close();
    }
  } catch {
    return good(undefined);
  }
  return good(written(answer.subarray(fsuuidAt)));
}

/** UUID of the ext4 file system on a device; undefined when there is none, or when the device does not answer at once. Never rejects. */
export async function readUuid(device: string): Promise<string | undefined> {
  const read = await readings.take(device, "read superblock", readMs, () => uuidOn(device));
  return read.ok ? read.value : undefined;
}

async function uuidOn(device: string): Promise<Outcome<string | undefined>> {
  let block: Buffer;
  try {
    const file = await open(device, "r");
    try {
      block = await blockAt(file, superblockAt);
    } finally {
      await file.close();
    }
  } catch {
    return good(undefined);
  }
  if (!isExt4(block)) return good(undefined);
  return good(written(block.subarray(uuidAt, uuidAt + uuidBytes)));
}

function written(uuid: Buffer): string {
  return uuid.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
