/**
 * The file services of a controller: of each virtual server those that its volumes are offered by, NFS, SMB or both. They are started and ended
 * together, and each is whole only as a whole: the address is opened when all answer.
 */
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
import { endEarlierLife } from "../linux/samba.ts";
import type { FileServices, Machine, MachineHandlers } from "../port/machine.ts";
import { openNfsServices } from "./nfs-services.ts";
import type { Places } from "./places.ts";
import { type ServicePart, SpareLine } from "./service-part.ts";
import { openSmbServices } from "./smb-services.ts";

/** Time for what an earlier life left to die. */
const leftoversMs = 2000;

/** Ports at which a virtual server has clients. */
export function servicePortsOf(server: VirtualServerConfig): number[] {
  return [...(offersNfs(server) ? [nfsPort] : []), ...(offersSmb(server) ? [smbPort] : [])];
}

/** Kills what an earlier life left behind and returns the services; their spares are begun by `prepare`. */
export async function openFileServices(
  config: Config,
  handlers: MachineHandlers,
  mountPath: Machine["mountPath"],
  places: Places,
): Promise<FileServices> {
  const runDir = `${config.controller.runDir}/services`;
  // Of every name, also those that the configuration has no more.
  const cleaned = await Promise.all([
    killLeftovers("ganesha.nfsd", filesIn(runDir), leftoversMs),
    endEarlierLife(runDir, leftoversMs),
  ]);
  for (const each of cleaned) if (!each.ok) handlers.log(explain(each.fault));
  const surroundings = { config, handlers, mountPath, places, runDir, line: new SpareLine() };
  return together([openNfsServices(surroundings), openSmbServices(surroundings)]);
}

/** Several kinds of services as one. What some of them have no part in is done by the others alone. */
export function together(parts: readonly ServicePart[]): FileServices {
  const all = async (name: string, action: (part: ServicePart) => Promise<Outcome>) => {
    const outcomes = await Promise.all(parts.filter((part) => part.serves(name)).map(action));
    return outcomes.find((outcome) => !outcome.ok) ?? done;
  };
  return {
    start: (server, limitMs) => all(server.name, (part) => part.start(server, limitMs)),
    kill(name) {
      for (const part of parts) if (part.serves(name)) part.kill(name);
    },
    stop: (name, limitMs) => all(name, (part) => part.stop(name, limitMs)),
    prepare: (name) => all(name, (part) => part.prepare(name)),
    async close() {
      await Promise.all(parts.map((part) => part.close()));
    },
  };
}
