/** What `bench vserver isolation` comes to: what a virtual server's clients felt of what befell its neighbour. Pure. */
import { type Spread, spread, thousandth } from "./figures.ts";
import { badReads, type ClientCounts, complaint } from "./result.ts";

/** Latency over one stretch of time, ms. */
export interface Latency {
  readonly medianMs: number;
  readonly p99Ms: number;
}

export interface Stretch {
  readonly read: Latency;
  readonly write: Latency;
}

/** One fault between two times of rest. */
export interface IsolationRun {
  readonly before: Stretch;
  readonly during: Stretch;
  readonly after: Stretch;
}

const operations = ["read", "write"] as const;
type Operation = (typeof operations)[number];

/** Of the medians of all runs, and of their 99th parts in a hundred. */
interface LatencySpread {
  readonly medianMs: Spread | undefined;
  readonly p99Ms: Spread | undefined;
}

export interface OperationResult {
  readonly atRest: LatencySpread;
  readonly during: LatencySpread;
  /** During the fault by the mean of the times of rest before and after it, run by run. */
  readonly medianRatio: Spread | undefined;
  readonly p99Ratio: Spread | undefined;
}

export interface NeighbourFaultResult {
  readonly fault: string;
  readonly runs: number;
  readonly read: OperationResult;
  readonly write: OperationResult;
}

/** What must hold: within 10 per cent, in the median. */
export const ratioMax = 1.1;

export function neighbourFaultResult(
  fault: string,
  runs: readonly IsolationRun[],
): NeighbourFaultResult {
  return { fault, runs: runs.length, read: result(runs, "read"), write: result(runs, "write") };
}

function result(runs: readonly IsolationRun[], of: Operation): OperationResult {
  const latencies = (pick: (run: IsolationRun) => Stretch[]): LatencySpread => {
    const all = runs.flatMap(pick).map((stretch) => stretch[of]);
    return {
      medianMs: spread(
        all.map(({ medianMs }) => medianMs),
        thousandth,
      ),
      p99Ms: spread(
        all.map(({ p99Ms }) => p99Ms),
        thousandth,
      ),
    };
  };
  const ratios = (key: keyof Latency) =>
    spread(
      runs.map(({ before, during, after }) => {
        return during[of][key] / ((before[of][key] + after[of][key]) / 2);
      }),
      thousandth,
    );
  return {
    atRest: latencies(({ before, after }) => [before, after]),
    during: latencies(({ during }) => [during]),
    medianRatio: ratios("medianMs"),
    p99Ratio: ratios("p99Ms"),
  };
}

/** What is not as it must be, in words. */
export function isolationProblems(
  faults: readonly NeighbourFaultResult[],
  counts: ClientCounts,
): string[] {
  const felt = faults.flatMap((each) =>
    operations.flatMap((operation) => {
      const ratio = each[operation].medianRatio?.median;
      if (ratio === undefined || ratio <= ratioMax) return [];
      return [
        `${each.fault}: the median ${operation} took ${ratio} times as long, expected ${ratioMax} at most`,
      ];
    }),
  );
  return [
    ...felt,
    ...complaint("acknowledged writes lost", counts.lostAckedWrites),
    ...complaint("stale, rolled back, phantom or corrupt reads", badReads(counts)),
  ];
}
