/**
 * One run of one fault, from a whole pair to a whole pair: mark → inject → settle → read everything back → repair → whole again →
 * give back → read everything back. Every wait is for a condition; only `observeMs`, in which nothing must happen, is a time.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { Status } from "../../firmware-ts/schema/status.ts";
import type { Fault } from "../faults/fault.ts";
import { BenchError } from "../world/error.ts";
import { limitMs, monotonicMs, run, waitFor } from "../world/exec.ts";
import { controllerIds, type PlannedServer } from "../world/layout.ts";
import { missing, type World } from "../world/world.ts";
import type { AddressWatch, Seen } from "./address-watch.ts";
import { allLively, type Client, type ClientReport } from "./clients.ts";
import { type Expectation, expectedAfter, neighbourOutageMsMax } from "./expectations.ts";
import { tenth } from "./figures.ts";

/** How long nothing must happen after a fault that nobody should notice. */
const observeMs = 2000;
/** How long a controller that came back is watched for answers that it must not give. */
const comebackWatchMs = 1000;
/** Waiting ends far beyond what is expected: that something takes too long is told as a problem, with the time that it took. */
const wholeDeadlineMs = 2 * limitMs;
/** Between two questions for the status. */
const [askMsMin, askMsPerServer] = [20, 4];

export interface Stage {
  readonly world: World;
  readonly watch: AddressWatch;
  readonly clients: readonly Client[];
}

export interface RunRecord {
  readonly victim: ControllerId;
  readonly winner: ControllerId | "both" | "none";
  readonly epoch: number;
  readonly addressOutageMs: number;
  readonly outagesMs: { readonly [address: string]: number };
  readonly nfsReadGapMs: number;
  readonly nfsWriteGapMs: number;
  /** Longest gap by client and engine. */
  readonly gapsMs: { readonly [engine: string]: { readonly read: number; readonly write: number } };
  /** Longest wait of a client for others to reclaim; undefined when no client has state. */
  readonly graceWaitMs: number | undefined;
  /** Longest silence of an address, and gap of a client, of a virtual server other than the first. */
  readonly neighbourOutageMs: number;
  readonly neighbourGapMs: number;
  readonly doubleAnswers: number;
  readonly unexpectedTakeovers: number;
  /** From the injection until clients and status agree that it is over; and from the repair until the pair is whole. */
  readonly settleMs: number;
  readonly mendMs: number;
  readonly problems: readonly string[];
}

/** A status is as long as there are virtual servers; to make and to read it is work for the processors whose work is measured. */
function askEveryMs({ layout }: World): number {
  return Math.max(askMsMin, askMsPerServer * layout.servers.length);
}

/** Who serves each virtual server, as the status of those asked says. */
async function servers(
  world: World,
  ids: readonly ControllerId[],
): Promise<{ server: PlannedServer; by: ControllerId[] }[]> {
  const all = await Promise.all(
    ids.map(async (id) => [id, await world.apis[id].statusIfUp()] as const),
  );
  return world.layout.servers.map((server) => ({
    server,
    by: all.flatMap(([id, status]) => {
      const there = status?.virtualServers.find((each) => each.name === server.name);
      return there?.state === "serving" ? [id] : [];
    }),
  }));
}

/** Brings every virtual server home and waits for clients to go on. */
export async function bringHome(stage: Stage): Promise<void> {
  const { world, watch, clients } = stage;
  await world.whole(wholeDeadlineMs);
  await waitFor(
    "every virtual server is at home",
    async () => {
      const placed = await servers(world, controllerIds);
      const away = placed.find(({ server, by }) => by.length === 1 && by[0] !== server.home);
      if (away?.by[0]) await world.apis[away.by[0]].giveback();
      return placed.every(
        ({ server, by }) =>
          by.length === 1 && by[0] === server.home && watch.answers(server.address) === server.home,
      );
    },
    { deadlineMs: wholeDeadlineMs, intervalMs: askEveryMs(world), signal: world.signal },
  );
  await world.whole(wholeDeadlineMs);
  await allLively(clients, wholeDeadlineMs, world.signal);
}

