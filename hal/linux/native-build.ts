/** Small C programs, and libraries that ganesha.nfsd and smbd are started with (LD_PRELOAD): compiled here when need be. */
import { execFile } from "node:child_process";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { startOrdinary } from "./ordinary.ts";

/** Beside everything else that is built here. */
const builtFolder = join(import.meta.dirname, "../../work/native");
/** 0.13 s on a quiet machine. */
const compileMsMax = 20_000;

const known = new Map<string, Promise<Outcome<string>>>();

/** `place/enter.c`: starts a program in the place of a virtual server (hal/linux/place). */
export const enterProgram = () => native("place/enter", "program");

/** `read-barrier.c`: a read never shows what a crash could take back (docs/design/0012-read-barrier.md). */
export const readBarrier = () => native("ganesha/read-barrier", "library");

/** `registrations.c`: the port mapper is not asked at each start (docs/design/0010-file-service.md). */
export const noRegistrations = () => native("ganesha/registrations", "library");

/** `grace-end.c`: NFSv4 grace ends when the last client is back (docs/design/0030-nfsv4-state.md). */
export const graceEnd = () => native("ganesha/grace-end", "library");

/** `held-start.c`: a spare waits at the last step before it needs its volume (docs/design/0010-file-service.md). */
export const heldStart = () => native("ganesha/held-start", "library");

/** `durable-reads.c`: the same where several processes write (docs/design/0029-samba.md). */
export const durableReads = () => native("durable-reads", "library");

/** `journal-check.c`: an fsync is believed only while the journal lives (docs/design/0034-a-dead-journal.md). What goes without it says so. */
export async function journalCheck(log: (message: string) => void): Promise<Outcome<string>> {
  const built = await native("journal-check", "library");
  if (!built.ok)
    log(
      `WITHOUT journal check (an error of ext4 may take back what was acknowledged): ${built.fault.message}`,
    );
  return built;
}

type Kind = "library" | "program";

const flagsOf: Readonly<Record<Kind, readonly string[]>> = {
  library: ["-shared", "-fPIC", "-pthread"],
  program: [],
};

/**
 * The path of what was built, compiled first if it is not there or older than its source (needs cc); asked once in a process's life.
 * Faults: `toolMissing`, `ioError`.
 */
function native(name: string, kind: Kind): Promise<Outcome<string>> {
  const found = known.get(name) ?? findOrCompile(name, kind);
  known.set(name, found);
  return found;
}

async function findOrCompile(name: string, kind: Kind): Promise<Outcome<string>> {
  const source = join(import.meta.dirname, `${name}.c`);
  const built = join(builtFolder, `dyad-${basename(name)}${kind === "library" ? ".so" : ""}`);
  // Two controllers may compile at once: each gives its result the name in one step.
  const draft = `${built}.${process.pid}`;
  try {
    const [writtenMs, builtMs] = await Promise.all([modifiedMs(source), modifiedMs(built)]);
    if (builtMs !== undefined && (writtenMs === undefined || builtMs >= writtenMs))
      return good(built);
    await mkdir(builtFolder, { recursive: true });
    const flags = ["-O2", "-Wall", "-Wextra", "-Werror", ...flagsOf[kind]];
    await startOrdinary(["cc", ...flags, "-o", draft, source], (program, args) =>
      promisify(execFile)(program, args, { timeout: compileMsMax }),
    );
    await rename(draft, built);
    return good(built);
  } catch (error) {
    await rm(draft, { force: true });
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return failed(
      isMissing ? "toolMissing" : "ioError",
      `compile ${source}`,
      "not compiled",
      error,
    );
  }
}

async function modifiedMs(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined;
  }
}
