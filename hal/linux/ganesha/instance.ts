/**
 * One ganesha process, from its start to its end. A *held* one has its whole configuration and has done all that needs neither its volume
 * nor its address; it waits for `release` inside `held-start.c`, and ends when this process does.
 *
 * Obligations: nothing is left behind when it ends (files), and its end is known at once, with its last words.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";
import { Duplex } from "node:stream";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { graceEnd, heldStart, noRegistrations, readBarrier } from "../native-build.ts";
import { ordinaryCommand } from "../ordinary.ts";
import type { ProgramPlace } from "../place/programs.ts";
import {
  createLineCutter,
  type GraceView,
  graceAfter,
  isGraceCount,
  messageOf,
  noGrace,
} from "./log-lines.ts";

const lineBytesMax = 4096;
const lastWordsMax = 20;
/** The descriptor at which a held process waits: the first one behind the standard three. */
const holdDescriptor = 3;
/** Above batch work, below everything real-time: NFS is what the appliance is for. A spare may be needed as soon as it is begun. */
const niceness = -10;

/** How a process ended. `lastWords` are its last log messages, oldest first. */
export interface InstanceEnd {
  readonly pid: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly lastWords: readonly string[];
}

/** An end in words for the operator: code or signal, and what was said last. */
export function explainEnd({ code, signal, lastWords }: InstanceEnd): string {
  const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
  const last = lastWords.at(-1);
  return last === undefined ? how : `${how}; its last words: ${last}`;
}

export interface Instance {
  readonly pid: number;
  /** Settles when the process has ended and the kernel has released everything it held. */
  readonly ended: Promise<InstanceEnd>;
  /** Settles when a held one has come to where it waits, or has ended before. */
  readonly atHold: Promise<void>;
  alive(): boolean;
  grace(): GraceView;
  /** Lets a held one go on. Fault `serviceFailed`: it is not there any more; start another. */
  release(): Promise<Outcome>;
  kill(): void;
}

/**
 * The environment that ganesha runs in.
 *
 * - With a fixed mmap threshold glibc maps ganesha's 40 MB of empty hash tables instead of clearing them on its heap: start
 *   17 → 8 ms, stop 2.5 → 0.9 ms, resident 32 → 8 MB (docs/design/0010-file-service.md).
 * - libblkid's own cache would answer with the UUID of the file system that a loop device carried before, and the UUID is part
 *   of every file handle: only the driver's cache of this moment (`blkid-cache.ts`) is believed.
 */
const environment = {
  PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
  LC_ALL: "C",
  MALLOC_MMAP_THRESHOLD_: "131072",
};

export interface InstanceOptions {
  /** Files of this process are called `${base}.conf` and `${base}.pid`. */
  readonly base: string;
  readonly configuration: string;
  /** Whether it waits for `release` before it touches its volume or its address. */
  readonly held: boolean;
  /** libblkid's cache file; it is read behind the hold. */
  readonly blkidFile: string;
  /** Where NFSv4 client records are, as in the configuration. */
  readonly recoveryDir: string;
  readonly place: ProgramPlace;
  readonly log: (message: string) => void;
}

/** Starts a process. Faults: `toolMissing` (also when it should be held and cannot be), `ioError`. */
export async function startInstance(options: InstanceOptions): Promise<Outcome<Instance>> {
  const { base, configuration, held } = options;
  const configurationPath = `${base}.conf`;
  const pidPath = `${base}.pid`;
  const libraries = await librariesOf(options);
  if (!libraries.ok) return libraries;
  const removeFiles = () => {
    rmSync(configurationPath, { force: true });
    rmSync(pidPath, { force: true });
  };
  try {
    removeFiles();
    writeFileSync(configurationPath, configuration);
  } catch (error) {
    return failed("ioError", `prepare ${configurationPath}`, "not written", error);
  }
  // The epoch becomes the write verifier and part of every NFSv4 client id. ganesha's own is the start time in seconds: two
  // servers that start in one second would agree, and a client would take unstable writes for committed (RFC 1813 3.3.21).
  const epoch = randomInt(1, 2 ** 31);
  const variables = {
    ...environment,
    BLKID_FILE: options.blkidFile,
    DYAD_CLIENT_RECORDS: options.recoveryDir,
    LD_PRELOAD: libraries.value.join(":"),
    ...(held ? { DYAD_HOLD: String(holdDescriptor) } : {}),
  };
  const words = await options.place.command([
    ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
    "ganesha.nfsd",
    ...["-F", "-L", "STDERR", "-N", "NIV_WARN", "-E", String(epoch)],
    ...["-f", configurationPath, "-p", pidPath],
  ]);
  if (!words.ok) return words;
  await turnToSpawn();
  const [first = "", ...rest] = words.value;
  const { program, args } = ordinaryCommand(first, rest);
  const child = options.place.inside(() =>
    spawn(program, args, {
      stdio: ["ignore", "ignore", "pipe", held ? "pipe" : "ignore"],
      cwd: "/",
      env: { PATH: environment.PATH },
    }),
  );
  const spawned = await whenSpawned(child);
  if (!spawned.ok) {
    removeFiles();
    return spawned;
  }
  return good(watch(child, spawned.value, removeFiles, options.log));
}