/** Waits for what is expected; returns who serves then. */
async function settle(
  stage: Stage,
  victim: ControllerId,
  expected: Expectation,
): Promise<RunRecord["winner"]> {
  const { world, watch, clients } = stage;
  if (expected.serves === "stays") await delay(observeMs, undefined, { signal: world.signal });
  const partner = partnerOf(victim);
  // A frozen victim would hold up every round by the time that its API may take.
  const asked = expected.serves === "partner" ? [partner] : controllerIds;
  const winner = await waitFor(
    "the fault has settled",
    async () => {
      const placed = await servers(world, asked);
      const answered = placed.every(
        ({ server, by }) => by.length === 1 && watch.answers(server.address) === by[0],
      );
      if (!answered || !clients.every((client) => client.lively())) return undefined;
      const [first] = placed[0]?.by ?? [];
      const same = placed.every(({ by }) => by[0] === first);
      if (expected.serves === "stays") return same ? undefined : ("both" as const);
      if (expected.serves === "firstMoves") {
        const stay = placed.slice(1).every(({ server, by }) => by[0] === server.home);
        return first === partner && stay ? first : undefined;
      }
      if (expected.serves === "partner" && first !== partner) return undefined;
      return same ? first : undefined;
    },
    { deadlineMs: wholeDeadlineMs, intervalMs: askEveryMs(world), signal: world.signal },
  );
  return winner;
}

/** Distinct hardware addresses that answer ARP for the floating addresses while a controller comes back. */
async function arpWitness(world: World): Promise<string[]> {
  const [namespace] = world.layout.namespaces.clients;
  const seconds = String(Math.ceil(comebackWatchMs / 1000));
  const { servers } = world.layout;
  const outputs = await Promise.all(
    servers.map(({ address }) =>
      run("nsenter", [
        ...[`--net=/run/netns/${namespace}`, "arping", "-b", "-i", "0.05", "-w", seconds],
        ...["-I", "eth0", address],
      ]).catch(() => ""),
    ),
  );
  return outputs.flatMap((text, i) => {
    const macs = new Set([...text.matchAll(/\[([0-9A-Fa-f:]+)\]/g)].map((match) => match[1]));
    return macs.size > 1 ? [`${servers[i]?.address} is claimed by ${[...macs].join(", ")}`] : [];
  });
}

/** Switches of addresses beyond those that the fault explains; of a split, whoever wins, as many are at home on either. */
function unexpected({ serves }: Expectation, seen: Seen, atHome: number): number {
  const total = Object.values(seen.switches).reduce((sum, each) => sum + each, 0);
  const explained = serves === "stays" ? 0 : serves === "firstMoves" ? 1 : atHome;
  return Math.max(0, total - explained);
}

/** Which start it is of each that a controller serves, but for the one that is struck: a restart in place is another one. */
function startsOf(
  { virtualServers }: Status,
  struck: PlannedServer,
): ReadonlyMap<string, number | undefined> {
  const serving = virtualServers.filter(
    ({ name, state }) => state === "serving" && name !== struck.name,
  );
  return new Map(serving.map(({ name, lastStartMs }) => [name, lastStartMs]));
}

/** How long others than the struck virtual server were silent at their addresses, and what their clients met. */
function neighboursOf(
  struck: PlannedServer,
  { outagesMs }: Seen,
  gaps: RunRecord["gapsMs"],
  clients: readonly Client[],
): Pick<RunRecord, "neighbourOutageMs" | "neighbourGapMs"> {
  const outages = Object.entries(outagesMs).filter(([address]) => address !== struck.address);
  const theirs = clients.filter(({ virtualServer }) => virtualServer !== struck.name);
  const met = Object.entries(gaps).filter(([name]) =>
    theirs.some((client) => name.startsWith(`${client.name}-`)),
  );
  return {
    neighbourOutageMs: tenth(Math.max(0, ...outages.map(([, ms]) => ms))),
    neighbourGapMs: Math.max(0, ...met.flatMap(([, { read, write }]) => [read, write])),
  };
}

function gapsOf(reports: readonly ClientReport[], clients: readonly Client[]): RunRecord["gapsMs"] {
  return Object.fromEntries(
    reports.flatMap((report, i) =>
      report.engines.map(({ engine, read, write }) => [
        `${clients[i]?.name}-${engine}`,
        { read: tenth(read.longestGapMs), write: tenth(write.longestGapMs) },
      ]),
    ),
  );
}

