/**
 * What libblkid would find out about the volumes, told to it in advance. ganesha asks it for the UUID of each file system (it is part of
 * every file handle), and without a cache libblkid looks for the marks of every file system it knows, at some thirty places
 * all over the device: on a disk behind a network that is most of a start.
 *
 * Obligations: never more than what the kernel and the superblock say at this very moment. libblkid believes an entry for two seconds
 * (BLKID_PROBE_MIN) and only if the device node is older; afterwards it looks for itself. An entry that cannot be made is left
 * out, and costs time only.
 */
import { closeSync, openSync, readSync, statSync, writeFileSync } from "node:fs";
import { mountAt } from "../mount-table.ts";

/** ext4: the superblock begins at 1024; s_magic at 0x38, s_uuid at 0x68 (Documentation/filesystems/ext4/super.rst). */
const superblockAt = 1024;
const superblockBytes = 1024;
const magicAt = 0x38;
const magic = 0xef53;
const uuidAt = 0x68;

/** Writes the cache file for the file systems mounted at `paths`. Never throws. */
export function writeBlkidCache(file: string, paths: readonly string[]): void {
  const entries = paths.map(entryOf).filter((entry) => entry !== undefined);
  try {
    writeFileSync(file, entries.join(""));
  } catch {
    // Without the file libblkid looks for itself.
  }
}

function entryOf(path: string): string | undefined {
  const mounted = mountAt(path);
  if (!mounted.ok || mounted.value?.type !== "ext4") return undefined;
  const device = mounted.value.source;
  try {
    const uuid = uuidOf(device);
    if (uuid === undefined) return undefined;
    const { rdev } = statSync(device);
    const now = Date.now();
    const time = `${Math.floor(now / 1000)}.${String((now % 1000) * 1000).padStart(6, "0")}`;
    const devno = `0x${rdev.toString(16).padStart(4, "0")}`;
    return `<device DEVNO="${devno}" TIME="${time}" UUID="${uuid}" TYPE="ext4">${device}</device>\n`;
  } catch {
    return undefined;
  }
}

/** From the superblock, which the mount a moment ago has left in the kernel's cache of the device. */
function uuidOf(device: string): string | undefined {
  const file = openSync(device, "r");
  try {
    const block = Buffer.alloc(superblockBytes);
    if (readSync(file, block, 0, superblockBytes, superblockAt) !== superblockBytes)
      return undefined;
    if (block.readUInt16LE(magicAt) !== magic) return undefined;
    const hex = block.toString("hex", uuidAt, uuidAt + 16);
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  } finally {
    closeSync(file);
  }
}
