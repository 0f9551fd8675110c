/**
 * ext4 file systems by mount(2), umount2(2) and ioctl(2), without a process per call and never on the caller's thread: a device
 * whose path is gone may hold such a call for many seconds.
 *
 * Obligations. Success is what the kernel says of the path (its device, or the mount table) and an exclusive open of the device, not what a call
 * returned: a copy of the mount in another mount namespace keeps the file system alive. SAFETY
 * "releaseOnlyWhenGone". The calls run in libuv's pool; give the process more threads than volumes
 * (UV_THREADPOOL_SIZE), or a few dead devices hold up every other file operation of it.
 */
import { mkdirSync } from "node:fs";
import { constants, type FileHandle, open, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { FileSystems, LocalDevice } from "../port/storage.ts";
import { deviceFree } from "./device-free.ts";
import { checkIfNeeded } from "./file-system-check.ts";
import { type MountEntry, mountAt } from "./mount-table.ts";
import { ReadAhead } from "./read-ahead.ts";
import {
  errno,
  errnoOf,
  errorName,
  ioctlLater,
  mountLater,
  syncFileSystemLater,
  unmountLater,
} from "./syscalls.ts";
import { type IsLate, Turns } from "./turns.ts";

const fileSystemType = "ext4";
/** <linux/mount.h>: a served volume needs neither devices nor set-user-id nor programs, nor a write for each read. */
const mountFlags = 2 | 4 | 8 | 1024; // MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME
/** ext4(5): stop at the first damage, never let data lag behind its metadata. */
const mountOptions = "errors=remount-ro,data=ordered";
/**
 * A volatile cache is never trusted. Without one a flush has nothing to do, and an unmount alone sends thirteen of them; block
 * drivers leave them out for such disks themselves, but a loop device knows nothing of its disk.
 */
const barrierOption = { cached: ",barrier=1", uncached: ",barrier=0" } as const;
/** <linux/fs.h> of umount2(2) */
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;
/** <linux/ext4.h> (fs/ext4/ext4.h before 6.11): _IOR('X', 125, __u32) and its strictest mode. */
const EXT4_IOC_SHUTDOWN = 0x8004587d;
/** Freezes (all written, journal empty, marked clean), shuts, thaws. Its freeze waits for three RCU grace periods (grace-periods.ts). */
const EXT4_GOING_FLAGS_DEFAULT = 0;
const EXT4_GOING_FLAGS_NOLOGFLUSH = 2;

/** <linux/ext4.h> (fs/ext4/ext4.h before 6.11): _IOW('f', 43, __u32). Writers wait while it empties the journal. */
const EXT4_IOC_CHECKPOINT = 0x4004662b;

const limitMsDefault = 30_000;
/** The last reference to a superblock may be dropped a moment after umount2 returned. */
const releaseMsMax = 250;
const stackedMax = 8;

class Ext4FileSystems implements FileSystems {
  readonly #limitMs: number;
  readonly #log: (message: string) => void;
  readonly #turns = new Turns();
  /** By path, of the last mount: it may still have the device open, to read ahead of the file service. */
  readonly #readAheads = new Map<string, ReadAhead>();
  /** Devices by the path from which they were taken, until they have been shown to be free. */
  readonly #unreleased = new Map<string, string>();

  constructor(limitMs: number, log: (message: string) => void) {
    this.#limitMs = limitMs;
    this.#log = log;
  }

  mount(device: LocalDevice, path: string): Promise<Outcome> {
    return this.#turns.take(path, "mount", this.#limitMs, (isLate) =>
      this.#mount(device, path, isLate),
    );
  }

  flush(path: string): Promise<Outcome> {
    return this.#turns.take(path, "flush", this.#limitMs, async () => {
      const written = await writeBack(path, "flush");
      // What a seal would have to copy from the journal to its place, while addresses are silent. Without it the seal only takes longer.
      if (written.ok) await onRoot(path, checkpoint);
      return written;
    });
  }

  seal(path: string): Promise<Outcome> {
    return this.#turns.take(path, "seal", this.#limitMs, async () => {
      const entry = mountAt(path);
      if (!entry.ok || !entry.value) return entry.ok ? done : entry;
      const shut = await shutDown(path, EXT4_GOING_FLAGS_DEFAULT);
      if (shut >= 0) return done;
      return failed("diskError", "seal", `${path}: not everything is written: ${errorName(shut)}`);
    });
  }

  abandon(path: string): Promise<Outcome> {
    return this.#turns.take(path, "abandon", this.#limitMs, () => this.#abandonAll(path));
  }

  mountedFrom(path: string): Outcome<string | undefined> {
    const entry = mountAt(path);
    return entry.ok ? good(entry.value?.source) : entry;
  }

  async #mount(device: LocalDevice, path: string, isLate: IsLate): Promise<Outcome> {
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (error) {
      return failed("mountFailed", "mount", `cannot make ${path}`, error);
    }
    if (!(await isOfItsParent(path))) {
      const before = mountAt(path);
      if (!before.ok) return before;
      if (before.value) return sameDevice(before.value, device.path);
    }
    const ahead = await ReadAhead.of(device);
    this.#readAheads.set(path, ahead);
    let mounted: Outcome | undefined;
    try {
      mounted = await this.#mountAfter(ahead, device, path);
    } finally {
      if (mounted?.ok) ahead.mounted();
      else await ahead.end();
    }
    if (!mounted.ok) return mounted;
    // Nobody expects it any more: a volume that is mounted unknown to its owner is the one thing to avoid.
    if (isLate()) return await this.#abandonAll(path);
    if (await isOn(path, device.path)) return done;
    const after = mountAt(path);
    if (!after.ok) return after;
    if (after.value) return sameDevice(after.value, device.path);
    return failed("mountFailed", "mount", `${path} is not in the kernel's mount table`);
  }

  async #mountAfter(
    ahead: ReadAhead,
    { path: device, writeCache }: LocalDevice,
    path: string,
  ): Promise<Outcome> {
    const checked = await checkIfNeeded(device, await ahead.first(), this.#log);
    if (!checked.ok) return checked;
    const options = mountOptions + barrierOption[writeCache ? "cached" : "uncached"];
    const result = await mountLater(device, path, fileSystemType, mountFlags, options);
    if (result >= 0) return done;
    return failed("mountFailed", "mount", `${device} on ${path}: ${errorName(result)}`);
  }

  /** Takes away whatever lies on the path, and then shows that nothing holds the device. */
  async #abandonAll(path: string): Promise<Outcome> {
    // What hangs there is not waited for: it ends with the device.
    void this.#readAheads.get(path)?.end();
    this.#readAheads.delete(path);
    for (let layer = 0; layer < stackedMax; layer++) {
      const entry = mountAt(path);
      if (!entry.ok) return entry;
      if (!entry.value) return this.#released(path);
      const taken = await tearOff(entry.value);
      if (!taken.ok) return taken;
      this.#unreleased.set(path, entry.value.source);
    }
    return failed("stillMounted", "abandon", `${path}: something mounts it again and again`);
  }

  async #released(path: string): Promise<Outcome> {
    const device = this.#unreleased.get(path);
    if (device === undefined) return done;
    const released = await deviceFree(device, releaseMsMax);
    if (released.ok) this.#unreleased.delete(path);
    return released;
  }
}

