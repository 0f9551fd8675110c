/**
 * The SMB service of one virtual server: one smbd in the place of that virtual server, with all the processes that it starts.
 *
 * Obligations: those of `service-driver.ts`; a service counts as serving only after `probe` has had an answer for every share; the end of a
 * service is the end of every process that it has started.
 *
 * It is stopped by SIGKILL, always, for the reason that ganesha is: the volume is sealed, and nobody may be told what that makes of it. What smbd has
 * acknowledged is on the disk (`sync always`), unless the configuration gives that up.
 */
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ProgramPlace } from "./place/programs.ts";
import { seesVolumes } from "./place/sight.ts";
import { type SmbService, type SmbServiceSpec, smbServiceSchema } from "./samba/config.ts";
import { seenAt, startInstance } from "./samba/instance.ts";
import { askNegotiate, probeShares } from "./samba/probe.ts";
import { ServiceDriver } from "./service-driver.ts";
import type { ProcessEnd } from "./service-process.ts";
import { within } from "./within.ts";

export interface SambaOptions {
  /** Name of the virtual server: letters, digits, dashes. */
  readonly name: string;
  /** A directory in memory, private to this controller. */
  readonly runDir: string;
  /** Where it runs. */
  readonly place: ProgramPlace;
  readonly log: (message: string) => void;
  /** Called once for each server that ended; `expected` when `stop` or `kill` asked for it. */
  readonly onEnd: (end: ProcessEnd & { readonly expected: boolean }) => void;
  /** Called, again and again, while a server that has been proved lives and does not answer (`health.ts`). */
  readonly onHung: (reason: string) => void;
}

/** A question whose answer is missed already is listened for that long. */
const healthMsMax = 5000;

/** How long a volume may take to make a directory. */
const directoryMsMax = 2000;

/** Folders of all its processes begin so; it is how leftovers are recognised. */
export const foldersIn = (runDir: string) => join(runDir, "samba-");

/** The driver of one virtual server's SMB service; it touches nothing before the first call. Throws for a service that cannot be. */
export function createSamba(options: SambaOptions): ServiceDriver<SmbService> {
  const { name, runDir, place, log, onEnd, onHung } = options;
  let count = 0;
  return new ServiceDriver<SmbService>({
    name: `SMB service ${name}`,
    identify: (service) => JSON.stringify(service),
    launch(service, { held }) {
      count += 1;
      const folder = `${foldersIn(runDir)}${name}.${process.pid}.${count}`;
      return startInstance({ folder, service, held, place, log });
    },
    sees({ shares, passwordFile }, pid, deadlineMs) {
      const paths = [...shares.map(({ path }) => path), dirname(passwordFile)];
      const sights = paths.map((path) => ({ here: hereOf(place, path), there: path }));
      return seesVolumes(pid, sights, deadlineMs);
    },
    makeReady: ({ passwordFile }) => makePasswordFolder(place, dirname(passwordFile)),
    async probe(service, deadlineMs, stillUseful) {
      const offered = { ...service, shares: service.shares.map((share) => share.name) };
      const proved = await probeShares(offered, { deadlineMs, stillUseful, place });
      if (!proved.ok) return proved;
      const ask = (question: number) => {
        const host = service.addresses[question % service.addresses.length] ?? "";
        return askNegotiate({ host, port: service.port, socket: place.socket }, healthMsMax);
      };
      return good({ tookMs: proved.value, ask });
    },
    log,
    onEnd,
    onHung,
  });
}

/** Checks what a caller wants served, with its defaults. Fault: `badInput`. */
export function parseSmbService(spec: SmbServiceSpec): Outcome<SmbService> {
  const parsed = smbServiceSchema.safeParse(spec);
  if (parsed.success) return { ok: true, value: parsed.data };
  return failed("badInput", `SMB service ${spec.name}`, parsed.error.message);
}

/** It lies on the volume, so it may hang with the disk: never in the main thread, and never for longer than `directoryMsMax`. */
async function makePasswordFolder(place: ProgramPlace, seen: string): Promise<Outcome> {
  const path = hereOf(place, seen);
  const operation = `make ${path}`;
  const made = mkdir(path, { recursive: true, mode: 0o700 }).then(
    () => done,
    (error: unknown) => failed("ioError", operation, "not created", error),
  );
  return await within(made, directoryMsMax, operation, `not done in ${directoryMsMax} ms`);
}

/** Where this process finds what smbd sees at a path. */
function hereOf({ folder }: ProgramPlace, seen: string): string {
  return folder + seen.slice(seenAt.length);
}
