/**
 * Two virtual servers with one private subnet on one controller, and their customers behind gateways of their own: who sees whom, and what one may do to
 * the other. How much slower it makes the other is the campaign's question (`bench vserver isolation`).
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { allLively } from "../../bench/campaign/clients.ts";
import { type IsolationStage, openIsolationStage } from "../../bench/campaign/isolation.ts";
import { visibility } from "../../bench/campaign/visibility.ts";
import { groupOf, neighbourFaults, startInPlace } from "../../bench/faults/neighbour.ts";
import type { PlannedServer } from "../../bench/world/layout.ts";
import { cleanPrefix } from "../../bench/world/world.ts";
import { snakeCase } from "../../firmware-ts/schema/toml-document.ts";
import { runDyad } from "../support/cli-run.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { leftovers } from "./support/leftovers.ts";

const prefix = "bisol";
const limits = { processes: 300, cpuPercent: 30, memoryMb: 512, bandwidthMbit: 500 };
let stage: IsolationStage;
let neighbour: PlannedServer;

beforeAll(async () => {
  await cleanPrefix(prefix);
  stage = await openIsolationStage({
    prefix,
    runs: 1,
    paceMs: 20,
    neighbourLimits: limits,
    signal: new AbortController().signal,
  });
  const [, second] = stage.world.layout.servers;
  if (!second) throw new Error("two virtual servers expected");
  neighbour = second;
});
afterAll(async () => {
  await stage?.world.stop();
  expect(await leftovers(prefix)).toEqual([]);
});

const statusOf = async (name: string, id: "a" | "b" = "a") => {
  const { virtualServers } = await stage.world.apis[id].status();
  return virtualServers.find((each) => each.name === name);
};
const bothGoOn = () => allLively([stage.victim, stage.neighbour], limitsMs.condition);

it("customers whose clients have one address reach their own virtual server and no other", async () => {
  expect(await visibility(stage.world)).toEqual({ right: 8, problems: [] });
});

it("the limits of each are told, and what it uses", async () => {
  expect((await statusOf("vs2"))?.limits).toEqual({ cpuWeight: 100, ...limits });
  expect((await statusOf("vs1"))?.limits).toEqual({ cpuWeight: 100, processes: 512 });
  const told = async () => (await statusOf("vs1"))?.usage ?? {};
  await until("its use is told", async () => ((await told()).cpuSeconds ?? 0) > 0);
  expect((await told()).processes).toBeGreaterThan(4);
  const events = await stage.world.apis.a.events(0);
  expect(events.filter(({ code }) => code.startsWith("limits."))).toEqual([]);
});

it("limits are changed by command while clients work, on both controllers at once, and nothing starts anew", async () => {
  const { world, victim } = stage;
  const group = groupOf(world, { server: neighbour });
  const programs = group.processes();
  const dyad = async (command: string) => {
    const ran = await runDyad(world.machines.a.paths.socket, command);
    expect([ran.code, ran.err], command).toEqual([0, ""]);
    return ran.out;
  };
  await dyad("vserver limit set vs2 processes=290 cpu_percent=none --wait 60");
  expect(await dyad("vserver show vs2")).toContain(
    "limits: processor weight 100, 512 MiB, 290 processes, 500 Mbit/s\n",
  );
  const told = { cpuWeight: 100, memoryMb: 512, processes: 290, bandwidthMbit: 500 };
  for (const id of ["a", "b"] as const) expect((await statusOf("vs2", id))?.limits).toEqual(told);
  const texts = group.folders.map((folder) => join(folder, "pids.max")).filter(existsSync);
  expect(texts.map((path) => readFileSync(path, "utf8"))).toEqual(["290\n"]);
  expect(group.processes()).toEqual(expect.arrayContaining([...programs]));
  const words = Object.entries(limits).map(([key, value]) => `${snakeCase(key)}=${value}`);
  await dyad(`vserver limit set vs2 ${words.join(" ")} --wait 60`);
  expect((await statusOf("vs2"))?.limits).toEqual({ cpuWeight: 100, ...limits });
  await allLively([victim, stage.neighbour], limitsMs.condition);
});

it("the firmware's own processes are in none of the groups, its file servers are", () => {
  const { world } = stage;
  const own = world.daemon("a")?.pid ?? 0;
  const inGroups = world.layout.servers.flatMap((server) => groupOf(world, { server }).processes());
  expect(inGroups.length).toBeGreaterThanOrEqual(2);
  expect(inGroups).not.toContain(own);
  const others = world.machines.a.cgroup.processes().filter((pid) => !inGroups.includes(pid));
  // The main process, the beat process, the block service, and the programs that make devices of disks.
  expect(others.length).toBeGreaterThanOrEqual(5);
});

it.each(neighbourFaults)("$name: both go on afterwards, and one during it", async (fault) => {
  const clientGapMs = () => {
    const { read, write } = stage.neighbour.last?.engines[0] ?? {};
    return Math.max(read?.gapMs ?? 0, write?.gapMs ?? 0);
  };
  const injected = await fault.inject(stage.world, { server: neighbour, index: 1, clientGapMs });
  stage.victim.mark(fault.name);
  await until("the victim reads and writes on", () => {
    const { read, write } = stage.victim.since(fault.name)?.engines[0] ?? {};
    return Math.min(read?.operations ?? 0, write?.operations ?? 0) >= 100;
  });
  await until("the fault is in force", () => injected.inForce());
  expect((await statusOf("vs1"))?.failures).toBeUndefined();
  await injected.repair();
  await bothGoOn();
});

it("a planned stop ends what else runs in a place, and nobody waits for it", async () => {
  const { world } = stage;
  const group = groupOf(world, { server: neighbour });
  const stray = await startInPlace(world, { server: neighbour }, "stray", "sleep", "100000");
  await until("it has joined", () => group.processes().includes(stray.pid));
  await world.apis.a.transfer("vs2");
  await until("vs2 is served by b", async () => (await statusOf("vs2", "b"))?.state === "serving");
  expect(await stray.ended).toBe("SIGKILL");
  await bothGoOn();
  // The spare is there for its return.
  await until("a spare waits on a", () => group.processes().length === 1);
});

it("nothing was lost", async () => {
  for (const client of [stage.victim, stage.neighbour]) {
    const report = await client.report(limitsMs.condition);
    expect(report).toMatchObject({ verified: true, lostAckedWrites: 0, staleReads: 0 });
  }
});
