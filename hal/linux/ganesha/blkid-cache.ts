/**
 * What libblkid would find out about the volumes, told to it in advance. ganesha asks it for the UUID of each file system (it is part of
 * every file handle), and without a cache libblkid looks for the marks of every file system it knows, at some thirty places
 * all over the device: on a disk behind a network that is most of a start.
 *
 * Obligations: never more than what the kernel and the superblock say at this very moment. libblkid believes an entry for two seconds
 * (BLKID_PROBE_MIN) and only if the device node is older; afterwards it looks for itself. An entry that cannot be made is left
 * out, and costs time only. The superblock is on a disk that may hang: it is read in libuv's pool, waited for briefly, and a device whose
 * last reading still hangs holds no second thread.
 */
import { statSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { mountAt } from "../mount-table.ts";
import { Turns } from "../turns.ts";

/** ext4: the superblock begins at 1024; s_magic at 0x38, s_uuid at 0x68 (Documentation/filesystems/ext4/super.rst). */
const superblockAt = 1024;
const superblockBytes = 1024;
const magicAt = 0x38;
const magic = 0xef53;
const uuidAt = 0x68;

/** The mount a moment ago has left the superblock in the kernel's cache of the device: a reading takes a tenth of a millisecond. */
const readMs = 100;
const readings = new Turns();

/** Writes the cache file for the file systems mounted at `paths`, which takes `readMs` at most. Never rejects. */
export async function writeBlkidCache(file: string, paths: readonly string[]): Promise<void> {
  const entries = await Promise.all(paths.map(entryOf));
  try {
    writeFileSync(file, entries.filter((entry) => entry !== undefined).join(""));
  } catch {
    // Without the file libblkid looks for itself.
  }
}

async function entryOf(path: string): Promise<string | undefined> {
  const mounted = mountAt(path);
  if (!mounted.ok || mounted.value?.type !== "ext4") return undefined;
  const device = mounted.value.source;
  const uuid = await readUuid(device);
  if (uuid === undefined) return undefined;
  try {
    // The node is in memory (devtmpfs), whatever becomes of the disk.
    const { rdev } = statSync(device);
    const now = Date.now();
    const time = `${Math.floor(now / 1000)}.${String((now % 1000) * 1000).padStart(6, "0")}`;
    const devno = `0x${rdev.toString(16).padStart(4, "0")}`;
    return `<device DEVNO="${devno}" TIME="${time}" UUID="${uuid}" TYPE="ext4">${device}</device>\n`;
  } catch {
    return undefined;
  }
}

/** UUID of the ext4 file system on a device; undefined when there is none, or when the device does not answer at once. Never rejects. */
export async function readUuid(device: string): Promise<string | undefined> {
  const read = await readings.take(device, "read superblock", readMs, () => uuidOn(device));
  return read.ok ? read.value : undefined;
}

async function uuidOn(device: string): Promise<Outcome<string | undefined>> {
  const block = Buffer.alloc(superblockBytes);
  try {
    const file = await open(device, "r");
    try {
      const { bytesRead } = await file.read(block, 0, superblockBytes, superblockAt);
      if (bytesRead !== superblockBytes) return good(undefined);
    } finally {
      await file.close();
    }
  } catch {
    return good(undefined);
  }
  if (block.readUInt16LE(magicAt) !== magic) return good(undefined);
  const hex = block.toString("hex", uuidAt, uuidAt + 16);
  return good(hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"));
}
