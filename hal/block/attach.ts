/**
 * From an NBD export to a block device of the kernel:
 *
 *   NBD unix socket ── nbdfuse (NBD client, one file by FUSE) ── loop device with direct I/O ── /dev/loopN
 *
 * Everything slow is prepared in advance, on the standby too: nbdfuse runs and its file is there. Attaching
 * is then one ioctl. Nothing is read through the file before: the loop device does not exist, and the export behind
 * it is off. The page cache holds nothing of the disk, for direct I/O passes it by; `attach` checks that the kernel agreed.
 *
 * Obligations: `detach` is a success only when the kernel has let go of the device. What an earlier run left behind under
 * the same name is found and removed first; `name` must therefore be unique on the machine, not only in this process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { constants, existsSync } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { turnToSpawn } from "../port/turn-to-spawn.ts";
import { bindLoop, findLoops, releaseLoop, unbindLoop } from "./loop.ts";
import { detachMount } from "./syscall.ts";

export interface AttachmentOptions {
  /** Unique on this machine; also the tag of the loop device. At most 60 bytes, no slash. */
  readonly name: string;
  readonly nbdSocketPath: string;
  readonly exportName: string;
  /** Where the mount point and the process id file live; private to the controller, on a local file system. */
  readonly folder: string;
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  /** Starts the FUSE server's command line for a caller of real-time priority, whose children must not have it; by default as it is. */
  readonly starting?: <T>(
    words: readonly string[],
    start: (program: string, args: string[]) => T,
  ) => T;
  /** The FUSE server ended by itself: the device gives errors until it is detached and prepared again. */
  readonly onLost?: (reason: string) => void;
}

const prepareTimeoutMs = 10_000;
const killTimeoutMs = 5_000;
const pollMs = 3;
/** Nobody waits for a disk that is prepared in advance, and 64 that ask every 3 ms would keep a processor from those that somebody waits for. */
const pollMsMax = 30;
const niceness = -10;
const tagPrefix = "dyad:";

const startAsItIs: NonNullable<AttachmentOptions["starting"]> = ([program = "", ...args], start) =>
  start(program, args);

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Those that poll now: they share the questions. */
let polling = 0;

/** Polls until `condition` holds; false at the deadline. */
async function until(
  condition: () => boolean | Promise<boolean>,
  deadlineMs: number,
): Promise<boolean> {
  const end = performance.now() + deadlineMs;
  polling += 1;
  try {
    for (;;) {
      if (await condition()) return true;
      if (performance.now() > end) return false;
      await pause(Math.min(pollMsMax, pollMs * polling));
    }
  } finally {
    polling -= 1;
  }
}

export class Attachment {
  readonly #options: AttachmentOptions;
  readonly #tag: string;
  readonly #file: string;
  readonly #pidFile: string;
  #child: ChildProcess | undefined;
  #log = "";
  #device: { readonly path: string; handle: FileHandle } | undefined;
  #stopping = false;
  /** One operation after the other. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: AttachmentOptions) {
    if (Buffer.byteLength(options.name) > 58 || options.name.includes("/"))
      throw new RangeError(`attachment name ${options.name}`);
    this.#options = options;
    this.#tag = `${tagPrefix}${options.name}`;
    this.#file = join(options.folder, `${options.name}.disk`);
    this.#pidFile = join(options.folder, `${options.name}.pid`);
  }

  /** `/dev/loopN` while attached. */
  get device(): string | undefined {
    return this.#device?.path;
  }

  /** Its FUSE server, which starts no others; undefined as long as nothing is prepared. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Makes everything ready but the device itself. Idempotent; removes what an earlier run left behind. */
  prepare(): Promise<Outcome> {
    return this.#queue(() => this.#prepare());
  }

  /** Makes the block device and returns its path. Idempotent; prepares first if need be. */
  attach(): Promise<Outcome<string>> {
    return this.#queue(() => this.#attach());
  }

  /** Removes the block device; `stillMounted` when something holds it. What was prepared stays. Idempotent. */
  detach(): Promise<Outcome> {
    return this.#queue(() => this.#detach());
  }

  /** The NBD server behind is gone: ends what hangs on it, so that the device gives errors instead of waiting. */
  invalidate(): void {
    this.#child?.kill("SIGKILL");
  }

