/**
 * One ganesha process, from its start to its end. A *spare* is a process that has been started, has loaded its libraries and waits
 * for its configuration on a named pipe; writing the configuration turns it into a server without an exec in between.
 *
 * Obligations: nothing is left behind when it ends (files), and its end is known at once, with its last words.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, constants, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { setPriority } from "node:os";
import { promisify } from "node:util";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { createLineCutter, type GraceView, graceAfter, messageOf, noGrace } from "./log-lines.ts";
import { noRegistrations, readBarrier } from "./native-library.ts";
import { ordinaryCommand } from "./ordinary.ts";

const lineBytesMax = 4096;
const lastWordsMax = 20;
/** A spare that has not opened its pipe by then is broken; opening takes it 5 ms on a quiet machine. */
const pipeOpenDeadlineMs = 500;
/** A pipe takes this much at once (pipe(7)); a configuration is far smaller. */
const configurationBytesMax = 65536;
/** Above batch work, below everything real-time: NFS is what the appliance is for. */
const niceness = -10;

/** How a process ended. `lastWords` are its last log messages, oldest first. */
export interface InstanceEnd {
  readonly pid: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly lastWords: readonly string[];
}

export interface Instance {
  readonly pid: number;
  /** Settles when the process has ended and the kernel has released everything it held. */
  readonly ended: Promise<InstanceEnd>;
  alive(): boolean;
  grace(): GraceView;
  /** Hands a spare its configuration. Fault `serviceFailed`: it did not take it; kill it and start another. */
  configure(text: string): Promise<Outcome>;
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
  /** The configuration, or undefined for a spare. */
  readonly configuration: string | undefined;
  /** libblkid's cache file; written before the configuration is. */
  readonly blkidFile: string;
  readonly log: (message: string) => void;
}

/** Starts a process. Faults: `toolMissing`, `ioError`. */
export async function startInstance(options: InstanceOptions): Promise<Outcome<Instance>> {
  const { base, configuration } = options;
  const configurationPath = `${base}.conf`;
  const pidPath = `${base}.pid`;
  const removeFiles = () => {
    rmSync(configurationPath, { force: true });
    rmSync(pidPath, { force: true });
  };
  try {
    removeFiles();
    if (configuration === undefined) await promisify(execFile)("mkfifo", [configurationPath]);
    else writeFileSync(configurationPath, configuration);
  } catch (error) {
    return failed("ioError", `prepare ${configurationPath}`, "not written", error);
  }
  // The epoch becomes the write verifier and part of every NFSv4 client id. ganesha's own is the start time in seconds: two
  // servers that start in one second would agree, and a client would take unstable writes for committed (RFC 1813 3.3.21).
  const epoch = randomInt(1, 2 ** 31);
  const { program, args } = ordinaryCommand("ganesha.nfsd", [
    ...["-F", "-L", "STDERR", "-N", "NIV_WARN", "-E", String(epoch)],
    ...["-f", configurationPath, "-p", pidPath],
  ]);
  const [barrier, quiet] = await Promise.all([readBarrier(), noRegistrations()]);
  if (!barrier.ok) {
    options.log(
      `WITHOUT read barrier (a crash may take back what was read): ${barrier.fault.message}`,
    );
  }
  // Without this one it registers by itself, which only takes longer.
  const libraries = [barrier, quiet].flatMap((each) => (each.ok ? [each.value] : []));
  const child = spawn(program, args, {
    stdio: ["ignore", "ignore", "pipe"],
    cwd: "/",
    env: {
      ...environment,
      BLKID_FILE: options.blkidFile,
      LD_PRELOAD: libraries.join(":"),
    },
  });
  const spawned = await whenSpawned(child);
  if (!spawned.ok) {
    removeFiles();
    return spawned;
  }
  return good(watch(child, spawned.value, configurationPath, removeFiles, options.log));
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
  configurationPath: string,
  removeFiles: () => void,
  log: (message: string) => void,
): Instance {
  let end: InstanceEnd | undefined;
  let grace = noGrace;
  const lastWords: string[] = [];
  const cut = createLineCutter(lineBytesMax);
  raisePriority(pid, log);
  child.stderr?.on("data", (chunk: Buffer) => {
    for (const line of cut(chunk)) {
      grace = graceAfter(grace, line);
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
  return {
    pid,
    ended,
    alive: () => end === undefined,
    grace: () => grace,
    configure: (text) => writeToPipe(configurationPath, text, () => end === undefined),
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

async function writeToPipe(
  path: string,
  text: string,
  stillAlive: () => boolean,
): Promise<Outcome> {
  const operation = `configure through ${path}`;
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length > configurationBytesMax) {
    return failed("badInput", operation, `${bytes.length} bytes of configuration`);
  }
  const startedAt = performance.now();
  while (stillAlive() && performance.now() - startedAt < pipeOpenDeadlineMs) {
    let pipe: number;
    try {
      // Without a reader this fails with ENXIO (fifo(7)) where a blocking open would stop the whole controller.
      pipe = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    try {
      writeSync(pipe, bytes);
      return done;
    } catch (error) {
      return failed("serviceFailed", operation, "not written", error);
    } finally {
      closeSync(pipe);
    }
  }
  return failed("serviceFailed", operation, "the spare does not read its configuration");
}