let lastSpawn: Promise<void> = Promise.resolve();

/**
 * To start a process takes this thread up to 40 ms when others start too. One in each turn of the event loop: whoever has many to start would
 * otherwise look, to the beat process, like one that hangs.
 */
function turnToSpawn(): Promise<void> {
  lastSpawn = lastSpawn.then(() => new Promise((resolve) => setImmediate(resolve)));
  return lastSpawn;
}

/** Paths of the libraries that it is started with. Only a start that is to be held cannot do without one. */
async function librariesOf({ held, log }: InstanceOptions): Promise<Outcome<readonly string[]>> {
  const [barrier, quiet, grace, hold] = await Promise.all([
    readBarrier(),
    noRegistrations(),
    graceEnd(),
    heldStart(),
  ]);
  if (held && !hold.ok) return hold;
  if (!barrier.ok) {
    log(`WITHOUT read barrier (a crash may take back what was read): ${barrier.fault.message}`);
  }
  // Without the others it registers by itself, looks at more devices and ends grace later, which only takes longer. The one that holds
  // comes last: it does what the others hand on, once it may.
  return good([barrier, quiet, grace, hold].flatMap((each) => (each.ok ? [each.value] : [])));
}

function whenSpawned(child: ChildProcess): Promise<Outcome<number>> {
  return new Promise((resolve) => {
    child.once("error", (error: NodeJS.ErrnoException) => {
      const code = error.code === "ENOENT" ? "toolMissing" : "ioError";
      resolve(failed(code, "start ganesha.nfsd", error.message));
    });
    child.once("spawn", () => {
      if (child.pid === undefined) throw new Error("a spawned process has no pid");
      resolve(good(child.pid));
    });
  });
}

function watch(
  child: ChildProcess,
  pid: number,
  removeFiles: () => void,
  log: (message: string) => void,
): Instance {
  let end: InstanceEnd | undefined;
  let grace = noGrace;
  const lastWords: string[] = [];
  const cut = createLineCutter(lineBytesMax);
  raisePriority(pid, log);
  const hold = holdOf(child);
  // What goes wrong there is told by the exit, and to whoever writes.
  hold?.on("error", () => undefined);
  child.stderr?.on("data", (chunk: Buffer) => {
    for (const line of cut(chunk)) {
      const before = grace;
      grace = graceAfter(before, line);
      if (grace === before && isGraceCount(line)) continue;
      const message = messageOf(line);
      if (message === undefined) continue;
      lastWords.push(message);
      if (lastWords.length > lastWordsMax) lastWords.shift();
      log(message);
    }
  });
  const ended = new Promise<InstanceEnd>((resolve) => {
    child.once("exit", (code, signal) => {
      end = { pid, code, signal, lastWords: [...lastWords] };
      removeFiles();
      resolve(end);
    });
  });
  const atHold = new Promise<void>((resolve) => {
    hold?.once("data", () => resolve());
    void ended.then(() => resolve());
  });
  return {
    pid,
    ended,
    atHold,
    alive: () => end === undefined,
    grace: () => grace,
    release: () => letGo(child, pid),
    kill: () => {
      child.kill("SIGKILL");
    },
  };
}

function raisePriority(pid: number, log: (message: string) => void): void {
  try {
    setPriority(pid, niceness);
  } catch (error) {
    log(`priority of the file service not raised: ${String(error)}`);
  }
}

/** Our end of the pipe at which it waits; undefined when it is not held. */
function holdOf(child: ChildProcess): Duplex | undefined {
  const stream = child.stdio[holdDescriptor];
  return stream instanceof Duplex ? stream : undefined;
}

function letGo(child: ChildProcess, pid: number): Promise<Outcome> {
  const hold = holdOf(child);
  return new Promise((resolve) => {
    if (hold === undefined) return resolve(done);
    // One that ended has closed its end, and nobody else has it.
    hold.write("+", (error) => {
      hold.destroy();
      resolve(error ? failed("serviceFailed", `release ${pid}`, "it ended before", error) : done);
    });
  });
}
