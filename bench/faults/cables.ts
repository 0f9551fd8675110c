/** Faults of what connects the machines: link, serial, split, path, power, broker. */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { controllerIds, portName } from "../world/layout.ts";
import { portsOf } from "../world/network.ts";
import { initiatorName } from "../world/plan.ts";
import { signal } from "../world/processes.ts";
import type { World } from "../world/world.ts";
import type { Fault } from "./fault.ts";

export const link: Fault = {
  name: "link",
  description: "the controller's cable to the data LAN is pulled; it sees its carrier go",
  inject: (world, victim) => world.network.setCables([portName("d", victim)], false),
  repair: (world, victim) => world.network.setCables([portName("d", victim)], true),
};

export const serial: Fault = {
  name: "serial",
  description: "the serial cable between the controllers is cut; the other links stay",
  async inject(world) {
    await world.serial.set("cut");
  },
  async repair(world) {
    await world.serial.set("pass");
  },
};

/** Sessions through which beats are written to and read from the coordinator disks. */
function beatInitiator(id: ControllerId): string {
  return `${initiatorName(id)}-beat`;
}

export const split: Fault = {
  name: "split",
  description:
    "no heartbeat passes any more, on serial line, interconnect or disk; both controllers live and reach shelf and clients",
  async inject(world) {
    world.serial.setNow("cut");
    await Promise.all([
      world.network.setCables([portName("i", "a"), portName("i", "b")], false),
      ...controllerIds.map((id) =>
        world.shelf.command({
          fault: "set",
          id: `split-${id}`,
          initiator: beatInitiator(id),
          operations: "read",
          action: { kind: "error" },
        }),
      ),
    ]);
  },
  async repair(world) {
    await Promise.all([
      world.serial.set("pass"),
      world.network.setCables([portName("i", "a"), portName("i", "b")], true),
      ...controllerIds.map((id) => world.shelf.command({ fault: "clear", id: `split-${id}` })),
    ]);
  },
};

export const path: Fault = {
  name: "path",
  description: "the controller's cable to the shelf is pulled: it reaches no disk any more",
  inject: (world, victim) => world.network.setCables([portName("s", victim)], false),
  repair: (world, victim) => world.network.setCables([portName("s", victim)], true),
};

export const power: Fault = {
  name: "power",
  description: "the controller's power fails: every cable is silent and every process gone at once",
  async inject(world, victim) {
    world.forsakeDaemon(victim);
    world.serial.setNow("cut");
    // The cables first: the kernel of a machine without power says no farewell for the sockets of its processes.
    await world.network.setForwarding(portsOf(victim), false);
    await world.machines[victim].powerOff()();
  },
  async repair(world, victim) {
    await world.serial.set("pass");
    if (!world.machines[victim].powered) await world.boot(victim);
  },
};

/** How long the broker is merely silent before it dies. */
const brokerSilenceMs = 1000;

export const broker: Fault = {
  name: "broker",
  description: "the MQTT broker stops answering, and then is killed; the pair must not notice",
  async inject(world) {
    const { pid, ended } = world.broker;
    signal(pid, "SIGSTOP");
    const timer = setTimeout(() => signal(pid, "SIGKILL"), brokerSilenceMs);
    void ended.then(() => clearTimeout(timer));
  },
  async repair(world: World) {
    const { pid, ended } = world.broker;
    signal(pid, "SIGKILL");
    await ended;
    world.restartBroker();
  },
};
