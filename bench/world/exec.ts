/** Runs the system's programs: no shell, bounded in time, and an error that carries what the program said. */
import { execFile } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { BenchError } from "./error.ts";

/** Output beyond this is a program gone wrong, not an answer. */
const outputBytesMax = 4 * 1024 * 1024;

/** How long the bench waits for what does not depend on the product, ms: it ends what hangs, on the slowest machine too. */
export const limitMs = 60_000;

export interface RunOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
}

/** Runs a program to its end and returns its standard output. Throws `programFailed` on any other exit than 0. */
export function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      [...args],
      { timeout: options.timeoutMs ?? limitMs, maxBuffer: outputBytesMax, killSignal: "SIGKILL" },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout);
        const said =
          stderr.trim().split("\n").slice(0, 4).join(" | ") ||
          `ended with ${error.signal ?? error.code}`;
        const operation = [command, ...args].join(" ").slice(0, 200);
        reject(new BenchError("programFailed", operation, said, error));
      },
    );
    // A program that ends before it has read everything is judged by its exit code, not by our broken pipe.
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input ?? "");
  });
}

/** One `ip -batch` in a namespace (or in the host's, for `undefined`): a dozen changes for one process. */
export async function ipBatch(
  namespace: string | undefined,
  lines: readonly string[],
  force = false,
): Promise<void> {
  const where = namespace === undefined ? [] : ["-n", namespace];
  const how = force ? ["-force"] : [];
  await run("ip", [...where, ...how, "-batch", "-"], { input: `${lines.join("\n")}\n` });
}

/** Same for `bridge`, which alone sets the state of a port. */
export async function bridgeBatch(namespace: string, lines: readonly string[]): Promise<void> {
  await run("bridge", ["-n", namespace, "-batch", "-"], { input: `${lines.join("\n")}\n` });
}

export interface WaitOptions {
  readonly deadlineMs: number;
  readonly intervalMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Polls until `condition` returns something other than `undefined` or `false`. Throws `timeout`, naming what was awaited
 * and the last error of the condition, which itself may fail as long as it likes.
 */
export async function waitFor<T>(
  what: string,
  condition: () => Promise<T | undefined | false> | T | undefined | false,
  options: WaitOptions,
): Promise<T> {
  const until = performance.now() + options.deadlineMs;
  let last: unknown;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= until)
      throw new BenchError("timeout", what, `not so after ${options.deadlineMs} ms`, last);
    await delay(options.intervalMs ?? 20, undefined, { signal: options.signal });
  }
}

/** CLOCK_MONOTONIC in ms: the same clock in every process of the machine, so marks compare across them. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
