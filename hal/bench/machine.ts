/** One controller of the bench: real kernel, real file service, real file system, disks of the user-space shelf. */
import { mkdirSync } from "node:fs";
import { join, relative } from "node:path";
import type { Config } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { giveBackRegularly } from "../block/memory.ts";
import { createAddresses } from "../linux/addresses.ts";
import type { Carriers } from "../linux/carriers.ts";
import type { ControlGroups } from "../linux/control-groups/groups.ts";
import { createFileSystems } from "../linux/filesystems.ts";
import { MountWatch, watchedFileSystems } from "../linux/mount-watch.ts";
import { prepareNic } from "../linux/nic.ts";
import type { DeviceFolder } from "../linux/place/devices.ts";
import { recordedState } from "../linux/place/recorded-state.ts";
import { Readiness } from "../linux/readiness.ts";
import { takeRealTimePriority } from "../linux/realtime.ts";
import { createServiceStates } from "../linux/service-state.ts";
import type { Machine, MachineHandlers } from "../port/machine.ts";
import type { BlockService, FileSystems } from "../port/storage.ts";
import { type DataDisks, openDataDisks } from "./data-disks.ts";
import { openFileServices, servicePortsOf } from "./file-services.ts";
import { openPlaces, type Places } from "./places.ts";
import { priorities } from "./priorities.ts";
import { Roster, sideBySide } from "./roster.ts";
import type { BenchServices } from "./service-part.ts";

/** What has to be known and there before anything is opened. */
export interface MachineSetup {
  /** What virtual servers there are. */
  readonly definitions: readonly Definition[];
  /** What their interfaces are made on. */
  readonly carriers: Carriers;
  /** In which nothing of an earlier life is left (`silenceEarlierLife`). */
  readonly groups: ControlGroups;
}

/**
 * Opens everything that the main loop touches. What an earlier life of this controller left (services, mounts, addresses,
 * devices) is removed before it returns, also of virtual servers that are no more.
 */
export async function openBenchMachine(
  config: Config,
  { definitions: all, carriers, groups }: MachineSetup,
  handlers: MachineHandlers,
): Promise<Outcome<Machine>> {
  const definitions = sideBySide(all, handlers.log);
  const { nic } = config.data;
  const prepared = prepareNic(nic);
  if (!prepared.ok) return prepared;
  const addresses = createAddresses();
  if (!addresses.ok) return addresses;
  const readiness = Readiness.open();
  if (!readiness.ok) return readiness;
  const parts = { ...handlers, carriers, groups, readiness: readiness.value };
  const opened = await openPlaces(config, definitions, parts);
  if (!opened.ok) return opened;
  const places = opened.value;
  const mountPath: Machine["mountPath"] = (server, disk) =>
    join(places.folder.path, server.name, disk);
  const services = await openFileServices(config, handlers, mountPath, places);
  const storage = await openStorage(config, definitions, handlers, {
    places,
    services,
    mountPath,
    readiness: readiness.value,
  });
  if (!storage.ok) return storage;
  const { disks, block, fileSystems, roster } = storage.value;
  for (const { server } of definitions) void services.prepare(server.name);
  const stopWatching = addresses.value.watchCarrier(nic, handlers.carrier);
  return good({
    define: (definition, limitMs) => roster.define(definition, limitMs),
    forget: (number, name, limitMs) => roster.forget(number, name, limitMs),
    disks,
    block,
    fileSystems,
    services,
    states: createServiceStates(),
    place: (name) => places.server(name),
    usage: (name) => groups.usage(name),
    placeState: (server) =>
      recordedState(
        server.volumes.map(({ disk }) => ({ disk, path: mountPath(server, disk) })),
        () => places.of(server.name).routes(),
      ),
    servicePorts: servicePortsOf,
    mountPath,
    realTime: () => takeRealTimePriority(priorities.main),
    async close() {
      stopWatching();
      storage.value.stopWatching();
      readiness.value.close();
      await services.close();
      groups.close();
      await disks.close();
    },
  });
}

interface Storage {
  readonly disks: DataDisks;
  readonly block: BlockService;
  readonly fileSystems: FileSystems;
  readonly roster: Roster;
  stopWatching(): void;
}

interface StorageParts {
  readonly places: Places;
  readonly services: BenchServices;
  readonly mountPath: Machine["mountPath"];
  readonly readiness: Readiness;
}

