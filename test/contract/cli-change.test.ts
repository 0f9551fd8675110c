/**
 * `dyad vserver …` as far as it changes something, against a real API with a daemon that only remembers: what is asked, what is printed (golden files; rewrite
 * with `vitest -u` and read the difference), and how it ends.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Status, Veto } from "../../firmware-ts/schema/status.ts";
import { runDyad, type Terminal } from "../support/cli-run.ts";
import { type FakeDaemon, healthyStatus } from "../support/fake-daemon.ts";
import { jsonLines } from "../support/json-lines.ts";
import { listeningDaemons } from "../support/listening-daemon.ts";

const { directory, listen } = listeningDaemons("cli-change");

let fake: FakeDaemon;
let socket: string;
beforeEach(async () => {
  ({ fake, socket } = await listen());
  fake.answer = async (action) => ({
    accepted: true,
    vetoes: [],
    plan: [{ virtualServer: "gamma", action, predictedMs: 60 }],
  });
});
afterEach(() => fake.api.close());

const dyad = (command: string, terminal?: Terminal) => runDyad(socket, command, terminal);
const golden = (name: string) => `../golden/cli/${name}.txt`;
const file = (name: string, text: string) => {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
};
const refuse = (...vetoes: Veto[]) => {
  fake.answer = async () => ({ accepted: false, vetoes, plan: [] });
};
const hard = (code: string, message: string): Veto => ({ code, severity: "hard", message });

const gamma = {
  name: "gamma",
  home: "a",
  addresses: ["10.0.0.102/24"],
  routes: [],
  rules: [],
  volumes: [{ id: 1, disk: "data-3", export: "/gamma" }],
  limits: { cpuWeight: 100, processes: 512 },
};
const createGamma = "vserver create gamma --address 10.0.0.102/24 --export data-3=/gamma";

describe("what a person reads", () => {
  test.each([
    ["vserver-create", createGamma],
    ["vserver-create-dry-run", `${createGamma} --dry-run`],
    ["vserver-stop", "vserver stop beta"],
    ["vserver-address-add", "vserver address add beta 10.0.0.103/24"],
    ["help-vserver", "vserver --help"],
    ["help-vserver-create", "vserver create --help"],
    ["help-vserver-address-add", "vserver address add --help"],
  ])("%s", async (name, command) => {
    const ran = await dyad(command);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    await expect(ran.out).toMatchFileSnapshot(golden(name));
  });

  test("one that was started here, with what the common volume says of that", async () => {
    const ran = await dyad("vserver show alpha");
    expect([ran.code, ran.err]).toEqual([0, ""]);
    await expect(ran.out).toMatchFileSnapshot(golden("vserver-show-started"));
  });

  test("a change that changes nothing", async () => {
    fake.answer = async () => ({ accepted: true, vetoes: [], plan: [] });
    expect((await dyad("vserver start beta")).out).toContain("nothing has to be changed");
  });
});

describe("create", () => {
  test("by the words of the command line, at home where it was asked for", async () => {
    const ran = await dyad(
      `${createGamma} --address fd00::102/64 --route default~via~10.0.0.1~table~7 --rule 10.0.0.102/32~table~7 --limit cpu_percent=50 --limit processes=300`,
    );
    expect(ran.code).toBe(0);
    const server = {
      ...gamma,
      addresses: ["10.0.0.102/24", "fd00::102/64"],
      routes: [{ to: "default", via: "10.0.0.1", table: 7 }],
      rules: [{ from: "10.0.0.102/32", table: 7 }],
      limits: { cpuWeight: 100, cpuPercent: 50, processes: 300 },
    };
    expect(fake.changes).toMatchObject([{ change: { action: "create", name: "gamma", server } }]);
    expect(fake.changes[0]?.request.by).toMatch(/^\S{1,64}$/);
  });

  const toml = `home = "b"
addresses = ["10.0.0.102/24"]
[[volumes]]
disk = "data-3"
export = "/gamma"
`;
  const { limits: _, ...written } = gamma;
  test.each([
    ["the keys of one", `name = "gamma"\n${toml}`],
    [
      "an entry of the configuration file",
      `[[virtual_servers]]\nname = "gamma"\n${toml.replace("[[volumes", "[[virtual_servers.volumes")}`,
    ],
    [
      "JSON",
      JSON.stringify({ ...written, home: "b", volumes: [{ disk: "data-3", export: "/gamma" }] }),
    ],
    ["JSON as an entry", JSON.stringify({ virtual_servers: [{ ...written, home: "b" }] })],
  ])("from a file: %s", async (_, text) => {
    const ran = await dyad(`vserver create --file ${file("gamma.toml", text)}`);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    expect(fake.changes[0]?.change.server).toEqual({ ...gamma, home: "b" });
  });

  const limits = "[limits]\ncpu_weight = 7\nmemory_mb = 512\n";
  test("from a file, with more words, and under another name", async () => {
    const path = file("more.toml", `name = "gamma"\n${toml}${limits}`);
    await dyad(
      `vserver create delta --file ${path} --home a --address 10.0.0.9/24 --limit memory_mb=none`,
    );
    expect(fake.changes[0]?.change).toMatchObject({
      name: "delta",
      server: { name: "delta", home: "a", addresses: ["10.0.0.102/24", "10.0.0.9/24"] },
    });
    expect(fake.changes[0]?.change.server?.limits).toEqual({ cpuWeight: 7, processes: 512 });
  });

  test("what show prints is what create reads", async () => {
    const shown = await dyad("vserver show alpha --toml");
    const path = file("alpha.toml", shown.out);
    await dyad(`vserver create --file ${path}`);
    expect(fake.changes[0]?.change.server).toEqual(fake.definitions[0]?.server);
  });

  test.each([
    [
      "misspelt key",
      `name = "gamma"\nadresses = []\n${toml}`,
      '2: adresses: unknown key "adresses"; did you mean addresses?',
    ],
    [
      "wrong value, in an entry",
      `[[virtual_servers]]\nname = "Gamma"\nhome = "b"\naddresses = ["10.0.0.1"]`,
      '2: virtual_servers[0].name: expected a lower-case name of at most 15 letters, digits or dashes; found "Gamma"',
    ],
    [
      "two of them",
      "[[virtual_servers]]\n[[virtual_servers]]",
      "1: virtual_servers: expected an array of at most 64 entries; found an array of 2",
    ],
    ["no TOML", "home =", '1: expected TOML, found "home ="'],
    ["no JSON", "{ home", "1: expected JSON: "],
    [
      "a configuration",
      'version = 1\n[[virtual_servers]]\nname = "x"',
      '1: version: unknown key "version"',
    ],
  ])("refuses a file with its line: %s", async (_, text, message) => {
    const path = file("bad.toml", text);
    const ran = await dyad(`vserver create --file ${path}`);
    expect(ran.code).toBe(1);
    expect(ran.err.split("\n").some((line) => line.startsWith(`dyad: ${path}:${message}`))).toBe(
      true,
    );
    expect(fake.changes).toEqual([]);
  });

  test.each([
    ["no name", "vserver create --address 10.0.0.1/24", 2, "expected the name"],
    ["no such file", "vserver create --file /no/such", 1, "/no/such: cannot be read"],
    ["a bad volume", "vserver create x --export data-3", 2, "expected DISK=EXPORT"],
    ["a bad route", "vserver create x --route default~by~me", 2, "expected DESTINATION"],
    ["a bad limit", "vserver create x --limit cpu=5", 2, "expected one of cpu_weight=VALUE"],
    [
      "a limit that nobody could be served with",
      `${createGamma} --limit processes=8`,
      2,
      "server.limits.processes: expected a whole number from 256 to 32768",
    ],
    ["a bad rule", "vserver create x --rule 10.0.0.0/24", 2, "expected PREFIX table NUMBER"],
    [
      "no address",
      "vserver create x --export d=/x",
      2,
      "server.addresses: expected an array of 1 to 8 entries",
    ],
    [
      "a bad name",
      createGamma.replace("gamma ", "Gamma "),
      2,
      "server.name: expected a lower-case name",
    ],
  ])("refuses %s", async (_, command, code, message) => {
    const ran = await dyad(command);
    expect(ran.code).toBe(code);
    expect(ran.err).toContain(message);
    expect(fake.changes).toEqual([]);
  });
});

describe("parts are changed for the definition that was read", () => {
  const server = () => fake.definitions[0]?.server;
  const [alphaRoute] = [{ to: "default", via: "10.0.0.1" }];
  test.each([
    [
      "address add alpha 10.0.0.7/24 fd00::7/64",
      { addresses: ["10.0.0.100/24", "10.0.0.7/24", "fd00::7/64"] },
    ],
    [
      "route add alpha 10.9.0.0/16 --via 10.0.0.2 --table 7",
      { routes: [alphaRoute, { to: "10.9.0.0/16", via: "10.0.0.2", table: 7 }] },
    ],
    ["route add alpha 10.9.0.0/16", { routes: [alphaRoute, { to: "10.9.0.0/16" }] }],
    ["route remove alpha default", { routes: [] }],
    ["rule add alpha 10.0.0.0/24 7", { rules: [{ from: "10.0.0.0/24", table: 7 }] }],
    [
      "export add alpha data-9 /nine",
      {
        volumes: [
          { id: 1, disk: "data-1", export: "/alpha" },
          { id: 2, disk: "data-9", export: "/nine" },
        ],
      },
    ],
    ["modify alpha --home b", { home: "b" }],
    [
      "limit set alpha cpu_weight=70 cpu_percent=none processes=none",
      { limits: { cpuWeight: 70, memoryMb: 2048, processes: 512, bandwidthMbit: 100 } },
    ],
  ])("%s", async (words, change) => {
    const ran = await dyad(`vserver ${words}`);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    expect(fake.changes).toMatchObject([
      {
        change: {
          action: "modify",
          name: "alpha",
          expectedSequence: 3,
          server: { ...server(), ...change },
        },
      },
    ]);
  });

  test("what is removed is named as it likes", async () => {
    const beta = fake.definitions[1];
    if (!beta) throw new Error("two definitions expected");
    beta.server.volumes.push({ id: 5, disk: "data-7", export: "/seven" });
    beta.server.rules.push({ from: "10.0.0.0/24", table: 7 }, { from: "10.0.0.0/24", table: 8 });
    for (const command of [
      "address remove beta FD00:0::101",
      "export remove beta /beta",
      "export remove beta data-2",
      "rule remove beta 10.0.0.0/24",
      "rule remove beta 10.0.0.0/24 8",
    ])
      expect(await dyad(`vserver ${command}`)).toMatchObject({ code: 0, err: "" });
    const asked = fake.changes.map(({ change }) => change.server);
    expect(asked[0]?.addresses).toEqual(["10.0.0.101/24"]);
    for (const each of asked.slice(1, 3))
      expect(each?.volumes).toEqual([{ id: 5, disk: "data-7", export: "/seven" }]);
    expect(asked[3]?.rules).toEqual([]);
    expect(asked[4]?.rules).toEqual([{ from: "10.0.0.0/24", table: 7 }]);
  });

  test.each([
    ["address add alpha 10.0.0.100/16", "alpha has the address 10.0.0.100/16 already"],
    ["address remove alpha 10.0.0.9", "alpha has no address 10.0.0.9; it has 10.0.0.100/24"],
    ["route add alpha default --via 10.0.0.1", "alpha has the route default via 10.0.0.1 already"],
    [
      "route remove alpha default --table 7",
      "alpha has no route default table 7; it has default via 10.0.0.1",
    ],
    ["rule remove alpha 10.0.0.0/24", "alpha has no such rule; it has none"],
    ["export add alpha data-1 /other", "alpha has the disk data-1 as /alpha already"],
    ["export remove alpha /beta", "alpha has no export /beta; it has /alpha (disk data-1)"],
    [
      "limit set alpha cpu=5",
      "expected one of cpu_weight=VALUE, cpu_percent=VALUE, memory_mb=VALUE, processes=VALUE, bandwidth_mbit=VALUE; found cpu=5",
    ],
    [
      "limit set alpha memory_mb=1",
      "server.limits.memoryMb: expected a whole number from 64 to 1048576",
    ],
    [
      "limit set alpha cpu_percent=much",
      "server.limits.cpuPercent: expected a whole number from 5 to 25600",
    ],
    ["address add delta 10.0.0.9/24", "expected the name of a virtual server, found delta"],
    [
      "modify alpha",
      "expected --file or --home; parts are changed by address, route, rule, export, share, user and limit",
    ],
  ])("%s is refused", async (words, message) => {
    const ran = await dyad(`vserver ${words}`);
    expect([ran.code, ran.err]).toEqual([expect.any(Number), `dyad: ${message}\n`]);
    expect([1, 2]).toContain(ran.code);
    expect(fake.changes).toEqual([]);
  });

  test("one of several routes has to be named", async () => {
    const alpha = fake.definitions[0];
    alpha?.server.routes.push({ to: "default", via: "10.0.0.2", table: 7 });
    const ran = await dyad("vserver route remove alpha default");
    expect(ran.err).toContain(
      "default may be any of: default via 10.0.0.1; default via 10.0.0.2 table 7",
    );
    expect((await dyad("vserver route remove alpha default --table 7")).code).toBe(0);
    expect(fake.changes[0]?.change.server?.routes).toEqual([alphaRoute]);
  });
});

test.each(["start", "stop", "delete"])("%s, for the definition that was read", async (action) => {
  expect((await dyad(`vserver ${action} alpha`)).code).toBe(0);
  expect(fake.changes).toMatchObject([{ change: { action, name: "alpha", expectedSequence: 3 } }]);
});

describe("a refusal", () => {
  test("that belongs to the other controller says where to give the command", async () => {
    refuse(hard("notHere", "beta is changed at controller b: ask there"));
    const ran = await dyad("vserver stop beta");
    expect([ran.code, ran.out]).toEqual([4, ""]);
    await expect(ran.err).toMatchFileSnapshot(golden("vserver-stop-not-here"));
    const json = await dyad("-o json vserver stop beta");
    expect([json.code, json.err]).toEqual([4, ""]);
    expect(jsonLines(json.out)).toMatchObject([{ accepted: false, vetoes: [{ code: "notHere" }] }]);
  });

  test("because somebody else was first says to look again", async () => {
    refuse(hard("changed", "alpha has been changed: its definition is 4, not 3"));
    const ran = await dyad("vserver address add alpha 10.0.0.7/24");
    expect(ran.code).toBe(75);
    await expect(ran.err).toMatchFileSnapshot(golden("vserver-changed"));
  });

  test("of a conflict names each key", async () => {
    refuse(
      hard("conflict", "addresses[0]: address 10.0.0.102 is already used by beta"),
      hard("conflict", "volumes[0].disk: disk data-3 is already used by shelf.coordinators"),
    );
    const ran = await dyad(createGamma);
    expect(ran.code).toBe(4);
    await expect(ran.err).toMatchFileSnapshot(golden("vserver-create-conflict"));
  });

  test("that is soft can be forced, with a reason and a yes", async () => {
    refuse({
      code: "notStopped",
      severity: "soft",
      message: "alpha is not stopped: it would be stopped first",
    });
    const ran = await dyad("vserver delete alpha");
    expect(ran.err).toContain("--force --reason TEXT overrides them");
    expect((await dyad("vserver delete alpha --force --yes")).code).toBe(2);
    const asked = await dyad("vserver delete alpha --force --reason over", {
      interactive: true,
      answer: "no",
    });
    expect(asked.asked).toContain("Force delete alpha over soft vetoes?");
    expect(fake.changes).toHaveLength(1);
    await dyad("vserver delete alpha --force --reason over --yes");
    expect(fake.changes[1]?.request).toMatchObject({ force: true, reason: "over" });
  });
});

describe("--wait", () => {
  type Server = Status["virtualServers"][number];
  const beta = () => fake.status.virtualServers[1];

  /** What each look at the status shows in place of beta; the last for ever. */
  function shows(...steps: (Partial<Server> | undefined)[]): void {
    fake.answer = async (action) => {
      const base = healthyStatus();
      const [alpha, second] = base.virtualServers;
      if (!alpha || !second) throw new Error("two servers expected");
      let looks = 0;
      Object.defineProperty(fake, "status", {
        configurable: true,
        get: () => {
          const step = steps[Math.min(looks, steps.length - 1)];
          looks += 1;
          return { ...base, virtualServers: [alpha, ...(step ? [{ ...second, ...step }] : [])] };
        },
      });
      const plan = [{ virtualServer: "gamma", action, predictedMs: 60 }];
      return { accepted: true, vetoes: [], plan };
    };
  }

  test("stays until one that is created is served, and tells each step", async () => {
    const name = "gamma";
    shows(
      undefined,
      { name, state: "nowhere", owner: "none" },
      { name, state: "starting", step: "mount", owner: "a" },
      { name, state: "serving", owner: "a" },
    );
    const ran = await dyad(`${createGamma} --wait`);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    await expect(ran.out).toMatchFileSnapshot(golden("vserver-create-wait"));
  });

  test("stays until one is stopped, or gone", async () => {
    shows({ state: "stopping" }, { state: "stopped", owner: "none" });
    expect((await dyad("vserver stop beta --wait")).out).toContain(
      "beta: stopped\nstop beta done\n",
    );
    shows({ state: "stopped", owner: "none" }, undefined);
    expect((await dyad("vserver delete beta --wait")).out).toContain(
      "beta: gone\ndelete beta done\n",
    );
  });

  test("stays until what is served is what was asked for", async () => {
    const addresses = [...(beta()?.addresses ?? []), "10.0.0.7/24"];
    shows({}, { addresses, state: "starting" }, { addresses });
    const ran = await dyad("vserver address add beta 10.0.0.7/24 --wait");
    expect([ran.code, ran.out.endsWith("modify beta done\n")]).toEqual([0, true]);
  });

  test("stays until the limits that were asked for are in force", async () => {
    const limits = { cpuWeight: 100, memoryMb: 512, processes: 512 };
    shows({}, {}, { limits });
    const ran = await dyad("vserver limit set beta memory_mb=512 processes=none --wait");
    expect([ran.code, ran.out.endsWith("modify beta done\n")]).toEqual([0, true]);
  });

  test("tells a failure, and what does not end", async () => {
    shows({ state: "failed", fault: "mount: no file system" });
    const failed = await dyad("vserver start beta --wait 5");
    expect([failed.code, failed.err]).toEqual([1, "dyad: beta failed: mount: no file system\n"]);
    shows({ state: "serving" });
    const late = await dyad("-o json vserver stop beta --wait 1");
    expect(late.code).toBe(1);
    expect(jsonLines(late.out)).toMatchObject([{ error: { code: "timeout" } }]);
  });
});
