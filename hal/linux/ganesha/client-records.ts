/**
 * The records of NFSv4 clients on a volume: who may reclaim after a move, and whom the next server waits for. ganesha keeps them as
 * directories: `clients` has those who are here now, `clients-before` those who were when it started and are waited for while grace lasts.
 *
 * Obligations: a client that was waited for, and had not come when its server ended, is waited for again.
 */
import { execFile } from "node:child_process";
import type { Dirent } from "node:fs";
import { mkdir, readdir, rename, rm, rmdir } from "node:fs/promises";
import { promisify } from "node:util";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { within } from "../within.ts";

/** Below the recovery directory; `config.ts` and `grace-end.c` give them, too. */
export const recordsOf = { now: "clients", before: "clients-before" } as const;

const limitMs = 2000;
/** ganesha splits a long name into directories of 255 bytes each; an owner has at most 1024 (RFC 8881 3.2), twice that in hexadecimal. */
const depthMax = 16;
/** Records that are given back at once: each may wait for the disk. */
const atOnceMax = 8;

export interface RecordsOptions {
  /** Whether the server comes with `grace-end.c`, which takes the flag of synchronous directories away while it starts, and puts it back. */
  readonly hasGraceEnd: boolean;
  readonly log: (message: string) => void;
}

/**
 * What must be done before a server reads the records. They lie on the volume, which may hang with its disk: never in the main thread, and
 * never for longer than `limitMs`. Faults: `ioError`, `timeout`.
 */
export async function readyClientRecords(path: string, options: RecordsOptions): Promise<Outcome> {
  const operation = `client records in ${path}`;
  const ready = readyNow(path, operation, options);
  return await within(ready, limitMs, operation, `not ready in ${limitMs} ms`);
}

async function readyNow(
  path: string,
  operation: string,
  { hasGraceEnd, log }: RecordsOptions,
): Promise<Outcome> {
  try {
    const isNew = (await mkdir(path, { recursive: true, mode: 0o700 })) !== undefined;
    if (!isNew) await restore(`${path}/${recordsOf.before}`, `${path}/${recordsOf.now}`, 0);
    // The last server may have ended before its first client came, while the flag was away; with this one nobody would put it back.
    if (isNew || !hasGraceEnd) await makeSynchronous(path, log);
    return done;
  } catch (error) {
    return failed("ioError", operation, "not made ready", error);
  }
}

/**
 * chattr(1), +D; directories made in it inherit it. ganesha does not sync a new client's record itself, and a client without a record cannot reclaim its locks
 * after a takeover.
 */
async function makeSynchronous(path: string, log: (message: string) => void): Promise<void> {
  try {
    await promisify(execFile)("chattr", ["-R", "+D", path]);
  } catch (error) {
    // Serving is worth more than the locks of a client that arrives in the second before a crash.
    log(`client records in ${path} are not synchronous: ${String(error)}`);
  }
}

/**
 * Gives those who are still waited for back to those who are here. ganesha reads both, but of those who were waited for already it keeps no
 * record on the disk (fs_read_recov_clids_recover); a second end within one grace would let others have their locks. And a client that has
 * returned is in both, is counted twice, and would keep grace from ending early.
 */
async function restore(from: string, to: string, depth: number): Promise<void> {
  if (depth > depthMax) throw new Error(`${from}: directories too deep for a client record`);
  const entries = await entriesOf(from);
  if (entries.length > 0) await mkdir(to, { recursive: true, mode: 0o700 });
  // Below the first level one after the other: a client has few, and all of them together must stay few.
  const countMax = depth === 0 ? atOnceMax : 1;
  for (let i = 0; i < entries.length; i += countMax) {
    const some = entries.slice(i, i + countMax);
    const ended = await Promise.allSettled(some.map((entry) => giveBack(from, to, entry, depth)));
    for (const one of ended) if (one.status === "rejected") throw one.reason;
  }
}

async function giveBack(from: string, to: string, entry: Dirent, depth: number): Promise<void> {
  const [old, now] = [`${from}/${entry.name}`, `${to}/${entry.name}`];
  if (await renamed(old, now)) return;
  // There already: what is in it (revoked delegations, the rest of a long name) joins what is there.
  if (entry.isDirectory()) {
    await restore(old, now, depth + 1);
    await rmdir(old);
  } else {
    await rm(old);
  }
}

async function entriesOf(path: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(path, { withFileTypes: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** False when a directory of that name, with something in it, is there. An empty one is replaced (rename(2)). */
async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOTEMPTY" || code === "EEXIST") return false;
    throw error;
  }
}
