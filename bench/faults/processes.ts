/** Faults that befall processes while kernel, network and disks go on: kill9, freeze, fileserver, device, term. */
import { readFileSync } from "node:fs";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { BenchError } from "../world/error.ts";
import { limitMs, waitFor } from "../world/exec.ts";
import { signal } from "../world/processes.ts";
import type { World } from "../world/world.ts";
import type { Fault } from "./fault.ts";

async function startAgain(world: World, victim: ControllerId): Promise<void> {
  if (world.daemon(victim)) return;
  world.startEcho(victim);
  world.startDaemon(victim);
}

export const kill9: Fault = {
  name: "kill9",
  description:
    "every process of the controller is killed; its kernel keeps addresses, packet filter and mounts",
  async inject(world, victim) {
    const daemon = world.daemon(victim);
    world.forsakeDaemon(victim);
    world.machines[victim].kill();
    await world.machines[victim].cgroup.empty(limitMs).catch(() => undefined);
    // Nothing is left of it, but Node says so later: until then a repair would find it alive, and start nothing.
    await daemon?.ended;
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

/** Processes of a program that have a part of a word on their command line. */
function programs(world: World, victim: ControllerId, program: string, part: string): number[] {
  return world.machines[victim].cgroup.processes().filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      const isProgram = words.some((word) => word.endsWith(program));
      return isProgram && words.some((word) => word.includes(part));
    } catch {
      return false;
    }
  });
}

/** File server processes of one virtual server: those with its name in the path of their configuration. */
export const fileServers = (world: World, victim: ControllerId, virtualServer: string): number[] =>
  programs(world, victim, "ganesha.nfsd", `ganesha-${virtualServer}.`);

export async function servingOn(world: World, victim: ControllerId): Promise<readonly string[]> {
  const { virtualServers } = await world.apis[victim].status();
  return virtualServers.filter(({ state }) => state === "serving").map(({ name }) => name);
}

function killAll(pids: readonly number[], fault: string, nothing: string): void {
  if (pids.length === 0) throw new BenchError("worldBroken", fault, nothing);
  for (const pid of pids) signal(pid, "SIGKILL");
}

/** The controller repairs it without help. */
export const byItself: Fault["repair"] = async () => {};

export const fileserver: Fault = {
  name: "fileserver",
  description: "the file server of each virtual server there is killed; everything else goes on",
  async inject(world, victim) {
    const pids = (await servingOn(world, victim)).flatMap((name) =>
      fileServers(world, victim, name),
    );
    killAll(pids, "fileserver", `no file server runs on ${victim}`);
  },
  repair: byItself,
};

export const device: Fault = {
  name: "device",
  description:
    "the program that makes a block device of each disk that is served from is killed; the disks and the paths are there",
  async inject(world, victim) {
    const names = await servingOn(world, victim);
    const disks = world.layout.servers.filter(({ name }) => names.includes(name));
    const pids = disks.flatMap(({ disk }) => programs(world, victim, "nbdfuse", `-${disk}.pid`));
    killAll(pids, "device", `nothing is served from a disk on ${victim}`);
  },
  repair: byItself,
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
