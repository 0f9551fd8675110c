/**
 * A file system that remembers an error is checked before it is mounted: the kernel would mount it and write to it, and what is wrong would become more.
 * `e2fsck -p` mends what can be mended without losing anything and asks no questions; a volume for which it has some stays down, and the
 * operator is told. All others are not checked: their journal is recovered by the mount.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { journalRemembersError } from "../../firmware-ts/wire/ext4/journal.ts";
import { remembersError } from "../../firmware-ts/wire/ext4/superblock.ts";
import { startOrdinary } from "./ordinary.ts";
import type { FirstRead } from "./read-ahead.ts";

/** e2fsck(8): exit codes are sums; from here on errors are left, or it could not do its work. */
const uncorrected = 4;
const wordsMax = 2000;
const environment = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/**
 * Checks the file system on a device if it remembers an error, by what was read of it. It takes as long as it takes, and must not be stopped half-way.
 * Fault `mountFailed`: errors are left, or there is no e2fsck.
 */
export async function checkIfNeeded(
  device: string,
  read: FirstRead,
  log: (message: string) => void,
): Promise<Outcome> {
  if (!isNeeded(read)) return done;
  log(`${device} remembers an error: it is checked (e2fsck -p) before it is mounted`);
  const { code, words } = await preen(device);
  if (code !== undefined && code < uncorrected && !isNotStarted(words)) {
    log(`${device} is checked: ${words}`);
    return done;
  }
  const why = `${device} has errors that are not mended without questions; run e2fsck on its disk by hand: ${words}`;
  return failed("mountFailed", "check", why);
}

/** Who was to start it has failed, with a code that would mean "mended": nothing was checked. */
function isNotStarted(words: string): boolean {
  return /^(chrt|setpriv): /.test(words);
}

/** What could not be read is left to the mount. */
function isNeeded({ superblock, journalSuperblock }: FirstRead): boolean {
  if (superblock && remembersError(superblock)) return true;
  return journalSuperblock !== undefined && journalRemembersError(journalSuperblock);
}

function preen(device: string): Promise<{ readonly code: number | undefined; words: string }> {
  // It ends with us: an orphan would write to a device that nobody governs.
  const words = ["setpriv", "--pdeathsig", "KILL", "e2fsck", "-p", device];
  const child = startOrdinary(words, (program, args) =>
    spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: environment }),
  );
  const said = collect(child);
  return new Promise((resolve) => {
    child.once("error", (error) => resolve({ code: undefined, words: error.message }));
    child.once("close", (code, signal) => {
      const end = code === null ? `ended by ${signal}` : `exit code ${code}`;
      resolve({ code: code ?? undefined, words: said() || end });
    });
  });
}

/** What it says, on one line. */
function collect({ stdout, stderr }: ChildProcess): () => string {
  let text = "";
  for (const stream of [stdout, stderr])
    stream?.on("data", (chunk: Buffer) => {
      text = `${text}${chunk.toString()}`.slice(-wordsMax);
    });
  return () => text.trim().replaceAll(/\s*\n\s*/g, "; ");
}
