/**
 * The file services of a controller: of each virtual server those that its volumes are offered by, NFS, SMB or both. They are started and ended
 * together, and each is whole only as a whole: the address is opened when all answer.
 */
import { rmSync } from "node:fs";
import {
  type Config,
  offersNfs,
  offersSmb,
  type VirtualServerConfig,
} from "../../firmware-ts/schema/config.ts";
import { done, explain, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { nfsPort, smbPort } from "../../firmware-ts/wire/clients.ts";
import { filesIn } from "../linux/ganesha.ts";
import { killLeftovers } from "../linux/leftovers.ts";
import { foldersIn } from "../linux/samba.ts";
import type { Machine, MachineHandlers } from "../port/machine.ts";
import { openNfsServices } from "./nfs-services.ts";
import { type BenchServices, type ProgramPlaces, SpareLine } from "./service-part.ts";
import { openSmbServices } from "./smb-services.ts";

/** Time for what an earlier life left to die. */
const leftoversMs = 2000;

/** Ports at which a virtual server has clients. */
export function servicePortsOf(server: VirtualServerConfig): number[] {
  return [...(offersNfs(server) ? [nfsPort] : []), ...(offersSmb(server) ? [smbPort] : [])];
}

/** Kills what an earlier life left behind, of every name, also those that are no more. */
export async function openFileServices(
  config: Config,
  handlers: MachineHandlers,
  mountPath: Machine["mountPath"],
  places: ProgramPlaces,
): Promise<BenchServices> {
  const runDir = `${config.controller.runDir}/services`;
  const cleaned = await Promise.all([
    killLeftovers("ganesha.nfsd", filesIn(runDir), leftoversMs),
    // What an smbd has started carries its command line, or ends with it.
    killLeftovers("smbd", foldersIn(runDir), leftoversMs),
  ]);
  for (const each of cleaned) if (!each.ok) handlers.log(explain(each.fault));
  if (cleaned.every(({ ok }) => ok)) rmSync(runDir, { recursive: true, force: true });
  const surroundings = { handlers, mountPath, places, runDir, line: new SpareLine() };
  const services = together([openNfsServices(surroundings), openSmbServices(surroundings)]);
  return {
    ...services,
    async stop(name, limitMs) {
      const startedAt = performance.now();
      const stopped = await services.stop(name, limitMs);
      if (!stopped.ok) return stopped;
      // Whatever else runs in its place would hold the volume.
      const leftMs = limitMs - (performance.now() - startedAt);
      return await places.groups.empty(name, () => services.processes(name), leftMs);
    },
  };
}

/** Several kinds of services as one. What some of them have no part in is done by the others alone. */
export function together(parts: readonly BenchServices[]): BenchServices {
  const all = async (action: (part: BenchServices) => Promise<Outcome>) => {
    const outcomes = await Promise.all(parts.map(action));
    return outcomes.find((outcome) => !outcome.ok) ?? done;
  };
  return {
    define(definition) {
      for (const part of parts) part.define(definition);
    },
    forget: (name, limitMs) => all((part) => part.forget(name, limitMs)),
    start: (server, limitMs) => all((part) => part.start(server, limitMs)),
    kill(name) {
      for (const part of parts) part.kill(name);
    },
    stop: (name, limitMs) => all((part) => part.stop(name, limitMs)),
    processes: (name) => parts.flatMap((part) => part.processes(name)),
    prepare: (name) => all((part) => part.prepare(name)),
    async close() {
      await Promise.all(parts.map((part) => part.close()));
    },
  };
}
