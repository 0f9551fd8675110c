/** NFS: one nfs-ganesha for each virtual server that exports something. */
import { bareAddresses, offersNfs, offersSmb } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { FileServiceSpec } from "../linux/ganesha/config.ts";
import { createPortMapper } from "../linux/ganesha/port-mapper.ts";
import { createGanesha } from "../linux/ganesha.ts";
import type { Machine } from "../port/machine.ts";
import { exportIdOf } from "./numbering.ts";
import {
  type BenchServices,
  type Driver,
  placeOf,
  ServicePart,
  type Surroundings,
} from "./service-part.ts";

/** Where ganesha keeps the records of NFSv4 clients, on the first volume of the virtual server. */
const recoveryDir = ".dyad/nfs4";

export function openNfsServices(surroundings: Surroundings): BenchServices {
  const { mountPath, runDir } = surroundings;
  return new ServicePart<FileServiceSpec>(
    {
      offers: offersNfs,
      specOf: (definition) => specOf(definition, mountPath),
      makeDriver(name, listener): Driver<FileServiceSpec> {
        const place = placeOf(surroundings, name);
        const portMapper = createPortMapper(place);
        const ganesha = createGanesha({ name, runDir, portMapper, place, ...listener });
        return {
          prepare: (spec) => ganesha.prepare(spec),
          dropSpare: (timeoutMs) => ganesha.dropSpare({ timeoutMs }),
          spareHeld: () => ganesha.spareHeld(),
          start: (spec) => ganesha.start(spec),
          probe: (deadlineMs) => ganesha.probe(deadlineMs),
          stop: (timeoutMs) => ganesha.stop({ timeoutMs }),
          kill: () => ganesha.kill(),
          processes: () => ganesha.processes(),
          killCount: () => ganesha.killCount(),
          async close(timeoutMs) {
            const closed = await ganesha.close({ timeoutMs });
            await portMapper.stop();
            return closed;
          },
        };
      },
    },
    surroundings,
  );
}

function specOf(
  { number, server }: Definition,
  mountPath: Machine["mountPath"],
): Outcome<FileServiceSpec> {
  const [first] = server.volumes;
  if (first === undefined) return failed("badInput", `file service ${server.name}`, "no volume");
  return good({
    addresses: bareAddresses(server),
    exports: server.volumes.flatMap(({ id, disk, export: pseudo }) =>
      pseudo === undefined
        ? []
        : [{ id: exportIdOf(number, id), path: mountPath(server, disk), pseudo }],
    ),
    recoveryDir: `${mountPath(server, first.disk)}/${recoveryDir}`,
    sharesWrites: offersSmb(server),
  });
}
