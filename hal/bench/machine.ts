/** One controller of the bench: real kernel, real file service, real file system, disks of the user-space shelf. */
import { mkdirSync } from "node:fs";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { explain, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { giveBackRegularly } from "../block/memory.ts";
import { createAddresses } from "../linux/addresses.ts";
import { createFileSystems } from "../linux/filesystems.ts";
import { expediteGracePeriods } from "../linux/grace-periods.ts";
import { prepareNic } from "../linux/nic.ts";
import { takeRealTimePriority } from "../linux/realtime.ts";
import { createServiceStates } from "../linux/service-state.ts";
import type { Machine, MachineHandlers } from "../port/machine.ts";
import { openDataDisks } from "./data-disks.ts";
import { openFileServices } from "./file-services.ts";

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
  mkdirSync(`${config.controller.runDir}/volumes`, { recursive: true, mode: 0o700 });
  const prepared = prepareNic(nic);
  if (!prepared.ok) return prepared;
  const addresses = createAddresses();
  if (!addresses.ok) return addresses;
  const mountPath: Machine["mountPath"] = (server, disk) =>
    `${config.controller.runDir}/volumes/${server.name}-${disk}`;
  const services = await openFileServices(config, handlers, mountPath);
  const fileSystems = createFileSystems();
  for (const server of config.virtualServers) {
    for (const text of server.addresses) {
      const [address, prefix] = text.split("/");
      const removed = await addresses.value.remove(nic, address ?? "", Number(prefix));
      if (!removed.ok) return removed;
    }
    for (const { disk } of server.volumes) {
      const path = mountPath(server, disk);
      mkdirSync(path, { recursive: true, mode: 0o700 });
      const gone = await fileSystems.abandon(path);
      if (!gone.ok) return gone;
    }
  }
  giveBackRegularly({ collect: true });
  const expedited = expediteGracePeriods();
  if (!expedited.ok) handlers.log(explain(expedited.fault));
  const disks = await openDataDisks(config, handlers);
  if (!disks.ok) return disks;
  for (const { name } of config.virtualServers) void services.prepare(name);
  const stopWatching = addresses.value.watchCarrier(nic, handlers.carrier);
  return good({
    disks: disks.value,
    block: disks.value,
    fileSystems,
    services,
    states: createServiceStates(),
    addresses: addresses.value,
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
