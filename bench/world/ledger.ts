/**
 * What a run leaves for the next one to clean up, should it be killed: every process with its start time (an id alone may
 * have been given to somebody else since) and every loop device. Lines of JSON, each written before the run goes on.
 *
 * Also the lock: one world per prefix. It is a socket name in the kernel's abstract space (unix(7)), which goes with its
 * holder however that ends; a lock file would outlive a `kill -9`.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { z } from "zod";
import { statFields } from "../../hal/linux/processes.ts";
import { BenchError } from "./error.ts";

export const ledgerDirectory = "/run/dyad-bench";

const entrySchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("run"), pid: z.number().int(), at: z.string() }),
  z.strictObject({
    kind: z.literal("process"),
    pid: z.number().int().positive(),
    startTicks: z.number().int(),
    role: z.string(),
  }),
  z.strictObject({ kind: z.literal("loop"), device: z.string(), backing: z.string() }),
  z.strictObject({
    kind: z.literal("setting"),
    path: z.string(),
    value: z.string().regex(/^[01]$/),
  }),
]);
export type LedgerEntry = z.infer<typeof entrySchema>;

/** Lines beyond this are not ours: a run starts a few processes per fault. */
const linesMax = 1_000_000;

export class Ledger {
  readonly path: string;

  constructor(prefix: string) {
    this.path = `${ledgerDirectory}/${prefix}.jsonl`;
  }

  begin(): void {
    mkdirSync(ledgerDirectory, { recursive: true });
    this.#append({ kind: "run", pid: process.pid, at: new Date().toISOString() });
  }

  /** Records a process just started. One that has ended already needs no record. */
  process(pid: number | undefined, role: string): void {
    const startTicks = pid === undefined ? undefined : startTicksOf(pid);
    if (pid === undefined || startTicks === undefined) return;
    this.#append({ kind: "process", pid, startTicks, role });
  }

  loop(device: string, backing: string): void {
    this.#append({ kind: "loop", device, backing });
  }

  /** What a setting of the kernel was before: a file below /sys, or what else it is called by. */
  setting(path: string, value: string): void {
    this.#append({ kind: "setting", path, value });
  }

  exists(): boolean {
    return existsSync(this.path);
  }

  /** All readable entries; a line torn by the end of its writer is skipped. */
  entries(): LedgerEntry[] {
    if (!this.exists()) return [];
    const lines = readFileSync(this.path, "utf8").split("\n").slice(0, linesMax);
    return lines.flatMap((line) => {
      const entry = entrySchema.safeParse(parseOrUndefined(line));
      return entry.success ? [entry.data] : [];
    });
  }

  remove(): void {
    rmSync(this.path, { force: true });
  }

  #append(entry: LedgerEntry): void {
    appendFileSync(this.path, `${JSON.stringify(entry)}\n`);
  }
}

function parseOrUndefined(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

/** Start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)); undefined when gone. */
export function startTicksOf(pid: number): number | undefined {
  try {
    return Number(statFields(readFileSync(`/proc/${pid}/stat`, "utf8"))[22 - 3]);
  } catch {
    return undefined;
  }
}

/** Takes the prefix for this process, or throws `alreadyRunning`. Closing the server gives it back. */
export function lockPrefix(prefix: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const owner = new Ledger(prefix).entries().findLast((entry) => entry.kind === "run");
      const who = owner ? ` (process ${owner.pid})` : "";
      reject(
        cause.code === "EADDRINUSE"
          ? new BenchError(
              "alreadyRunning",
              "lock",
              `a bench with prefix ${prefix} runs already${who}`,
            )
          : new BenchError("worldBroken", "lock", "could not take the lock", cause),
      );
    });
    server.listen(`\0dyad-bench-${prefix}`, () => {
      server.unref();
      resolve(server);
    });
  });
}
