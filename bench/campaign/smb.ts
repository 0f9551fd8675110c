/**
 * Virtual servers whose volumes are offered by NFS and SMB at once, and what SMB clients see when one fails or moves: what `bench smb` does. NFS clients
 * work on the same volumes meanwhile, and are judged as ever.
 */
import type { Fault } from "../faults/fault.ts";
import { faultNamed } from "../faults/index.ts";
import type { Expectation } from "./expectations.ts";
import { repeat } from "./failover.ts";
import { type Spread, spread, tenth } from "./figures.ts";
import type { Stage } from "./one-run.ts";
import { badReads, type ClientCounts, complaint } from "./result.ts";
import { allPutting, type SmbClient, startSmbClients } from "./smb-clients.ts";
import { transfer } from "./vserver.ts";

export const smbActs = ["kill9", "transfer", "term"] as const;

/** smbd makes a process for each client that comes, the probe's first; what that takes is the machine's. */
const expected: Expectation = {
  serves: "partner",
  outageMsMax: 3000,
  outageMedianMsMax: 3000,
  settleMsMax: 60_000,
};

export interface SmbResult extends ClientCounts {
  readonly test: `smb ${(typeof smbActs)[number]}`;
  readonly runs: number;
  readonly addressOutageMs: Spread | undefined;
  /** Longest time between two acknowledged puts of the client whose virtual server moved, and of the one whose did not. */
  readonly smbGapMs: Spread | undefined;
  readonly smbNeighbourGapMs: Spread | undefined;
  readonly nfsWriteGapMs: Spread | undefined;
  readonly smbPuts: number;
  readonly smbLostFiles: number;
  readonly settleMs: Spread | undefined;
  readonly problems: readonly string[];
}

/** Runs on a stage whose servers have shares. */
export async function smbMoves(
  stage: Stage,
  name: (typeof smbActs)[number],
  { runs, paceMs }: { readonly runs: number; readonly paceMs: number },
  progress: (text: string) => void,
): Promise<SmbResult> {
  const clients = await startSmbClients(stage.world, paceMs);
  const home = stage.world.layout.servers[0]?.home;
  const moved: number[] = [];
  const stayed: number[] = [];
  const lost: string[] = [];
  const act = name === "transfer" ? transfer : faultNamed(name);
  const watched: Fault = {
    ...act,
    async inject(world, victim) {
      for (const client of clients) client.mark();
      await act.inject(world, victim);
    },
    async repair(world, victim) {
      // The virtual servers are where they went; what follows brings them home again.
      await allPutting(clients, world.signal);
      for (const client of clients)
        (client.server.home === home ? moved : stayed).push(tenth(client.longestGapMs()));
      lost.push(...(await lostOf(clients)));
      await act.repair(world, victim);
    },
  };
  try {
    const { records, broken, counts } = await repeat(stage, watched, expected, runs, progress);
    if (broken.length === 0) lost.push(...(await lostOf(clients)));
    return {
      test: `smb ${name}`,
      runs: records.length,
      addressOutageMs: spread(records.map((record) => record.addressOutageMs)),
      smbGapMs: spread(moved),
      smbNeighbourGapMs: spread(stayed),
      nfsWriteGapMs: spread(records.map((record) => record.nfsWriteGapMs)),
      smbPuts: clients.reduce((sum, { puts }) => sum + puts, 0),
      smbLostFiles: lost.length,
      settleMs: spread(records.map((record) => record.settleMs)),
      ...counts,
      problems: [
        ...broken,
        ...records.flatMap(({ problems }, i) => problems.map((each) => `run ${i + 1}: ${each}`)),
        ...complaint("acknowledged writes lost", counts.lostAckedWrites),
        ...complaint("stale, rolled back, phantom or corrupt reads", badReads(counts)),
        ...complaint("files that were acknowledged by SMB and are not there", lost.length),
      ],
    };
  } finally {
    for (const client of clients) await client.stop();
  }
}

async function lostOf(clients: readonly SmbClient[]): Promise<string[]> {
  const lost = await Promise.all(
    clients.map(async (client) => (await client.lost()).map((file) => `${client.name} ${file}`)),
  );
  return lost.flat();
}
