/**
 * `bench vserver isolation`: two virtual servers with one private subnet on one controller, each with a customer of its own behind a gateway of its own,
 * whose clients have the same address. What befalls the second must not be felt by the clients of the first.
 */
import type { LimitsConfig } from "../../firmware-ts/schema/config.ts";
import { type Injected, type NeighbourFault, neighbourFaults } from "../faults/neighbour.ts";
import { BenchError, explainError } from "../world/error.ts";
import { limitMs, waitFor } from "../world/exec.ts";
import { World } from "../world/world.ts";
import { allLively, type Client, startClients } from "./clients.ts";
import {
  type IsolationRun,
  isolationProblems,
  type NeighbourFaultResult,
  neighbourFaultResult,
  type Stretch,
} from "./isolation-result.ts";
import { type ClientCounts, countsOf } from "./result.ts";
import { type Visibility, visibility } from "./visibility.ts";

/** Operations of each kind whose latencies make one stretch: the 99th part in a hundred is the sixth longest. */
const operationsPerStretch = 600;
/** A stretch may be slow, and one in which nothing goes on ends the run. */
const stretchMsMax = 2 * limitMs;

export interface IsolationOptions {
  readonly prefix: string;
  readonly runs: number;
  readonly paceMs: number;
  /** What an operator allows the neighbour; what is absent has the product's default. */
  readonly neighbourLimits: Partial<LimitsConfig>;
  readonly signal: AbortSignal;
}

export interface IsolationResult extends ClientCounts {
  readonly test: "vserver isolation";
  readonly runs: number;
  readonly neighbourLimits: Partial<LimitsConfig>;
  readonly operationsPerStretch: number;
  /** Questions about who sees whom whose answer was as it must be. */
  readonly seenRight: Visibility["right"];
  readonly faults: readonly NeighbourFaultResult[];
  readonly problems: readonly string[];
}

/** A world for it, with both clients at work. */
export interface IsolationStage {
  readonly world: World;
  readonly victim: Client;
  readonly neighbour: Client;
}

export async function openIsolationStage(options: IsolationOptions): Promise<IsolationStage> {
  const world = await World.start({
    prefix: options.prefix,
    kind: "customers",
    clientCount: 2,
    serverCount: 2,
    // The smallest disk is full soonest.
    diskMb: 64,
    limits: { vs2: options.neighbourLimits },
    signal: options.signal,
  });
  try {
    const { paceMs } = options;
    const clients = await startClients(world, { engines: "nfs3", paceMs, realTime: true });
    const [victim, neighbour] = clients;
    if (!victim || !neighbour) throw new BenchError("worldBroken", "isolation", "no two clients");
    return { world, victim, neighbour };
  } catch (error) {
    world.keepLogs();
    await world.stop();
    throw error;
  }
}

export async function isolation(
  stage: IsolationStage,
  { runs, neighbourLimits }: IsolationOptions,
  progress: (text: string) => void,
): Promise<IsolationResult> {
  const { world } = stage;
  const clients = [stage.victim, stage.neighbour];
  const seen = await visibility(world);
  const records = new Map<string, IsolationRun[]>(neighbourFaults.map(({ name }) => [name, []]));
  const broken: string[] = [];
  try {
    let before = await stretch(stage.victim, "rest-0", world.signal);
    for (let i = 1; i <= runs; i += 1)
      for (const fault of neighbourFaults) {
        const run = await oneRun(stage, fault, before, `${fault.name}-${i}`);
        records.get(fault.name)?.push(run);
        before = run.after;
        progress(`${fault.name} ${i}/${runs}: ${told(run)}`);
      }
    const reports = await Promise.all(
      clients.map((client) => client.report(limitMs, world.signal)),
    );
    if (!reports.every(({ verified }) => verified))
      broken.push("a client could not read everything back");
  } catch (error) {
    world.signal?.throwIfAborted();
    broken.push(explainError(error));
  }
  const counts = countsOf(clients.flatMap((client) => client.last ?? []));
  const faults = [...records].map(([name, list]) => neighbourFaultResult(name, list));
  return {
    test: "vserver isolation",
    runs,
    neighbourLimits,
    operationsPerStretch,
    seenRight: seen.right,
    faults,
    ...counts,
    problems: [...broken, ...seen.problems, ...isolationProblems(faults, counts)],
  };
}

async function oneRun(
  { world, victim, neighbour }: IsolationStage,
  fault: NeighbourFault,
  before: Stretch,
  label: string,
): Promise<IsolationRun> {
  const server = world.layout.servers[1];
  if (!server) throw new BenchError("worldBroken", "isolation", "no neighbour");
  const clientGapMs = () =>
    Math.max(
      ...(neighbour.last?.engines ?? []).flatMap(({ read, write }) => [read.gapMs, write.gapMs]),
    );
  neighbour.mark(label);
  const injected = await fault.inject(world, { server, index: 1, clientGapMs });
  const during = await stretchWhile(victim, label, injected, fault.name, world.signal);
  await injected.repair();
  await allLively([victim, neighbour], stretchMsMax, world.signal);
  const after = await stretch(victim, `rest-${label}`, world.signal);
  return { before, during, after };
}

/** A stretch that counts only when the fault is in force at its end. */
async function stretchWhile(
  victim: Client,
  label: string,
  injected: Injected,
  fault: string,
  signal: AbortSignal | undefined,
): Promise<Stretch> {
  const during = await stretch(victim, label, signal);
  if (injected.inForce()) return during;
  await injected.repair();
  throw new BenchError("worldBroken", fault, "was over before the end of the measurement");
}

/** Marks, and waits until enough operations of each kind were completed since. */
async function stretch(
  client: Client,
  label: string,
  signal: AbortSignal | undefined,
): Promise<Stretch> {
  client.mark(label);
  return await waitFor(
    `${operationsPerStretch} operations of ${client.name}`,
    () => {
      const engine = client.since(label)?.engines[0];
      if (!engine) return undefined;
      const { read, write } = engine;
      const isEnough = Math.min(read.operations, write.operations) >= operationsPerStretch;
      return isEnough ? { read, write } : undefined;
    },
    { deadlineMs: stretchMsMax, signal },
  );
}

function told({ before, during }: IsolationRun): string {
  const pair = (kind: "read" | "write") =>
    `${kind} ${before[kind].medianMs} → ${during[kind].medianMs} ms (p99 ${before[kind].p99Ms} → ${during[kind].p99Ms})`;
  return `${pair("read")}, ${pair("write")}`;
}
