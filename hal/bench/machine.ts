/** One controller of the bench: real kernel, real file service, real file system, disks of the user-space shelf. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { done, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { giveBackRegularly } from "../block/memory.ts";
import { createAddresses } from "../linux/addresses.ts";
import { createFileSystems } from "../linux/filesystems.ts";
import { mountsBelow } from "../linux/mount-table.ts";
import { prepareNic } from "../linux/nic.ts";
import { recordedState } from "../linux/place/recorded-state.ts";
import { takeRealTimePriority } from "../linux/realtime.ts";
import { createServiceStates } from "../linux/service-state.ts";
import type { Machine, MachineHandlers } from "../port/machine.ts";
import type { FileSystems } from "../port/storage.ts";
import { openDataDisks } from "./data-disks.ts";
import { openFileServices } from "./file-services.ts";
import { openPlaces, type Places } from "./places.ts";

/** Below the beat process, above everything ordinary: a file server under load must not look like a hung controller. */
const mainPriority = 10;

/** Port of NFS, for the list of connections to tickle. */
const nfsPort = 2049;

/**
 * Opens everything that the main loop touches. What an earlier life of this controller left (services, mounts, addresses,
 * devices) is removed before it returns.
 */
export async function openBenchMachine(
  config: Config,
  handlers: MachineHandlers,
): Promise<Outcome<Machine>> {
  const { nic } = config.data;
  const prepared = prepareNic(nic);
  if (!prepared.ok) return prepared;
  const addresses = createAddresses();
  if (!addresses.ok) return addresses;
  const opened = openPlaces(config);
  if (!opened.ok) return opened;
  const places = opened.value;
  const mountPath: Machine["mountPath"] = (server, disk) =>
    join(places.folder.path, server.name, disk);
  const services = await openFileServices(config, handlers, mountPath, places);
  const fileSystems = createFileSystems();
  const forgotten = await abandonForgotten(places, fileSystems);
  if (!forgotten.ok) return forgotten;
  for (const server of config.virtualServers) {
    for (const { disk } of server.volumes) {
      const path = mountPath(server, disk);
      mkdirSync(path, { recursive: true, mode: 0o700 });
      const gone = await fileSystems.abandon(path);
      if (!gone.ok) return gone;
    }
  }
  giveBackRegularly({ collect: true });
  const disks = await openDataDisks(config, {
    ...handlers,
    deviceLost(serial, reason) {
      // Before its clients are told of errors: the volume is well, and will be served in a moment.
      const server = config.virtualServers.find(({ volumes }) =>
        volumes.some(({ disk }) => disk === serial),
      );
      if (server) services.kill(server.name);
      handlers.deviceLost(serial, reason);
    },
  });
  if (!disks.ok) return disks;
  for (const { name } of config.virtualServers) void services.prepare(name);
  const stopWatching = addresses.value.watchCarrier(nic, handlers.carrier);
  return good({
    disks: disks.value,
    block: disks.value,
    fileSystems,
    services,
    states: createServiceStates(),
    place: places.server,
    placeState: (server) =>
      recordedState(
        server.volumes.map(({ disk }) => ({ disk, path: mountPath(server, disk) })),
        () => places.of(server.name).routes(),
      ),
    servicePort: nfsPort,
    mountPath,
    realTime: () => takeRealTimePriority(mainPriority),
    async close() {
      stopWatching();
      await services.close();
      await disks.value.close();
    },
  });
}

/** Volumes of virtual servers that the configuration no longer names; another one may hold those disks by now. */
async function abandonForgotten(
  { folder, forgotten }: Places,
  fileSystems: Pick<FileSystems, "abandon">,
): Promise<Outcome> {
  for (const name of forgotten) {
    const below = mountsBelow(join(folder.path, name));
    if (!below.ok) return below;
    for (const { path } of below.value) {
      const gone = await fileSystems.abandon(path);
      if (!gone.ok) return gone;
    }
  }
  return done;
}
