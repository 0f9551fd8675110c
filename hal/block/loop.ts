/**
 * Loop devices by ioctl (<linux/loop.h>): a few system calls instead of a losetup process.
 *
 * Obligations: a device is bound with direct I/O or not at all, because a cached page could be older than what the other
 * controller wrote. Devices carry a tag in `lo_file_name`, by which what an earlier run left behind is known again.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { ioctl } from "./syscall.ts";

const request = {
  clear: 0x4c01,
  getStatus64: 0x4c05,
  configure: 0x4c0a,
  controlAdd: 0x4c80,
  controlGetFree: 0x4c82,
} as const;
/** Direct I/O, and unbinding when the last user closes the device. */
const flag = { autoclear: 4, directIo: 16 } as const;
/** struct loop_info64, and struct loop_config around it. */
const infoBytes = 232;
const infoAt = { flags: 52, fileName: 56 } as const;
const configBytes = 8 + infoBytes + 64;
const fileNameBytes = 64;
const errno = { noDevice: 6, busy: 16, exists: 17 } as const;
/** Others bind devices too, between our asking for a free one and taking it. */
const attemptsMax = 64;
/** Above any that makes sense: LOOP_CTL_ADD makes a device for each number that it is given. */
const numberMax = 4096;
const releasePatienceMs = 100;
const releasePollMs = 2;

const fault = (operation: string, detail: string) => failed("attachFailed", operation, detail);

export interface BoundLoop {
  readonly path: string;
  readonly handle: FileHandle;
}

export interface LoopOptions {
  readonly tag: string;
  readonly blockSizeBytes: number;
  readonly sizeBytes: number;
}

/**
 * Devices that this process is about to bind: to the kernel they are free until it has. Whoever starts many volumes at once would otherwise get one number for all
 * of them, and they would bind it one after another, each in as many attempts as there are others (33 ms each on a busy machine, 0.4 for one alone).
 */
const spokenFor = new Set<number>();

/** Binds a free loop device to an open file. It stays while the handle is open, or anything else holds it. */
export async function bindLoop(fd: number, options: LoopOptions): Promise<Outcome<BoundLoop>> {
  const config = Buffer.alloc(configBytes);
  config.writeUInt32LE(fd, 0);
  config.writeUInt32LE(options.blockSizeBytes, 4);
  config.writeUInt32LE(flag.autoclear | flag.directIo, 8 + infoAt.flags);
  config.write(options.tag, 8 + infoAt.fileName, fileNameBytes - 1, "utf8");
  const control = await open("/dev/loop-control", "r+");
  try {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const free = await speakForFree(control.fd);
      if (!free.ok) return free;
      try {
        const bound = await bindTo(free.value, config, options.sizeBytes);
        if (!bound.ok) return bound;
        if (bound.value) return good(bound.value);
      } finally {
        spokenFor.delete(free.value);
      }
    }
    return fault("bind a loop device", `${attemptsMax} devices were taken by others`);
  } finally {
    await control.close();
  }
}

/** The number of a device that nobody has, to be given back when it is bound or was not. The kernel names the first that is free. */
async function speakForFree(control: number): Promise<Outcome<number>> {
  const free = await ioctl(control, request.controlGetFree, 0);
  if (!free.ok) return fault("find a loop device", `errno ${free.errno}`);
  for (let number = free.value; number <= numberMax; number += 1) {
    if (spokenFor.has(number)) continue;
    spokenFor.add(number);
    if (number === free.value) return good(number);
    const isFree = boundFile(`loop${number}`) === undefined;
    const made = isFree ? await ioctl(control, request.controlAdd, number) : undefined;
    if (made?.ok || made?.errno === errno.exists) return good(number);
    spokenFor.delete(number);
    if (made) return fault("make a loop device", `${number}: errno ${made.errno}`);
  }
  return fault("find a loop device", `all of ${numberMax} are taken`);
}

/** Binds this very device; undefined: somebody else has it. */
async function bindTo(
  number: number,
  config: Buffer,
  sizeBytes: number,
): Promise<Outcome<BoundLoop | undefined>> {
  const path = `/dev/loop${number}`;
  let handle: FileHandle;
  try {
    handle = await open(path, "r+");
  } catch (cause) {
    // It was removed since, or its last user is just letting go of it.
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENXIO") return good(undefined);
    return failed("attachFailed", "open a loop device", path, cause);
  }
  const bound = await ioctl(handle.fd, request.configure, config);
  if (bound.ok) {
    const checked = check(number, sizeBytes);
    if (checked.ok) return good({ path, handle });
    await handle.close();
    return checked;
  }
  await handle.close();
  if (bound.errno === errno.busy) return good(undefined);
  return fault("bind a loop device", `errno ${bound.errno}`);
}

