/** What a series of runs of one fault comes to: the line that is printed, and whether it is as it must be. Pure. */

import { controllerIds } from "../world/layout.ts";
import type { MemoryReadings } from "../world/memory.ts";
import type { ClientState } from "./clients.ts";
import { daemonMemoryMbMax, expectations } from "./expectations.ts";
import { type Spread, spread } from "./figures.ts";
import type { RunRecord } from "./one-run.ts";

/** What clients counted over the whole series. */
export interface ClientCounts {
  readonly lostAckedWrites: number;
  readonly staleReads: number;
  /** An unacknowledged write seen once and gone with the server that showed it; see bench/clients/history.ts. */
  readonly rolledBackReads: number;
  readonly phantomReads: number;
  readonly corruptReads: number;
  readonly ackedWrites: number;
  readonly reads: number;
  /** What clients with state (`nfs41`) took over to another server, and what they lost by it, to a rival or altogether. */
  readonly opensReclaimed: number;
  readonly openFilesLost: number;
  readonly locksReclaimed: number;
  readonly locksLost: number;
  /** How often rivals asked for what is held, and were refused. */
  readonly refusals: number;
  readonly findings: readonly string[];
}

export interface FaultResult extends ClientCounts {
  readonly fault: string;
  readonly runs: number;
  readonly addressOutageMs: Spread | undefined;
  readonly neighbourOutageMs: Spread | undefined;
  readonly neighbourGapMs: Spread | undefined;
  readonly nfsReadGapMs: Spread | undefined;
  readonly nfsWriteGapMs: Spread | undefined;
  /** Longest wait of a client for others to reclaim, in each run; undefined without clients with state. */
  readonly graceWaitMs: Spread | undefined;
  /** Who served afterwards: the same in all runs, or one entry for each. */
  readonly winner: string | readonly string[];
  /** Epoch after each run. */
  readonly epochs: readonly number[];
  readonly doubleAnswers: number;
  readonly unexpectedTakeovers: number;
  readonly gapsMs: { readonly [engine: string]: { readonly read: Spread; readonly write: Spread } };
  readonly settleMs: Spread | undefined;
  readonly mendMs: Spread | undefined;
  readonly outages: readonly number[];
  readonly problems: readonly string[];
}

export function countsOf(states: readonly ClientState[]): ClientCounts {
  const sum = (pick: (state: ClientState) => number) =>
    states.reduce((total, state) => total + pick(state), 0);
  return {
    lostAckedWrites: sum((each) => each.lostAckedWrites),
    staleReads: sum((each) => each.staleReads),
    rolledBackReads: sum((each) => each.rolledBackReads),
    phantomReads: sum((each) => each.phantomReads),
    corruptReads: sum((each) => each.corruptReads),
    ackedWrites: sum((each) => each.ackedWrites),
    reads: sum((each) => each.reads),
    opensReclaimed: sum((each) => each.opensReclaimed),
    openFilesLost: sum((each) => each.openFilesLost),
    locksReclaimed: sum((each) => each.locksReclaimed),
    locksLost: sum((each) => each.locksLost),
    refusals: sum((each) => each.refusals),
    findings: states.flatMap((each) => each.engines.flatMap((engine) => engine.verdict.findings)),
  };
}

/** What happened since: clients count from their own beginning. */
export function countsSince(before: ClientCounts, after: ClientCounts): ClientCounts {
  const less = (key: Exclude<keyof ClientCounts, "findings">) => after[key] - before[key];
  return {
    lostAckedWrites: less("lostAckedWrites"),
    staleReads: less("staleReads"),
    rolledBackReads: less("rolledBackReads"),
    phantomReads: less("phantomReads"),
    corruptReads: less("corruptReads"),
    ackedWrites: less("ackedWrites"),
    reads: less("reads"),
    opensReclaimed: less("opensReclaimed"),
    openFilesLost: less("openFilesLost"),
    locksReclaimed: less("locksReclaimed"),
    locksLost: less("locksLost"),
    refusals: less("refusals"),
    findings: after.findings.slice(before.findings.length),
  };
}

