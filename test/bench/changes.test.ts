/**
 * Changes of a virtual server by the command while a controller dies in the middle of each, or both do: afterwards both controllers know the same, the command
 * can be given again, and comes to what was asked for. And what changes nothing: dry runs, lists, and commands that are refused.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Client } from "../../bench/campaign/clients.ts";
import { kill9 } from "../../bench/faults/processes.ts";
import { controllerIds, type PlannedServer } from "../../bench/world/layout.ts";
import { cleanPrefix, World } from "../../bench/world/world.ts";
import { isSame } from "../../firmware-ts/schema/definition-digest.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { until } from "../support/until.ts";
import { leftovers } from "./support/leftovers.ts";
import { lively, mustVerify, terminalOf, wait } from "./support/terminal.ts";

const prefix = "bchg";
let world: World;
let third: PlannedServer;
let fourth: PlannedServer;
/** On the first virtual server, all the time. */
let neighbour: Client;
const { dyad, must, definitions, connect } = terminalOf(() => world);

const more = "10.77.0.199";
const creation = () =>
  `vserver create ${third.name} --home ${third.home} --address ${third.address}/24 --export ${third.disk}=${third.export}`;

beforeAll(async () => {
  await cleanPrefix(prefix);
  world = await World.start({ prefix, clientCount: 5, spareCount: 2 });
  const [first] = world.layout.servers;
  const [one, other] = world.layout.spares;
  if (!first || !one || !other)
    throw new Error("a world of two virtual servers and two spare ones");
  third = one;
  fourth = other;
  neighbour = connect(0, first);
  await lively(neighbour);
});
afterAll(async () => {
  console.log(`logs: ${world.keepLogs()}`);
  await world.stop();
  expect(await leftovers(prefix)).toEqual([]);
});

async function listed(id: ControllerId): Promise<string[]> {
  const lines = (await must(id, "-o json vserver list")).trim().split("\n");
  return lines.map((line) => JSON.parse(line).name);
}

describe("what changes nothing", () => {
  test("a dry run says what would be done, or what speaks against it", async () => {
    const plan = await must("a", `${creation()} --dry-run`);
    expect(plan).toContain("create as number");
    const ran = await dyad("a", `${creation()} --address 10.77.0.100/24 --dry-run`);
    expect([ran.code, ran.err]).toEqual([4, expect.stringContaining("conflict (hard)")]);
    const stop = await must("a", "vserver stop vs1 --dry-run");
    expect(stop).toContain("vs1");
    for (const id of controllerIds) expect(await listed(id)).toEqual(["vs1", "vs2"]);
    expect(await definitions(third.name)).toEqual([undefined, undefined]);
    await mustVerify(neighbour);
  });
});

describe("a volume beside the first", () => {
  test("comes to one that is served, and goes again, while what is on the first stays", async () => {
    await must("a", `${creation()} ${wait}`);
    for (const id of controllerIds) expect(await listed(id)).toEqual(["vs1", "vs2", third.name]);
    const client = connect(1, third);
    await lively(client);
    await must("a", `vserver export add ${third.name} ${fourth.disk} /more ${wait}`);
    const second = connect(2, { ...third, export: "/more" });
    await lively(client, second);
    await mustVerify(second);
    const shown = await must("b", `vserver show ${third.name} --toml`);
    expect(shown).toContain('export = "/more"');
    await must("a", `vserver export remove ${third.name} /more ${wait}`);
    await lively(client);
    await mustVerify(client);
    const [here, there] = await definitions(third.name);
    expect(here.server.volumes).toHaveLength(1);
    expect(there).toMatchObject({ sequence: here.sequence, server: here.server });
    await must("a", `vserver stop ${third.name} ${wait}`);
    await must("a", `vserver delete ${third.name} ${wait}`);
  });
});

