/** NFS: one nfs-ganesha for each virtual server that exports something. */
import {
  bareAddresses,
  type Config,
  offersNfs,
  offersSmb,
  type VirtualServerConfig,
} from "../../firmware-ts/schema/config.ts";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { FileServiceSpec } from "../linux/ganesha/config.ts";
import { createPortMapper, type PortMapper } from "../linux/ganesha/port-mapper.ts";
import { createGanesha } from "../linux/ganesha.ts";
import { programsOf } from "../linux/place/programs.ts";
import type { Machine, MachineHandlers } from "../port/machine.ts";
import type { Places } from "./places.ts";
import { openPart, type ServicePart, type SpareLine } from "./service-part.ts";

/** Where ganesha keeps the records of NFSv4 clients, on the first volume of the virtual server. */
const recoveryDir = ".dyad/nfs4";

export interface Surroundings {
  readonly config: Config;
  readonly handlers: MachineHandlers;
  readonly mountPath: Machine["mountPath"];
  readonly places: Places;
  readonly runDir: string;
  readonly line: SpareLine;
}

export function openNfsServices(surroundings: Surroundings): ServicePart {
  const { config, handlers, mountPath, places, runDir, line } = surroundings;
  const exportIds = exportIdsOf(config);
  const mappers: PortMapper[] = [];
  const part = openPart<FileServiceSpec>({
    servers: config.virtualServers.filter(offersNfs),
    line,
    log: handlers.log,
    serviceExited: handlers.serviceExited,
    member(server, onEnd) {
      const { name } = server;
      const place = programsOf(places.of(name), places.folder, name);
      const portMapper = createPortMapper(place, bareAddresses(server));
      mappers.push(portMapper);
      const log = (message: string) => handlers.log(`${name}: ${message}`);
      const sharesWrites = offersSmb(server);
      const ganesha = createGanesha({ name, runDir, portMapper, place, sharesWrites, log, onEnd });
      return {
        driver: {
          prepare: (spec) => ganesha.prepare(spec),
          spareHeld: () => ganesha.spareHeld(),
          start: (spec) => ganesha.start(spec),
          probe: (deadlineMs) => ganesha.probe(deadlineMs),
          stop: (timeoutMs) => ganesha.stop({ timeoutMs }),
          kill: () => ganesha.kill(),
          killCount: () => ganesha.killCount(),
          close: (timeoutMs) => ganesha.close({ timeoutMs }),
        },
        spec: specOf(server, mountPath, exportIds),
      };
    },
  });
  return {
    ...part,
    async close() {
      await part.close();
      for (const mapper of mappers) await mapper.stop();
    },
  };
}

/** Numbers of exports are part of every file handle: from the configuration's order, which both controllers share. */
function exportIdsOf(config: Config): ReadonlyMap<string, number> {
  const volumes = config.virtualServers.flatMap((server) => server.volumes);
  return new Map(volumes.flatMap((volume, i) => (volume.export ? [[volume.export, i + 1]] : [])));
}

function specOf(
  server: VirtualServerConfig,
  mountPath: Machine["mountPath"],
  exportIds: ReadonlyMap<string, number>,
): Outcome<FileServiceSpec> {
  const [first] = server.volumes;
  if (first === undefined) return failed("badInput", `file service ${server.name}`, "no volume");
  return good({
    addresses: bareAddresses(server),
    exports: server.volumes.flatMap((volume) => {
      const id = volume.export === undefined ? undefined : exportIds.get(volume.export);
      if (volume.export === undefined || id === undefined) return [];
      return [{ id, path: mountPath(server, volume.disk), pseudo: volume.export }];
    }),
    recoveryDir: `${mountPath(server, first.disk)}/${recoveryDir}`,
  });
}
