/** What befalls one virtual server and must not be felt by its neighbour on the same controller. */
import { readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { controlGroupOf } from "../../hal/bench/places.ts";
import { ControlGroup } from "../../hal/linux/control-groups/group.ts";
import { findHierarchies } from "../../hal/linux/control-groups/hierarchies.ts";
import { enterProgram } from "../../hal/linux/native-build.ts";
import { buildProgram } from "../probe/programs.ts";
import { BenchError } from "../world/error.ts";
import { limitMs, waitFor } from "../world/exec.ts";
import { type PlannedServer, repoDir } from "../world/layout.ts";
import { configOf } from "../world/plan.ts";
import type { Started } from "../world/processes.ts";
import type { World } from "../world/world.ts";

/** The neighbour: a virtual server, the number of its client, and the time since that client completed anything, ms. */
export interface Neighbour {
  readonly server: PlannedServer;
  readonly index: number;
  readonly clientGapMs: () => number;
}

export interface Injected {
  /** Whether it is in force still. */
  inForce(): boolean;
  repair(): Promise<void>;
}

export interface NeighbourFault {
  readonly name: string;
  /** One sentence for people. */
  readonly description: string;
  /** Settles when it is in force; throws when it cannot be shown to be. */
  inject(world: World, neighbour: Neighbour): Promise<Injected>;
}

function take<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw new BenchError("worldBroken", outcome.fault.operation, outcome.fault.message);
}

/** The control group of a virtual server on its home, as the firmware there has made it. */
export function groupOf(world: World, { server }: Pick<Neighbour, "server">): ControlGroup {
  const daemon = world.daemon(server.home);
  if (!daemon) throw new BenchError("worldBroken", "control group", "no firmware runs there");
  const { hierarchies } = take(findHierarchies(String(daemon.pid)));
  const parent = controlGroupOf(configOf(world.layout, server.home));
  return new ControlGroup(hierarchies, join(parent, server.name));
}

function programOf(pid: number): string {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`));
  } catch {
    return "";
  }
}

/** Starts a program as the programs of a virtual server are: in its network, in its control group, among its own mounts. */
export async function startInPlace(
  world: World,
  neighbour: Pick<Neighbour, "server">,
  role: string,
  ...program: readonly string[]
): Promise<Started> {
  const { server } = neighbour;
  const machine = world.machines[server.home];
  const { runDir } = machine.paths;
  const enter = take(await enterProgram());
  return machine.start(role, [
    ...["nsenter", `--net=${join(runDir, "networks", server.name)}`, "--"],
    ...[enter, join(runDir, "places"), server.name, ...groupOf(world, neighbour).joinPaths],
    ...["--", ...program],
  ]);
}

const bombName = "dyad-fork-bomb";
/** One that has been refused more has gone off. */
const bombsMin = 64;

const forkBomb: NeighbourFault = {
  name: "forkBomb",
  description:
    "a fork bomb goes off in its place: processes that fork, and compute when they cannot",
  async inject(world, neighbour) {
    const source = join(repoDir, "bench/faults/fork-bomb.c");
    const program = buildProgram(join(repoDir, "work", "probe"), bombName, [source]);
    const group = groupOf(world, neighbour);
    // It would be the last thing that this machine does.
    if (group.usage().processes === undefined)
      throw new BenchError("unsupported", "forkBomb", "nothing bounds processes on this machine");
    const refused = () => group.usage().forksRefused ?? 0;
    const isBomb = (pid: number) => programOf(pid) === bombName;
    const refusedBefore = refused();
    await startInPlace(world, neighbour, "bomb", program);
    const hasGoneOff = () =>
      refused() > refusedBefore && group.processes().filter(isBomb).length >= bombsMin;
    await waitFor("the fork bomb is at its limit", hasGoneOff, {
      deadlineMs: limitMs,
      intervalMs: 10,
      signal: world.signal,
    });
    return {
      inForce: hasGoneOff,
      async repair() {
        const others = () => group.processes().filter((pid) => !isBomb(pid));
        take(await group.empty(others, limitMs));
      },
    };
  },
};

const fillerLineSchema = z.discriminatedUnion("t", [
  z.object({ t: z.literal("full"), bytes: z.number() }),
  z.object({ t: z.literal("refused"), count: z.number() }),
]);

const fullDisk: NeighbourFault = {
  name: "fullDisk",
  description: "its volume is full, and clients go on to write",
  async inject(world, { server, index }) {
    const namespace = world.layout.namespaces.clients[index];
    if (namespace === undefined) throw new BenchError("badInput", "fullDisk", "no client");
    const script = join(repoDir, "bench/clients/filler.ts");
    let refused = 0;
    const filler = world.processes.start({
      role: "filler",
      cgroup: world.infra,
      inside: namespace,
      argv: [process.execPath, script, "--server", server.address, "--export", server.export],
      input: true,
      onLine: (line) => {
        const said = fillerLineSchema.parse(JSON.parse(line));
        if (said.t === "refused") refused = said.count;
      },
    });
    await waitFor("the volume is full", () => filler.alive() && refused > 0, {
      deadlineMs: 2 * limitMs,
      signal: world.signal,
    });
    const refusedAtFirst = refused;
    return {
      inForce: () => filler.alive() && refused > refusedAtFirst,
      async repair() {
        filler.child.stdin?.end();
        await filler.ended;
      },
    };
  },
};

/** A client that has completed nothing for so long is cut off. */
const cutOffMs = 200;

const deadGateway: NeighbourFault = {
  name: "deadGateway",
  description: "its default gateway is gone: clients behind it are out of reach, and it tries",
  async inject(world, { index, clientGapMs }) {
    await world.network.setGateway(index, false);
    const inForce = () => clientGapMs() >= cutOffMs;
    await waitFor("the neighbour's client is cut off", inForce, {
      deadlineMs: limitMs,
      signal: world.signal,
    });
    return { inForce, repair: () => world.network.setGateway(index, true) };
  },
};

export const neighbourFaults: readonly NeighbourFault[] = [forkBomb, fullDisk, deadGateway];
