/**
 * Starts processes of a world: each joins its cgroup before it becomes the program (so that no moment exists in which a kill
 * of the group would miss it), is entered in the ledger, and logs to a file of its own.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Cgroup } from "./cgroup.ts";
import { BenchError } from "./error.ts";
import { repoDir } from "./layout.ts";
import type { Ledger } from "./ledger.ts";

export interface StartOptions {
  /** Names the log file and the ledger's entry. */
  readonly role: string;
  readonly cgroup: Cgroup;
  readonly argv: readonly string[];
  /** A named network namespace, or the process whose network and mount namespaces to enter. */
  readonly inside?: string | { readonly holder: number } | undefined;
  /** Called for each line on standard output, which otherwise goes to the log. */
  readonly onLine?: ((line: string) => void) | undefined;
  /** Keeps a pipe to its standard input; a program that watches it ends with us. */
  readonly input?: boolean;
}

export interface Started {
  readonly role: string;
  readonly pid: number;
  readonly child: ChildProcess;
  /** Settles, always well, when the process has ended. */
  readonly ended: Promise<string>;
  alive(): boolean;
}

/** `sh` writes its own id into the cgroup and then *becomes* the program: the id stays the same. */
const joinScript = 'echo $$ > "$1"; shift; exec "$@"';

export class Processes {
  readonly #ledger: Ledger;
  readonly #logDir: string;

  constructor(ledger: Ledger, logDir: string) {
    this.#ledger = ledger;
    this.#logDir = logDir;
    mkdirSync(logDir, { recursive: true });
  }

  logPath(role: string): string {
    return join(this.#logDir, `${role}.log`);
  }

  start(options: StartOptions): Started {
    const enter = enterWords(options.inside);
    const log = openSync(this.logPath(options.role), "a");
    const child = spawn(
      "/bin/sh",
      ["-ec", joinScript, "sh", options.cgroup.joinPath, ...enter, ...options.argv],
      {
        stdio: [options.input ? "pipe" : "ignore", options.onLine ? "pipe" : log, log],
        // A terminal's Ctrl-C is for the orchestrator alone, which then ends everything in order.
        detached: true,
        cwd: repoDir,
      },
    );
    closeSync(log);
    const { pid } = child;
    if (pid === undefined)
      throw new BenchError("programFailed", options.role, "could not be started");
    this.#ledger.process(pid, options.role);
    child.on("error", () => {});
    child.stdin?.on("error", () => {});
    if (options.onLine && child.stdout) {
      const { onLine } = options;
      createInterface({ input: child.stdout }).on("line", onLine);
    }
    const ended = new Promise<string>((resolve) => {
      child.once("exit", (code, signal) => resolve(signal ?? `exit ${code}`));
    });
    return {
      role: options.role,
      pid,
      child,
      ended,
      alive: () => child.exitCode === null && child.signalCode === null,
    };
  }
}

function enterWords(inside: StartOptions["inside"]): string[] {
  if (inside === undefined) return [];
  if (typeof inside === "string") return ["nsenter", `--net=/run/netns/${inside}`, "--"];
  return ["nsenter", "-t", String(inside.holder), "-n", "-m", `--wd=${repoDir}`, "--"];
}

/** Sends a signal; a process that has gone already is none to complain about. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
