/** One ganesha process: what it is started with, and what it says of NFSv4 grace. */
import { randomInt } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import {
  durableReads,
  graceEnd,
  heldStart,
  journalCheck,
  noRegistrations,
  readBarrier,
} from "../native-build.ts";
import type { ProgramPlace } from "../place/programs.ts";
import {
  holdDescriptor,
  type ServiceProcess,
  searchPath,
  startServiceProcess,
} from "../service-process.ts";
import { type GraceView, graceAfter, isGraceCount, messageOf, noGrace } from "./log-lines.ts";

export interface Instance extends ServiceProcess {
  grace(): GraceView;
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
  PATH: searchPath,
  LC_ALL: "C",
  MALLOC_MMAP_THRESHOLD_: "131072",
};

export interface InstanceOptions {
  /** Files of this process are called `${base}.conf` and `${base}.pid`. */
  readonly base: string;
  readonly configuration: string;
  /** Whether it waits for `release` before it touches its volume or its address. */
  readonly held: boolean;
  /** libblkid's cache file; it is read behind the hold. */
  readonly blkidFile: string;
  /** Where NFSv4 client records are, as in the configuration. */
  readonly recoveryDir: string;
  /** Whether somebody else writes to its volumes, too. */
  readonly sharesWrites: boolean;
  readonly place: ProgramPlace;
  readonly log: (message: string) => void;
}

/** Starts a process. Faults: `toolMissing` (also when it should be held and cannot be), `ioError`. */
export async function startInstance(options: InstanceOptions): Promise<Outcome<Instance>> {
  const { base, configuration, held } = options;
  const configurationPath = `${base}.conf`;
  const pidPath = `${base}.pid`;
  const libraries = await librariesOf(options);
  if (!libraries.ok) return libraries;
  const removeFiles = () => {
    rmSync(configurationPath, { force: true });
    rmSync(pidPath, { force: true });
  };
  try {
    removeFiles();
    writeFileSync(configurationPath, configuration);
  } catch (error) {
    return failed("ioError", `prepare ${configurationPath}`, "not written", error);
  }
  // The epoch becomes the write verifier and part of every NFSv4 client id. ganesha's own is the start time in seconds: two
  // servers that start in one second would agree, and a client would take unstable writes for committed (RFC 1813 3.3.21).
  const epoch = randomInt(1, 2 ** 31);
  const variables = {
    ...environment,
    BLKID_FILE: options.blkidFile,
    DYAD_CLIENT_RECORDS: options.recoveryDir,
    LD_PRELOAD: libraries.value.join(":"),
    ...(held ? { DYAD_HOLD: String(holdDescriptor) } : {}),
  };
  const words = await options.place.command([
    ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
    "ganesha.nfsd",
    ...["-F", "-L", "STDERR", "-N", "NIV_WARN", "-E", String(epoch)],
    ...["-f", configurationPath, "-p", pidPath],
  ]);
  if (!words.ok) return words;
  let grace = noGrace;
  const started = await startServiceProcess({
    words: words.value,
    place: options.place,
    held,
    hasChildren: false,
    hear(line) {
      const before = grace;
      grace = graceAfter(before, line);
      return grace === before && isGraceCount(line) ? undefined : messageOf(line);
    },
    removeFiles,
    log: options.log,
  });
  return started.ok ? good({ ...started.value, grace: () => grace }) : started;
}

/** Paths of the libraries that it is started with. Only a start that is to be held cannot do without one. */
async function librariesOf({
  held,
  sharesWrites,
  log,
}: InstanceOptions): Promise<Outcome<readonly string[]>> {
  const [barrier, check, quiet, grace, hold] = await Promise.all([
    readBarrier(),
    journalCheck(log),
    noRegistrations(),
    graceEnd(),
    heldStart(),
  ]);
  if (held && !hold.ok) return hold;
  if (!barrier.ok) {
    log(`WITHOUT read barrier (a crash may take back what was read): ${barrier.fault.message}`);
  }
  // What others write the barrier does not know: whatever it lets pass, the kernel is asked about.
  const others = sharesWrites ? [await durableReads()] : [];
  // The check is behind both, whose synchronisations it judges. Without the others it registers by itself, looks at more devices and ends
  // grace later, which only takes longer. The one that holds comes last: it does what the others hand on, once it may.
  const all = [barrier, ...others, check, quiet, grace, hold];
  return good(all.flatMap((each) => (each.ok ? [each.value] : [])));
}
