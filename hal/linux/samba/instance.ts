/** One smbd with all that it starts: a process for each client, one that cleans up, one that notifies, and those that answer RPC. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { durableReads, heldStart, journalCheck } from "../native-build.ts";
import type { ProgramPlace } from "../place/programs.ts";
import {
  holdDescriptor,
  type ServiceProcess,
  searchPath,
  startServiceProcess,
} from "../service-process.ts";
import {
  foldersOf,
  machineSid,
  renderConfiguration,
  renderGroup,
  renderPasswd,
  type SmbService,
} from "./config.ts";

/**
 * Where smbd sees the volumes of its virtual server: a directory that every system has (FHS 3.0, 3.17), because users of the server have no way through
 * the directories of the controller.
 */
export const seenAt = "/srv";

const environment = { PATH: searchPath, LC_ALL: "C" };

export interface InstanceOptions {
  /** Everything of this process is below it. */
  readonly folder: string;
  readonly service: SmbService;
  /** Whether it waits for `release` before it binds its address. */
  readonly held: boolean;
  readonly place: ProgramPlace;
  readonly log: (message: string) => void;
}

/** Starts a process. Faults: `toolMissing` (also when it should be held and cannot be), `ioError`, `refused`. */
export async function startInstance(options: InstanceOptions): Promise<Outcome<ServiceProcess>> {
  const { folder, held, place } = options;
  const words = await wordsOf(options);
  if (!words.ok) return words;
  const written = writeFiles(options);
  if (!written.ok) return written;
  let isHeld = held;
  const started = await startServiceProcess({
    words: words.value,
    place,
    held,
    hasChildren: true,
    hear: (line) => messageOf(line, isHeld),
    removeFiles: () => rmSync(folder, { recursive: true, force: true }),
    log: options.log,
  });
  if (!started.ok) return started;
  const release = () => {
    isHeld = false;
    return started.value.release();
  };
  return good({ ...started.value, release });
}

function writeFiles({ folder, service }: InstanceOptions): Outcome {
  const files = {
    "smb.conf": renderConfiguration(service, folder),
    passwd: renderPasswd(service),
    group: renderGroup(service),
    // smbd takes it from there into its own database, and removes the file.
    "private/MACHINE.SID": `${machineSid(service)}\n`,
  };
  try {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true, mode: 0o755 });
    for (const each of Object.values(foldersOf(folder))) mkdirSync(each, { mode: 0o755 });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    return done;
  } catch (error) {
    return failed("ioError", `prepare ${folder}`, "not written", error);
  }
}

/** The command line, with what smbd is to see instead of what is there. */
async function wordsOf(options: InstanceOptions): Promise<Outcome<string[]>> {
  const { folder, service, held, place } = options;
  const libraries = await librariesOf(options);
  if (!libraries.ok) return libraries;
  const variables = {
    ...environment,
    LD_PRELOAD: libraries.value.join(":"),
    ...(service.writeThrough ? { DYAD_WRITE_THROUGH: "1" } : {}),
    ...(held ? { DYAD_HOLD: String(holdDescriptor), DYAD_HOLD_AT: "bind" } : {}),
  };
  return await place.command(
    [
      ...Object.entries(variables).map(([name, value]) => `${name}=${value}`),
      // It signals its process group when it ends, which is its own already.
      ...["smbd", "--foreground", "--no-process-group", "--debug-stdout"],
      ...["--log-basename", folder, "--configfile", join(folder, "smb.conf")],
    ],
    [
      { target: seenAt, source: place.folder },
      { target: "/etc/passwd", source: join(folder, "passwd") },
      { target: "/etc/group", source: join(folder, "group") },
    ],
  );
}

/** Paths of the libraries that it is started with. Only a start that is to be held cannot do without one. */
async function librariesOf({ held, log }: InstanceOptions): Promise<Outcome<readonly string[]>> {
  const [durable, check, hold] = await Promise.all([
    durableReads(),
    journalCheck(log),
    heldStart(),
  ]);
  if (held && !hold.ok) return hold;
  if (!durable.ok) {
    log(
      `SMB WITHOUT durable reads (a crash may take back what was read): ${durable.fault.message}`,
    );
  }
  return good([durable, check, hold].flatMap((each) => (each.ok ? [each.value] : [])));
}

/** What every start says, and nobody needs to know; and what one says that is held, whose volume is not there yet. */
const chatter =
  /^(smbd version|Copyright|INFO: Profiling|WARNING: no network interfaces)|did not exist\. File successfully created\.$/;
const chatterHeld = /^startsmbfilepwent_internal: /;

function messageOf(line: string, isHeld: boolean): string | undefined {
  const message = line.trim();
  if (message === "" || chatter.test(message)) return undefined;
  return isHeld && chatterHeld.test(message) ? undefined : message;
}
