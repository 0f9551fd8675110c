/**
 * Throw-away network namespaces for contract tests: two hosts joined by a wire. Names carry the process id, so runs
 * side by side do not meet, and what a killed run left behind is found and removed by the next.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { closeSync, openSync, readdirSync } from "node:fs";
import type { Socket } from "node:net";
import { promisify } from "node:util";
import koffi from "koffi";

const prefix = "dyadtest";
const CLONE_NEWNET = 0x40000000;
const setns = koffi.load("libc.so.6").func("int setns(int fd, int kind)");

export const rootMissing = process.getuid?.() !== 0 ? "needs root" : false;

export function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Removes the namespaces of test runs that no longer exist. */
export function removeLeftovers(): void {
  let names: string[] = [];
  try {
    names = readdirSync("/run/netns");
  } catch {
    return; // No namespace was ever made on this machine.
  }
  for (const name of names) {
    const owner = new RegExp(`^${prefix}-(\\d+)-`).exec(name)?.[1];
    if (owner !== undefined && !isAlive(Number(owner))) run("ip", "netns", "del", name);
  }
}

let reaper: ChildProcess | undefined;

/**
 * Removes the namespaces of this process when it ends, however it does: a worker that is killed has no time for hooks. A shell of its own session
 * waits for the end of its input, which the kernel closes.
 */
function reapAtEnd(): void {
  if (reaper) return;
  const script =
    'cat > /dev/null; cd /run/netns && for each in "$1"-*; do ip netns del "$each"; done';
  reaper = spawn("sh", ["-c", script, "reaper", `${prefix}-${process.pid}`], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  reaper.unref();
  // Neither the shell nor its pipe keeps this process.
  (reaper.stdin as Socket | null)?.unref();
}

export class Namespace {
  readonly name: string;
  readonly #children: ChildProcess[] = [];

  constructor(label: string) {
    this.name = `${prefix}-${process.pid}-${label}`;
    reapAtEnd();
    run("ip", "netns", "add", this.name);
    run("ip", "-n", this.name, "link", "set", "lo", "up");
  }

  ip(...args: readonly string[]): string {
    return run("ip", "-n", this.name, ...args);
  }

  exec(...args: readonly string[]): string {
    return run("ip", "netns", "exec", this.name, ...args);
  }

  /** As `exec`, while this process goes on. */
  later(...args: readonly string[]): Promise<string> {
    const words = ["netns", "exec", this.name, ...args];
    return promisify(execFile)("ip", words, { encoding: "utf8" }).then(({ stdout }) => stdout);
  }

  /** Packets go from here to an IPv4 address and back, whoever had it before: nobody listens at that port of it, and its kernel says so. */
  reaches(address: string): boolean {
    this.ip("neigh", "flush", "to", address);
    try {
      this.exec("socat", "-u", "OPEN:/dev/null", `TCP4:${address}:9,connect-timeout=1`);
      return true;
    } catch (error) {
      return String((error as { stderr?: unknown }).stderr).includes("Connection refused");
    }
  }

  /** Runs a synchronous function on this thread inside the namespace: sockets that it opens belong there. */
  inside<T>(action: () => T): T {
    const home = openSync("/proc/thread-self/ns/net", "r");
    const target = openSync(`/run/netns/${this.name}`, "r");
    try {
      if (setns(target, CLONE_NEWNET) !== 0) throw new Error(`setns: ${koffi.errno()}`);
      return action();
    } finally {
      if (setns(home, CLONE_NEWNET) !== 0) process.abort();
      closeSync(home);
      closeSync(target);
    }
  }

  /** Starts a process inside; it is killed at the latest with the namespace. */
  spawn(program: string, ...args: readonly string[]): ChildProcess {
    // nsenter executes the program in its own place, so a signal to the child reaches the program.
    const child = spawn("nsenter", [`--net=/run/netns/${this.name}`, program, ...args], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#children.push(child);
    return child;
  }

  async remove(): Promise<void> {
    for (const child of this.#children) await endProcess(child);
    run("ip", "netns", "del", this.name);
  }
}

/** Kills a child that still runs and waits until it is gone. */
export async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

/** Two namespaces joined by a veth pair whose ends are both called `wire0`. */
export function joinedNamespaces(labels: readonly [string, string]): [Namespace, Namespace] {
  removeLeftovers();
  const left = new Namespace(labels[0]);
  const right = new Namespace(labels[1]);
  left.ip("link", "add", "wire0", "type", "veth", "peer", "name", "wire0", "netns", right.name);
  for (const end of [left, right]) {
    end.ip("link", "set", "wire0", "up");
  }
  return [left, right];
}
