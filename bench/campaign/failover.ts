/** A series of runs of one fault in a world that is up: what `bench failover` and `bench campaign` do. */
import type { Fault } from "../faults/fault.ts";
import { BenchError, explainError } from "../world/error.ts";
import { type MemoryReadings, MemoryWatch } from "../world/memory.ts";
import { World, type WorldOptions } from "../world/world.ts";
import { AddressWatch } from "./address-watch.ts";
import { startClients } from "./clients.ts";
import { type Expectation, expectations } from "./expectations.ts";
import { bringHome, describePair, oneRun, type RunRecord, type Stage } from "./one-run.ts";
import {
  type ClientCounts,
  countsOf,
  countsSince,
  type FaultResult,
  memoryProblems,
  resultOf,
} from "./result.ts";

export interface StageOptions extends WorldOptions {
  readonly engines: string;
  readonly paceMs: number;
}

/** A series as it is printed. */
export type Series = FaultResult & {
  /** The highest that was seen, read after each run. */
  readonly daemonMemoryMb: MemoryReadings;
};

/** Builds a world with clients at work and addresses watched. */
export async function openStage(options: StageOptions): Promise<Stage> {
  const world = await World.start(options);
  try {
    const clients = await startClients(world, options);
    const stage = { world, watch: new AddressWatch(world), clients };
    await bringHome(stage);
    return stage;
  } catch (error) {
    world.keepLogs();
    await world.stop();
    throw error;
  }
}

/** What several runs of one fault left. */
export interface Runs {
  readonly records: readonly RunRecord[];
  /** The run that could not be ended, in words. */
  readonly broken: readonly string[];
  readonly counts: ClientCounts;
  /** The highest that was seen, read after each run. */
  readonly daemonMemoryMb: MemoryReadings;
}

/** All runs of one fault. A run that cannot be ended ends them; it is told, not thrown. */
export async function repeat(
  stage: Stage,
  fault: Fault,
  expected: Expectation,
  runs: number,
  progress: (text: string) => void,
): Promise<Runs> {
  const before = counts(stage);
  const records: RunRecord[] = [];
  const broken: string[] = [];
  const memory = new MemoryWatch(stage.world.machines);
  for (let i = 1; i <= runs; i++) {
    try {
      const record = await oneRun(stage, fault, expected, `${fault.name}-${i}`);
      records.push(record);
      memory.look();
      progress(
        `${fault.name} ${i}/${runs}: address ${record.addressOutageMs} ms, read gap ${record.nfsReadGapMs}, ` +
          `write gap ${record.nfsWriteGapMs}, ${record.winner} serves, mended in ${record.mendMs} ms` +
          record.problems.map((problem) => `; PROBLEM ${problem}`).join(""),
      );
    } catch (error) {
      stage.world.signal?.throwIfAborted();
      broken.push(`run ${i}: ${explainError(error)}; ${await describePair(stage.world)}`);
      progress(`${fault.name} ${i}/${runs}: ${broken.at(-1)}`);
      break;
    }
  }
  return {
    records,
    broken,
    counts: countsSince(before, counts(stage)),
    daemonMemoryMb: memory.highest,
  };
}

/** All runs of one fault that is expected something of. A run that cannot be ended is reported as a problem. */
export async function series(
  stage: Stage,
  fault: Fault,
  runs: number,
  progress: (text: string) => void,
): Promise<Series> {
  const expected = expectations[fault.name];
  if (!expected) throw new BenchError("badInput", fault.name, "nothing is expected of this fault");
  const { records, broken, counts, daemonMemoryMb } = await repeat(
    stage,
    fault,
    expected,
    runs,
    progress,
  );
  const result = resultOf(fault.name, records, counts, broken);
  const problems = [...result.problems, ...memoryProblems(daemonMemoryMb)];
  return { ...result, daemonMemoryMb, problems };
}

function counts(stage: Stage): ClientCounts {
  return countsOf(stage.clients.flatMap((client) => client.last ?? []));
}
