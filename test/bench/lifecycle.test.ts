/**
 * Virtual servers are created, changed and deleted by the command while two live controllers serve, one of them dies, and both start anew: what NFS clients see of
 * it, and what is left.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Client } from "../../bench/campaign/clients.ts";
import { kill9 } from "../../bench/faults/processes.ts";
import { controllerIds, type PlannedServer } from "../../bench/world/layout.ts";
import { cleanPrefix, World } from "../../bench/world/world.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { leftovers } from "./support/leftovers.ts";
import { gapOf, lively, mustVerify, terminalOf, wait } from "./support/terminal.ts";

const prefix = "blife";
let world: World;
let third: PlannedServer;
/** On the first virtual server, all the time. */
let neighbour: Client;
const { dyad, must, definitions, connect } = terminalOf(() => world);

beforeAll(async () => {
  await cleanPrefix(prefix);
  world = await World.start({ prefix, clientCount: 4, spareCount: 1 });
  const [first] = world.layout.servers;
  const [spare] = world.layout.spares;
  if (!first || !spare) throw new Error("a world of two virtual servers and a spare one");
  third = spare;
  neighbour = connect(0, first);
  await lively(neighbour);
});
afterAll(async () => {
  console.log(`logs: ${world.keepLogs()}`);
  await world.stop();
  expect(await leftovers(prefix)).toEqual([]);
});

/** Whether a program on a controller names it, or its network is held there. */
function isThere(id: ControllerId, name: string): boolean {
  const { runDir } = world.machines[id].paths;
  const networks = existsSync(join(runDir, "networks", name));
  const processes = execFileSync("ps", ["-eo", "args"], { encoding: "utf8" }).split("\n");
  return (
    networks || processes.some((line) => line.includes(runDir) && line.includes(`ganesha-${name}.`))
  );
}

describe("a virtual server that is created while others are served", () => {
  let client: Client;

  test("is served at its home, and the partner knows it", async () => {
    neighbour.mark("create");
    const words = `--home ${third.home} --address ${third.address}/24 --export ${third.disk}=${third.export}`;
    const fromMs = performance.now();
    const out = await must("a", `vserver create ${third.name} ${words} ${wait}`);
    console.log(`created and served after ${Math.round(performance.now() - fromMs)} ms`);
    expect(out).toContain(`create ${third.name} done\n`);
    client = connect(1, third);
    await lively(client);
    const [here, there] = await definitions(third.name);
    expect(there).toMatchObject({ number: here.number, sequence: 1, server: here.server });
    const report = await mustVerify(neighbour);
    console.log(`longest gap of the neighbour's client meanwhile: ${gapOf(report)} ms`);
    expect(report.engines[0]?.read.longestGapMs).toBeLessThan(limitsMs.condition);
  });

  test("is taken over like the others when its controller dies, and goes home", async () => {
    client.mark("kill9");
    await kill9.inject(world, "a");
    await until("b serves all", async () => {
      const status = await world.apis.b.statusIfUp();
      return status?.virtualServers.every(({ state }) => state === "serving") ?? false;
    });
    await lively(client, neighbour);
    const report = await mustVerify(client);
    console.log(`longest gap of its own client over the takeover: ${gapOf(report)} ms`);
    await kill9.repair(world, "a");
    await world.whole(limitsMs.condition);
    await must("b", `giveback ${wait}`);
    await lively(client, neighbour);
    await mustVerify(client);
  });

  test("is still there when both controllers have been started anew", async () => {
    for (const id of controllerIds) await kill9.inject(world, id);
    for (const id of controllerIds) await kill9.repair(world, id);
    await world.whole(limitsMs.condition);
    const statuses = await world.statuses();
    const names = statuses.b?.virtualServers.map(({ name }) => name);
    expect(names).toEqual(["vs1", "vs2", third.name]);
    await lively(client, neighbour);
    await mustVerify(client);
    await mustVerify(neighbour);
  });

  test("gets an address, and loses one, while its volume stays", async () => {
    await must("a", `vserver address add ${third.name} 10.77.0.199/24 ${wait}`);
    const second = connect(2, { ...third, address: "10.77.0.199" });
    await lively(client, second);
    await mustVerify(second);
    const ran = await dyad("a", `vserver address add vs1 10.77.0.199/16`);
    expect([ran.code, ran.err]).toEqual([
      4,
      expect.stringContaining(`address 10.77.0.199 is already used by ${third.name}`),
    ]);
    await must("a", `vserver address remove ${third.name} 10.77.0.199 ${wait}`);
    await lively(client);
    await mustVerify(client);
  });

  test("is changed where it is served, and nowhere else", async () => {
    const ran = await dyad("b", `vserver stop ${third.name}`);
    expect(ran.code).toBe(4);
    expect(ran.err).toContain("give this command at controller a\n");
    const stale = await dyad("a", `vserver show ${third.name} --toml`);
    expect(stale.out).toContain(`name = "${third.name}"`);
  });

  test("stays stopped, also when both controllers start anew, until it is started", async () => {
    await must("a", `vserver stop ${third.name} ${wait}`);
    for (const id of controllerIds) await kill9.inject(world, id);
    for (const id of controllerIds) await kill9.repair(world, id);
    await lively(neighbour);
    // Nobody misses it: everything else is at home, and that is all there is to say.
    await until("both say that all is well", async () => {
      const statuses = await world.statuses();
      return controllerIds.every((id) => statuses[id]?.health === "ok");
    });
    for (const id of controllerIds) {
      const status = await world.apis[id].status();
      const shown = status.virtualServers.find(({ name }) => name === third.name);
      expect(shown).toMatchObject({ state: "stopped", owner: "none" });
    }
    await must(third.home, `vserver start ${third.name} ${wait}`);
    await lively(client);
    await mustVerify(client);
  });

  test("is deleted only when it is stopped, and leaves nothing on either controller", async () => {
    const refused = await dyad("a", `vserver delete ${third.name}`);
    expect([refused.code, refused.err]).toEqual([4, expect.stringContaining("notStopped (soft)")]);
    neighbour.mark("delete");
    await must("a", `vserver stop ${third.name} ${wait}`);
    await must("a", `vserver delete ${third.name} ${wait}`);
    for (const id of controllerIds)
      await until(`nothing is left on ${id}`, () => !isThere(id, third.name));
    const gone = await dyad("b", `vserver show ${third.name}`);
    expect([gone.code, gone.err]).toEqual([1, expect.stringContaining("expected the name")]);
    const report = await mustVerify(neighbour);
    console.log(`longest gap of the neighbour's client at the end: ${gapOf(report)} ms`);
  });

  test("may come again, with the disk and all that is on it", async () => {
    const words = `--home b --address ${third.address}/24 --export ${third.disk}=${third.export}`;
    await must("b", `vserver create again ${words} ${wait}`);
    // The client of before has its file handles; they are of another export, so it has to mount anew.
    const fresh = connect(3, { ...third, name: "again" });
    await lively(fresh, neighbour);
    await mustVerify(fresh);
  });
});
