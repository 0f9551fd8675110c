/**
 * One process of a file service, from its start to its end. A *held* one has done all that needs neither its volume nor its address; it waits
 * for `release` inside `held-start.c`, and ends when this process does.
 *
 * Obligations: nothing is left behind when it ends (files), and its end is known at once, with its last words.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { setPriority } from "node:os";
import { Duplex } from "node:stream";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { turnToSpawn } from "../port/turn-to-spawn.ts";
import { startOrdinary } from "./ordinary.ts";
import { withOwnProcesses } from "./pid-namespace.ts";
import type { ProgramPlace } from "./place/programs.ts";

const lineBytesMax = 4096;
const lastWordsMax = 20;
/** The descriptor at which a held process waits: the first one behind the standard three. */
export const holdDescriptor = 3;
/** Above batch work, below everything real-time: files are what the appliance is for. A spare may be needed as soon as it is begun. */
const niceness = -10;

export const searchPath = "/usr/sbin:/usr/bin:/sbin:/bin";

/** How a process ended. `lastWords` are its last log messages, oldest first. */
export interface ProcessEnd {
  readonly pid: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly lastWords: readonly string[];
}

/** An end in words for the operator: code or signal, and what was said last. */
export function explainEnd({ code, signal, lastWords }: ProcessEnd): string {
  const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
  const last = lastWords.at(-1);
  return last === undefined ? how : `${how}; its last words: ${last}`;
}

export interface ServiceProcess {
  readonly pid: number;
  /** Settles when the process has ended and the kernel has released everything it held. */
  readonly ended: Promise<ProcessEnd>;
  /** Settles when a held one has come to where it waits, or has ended before. */
  readonly atHold: Promise<void>;
  alive(): boolean;
  /** Lets a held one go on. Fault `serviceFailed`: it is not there any more; start another. */
  release(): Promise<Outcome>;
  kill(): void;
}

export interface ServiceProcessOptions {
  /** Its command line, as the place has made it. */
  readonly words: readonly string[];
  readonly place: ProgramPlace;
  /** Whether it waits for `release` before it touches its volume or its address. */
  readonly held: boolean;
  /**
   * Whether it starts others: they get process numbers and a process group of their own. Those of the group are killed in one step with it, the
   * rest by the kernel, and its end is that of all.
   */
  readonly hasChildren: boolean;
  /** What a line that it writes is worth in the log; undefined: nothing. */
  readonly hear: (line: string) => string | undefined;
  /** Removes what it was started from. */
  readonly removeFiles: () => void;
  readonly log: (message: string) => void;
}

/** Starts a process. Faults: `toolMissing`, `ioError`, `refused`. */
export async function startServiceProcess(
  options: ServiceProcessOptions,
): Promise<Outcome<ServiceProcess>> {
  const { words, held, hasChildren } = options;
  await turnToSpawn();
  const begin = () =>
    startOrdinary(words, (program, args) =>
      spawn(program, args, {
        stdio: ["ignore", "pipe", "pipe", held ? "pipe" : "ignore"],
        cwd: "/",
        env: { PATH: searchPath },
        detached: hasChildren,
      }),
    );
  const begun = options.place.inside(() => (hasChildren ? withOwnProcesses(begin) : good(begin())));
  if (!begun.ok) {
    options.removeFiles();
    return begun;
  }
  const spawned = await whenSpawned(begun.value, words[0] ?? "");
  if (spawned.ok) return good(watch(begun.value, spawned.value, options));
  options.removeFiles();
  return spawned;
}

function whenSpawned(child: ChildProcess, program: string): Promise<Outcome<number>> {
  return new Promise((resolve) => {
    child.once("error", (error: NodeJS.ErrnoException) => {
      const code = error.code === "ENOENT" ? "toolMissing" : "ioError";
      resolve(failed(code, `start ${program}`, error.message));
    });
    child.once("spawn", () => {
      if (child.pid === undefined) throw new Error("a spawned process has no pid");
      resolve(good(child.pid));
    });
  });
}

function watch(child: ChildProcess, pid: number, options: ServiceProcessOptions): ServiceProcess {
  const { hear, log, removeFiles, hasChildren } = options;
  let end: ProcessEnd | undefined;
  const lastWords: string[] = [];
  raisePriority(pid, log);
  const hold = holdOf(child);
  // What goes wrong there is told by the exit, and to whoever writes.
  hold?.on("error", () => undefined);
  for (const stream of [child.stdout, child.stderr]) {
    const cut = createLineCutter(lineBytesMax);
    stream?.on("data", (chunk: Buffer) => {
      for (const line of cut(chunk)) {
        const message = hear(line);
        if (message === undefined) continue;
        lastWords.push(message);
        if (lastWords.length > lastWordsMax) lastWords.shift();
        log(message);
      }
    });
  }
  const ended = new Promise<ProcessEnd>((resolve) => {
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
    release: () => letGo(child, pid),
    kill: () => (hasChildren ? killGroup(child, pid) : void child.kill("SIGKILL")),
  };
}

/** Cuts a byte stream into lines of at most `lineBytesMax`; a longer one is cut there. */
export function createLineCutter(lineBytesMax: number): (chunk: Buffer) => string[] {
  let rest = "";
  return (chunk) => {
    const pieces = (rest + chunk.toString("utf8")).split("\n");
    rest = (pieces.pop() ?? "").slice(0, lineBytesMax);
    return pieces.map((piece) => piece.slice(0, lineBytesMax));
  };
}

/** All of them in one step of the kernel: none answers anybody with what the death of another, or of a volume, makes it see. */
function killGroup(child: ChildProcess, pid: number): void {
  // Its number may be another's by now.
  if (child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    child.kill("SIGKILL");
  }
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