/** The kernel may quietly fall back to cached I/O; that must not go unnoticed. */
function check(number: number, sizeBytes: number): Outcome {
  const base = `/sys/block/loop${number}`;
  const [direct, sectors] = ["loop/dio", "size"].map((name) =>
    readFileSync(`${base}/${name}`, "utf8"),
  );
  if (direct?.trim() !== "1") return fault("bind a loop device", "the kernel refused direct I/O");
  const size = Number(sectors) * 512;
  if (size !== sizeBytes)
    return fault("bind a loop device", `${size} bytes instead of ${sizeBytes}`);
  return done;
}

/**
 * The name of the file that a device is bound to, undefined when it is to none. Asked of sysfs: opening the device to ask would make
 * us one of its users. A mount that was detached meanwhile shows no more of the file than its root, hence an empty name.
 *
 * Read at once: sysfs never waits for a disk, and each of 64 disks looks through all devices when it is prepared. By way of the thread pool that took a third of the
 * main process of a controller that came up.
 */
function boundFile(name: string): string | undefined {
  const path = `/sys/block/${name}/loop/backing_file`;
  // Most are bound to nothing; an error costs more than the question.
  if (!existsSync(path)) return undefined;
  try {
    const backing = readFileSync(path, "utf8");
    return backing === "" ? undefined : basename(backing.trim());
  } catch {
    // It was unbound since.
    return undefined;
  }
}

/**
 * Closes the handle that keeps a device bound, and sees whether the device went. Whoever else has it open, if only to look
 * (blkid does, and udev), keeps it for that long: hence the patience. Not gone: an open handle again.
 */
export async function releaseLoop(
  device: { readonly path: string; readonly handle: FileHandle },
  tag: string,
  fileName: string,
): Promise<Outcome<FileHandle | undefined>> {
  await device.handle.close();
  const end = performance.now() + releasePatienceMs;
  const isOurs = (file: string | undefined) => file === fileName || file === "";
  while (isOurs(boundFile(basename(device.path)))) {
    if (performance.now() > end) return openBound(device.path, tag);
    await new Promise((resolve) => setTimeout(resolve, releasePollMs));
  }
  return good(undefined);
}

/** An open handle of the device while it is bound under this tag, undefined when it is not. */
async function openBound(path: string, tag: string): Promise<Outcome<FileHandle | undefined>> {
  const handle = await open(path, "r+");
  const info = Buffer.alloc(infoBytes);
  const status = await ioctl(handle.fd, request.getStatus64, info);
  if (status.ok && tagOf(info) === tag) return good(handle);
  await handle.close();
  if (status.ok || status.errno === errno.noDevice) return good(undefined);
  return fault("look at a loop device", `${path}: errno ${status.errno}`);
}

function tagOf(info: Buffer): string {
  const name = info.subarray(infoAt.fileName, infoAt.fileName + fileNameBytes);
  const end = name.indexOf(0);
  return name.toString("utf8", 0, end < 0 ? fileNameBytes : end);
}

/** Paths of all loop devices bound under this tag to a file of this name. */
export async function findLoops(tag: string, fileName: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of readdirSync("/sys/block")) {
    if (!/^loop\d+$/.test(name)) continue;
    // Other devices are left alone: an open, however short, would keep somebody else's device in use, and it would hang when the
    // server behind that one does. Ours keeps its name: its file is unmounted after its device is gone.
    if (boundFile(name) !== fileName) continue;
    const bound = await openBound(`/dev/${name}`, tag);
    if (!bound.ok || bound.value === undefined) continue;
    found.push(`/dev/${name}`);
    await bound.value.close();
  }
  return found;
}

/** Unbinds a device that nobody of us holds; `stillMounted` when somebody else does. */
export async function unbindLoop(path: string): Promise<Outcome> {
  const handle = await open(path, "r+");
  const cleared = await ioctl(handle.fd, request.clear, 0);
  const info = Buffer.alloc(infoBytes);
  const status = await ioctl(handle.fd, request.getStatus64, info);
  await handle.close();
  if (!cleared.ok && cleared.errno !== errno.noDevice)
    return fault("unbind a loop device", `${path}: errno ${cleared.errno}`);
  // With other users the kernel only promises to unbind after the last of them; it still shows the device as bound.
  if (status.ok) return failed("stillMounted", "unbind a loop device", `${path} is in use`);
  return done;
}