/** Disks and file systems; what befalls them by itself ends the file service before it is told. Mounts of an earlier life are gone. */
async function openStorage(
  config: Config,
  definitions: readonly Definition[],
  handlers: MachineHandlers,
  { places, services, mountPath, readiness }: StorageParts,
): Promise<Outcome<Storage>> {
  const mounts = MountWatch.open(readiness, handlers.log);
  if (!mounts.ok) return mounts;
  const ext4 = createFileSystems(undefined, handlers.log);
  const fileSystems = watchedFileSystems(ext4, mounts.value, (path, reason) => {
    // Volumes are mounted in a folder for each virtual server, under the names of their disks (mountPath).
    const [name, disk] = relative(places.folder.path, path).split("/");
    if (name !== undefined && disk !== undefined) void onBroken(name, disk, reason);
  });
  const abandoned = await abandonAll(definitions, places, mountPath, fileSystems, handlers);
  if (!abandoned.ok) return abandoned;
  for (const definition of definitions) services.define(definition);
  giveBackRegularly({ collect: true });
  let roster: Roster | undefined;
  const disks = await openDataDisks(config, definitions, {
    ...handlers,
    deviceLost(serial, reason) {
      // Before its clients are told of errors: the volume is well, and will be served in a moment.
      const owner = roster?.ownerOf(serial);
      if (owner !== undefined) services.kill(owner);
      handlers.deviceLost(serial, reason);
    },
  });
  if (!disks.ok) return disks;
  const onBroken = async (name: string, disk: string, reason: string) => {
    // Before more of its clients are told of errors.
    services.kill(name);
    // A journal that was not written because the disk is another's by now is no fault of the file system.
    if (await disks.value.isOurs(disk)) handlers.volumeFailed(disk, reason);
    else handlers.diskFenced(disk, `no longer ours, and its file system: ${reason}`);
  };
  const made = new Roster({ places, services, disks: disks.value, log: handlers.log }, definitions);
  roster = made;
  const devicesOf = (serial: string) => {
    const owner = made.ownerOf(serial);
    return owner === undefined ? undefined : places.folder.devices(owner);
  };
  return good({
    disks: disks.value,
    block: withNodes(disks.value, devicesOf),
    fileSystems,
    roster: made,
    stopWatching: () => mounts.value.close(),
  });
}

/** Block devices have a node in the device file of their virtual server for as long as they are attached. */
function withNodes(
  block: BlockService,
  devicesOf: (serial: string) => DeviceFolder | undefined,
): BlockService {
  const nodes = new Map<string, { readonly devices: DeviceFolder; readonly path: string }>();
  return {
    async attach(serial) {
      const devices = devicesOf(serial);
      if (!devices)
        return failed("attachFailed", `attach ${serial}`, "it is no disk of a virtual server here");
      const attached = await block.attach(serial);
      if (!attached.ok) return attached;
      const { path } = attached.value;
      nodes.set(serial, { devices, path });
      const added = devices.add(path);
      // Without it a file service would give its files other handles.
      return added.ok ? attached : failed("attachFailed", `attach ${serial}`, path, added.fault);
    },
    refuse: (serial) => block.refuse(serial),
    detach(serial) {
      const node = nodes.get(serial);
      node?.devices.remove(node.path);
      nodes.delete(serial);
      return block.detach(serial);
    },
  };
}

/** All volumes of an earlier life. Of virtual servers that are no more, another one may hold those disks by now. */
async function abandonAll(
  definitions: readonly Definition[],
  { folder, forgotten }: Places,
  mountPath: Machine["mountPath"],
  fileSystems: Pick<FileSystems, "abandon">,
  { log }: MachineHandlers,
): Promise<Outcome> {
  const names = [...forgotten, ...definitions.map(({ server }) => server.name)];
  for (const name of names) {
    const volumes = folder.volumes(name);
    if (!volumes.ok) return volumes;
    for (const { path } of volumes.value) {
      const gone = await fileSystems.abandon(path);
      if (!gone.ok) return gone;
    }
  }
  for (const name of forgotten) {
    const removed = folder.remove(name);
    if (!removed.ok) log(explain(removed.fault));
  }
  for (const { server } of definitions)
    for (const { disk } of server.volumes)
      mkdirSync(mountPath(server, disk), { recursive: true, mode: 0o700 });
  return done;
}
