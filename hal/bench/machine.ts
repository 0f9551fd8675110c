/** One controller of the bench: real kernel, real file service, real file system, disks of the user-space shelf. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, explain, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
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
import { Roster, sideBySide } from "./roster.ts";

/** Below the beat process, above everything ordinary: a file server under load must not look like a hung controller. */
const mainPriority = 10;

/** Port of NFS, for the list of connections to tickle. */
const nfsPort = 2049;

/**
 * Opens everything that the main loop touches. What an earlier life of this controller left (services, mounts, addresses,
 * devices) is removed before it returns, also of virtual servers that are no more.
 */
export async function openBenchMachine(
  config: Config,
  all: readonly Definition[],
  handlers: MachineHandlers,
): Promise<Outcome<Machine>> {
  const definitions = sideBySide(all, handlers.log);
  const { nic } = config.data;
  const prepared = prepareNic(nic);
  if (!prepared.ok) return prepared;
  const addresses = createAddresses();
  if (!addresses.ok) return addresses;
  const opened = await openPlaces(config, definitions);
  if (!opened.ok) return opened;
  const places = opened.value;
  const mountPath: Machine["mountPath"] = (server, disk) =>
    join(places.folder.path, server.name, disk);
  const services = await openFileServices(config, handlers, mountPath, places);
  const fileSystems = createFileSystems();
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
  roster = new Roster({ places, services, disks: disks.value, log: handlers.log }, definitions);
  for (const { server } of definitions) void services.prepare(server.name);
  const stopWatching = addresses.value.watchCarrier(nic, handlers.carrier);
  return good({
    define: (definition, limitMs) => roster.define(definition, limitMs),
    forget: (number, name, limitMs) => roster.forget(number, name, limitMs),
    disks: disks.value,
    block: disks.value,
    fileSystems,
    services,
    states: createServiceStates(),
    place: (name) => places.server(name),
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
    const below = mountsBelow(join(folder.path, name));
    if (!below.ok) return below;
    for (const { path } of below.value) {
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