/**
 * Whether a folder belongs to the file system that its parent belongs to: then none of another device is mounted on it. Asked instead of the mount table, of which
 * each reading goes through the mounts of all virtual servers, at a time when all of them are being mounted.
 */
async function isOfItsParent(path: string): Promise<boolean> {
  try {
    const [own, parent] = await Promise.all([stat(path), stat(dirname(path))]);
    return own.dev === parent.dev;
  } catch {
    return false;
  }
}

/** Whether what is seen at a path is the file system of that block device, by the kernel's word. */
async function isOn(path: string, device: string): Promise<boolean> {
  try {
    const [root, node] = await Promise.all([stat(path), stat(device)]);
    return node.isBlockDevice() && root.dev === node.rdev;
  } catch {
    return false;
  }
}

function sameDevice(entry: MountEntry, device: string): Outcome {
  if (entry.source === device && entry.type === fileSystemType) return done;
  const what = `${entry.type} of ${entry.source}`;
  return failed("mountFailed", "mount", `${entry.path} already holds ${what}, not ${device}`);
}

async function writeBack(path: string, operation: string): Promise<Outcome> {
  const flushed = await onRoot(path, (descriptor) => syncFileSystemLater(descriptor));
  if (flushed >= 0) return done;
  return failed("diskError", operation, `${path}: cannot write back: ${errorName(flushed)}`);
}

function checkpoint(descriptor: number): Promise<number> {
  return ioctlLater(descriptor, EXT4_IOC_CHECKPOINT, Buffer.alloc(4));
}

/** Shuts an ext4 file system; one that is shut already stays as it is. */
function shutDown(path: string, how: number): Promise<number> {
  const mode = Buffer.alloc(4);
  mode.writeUInt32LE(how);
  return onRoot(path, (descriptor) => ioctlLater(descriptor, EXT4_IOC_SHUTDOWN, mode));
}

/** Files that are still open keep the dead file system in memory; each operation on them ends in EIO. */
async function tearOff({ path, type }: MountEntry): Promise<Outcome> {
  const result = await shutDown(path, EXT4_GOING_FLAGS_NOLOGFLUSH);
  // EIO: it is shut already. ENOTTY: what somebody has mounted over it has nothing to shut.
  if (result < 0 && result !== -errno.EIO && result !== -errno.ENOTTY) {
    return failed("ioError", "abandon", `${type} on ${path}: ${errorName(result)}`);
  }
  const gone = await unmountLater(path, UMOUNT_NOFOLLOW);
  const detached = gone < 0 ? await unmountLater(path, UMOUNT_NOFOLLOW | MNT_DETACH) : gone;
  if (detached >= 0) return done;
  return failed("stillMounted", "abandon", `${path}: ${errorName(detached)}`);
}

/** Calls with a descriptor of the mount's root directory; a negative error number when that cannot be opened. */
async function onRoot(
  path: string,
  action: (descriptor: number) => Promise<number>,
): Promise<number> {
  let root: FileHandle;
  try {
    root = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    return -errnoOf(error);
  }
  try {
    return await action(root.fd);
  } finally {
    await root.close();
  }
}

/** File systems of the caller's mount namespace. After `limitMs` an operation is reported as `timeout`; `log` hears of checks. */
export function createFileSystems(
  limitMs: number = limitMsDefault,
  log: (message: string) => void = () => undefined,
): FileSystems {
  return new Ext4FileSystems(limitMs, log);
}