/** Who can change it: the one that serves it, else its home. */
async function writer(): Promise<ControllerId> {
  const statuses = await world.statuses();
  const serves = controllerIds.find((id) =>
    statuses[id]?.virtualServers.some(
      ({ name, state }) => name === third.name && state === "serving",
    ),
  );
  return serves ?? third.home;
}

async function paired(): Promise<void> {
  await until("both are paired", async () => {
    const statuses = await world.statuses();
    return controllerIds.every((id) => statuses[id]?.mode === "paired");
  });
}

/** Both say the same of it, and stay with it. */
async function agreed(): Promise<unknown> {
  let known: unknown;
  await until("both know the same", async () => {
    const [one, other] = await definitions(third.name);
    known = one;
    const what = (each: typeof one) => [
      each?.sequence ?? 0,
      each?.wanted ?? "",
      each?.server ?? "",
    ];
    return isSame(what(one), what(other));
  });
  return known;
}

interface Crash {
  readonly what: string;
  readonly command: () => string;
  /** After the command was given, ms. */
  readonly afterMs: number;
  /** What says that it is so already, when it is given again. */
  readonly again?: RegExp;
}

const crashes: readonly Crash[] = [
  { what: "create", command: creation, afterMs: 4 },
  {
    what: "address add",
    command: () => `vserver address add ${third.name} ${more}/24`,
    afterMs: 8,
    again: /has the address .* already/,
  },
  {
    what: "address remove",
    command: () => `vserver address remove ${third.name} ${more}`,
    afterMs: 40,
    again: /has no address/,
  },
  { what: "stop", command: () => `vserver stop ${third.name}`, afterMs: 12 },
  { what: "start", command: () => `vserver start ${third.name}`, afterMs: 25 },
];

/** Gives a command while whoever carries it out is about to die. */
async function cutShort({ command, afterMs }: Crash, victims: readonly ControllerId[]) {
  const at = await writer();
  const given = dyad(at, command()).catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  for (const id of victims.length > 0 ? victims : [at]) await kill9.inject(world, id);
  await given;
  return at;
}

/** As an operator does who has not heard the answer. */
async function giveAgain({ command, again }: Crash): Promise<void> {
  await until("it is done", async () => {
    const { code, out, err } = await dyad(await writer(), `${command()} --wait 60`);
    if (code === 0 || again?.test(err)) return true;
    // Somebody still carries out what was given before.
    expect([6, 75], `${out}${err}`).toContain(code);
    return false;
  });
}

describe.each([
  ["dies", [] as readonly ControllerId[], 3],
  ["dies with the other one", controllerIds, 4],
])("whoever carries out a change %s", (_, both, index) => {
  /** Works on it from its creation on. */
  let client: Client;

  test.each(crashes)("$what", async (crash) => {
    const at = await cutShort(crash, both);
    if (both.length === 0)
      await until("the partner goes on alone", async () => {
        const status = await world.apis[partnerOf(at)].statusIfUp();
        return status?.mode === "alone";
      });
    for (const id of controllerIds) await kill9.repair(world, id);
    await paired();
    await agreed();
    await giveAgain(crash);
    const known = await agreed();
    expect(known).toMatchObject({ wanted: crash.what === "stop" ? "stopped" : "started" });
    await lively(neighbour);
    await mustVerify(neighbour);
    if (crash.what === "stop") return;
    if (crash.what === "create") client = connect(index, third);
    await lively(client);
    await mustVerify(client);
  });

  test("delete", async () => {
    await must(await writer(), `vserver stop ${third.name} ${wait}`);
    const crash = {
      what: "delete",
      command: () => `vserver delete ${third.name}`,
      afterMs: 6,
      again: /expected the name of a virtual server/,
    };
    await cutShort(crash, both);
    for (const id of controllerIds) await kill9.repair(world, id);
    await paired();
    await agreed();
    await giveAgain(crash);
    expect(await agreed()).toBeUndefined();
    for (const id of controllerIds) expect(await listed(id)).toEqual(["vs1", "vs2"]);
    await lively(neighbour);
    await mustVerify(neighbour);
  });
});
