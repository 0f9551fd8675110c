/** What runs of `bench vserver` come to: the line that is printed, and whether it is as it must be. Pure. */
import type { PlannedServer } from "../world/layout.ts";
import { type Spread, spread } from "./figures.ts";
import type { RunRecord } from "./one-run.ts";
import { badReads, type ClientCounts, complaint } from "./result.ts";

export const moveKinds = ["takeover", "transfer"] as const;
export type MoveKind = (typeof moveKinds)[number];

export interface MovesResult extends ClientCounts {
  readonly test: `vserver ${MoveKind}`;
  /** Virtual servers that moved in each run, and those that there are. */
  readonly count: number;
  readonly servers: number;
  readonly runs: number;
  /** Of every address that moved, in all runs. */
  readonly addressOutageMs: Spread | undefined;
  /** Of the address that was silent longest, in each run. */
  readonly lastOutageMs: Spread | undefined;
  /** Of every address that stayed where it was. */
  readonly neighbourOutageMs: Spread | undefined;
  /** How far apart questions to an address are: a shorter silence is not seen. */
  readonly probeIntervalMs: number;
  /** Longest gap, reads or writes, of each client whose virtual server moved, and of those whose did not. */
  readonly clientGapMs: Spread | undefined;
  readonly neighbourGapMs: Spread | undefined;
  /** Longest wait of a client for others to reclaim, in each run; undefined without clients with state. */
  readonly graceWaitMs: Spread | undefined;
  readonly settleMs: Spread | undefined;
  readonly mendMs: Spread | undefined;
  readonly doubleAnswers: number;
  readonly unexpectedTakeovers: number;
  readonly problems: readonly string[];
}

export interface Moves {
  /** Those that are at home where the first of them is, move. */
  readonly servers: readonly PlannedServer[];
  /** Each works on one virtual server. */
  readonly clients: readonly { readonly name: string; readonly virtualServer: string }[];
  readonly probeIntervalMs: number;
  readonly records: readonly RunRecord[];
  /** The run that could not be ended, in words. */
  readonly broken: readonly string[];
  readonly counts: ClientCounts;
}

export function movesResult(kind: MoveKind, moves: Moves): MovesResult {
  const { servers, records, counts } = moves;
  const isMoved = ({ home }: PlannedServer) => home === servers[0]?.home;
  const movers = servers.filter(isMoved);
  const stayers = servers.filter((server) => !isMoved(server));
  const outages = (of: readonly PlannedServer[]) =>
    records.map(({ outagesMs }) => of.map(({ address }) => outagesMs[address] ?? 0));
  const sum = (pick: (record: RunRecord) => number) =>
    records.reduce((total, record) => total + pick(record), 0);
  const doubleAnswers = sum((record) => record.doubleAnswers);
  const unexpectedTakeovers = sum((record) => record.unexpectedTakeovers);
  return {
    test: `vserver ${kind}`,
    count: movers.length,
    servers: servers.length,
    runs: records.length,
    addressOutageMs: spread(outages(movers).flat()),
    lastOutageMs: spread(outages(movers).map((each) => Math.max(...each))),
    neighbourOutageMs: spread(outages(stayers).flat()),
    probeIntervalMs: moves.probeIntervalMs,
    clientGapMs: spread(gapsOf(moves, movers)),
    neighbourGapMs: spread(gapsOf(moves, stayers)),
    graceWaitMs: spread(records.flatMap((record) => record.graceWaitMs ?? [])),
    settleMs: spread(records.map((record) => record.settleMs)),
    mendMs: spread(records.map((record) => record.mendMs)),
    doubleAnswers,
    unexpectedTakeovers,
    ...counts,
    problems: [
      ...moves.broken,
      ...records.flatMap(({ problems }, i) => problems.map((each) => `run ${i + 1}: ${each}`)),
      ...complaint("acknowledged writes lost", counts.lostAckedWrites),
      ...complaint("stale, rolled back, phantom or corrupt reads", badReads(counts)),
      ...complaint("open files lost", counts.openFilesLost),
      ...complaint("locks lost", counts.locksLost),
      ...complaint("double answers", doubleAnswers),
      ...complaint("unexpected takeovers", unexpectedTakeovers),
    ],
  };
}

/** Longest gap, reads or writes, of each engine of each client that works on one of these, in each run. */
function gapsOf({ clients, records }: Moves, of: readonly PlannedServer[]): number[] {
  const theirs = clients.filter(({ virtualServer }) =>
    of.some(({ name }) => name === virtualServer),
  );
  return records.flatMap(({ gapsMs }) =>
    Object.entries(gapsMs)
      .filter(([engine]) => theirs.some(({ name }) => engine.startsWith(`${name}-`)))
      .map(([, { read, write }]) => Math.max(read, write)),
  );
}
