/** The beat process of one bench controller: serial line on a pty, UDP on the interconnect, beats on the coordinator disks, the gate. */
import type { Config } from "../../firmware-ts/schema/config.ts";
import { good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { giveBackRegularly } from "../block/memory.ts";
import { writeRecord } from "../block/volume-slots.ts";
import { vlansPresent } from "../linux/carriers.ts";
import { openDiskLink } from "../linux/disk-link.ts";
import { createGate } from "../linux/gate.ts";
import { openNetworkLink } from "../linux/network-link.ts";
import { takeRealTimePriority } from "../linux/realtime.ts";
import { openSerialLink } from "../linux/serial-link.ts";
import type { BeatMachine, BeatMachineHandlers } from "../port/beat-machine.ts";
import type { Link } from "../port/link.ts";
import { openCoordinators } from "./coordinators.ts";
import { priorities } from "./priorities.ts";
import { slotOn } from "./slots.ts";

/** What the gate is to rule over: addresses without prefix, and the VLANs of the data NIC on which it is put, too. */
export interface Gated {
  readonly floating: readonly string[];
  readonly vlans: readonly number[];
}

/** Closes every floating address in the kernel, then opens the links. Faults: `gateFailed`. */
export function openBeatMachine(
  config: Config,
  gated: Gated,
  handlers: BeatMachineHandlers,
): Promise<Outcome<BeatMachine>> {
  return Promise.resolve(open(config, gated, handlers));
}

function open(
  config: Config,
  { floating, vlans }: Gated,
  handlers: BeatMachineHandlers,
): Outcome<BeatMachine> {
  const gate = createGate();
  if (!gate.ok) return gate;
  const { nic } = config.data;
  const closed = gate.value.setUp(nic, floating, vlansPresent(nic, new Set(vlans)));
  if (!closed.ok) return closed;
  const coordinators = openCoordinators(config, "beat");
  const links: Link[] = [];
  const { serial, network } = config.links;
  if (serial) links.push(openSerialLink({ ...serial, handlers: handlers.serial }));
  if (network)
    links.push(
      openNetworkLink({
        localAddress: network.local,
        partnerAddress: network.partner,
        port: network.port,
        handlers: handlers.network,
      }),
    );
  links.push(
    openDiskLink({
      me: config.controller.id,
      slots: [...coordinators.disks.values()].map(slotOn),
      periodMs: config.timing.diskBeatIntervalMs,
      handlers: handlers.disk,
    }),
  );
  giveBackRegularly({ collect: false });
  return good({
    links,
    gate: gate.value,
    reserve: (serialNumber, command, deadlineMs) =>
      coordinators.reserve(serialNumber, command, deadlineMs),
    writeRecord(serialNumber, record, isWanted) {
      const device = coordinators.disks.get(serialNumber);
      if (!device) throw new Error(`coordinators: ${serialNumber} is none of them`);
      return writeRecord({ device, serial: serialNumber, pair: config.pair.id }, record, isWanted);
    },
    realTime: () => takeRealTimePriority(priorities.beat),
    async close() {
      await Promise.all(links.map((link) => link.close()));
      await coordinators.close();
    },
  });
}
