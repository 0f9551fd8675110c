/**
 * Whether what was mounted is still there and takes writes (US 7,200,622, claim 1: the mount table of a virtual server). Three things end that without a
 * word to whoever mounted it: ext4 finds an error and stops writing (errors=remount-ro, or its journal is aborted), somebody mounts it
 * read-only, somebody unmounts it.
 *
 * How it is noticed: an error by fanotify(7) (FAN_FS_ERROR, since Linux 5.16, of the whole file system); a change of mounts by poll(2) of
 * mountinfo (proc_pid_mountinfo(5)); and a look once a second at what neither tells: a file system that was shut by ioctl, a kernel without the first.
 * Both only say that there is something to see; the mount table says what.
 */
import { closeSync, openSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { performance } from "node:perf_hooks";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { FileSystems, LocalDevice } from "../port/storage.ts";
import { type MountEntry, mountsAt } from "./mount-table.ts";
import type { Readiness } from "./readiness.ts";
import {
  closeDescriptor,
  createFanotify,
  errorName,
  markFanotify,
  readDescriptor,
} from "./syscalls.ts";

const lookMs = 1000;

/**
 * Between two looks that changes of mounts ask for. A takeover of many mounts one volume after the other, and each look reads hundreds of lines: without a
 * pause that was a twentieth of what the process did meanwhile.
 */
const changesMs = 50;

/** <linux/fanotify.h>: a group that reports file handles, closed on exec, not blocking; and a mark of a whole file system. */
const FAN_GROUP = 0x1 | 0x2 | 0x200;
const FAN_MARK_ADD_FILESYSTEM = 0x1 | 0x100;
const FAN_FS_ERROR = 0x8000;
const errorsBytesMax = 4096;

/** What is wrong with a mount of that device, in words that go on a sentence about its file system; undefined when nothing is. */
export function whatIsWrong(entry: MountEntry | undefined, source: string): string | undefined {
  if (!entry) return "it is not mounted any more";
  if (entry.source !== source) return `${entry.source} is mounted over it`;
  // Linux has said so since 6.15; before, it said `ro`.
  const { options, superOptions } = entry;
  if (superOptions.includes("emergency_ro")) return "it is read-only after an error";
  if (superOptions.includes("shutdown")) return "it was shut down";
  if (superOptions.includes("ro") || options.includes("ro")) return "it is read-only";
  return undefined;
}

interface Watched {
  readonly source: string;
  readonly broken: (reason: string) => void;
}

export class MountWatch {
  readonly #watched = new Map<string, Watched>();
  readonly #timer: NodeJS.Timeout;
  /** A look that is to come, since mounts have changed soon after the last one. */
  #next: NodeJS.Timeout | undefined;
  #lookedAt = Number.NEGATIVE_INFINITY;
  /** A fanotify group; undefined without one. */
  readonly #errors: number | undefined;
  readonly #ends: (() => void)[] = [];

  private constructor(errors: number | undefined) {
    this.#errors = errors;
    this.#timer = setInterval(() => this.#look(), lookMs).unref();
  }

  /** Of the mount namespace of this process. Fault `ioError`: the mount table cannot be watched. */
  static open(readiness: Readiness, log: (message: string) => void): Outcome<MountWatch> {
    const group = createFanotify(FAN_GROUP, 0);
    if (group < 0) log(`errors of file systems are looked for once a second: ${errorName(group)}`);
    const watch = new MountWatch(group < 0 ? undefined : group);
    const listening = watch.#listen(readiness);
    if (listening.ok) return good(watch);
    watch.close();
    return listening;
  }

  /** Watches a mount; `broken` is called once, and then it is watched no more. */
  watch(path: string, source: string, broken: (reason: string) => void): void {
    this.#watched.set(path, { source, broken });
    if (this.#errors !== undefined)
      markFanotify(this.#errors, FAN_MARK_ADD_FILESYSTEM, FAN_FS_ERROR, path);
  }

  /** What is done to it from now on is meant. */
  forget(path: string): void {
    this.#watched.delete(path);
  }

  close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#next);
    this.#watched.clear();
    for (const end of this.#ends.splice(0)) end();
  }

  #listen(readiness: Readiness): Outcome {
    let mounts: number;
    try {
      mounts = openSync("/proc/self/mountinfo", "r");
    } catch (error) {
      return failed("ioError", "watch mounts", "mountinfo not opened", error);
    }
    this.#ends.push(() => closeSync(mounts));
    const heard = readiness.add(mounts, "priority", () => this.#lookSoon());
    if (!heard.ok) return heard;
    this.#ends.unshift(heard.value);
    const errors = this.#errors;
    if (errors === undefined) return done;
    this.#ends.push(() => closeDescriptor(errors));
    const buffer = Buffer.alloc(errorsBytesMax);
    const told = readiness.add(errors, "input", () => {
      readDescriptor(errors, buffer);
      this.#look();
    });
    if (!told.ok) return told;
    this.#ends.unshift(told.value);
    return done;
  }

  #lookSoon(): void {
    const leftMs = this.#lookedAt + changesMs - performance.now();
    if (leftMs <= 0) this.#look();
    else this.#next ??= setTimeout(() => this.#look(), leftMs).unref();
  }

  #look(): void {
    clearTimeout(this.#next);
    this.#next = undefined;
    this.#lookedAt = performance.now();
    if (this.#watched.size === 0) return;
    const mounts = mountsAt(this.#watched);
    if (!mounts.ok) return;
    for (const [path, { source, broken }] of [...this.#watched]) {
      const wrong = whatIsWrong(mounts.value.get(path), source);
      if (wrong === undefined) continue;
      this.#watched.delete(path);
      broken(wrong + errorsOf(source));
    }
  }
}

/** What ext4 remembers of its errors (Documentation/ABI/testing/sysfs-fs-ext4). */
function errorsOf(source: string): string {
  const told = (name: string) => {
    try {
      return readFileSync(`/sys/fs/ext4/${basename(source)}/${name}`, "utf8").trim();
    } catch {
      return "";
    }
  };
  const count = Number(told("errors_count"));
  return count > 0 ? ` (errors so far: ${count}, the last in ${told("last_error_func")})` : "";
}

/** File systems that are watched from their mount until somebody seals or abandons them. */
export function watchedFileSystems(
  inner: FileSystems,
  watch: MountWatch,
  broken: (path: string, reason: string) => void,
): FileSystems {
  return {
    async mount(device: LocalDevice, path: string) {
      const mounted = await inner.mount(device, path);
      if (mounted.ok) watch.watch(path, device.path, (reason) => broken(path, reason));
      return mounted;
    },
    flush: (path) => inner.flush(path),
    seal(path) {
      watch.forget(path);
      return inner.seal(path);
    },
    abandon(path) {
      watch.forget(path);
      return inner.abandon(path);
    },
    mountedFrom: (path) => inner.mountedFrom(path),
  };
}
