/**
 * Processes that an earlier life of this controller left behind. They are found by their own file names on their command line, so
 * nothing foreign can match, and they are killed before anything new starts: two file servers on one volume share no locks.
 */
import { readdirSync, readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { killQuietly } from "./processes.ts";

const pollMs = 1;

/** Pids of processes of that program whose arguments include a path that begins with `prefix`. */
export function findLeftovers(program: string, prefix: string): number[] {
  const found: number[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const words = argumentsOf(name);
    if (!words.some((word) => word.endsWith(program))) continue;
    if (words.some((word) => word.startsWith(prefix))) found.push(Number(name));
  }
  return found;
}

function argumentsOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return []; // It ended between the listing and the reading.
  }
}

/** Kills them and waits until the kernel has let go of what they held. Fault: `timeout`. */
export async function killLeftovers(
  program: string,
  prefix: string,
  timeoutMs: number,
): Promise<Outcome> {
  const startedAt = performance.now();
  for (;;) {
    const left = findLeftovers(program, prefix);
    if (left.length === 0) return done;
    if (performance.now() - startedAt > timeoutMs) {
      return failed("timeout", `kill leftover ${program}`, `still there: ${left.join(", ")}`);
    }
    for (const pid of left) killQuietly(pid);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}