  /** Removes the device and everything that was prepared. */
  close(): Promise<Outcome> {
    return this.#queue(async () => {
      const detached = await this.#detach();
      if (!detached.ok) return detached;
      return this.#tearDown();
    });
  }

  #queue<T>(operation: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(operation);
    this.#tail = result.catch(() => {});
    return result;
  }

  async #prepare(): Promise<Outcome> {
    if (this.#child !== undefined) return done;
    // A device on a dead FUSE server is of no use, and its tag would be in the way.
    const detached = await this.#detach();
    if (!detached.ok) return detached;
    const cleaned = await this.#tearDown();
    if (!cleaned.ok) return cleaned;
    await mkdir(this.#options.folder, { recursive: true, mode: 0o700 });
    await writeFile(this.#file, "");
    await turnToSpawn();
    const child = this.#start();
    // Whoever it ended by, a signal or itself, it is not ours any more then.
    const hasEnded = () => this.#child !== child;
    const isReady = await until(() => hasEnded() || existsSync(this.#pidFile), prepareTimeoutMs);
    if (isReady && !hasEnded()) return done;
    const why = isReady ? this.#log.trim() : `not ready in ${prepareTimeoutMs} ms`;
    await this.#tearDown();
    return failed("attachFailed", "prepare block device", `${this.#options.name}: ${why}`);
  }

  #start(): ChildProcess {
    const { nbdSocketPath, exportName, starting = startAsItIs } = this.#options;
    const uri = `nbd+unix:///${encodeURIComponent(exportName)}?socket=${encodeURIComponent(nbdSocketPath)}`;
    // It dies with us (PR_SET_PDEATHSIG): an orphan would keep a mount alive that nobody governs.
    const words = [
      // Every block of a volume passes through it: as far above batch work as the file service is.
      ...["nice", "-n", String(niceness), "setpriv", "--pdeathsig", "KILL"],
      // The process id file is written once the mount is there.
      ...["nbdfuse", "--pidfile", this.#pidFile, this.#file, uri],
    ];
    const child = starting(words, (program, args) =>
      spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] }),
    );
    this.#log = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#log = `${this.#log}${chunk.toString()}`.slice(-2000);
    });
    child.once("error", (cause) => {
      this.#log = cause.message;
      if (this.#child === child) this.#child = undefined;
    });
    child.once("exit", (code, signal) => {
      if (this.#child === child) this.#child = undefined;
      if (!this.#stopping)
        this.#options.onLost?.(`nbdfuse ended with ${signal ?? code}: ${this.#log}`);
    });
    this.#child = child;
    return child;
  }

  async #attach(): Promise<Outcome<string>> {
    if (this.#device) {
      if (this.#child) return good(this.#device.path);
      const detached = await this.#detach();
      if (!detached.ok) return detached;
    }
    const prepared = await this.#prepare();
    if (!prepared.ok) return prepared;
    let backing: FileHandle;
    try {
      backing = await open(this.#file, constants.O_RDWR | constants.O_DIRECT);
    } catch (cause) {
      return failed("attachFailed", "attach", this.#file, cause);
    }
    const { blockSizeBytes, sizeBytes } = this.#options;
    // The loop device holds the file by itself.
    const bound = await bindLoop(backing.fd, {
      tag: this.#tag,
      blockSizeBytes,
      sizeBytes,
    }).finally(() => backing.close());
    if (!bound.ok) return bound;
    this.#device = bound.value;
    return good(bound.value.path);
  }

  async #detach(): Promise<Outcome> {
    const held = this.#device;
    if (held === undefined) return done;
    // The device was bound to vanish with its last user (autoclear); if we are the last, closing is detaching.
    const released = await releaseLoop(held, this.#tag, basename(this.#file));
    if (!released.ok) return released;
    if (released.value !== undefined) {
      this.#device = { path: held.path, handle: released.value };
      return failed("stillMounted", "detach", `${held.path} is in use`);
    }
    this.#device = undefined;
    return done;
  }

  /** Removes loop device, process and mount of this name, whoever made them. Each may be there or not. */
  async #tearDown(): Promise<Outcome> {
    for (const path of await findLoops(this.#tag, basename(this.#file))) {
      const unbound = await unbindLoop(path);
      if (!unbound.ok) return unbound;
    }
    this.#stopping = true;
    const child = this.#child;
    if (child !== undefined) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
    }
    this.#stopping = false;
    const killed = await this.#killStale();
    if (!killed.ok) return killed;
    // A killed server leaves its mount behind; only a detach removes it, for the file behind it answers no call.
    while (await isMountPoint(this.#file)) {
      const unmounted = await detachMount(this.#file);
      if (!unmounted.ok)
        return failed("attachFailed", "unmount", `${this.#file}: errno ${unmounted.errno}`);
    }
    await rm(this.#file, { force: true });
    await rm(this.#pidFile, { force: true });
    return done;
  }

  /** Kills the FUSE server of an earlier run, if the process with its id is still that. */
  async #killStale(): Promise<Outcome> {
    const pid = Number((await readFile(this.#pidFile, "utf8").catch(() => "")).trim());
    if (!Number.isInteger(pid) || pid <= 1) return done;
    const isOurs = async () => {
      const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return command.includes(this.#pidFile);
    };
    if (!(await isOurs())) return done;
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended between the look and the signal.
    }
    if (await until(async () => !(await isOurs()), killTimeoutMs)) return done;
    return failed("attachFailed", "kill stale FUSE server", `process ${pid} does not end`);
  }
}

/** Reads the kernel's list: calls on the path itself fail, or hang, when the server is dead. */
async function isMountPoint(path: string): Promise<boolean> {
  const mounts = await readFile("/proc/self/mountinfo", "utf8");
  // Field 5 is the mount point, with blanks and backslashes as octal escapes (proc_pid_mountinfo(5)).
  const escaped = path.replace(
    /[ \t\n\\]/g,
    (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`,
  );
  return mounts.split("\n").some((line) => line.split(" ")[4] === escaped);
}
