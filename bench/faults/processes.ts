/** Faults that befall processes while kernel, network and disks go on: kill9, freeze, fileserver, term. */
import { readFileSync } from "node:fs";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { BenchError } from "../world/error.ts";
import { limitMs, waitFor } from "../world/exec.ts";
import { signal } from "../world/processes.ts";
import type { World } from "../world/world.ts";
import type { Fault } from "./fault.ts";

async function startAgain(world: World, victim: ControllerId): Promise<void> {
  if (world.daemon(victim)) return;
  world.startEchoes(victim);
  world.startDaemon(victim);
}

export const kill9: Fault = {
  name: "kill9",
  description:
    "every process of the controller is killed; its kernel keeps addresses, packet filter and mounts",
  async inject(world, victim) {
    world.forsakeDaemon(victim);
    world.machines[victim].kill();
    await world.machines[victim].cgroup.empty(limitMs).catch(() => undefined);
  },
  repair: startAgain,
};

export const crash: Fault = {
  name: "crash",
  description:
    "the main process of the firmware is killed; its beat process closes the addresses, says so, and ends",
  async inject(world, victim) {
    const daemon = world.daemon(victim);
    if (!daemon) throw new BenchError("worldBroken", "crash", `no firmware runs on ${victim}`);
    world.forsakeDaemon(victim);
    signal(daemon.pid, "SIGKILL");
  },
  async repair(world, victim) {
    if (!world.daemon(victim)?.alive()) world.startDaemon(victim);
  },
};

export const freeze: Fault = {
  name: "freeze",
  description:
    "every process of the controller stops for a while, and then goes on as if nothing had been",
  async inject(world, victim) {
    world.machines[victim].freeze();
  },
  async repair(world, victim) {
    world.machines[victim].thaw();
  },
};

/** File server processes of one virtual server: those with its name in the path of their configuration. */
function fileServers(world: World, victim: ControllerId, virtualServer: string): number[] {
  return world.machines[victim].cgroup.processes().filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      const isServer = words.some((word) => word.endsWith("ganesha.nfsd"));
      return isServer && words.some((word) => word.includes(`ganesha-${virtualServer}.`));
    } catch {
      return false;
    }
  });
}

export const fileserver: Fault = {
  name: "fileserver",
  description: "the file server of each virtual server there is killed; everything else goes on",
  async inject(world, victim) {
    const { virtualServers } = await world.apis[victim].status();
    const pids = virtualServers
      .filter((each) => each.state === "serving")
      .flatMap((each) => fileServers(world, victim, each.name));
    if (pids.length === 0)
      throw new BenchError("worldBroken", "fileserver", `no file server runs on ${victim}`);
    for (const pid of pids) signal(pid, "SIGKILL");
  },
  async repair() {
    // The controller does that itself.
  },
};

export const term: Fault = {
  name: "term",
  description: "the firmware of the controller is asked to stop (SIGTERM), as before an upgrade",
  async inject(world, victim) {
    const daemon = world.daemon(victim);
    if (!daemon) throw new BenchError("worldBroken", "term", `no firmware runs on ${victim}`);
    world.forsakeDaemon(victim);
    signal(daemon.pid, "SIGTERM");
  },
  async repair(world, victim) {
    const stopping = world.daemon(victim);
    if (stopping)
      await waitFor("end of the firmware", () => !stopping.alive(), { deadlineMs: limitMs });
    world.startDaemon(victim);
  },
};
