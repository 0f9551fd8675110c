/** One controller of the bench: real kernel, real file service, real file system, disks of the user-space shelf. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config, VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { giveBackRegularly } from "../block/memory.ts";
import { createAddresses } from "../linux/addresses.ts";
import type { Carriers } from "../linux/carriers.ts";
import { createFileSystems } from "../linux/filesystems.ts";
import { mountsBelow } from "../linux/mount-table.ts";
import { MountWatch, watchedFileSystems } from "../linux/mount-watch.ts";
import { prepareNic } from "../linux/nic.ts";
import type { DeviceFolder } from "../linux/place/devices.ts";
import { Readiness } from "../linux/readiness.ts";
import { takeRealTimePriority } from "../linux/realtime.ts";
import { createServiceStates } from "../linux/service-state.ts";
import type { FileServices, Machine, MachineHandlers } from "../port/machine.ts";
import type { BlockService, FileSystems } from "../port/storage.ts";
import { type DataDisks, openDataDisks } from "./data-disks.ts";
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
  carriers: Carriers,
  handlers: MachineHandlers,
): Promise<Outcome<Machine>> {
  const { nic } = config.data;
  const prepared = prepareNic(nic);
  if (!prepared.ok) return prepared;
  const addresses = createAddresses();
  if (!addresses.ok) return addresses;
  const readiness = Readiness.open();
  if (!readiness.ok) return readiness;
  const opened = openPlaces(config, carriers, readiness.value, handlers);
  if (!opened.ok) return opened;
  const places = opened.value;
  const mountPath: Machine["mountPath"] = (server, disk) =>
    join(places.folder.path, server.name, disk);
  const services = await openFileServices(config, handlers, mountPath, places);
  const storage = await openStorage(config, handlers, {
    places,
    services,
    mountPath,
    readiness: readiness.value,
  });
  if (!storage.ok) return storage;
  const { disks, block, fileSystems } = storage.value;
  for (const { name } of config.virtualServers) void services.prepare(name);
  const stopWatching = addresses.value.watchCarrier(nic, handlers.carrier);
  return good({
    disks,
    block,
    fileSystems,
    services,
    states: createServiceStates(),
    place: places.server,
    servicePort: nfsPort,
    mountPath,
    realTime: () => takeRealTimePriority(mainPriority),
    async close() {
      stopWatching();
      storage.value.stopWatching();
      readiness.value.close();
      await services.close();
      await disks.close();
    },
  });
}

interface Storage {
  readonly disks: DataDisks;
  readonly block: BlockService;
  readonly fileSystems: FileSystems;
  stopWatching(): void;
}

interface StorageParts {
  readonly places: Places;
  readonly services: FileServices;
  readonly mountPath: Machine["mountPath"];
  readonly readiness: Readiness;
}

/** Disks and file systems; what befalls them by itself ends the file service before it is told. Mounts of an earlier life are gone. */
async function openStorage(
  config: Config,
  handlers: MachineHandlers,
  { places, services, mountPath, readiness }: StorageParts,
): Promise<Outcome<Storage>> {
  const mounts = MountWatch.open(readiness, handlers.log);
  if (!mounts.ok) return mounts;
  const ext4 = createFileSystems(undefined, handlers.log);
  const fileSystems = watchedFileSystems(ext4, mounts.value, (path, reason) => {
    const volume = volumesOf(config).find((each) => mountPath(each.server, each.disk) === path);
    if (volume) void onBroken(volume, reason);
  });
  const forgotten = await abandonForgotten(places, fileSystems);
  if (!forgotten.ok) return forgotten;
  for (const { server, disk } of volumesOf(config)) {
    const path = mountPath(server, disk);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const gone = await fileSystems.abandon(path);
    if (!gone.ok) return gone;
  }
  giveBackRegularly({ collect: true });
  const nameOf = (serial: string): string => {
    const volume = volumesOf(config).find(({ disk }) => disk === serial);
    if (!volume) throw new Error(`disk ${serial} is not in the configuration`);
    return volume.server.name;
  };
  const disks = await openDataDisks(config, {
    ...handlers,
    deviceLost(serial, reason) {
      // Before its clients are told of errors: the volume is well, and will be served in a moment.
      services.kill(nameOf(serial));
      handlers.deviceLost(serial, reason);
    },
  });
  if (!disks.ok) return disks;
  const onBroken = async ({ server, disk }: Volume, reason: string) => {
    // Before more of its clients are told of errors.
    services.kill(server.name);
    // A journal that was not written because the disk is another's by now is no fault of the file system.
    if (await disks.value.isOurs(disk)) handlers.volumeFailed(disk, reason);
    else handlers.diskFenced(disk, `no longer ours, and its file system: ${reason}`);
  };
  return good({
    disks: disks.value,
    block: withNodes(disks.value, (serial) => places.folder.devices(nameOf(serial))),
    fileSystems,
    stopWatching: () => mounts.value.close(),
  });
}

interface Volume {
  readonly server: VirtualServerConfig;
  readonly disk: string;
}

const volumesOf = ({ virtualServers }: Config): Volume[] =>
  virtualServers.flatMap((server) => server.volumes.map(({ disk }) => ({ server, disk })));

/** Block devices have a node in the device file of their virtual server for as long as they are attached. */
function withNodes(block: BlockService, devicesOf: (serial: string) => DeviceFolder): BlockService {
  const nodes = new Map<string, string>();
  return {
    async attach(serial) {
      const attached = await block.attach(serial);
      if (!attached.ok) return attached;
      const { path } = attached.value;
      nodes.set(serial, path);
      const added = devicesOf(serial).add(path);
      // Without it a file service would give its files other handles.
      return added.ok ? attached : failed("attachFailed", `attach ${serial}`, path, added.fault);
    },
    refuse: (serial) => block.refuse(serial),
    detach(serial) {
      const node = nodes.get(serial);
      if (node !== undefined) devicesOf(serial).remove(node);
      nodes.delete(serial);
      return block.detach(serial);
    },
  };
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