function graceWaitOf(reports: readonly ClientReport[]): number | undefined {
  const waits = reports.flatMap(({ engines }) =>
    engines.flatMap(({ engine, state }) => (engine === "nfs41" ? [state.graceWaitMs] : [])),
  );
  return waits.length === 0 ? undefined : Math.max(...waits);
}

async function readBack(stage: Stage, problems: string[]): Promise<ClientReport[]> {
  const reports = await Promise.all(
    stage.clients.map((client) => client.report(limitMs, stage.world.signal)),
  );
  reports.forEach((report, i) => {
    if (!report.verified) problems.push(`${stage.clients[i]?.name} could not read everything back`);
  });
  return reports;
}

/** Performs one run. The pair must be whole and everything at home; afterwards it is again. Throws when it does not mend. */
export async function oneRun(
  stage: Stage,
  fault: Fault,
  usually: Expectation,
  label: string,
): Promise<RunRecord> {
  const { world, watch, clients } = stage;
  const [first] = world.layout.servers;
  if (!first) throw new BenchError("worldBroken", "run", "there is no virtual server");
  const victim = first.home;
  const atHome = world.layout.servers.filter(({ home }) => home === victim).length;
  const problems: string[] = [];
  for (const client of clients) client.mark(label);
  await allLively(clients, wholeDeadlineMs, world.signal);

  const before = await world.apis[victim].status();
  const struck = before.virtualServers.filter(
    ({ name }) => !usually.strikesFirst || name === first.name,
  );
  const expected = expectedAfter(usually, Math.max(...struck.map((each) => each.failures ?? 0)));

  const injectedAtMs = monotonicMs();
  await fault.inject(world, victim);
  const winner = await settle(stage, victim, expected);
  const settledAtMs = monotonicMs();
  if (settledAtMs - injectedAtMs > expected.settleMsMax)
    problems.push(
      `settled after ${tenth(settledAtMs - injectedAtMs)} ms, expected ${expected.settleMsMax} at most`,
    );
  if (usually.strikesFirst) {
    const after = startsOf(await world.apis[victim].status(), first);
    for (const [name, start] of startsOf(before, first))
      if (after.get(name) !== start) problems.push(`${name}, a neighbour, was started again`);
  }
  const reports = await readBack(stage, problems);
  const epoch = (await world.apis[winner === "a" || winner === "b" ? winner : victim].status())
    .epoch;
  const during = watch.seen(injectedAtMs - 2, monotonicMs());

  const repairedAtMs = monotonicMs();
  const witness = arpWitness(world);
  await fault.repair(world, victim);
  problems.push(...(await witness));
  await world.whole(wholeDeadlineMs);
  const mendedAtMs = monotonicMs();
  const mending = watch.seen(repairedAtMs, mendedAtMs);
  await bringHome(stage);
  await readBack(stage, problems);

  const doubleAnswers = watch.seen(injectedAtMs - 2, monotonicMs()).doubleAnswers;
  const switchesWhileMending = Object.values(mending.switches).reduce((sum, each) => sum + each, 0);
  const gaps = gapsOf(reports, clients);
  const unexpectedTakeovers = unexpected(expected, during, atHome) + switchesWhileMending;
  const longest = (pick: "read" | "write") => Math.max(...Object.values(gaps).map((g) => g[pick]));
  if (during.outageMs > expected.outageMsMax)
    problems.push(
      `silent for ${tenth(during.outageMs)} ms, expected ${expected.outageMsMax} at most`,
    );
  const neighbours = neighboursOf(first, during, gaps, clients);
  if (expected.strikesFirst && neighbours.neighbourOutageMs > neighbourOutageMsMax)
    problems.push(`a neighbour was silent for ${neighbours.neighbourOutageMs} ms`);
  return {
    ...neighbours,
    victim,
    winner,
    epoch,
    addressOutageMs: tenth(during.outageMs),
    outagesMs: during.outagesMs,
    nfsReadGapMs: longest("read"),
    nfsWriteGapMs: longest("write"),
    gapsMs: gaps,
    graceWaitMs: graceWaitOf(reports),
    doubleAnswers,
    unexpectedTakeovers,
    settleMs: tenth(settledAtMs - injectedAtMs),
    mendMs: tenth(mendedAtMs - repairedAtMs),
    problems,
  };
}

/** The state of the pair in words, for a message about a run that failed. */
export async function describePair(world: World): Promise<string> {
  return missing(await world.statuses()).join("; ") || "the pair is whole";
}