export function resultOf(
  fault: string,
  runs: readonly RunRecord[],
  counts: ClientCounts,
  broken: readonly string[],
): FaultResult {
  const all = (pick: (run: RunRecord) => number) => runs.map(pick);
  const winners = runs.map((run) => run.winner);
  const common = winners.every((each) => each === winners[0]) ? winners[0] : undefined;
  const result = {
    fault,
    runs: runs.length,
    addressOutageMs: spread(all((run) => run.addressOutageMs)),
    neighbourOutageMs: spread(all((run) => run.neighbourOutageMs)),
    neighbourGapMs: spread(all((run) => run.neighbourGapMs)),
    nfsReadGapMs: spread(all((run) => run.nfsReadGapMs)),
    nfsWriteGapMs: spread(all((run) => run.nfsWriteGapMs)),
    graceWaitMs: spread(runs.flatMap((run) => run.graceWaitMs ?? [])),
    ...counts,
    winner: common ?? winners,
    epochs: all((run) => run.epoch),
    doubleAnswers: all((run) => run.doubleAnswers).reduce((a, b) => a + b, 0),
    unexpectedTakeovers: all((run) => run.unexpectedTakeovers).reduce((a, b) => a + b, 0),
    gapsMs: gapSpreads(runs),
    settleMs: spread(all((run) => run.settleMs)),
    mendMs: spread(all((run) => run.mendMs)),
    outages: all((run) => run.addressOutageMs),
    problems: [
      ...broken,
      ...runs.flatMap((run, i) => run.problems.map((p) => `run ${i + 1}: ${p}`)),
    ],
  };
  return { ...result, problems: [...result.problems, ...judged(result)] };
}

function gapSpreads(runs: readonly RunRecord[]): FaultResult["gapsMs"] {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.gapsMs)))];
  return Object.fromEntries(
    names.flatMap((name) => {
      const gaps = runs.flatMap((run) => run.gapsMs[name] ?? []);
      const read = spread(gaps.map((each) => each.read));
      const write = spread(gaps.map((each) => each.write));
      return read && write ? [[name, { read, write }]] : [];
    }),
  );
}

/** What the whole series violates; the single runs have been judged before. */
function judged(result: Omit<FaultResult, "problems">): string[] {
  const expected = expectations[result.fault];
  const median = result.addressOutageMs?.median ?? 0;
  const slow =
    expected && median > expected.outageMedianMsMax
      ? [`median outage ${median} ms, expected ${expected.outageMedianMsMax} at most`]
      : [];
  const fell = result.epochs.filter((epoch, i) => epoch < (result.epochs[i - 1] ?? 0)).length;
  return [
    ...complaint("acknowledged writes lost", result.lostAckedWrites),
    ...complaint("stale reads", result.staleReads),
    ...complaint("reads rolled back", result.rolledBackReads),
    ...complaint("reads of what nobody wrote", result.phantomReads),
    ...complaint("corrupt reads", result.corruptReads),
    ...complaint("open files lost", result.openFilesLost),
    ...complaint("locks lost", result.locksLost),
    ...complaint("double answers", result.doubleAnswers),
    ...complaint("unexpected takeovers", result.unexpectedTakeovers),
    ...complaint("times an epoch fell", fell),
    ...slow,
  ];
}

/** Nothing when nothing of it was counted. */
export function complaint(what: string, count: number): string[] {
  return count === 0 ? [] : [`${count} ${what}`];
}

export function badReads(counts: ClientCounts): number {
  return counts.staleReads + counts.rolledBackReads + counts.phantomReads + counts.corruptReads;
}

/** What controllers held too much, in words. */
export function memoryProblems(highest: MemoryReadings): string[] {
  return controllerIds.flatMap((id) => {
    const { daemonPssMb, daemonAloneMb } = highest[id];
    const held = Math.max(daemonPssMb, daemonAloneMb);
    if (held <= daemonMemoryMbMax) return [];
    return [`controller ${id} held ${held} MiB, expected ${daemonMemoryMbMax} at most`];
  });
}
