/** The one-machine world without its controllers: what a machine, a cable and a shelf do when they are cut, frozen and switched off. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { link, serial, split } from "../../bench/faults/cables.ts";
import { run } from "../../bench/world/exec.ts";
import { brokerAddress, dataAddress, interconnectAddress } from "../../bench/world/layout.ts";
import { listLoops, loopsBelow } from "../../bench/world/loops.ts";
import { portsOf } from "../../bench/world/network.ts";
import { mqttUser, planPaths } from "../../bench/world/plan.ts";
import { cleanPrefix, World } from "../../bench/world/world.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { leftovers } from "./support/leftovers.ts";

const prefix = "bworld";
let world: World;

beforeAll(async () => {
  // What a run left that was killed as a whole.
  await cleanPrefix(prefix);
  world = await World.start({ prefix, withoutControllers: true, tls: true });
});
afterAll(async () => {
  await world.stop();
  expect(await leftovers(prefix)).toEqual([]);
});

/** Runs a program in a namespace of the world; its output, or undefined when it fails. */
function inside(namespace: string, ...words: string[]): string | undefined {
  try {
    return execFileSync("nsenter", [`--net=/run/netns/${namespace}`, ...words], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } catch {
    return undefined;
  }
}

const client = `${prefix}-c1`;
/** One ARP question and half a second for its answer: the kernel itself must answer. */
const reachesNow = (namespace: string, nic: string, address: string) =>
  inside(namespace, "arping", "-f", "-c", "1", "-w", "1", "-I", nic, address) !== undefined;

/** A bridge takes a moment to forward again after a cable was put in. */
async function reaches(namespace: string, nic: string, address: string): Promise<boolean> {
  for (let i = 0; i < 30; i++) if (reachesNow(namespace, nic, address)) return true;
  return false;
}

async function carrier(nic: string): Promise<boolean> {
  const text = await run("ip", ["-n", `${prefix}-a`, "-j", "link", "show", nic]);
  return !text.includes("NO-CARRIER");
}

describe("network", () => {
  it("refuses a second world of the same name while this one lives", async () => {
    await expect(World.start({ prefix, withoutControllers: true })).rejects.toMatchObject({
      code: "alreadyRunning",
    });
    expect(await reaches(client, "eth0", dataAddress("a"))).toBe(true);
  });

  it("pulls the data cable so that the controller sees it, and puts it back", async () => {
    await link.inject(world, "a");
    await until("no carrier", async () => !(await carrier("eth0")));
    expect(reachesNow(client, "eth0", dataAddress("a"))).toBe(false);
    await link.repair(world, "a");
    await until("carrier", () => carrier("eth0"));
    expect(await reaches(client, "eth0", dataAddress("a"))).toBe(true);
  });

  it("stops forwarding without either end noticing", async () => {
    await world.network.setForwarding(portsOf("a"), false);
    expect(await carrier("eth0")).toBe(true);
    expect(reachesNow(client, "eth0", dataAddress("a"))).toBe(false);
    await world.network.setForwarding(portsOf("a"), true);
    expect(await reaches(client, "eth0", dataAddress("a"))).toBe(true);
  });

  it("splits the pair and leaves clients and shelf", async () => {
    await split.inject(world, "a");
    expect(inside(`${prefix}-a`, "ip", "-j", "link", "show", "ic0")).toContain("NO-CARRIER");
    expect(await reaches(client, "eth0", dataAddress("a"))).toBe(true);
    const { faults } = await world.shelf.command({ fault: "list" });
    expect(faults).toHaveLength(2);
    await split.repair(world, "a");
    expect(await world.shelf.command({ fault: "list" })).toMatchObject({ faults: [] });
    expect(await reaches(`${prefix}-a`, "ic0", interconnectAddress("b"))).toBe(true);
  });
});

describe("serial cable", () => {
  it("carries bytes, and none while it is cut", async () => {
    const { serial: ends } = planPaths(world.layout);
    const heard: string[] = [];
    const listener = world.processes.start({
      role: "listener",
      cgroup: world.infra,
      argv: ["sh", "-c", `while read -r line; do echo "$line"; done <${ends.b}`],
      onLine: (line) => heard.push(line),
    });
    const say = (text: string) => writeFileSync(ends.a, `${text}\n`);
    say("one");
    await until("the first line", () => heard.includes("one"));
    await serial.inject(world, "a");
    say("two");
    await until("its loss", async () => (await world.serial.set("cut")).dropped >= 4);
    await serial.repair(world, "a");
    say("three");
    await until("the third line", () => heard.includes("three"));
    expect(heard).toEqual(["one", "three"]);
    const { carried } = await world.serial.set("corrupt");
    say("four");
    const through = async () => (await world.serial.set("corrupt")).carried >= carried + 5;
    await until("its passage", through);
    await world.serial.set("pass");
    say("five");
    await until("another line", () => heard.length > 2);
    expect(heard).not.toContain("four");
    listener.child.kill("SIGKILL");
    await listener.ended;
  });
});

describe("a controller as a machine", () => {
  it("keeps its mounts and loop devices from the host and loses them with its power", async () => {
    const machine = world.machines.b;
    const { runDir, stateDir } = machine.paths;
    writeFileSync(join(stateDir, "kept"), "state");
    const script = `truncate -s 16M ${runDir}/disk
      mkdir ${runDir}/volume; mount -t tmpfs tmpfs ${runDir}/volume
      losetup -f ${runDir}/disk; touch ${runDir}/volume/there; exec sleep infinity`;
    const work = machine.start("work", ["sh", "-ec", script]);
    await until("loop device", () => loopsBelow(runDir).length > 0);
    const loop = loopsBelow(runDir)[0];
    expect(existsSync(join(runDir, "volume/there"))).toBe(false);
    expect(existsSync(`/proc/${work.pid}/root${runDir}/volume`)).toBe(true);

    const gone = machine.powerOff();
    // Its holder must be the last to leave the mount namespace.
    expect(machine.powered).toBe(true);
    await gone();
    expect(machine.powered).toBe(false);
    expect(work.alive()).toBe(false);
    expect(machine.cgroup.processes()).toEqual([]);
    expect(listLoops().map((each) => each.device)).not.toContain(loop?.device);

    await world.network.renew("b");
    await machine.powerOn();
    expect(existsSync(join(runDir, "disk"))).toBe(false);
    expect(readFileSync(join(stateDir, "kept"), "utf8")).toBe("state");
    expect(reachesNow(client, "eth0", dataAddress("b"))).toBe(false);
    await world.network.setForwarding(portsOf("b"), true);
    expect(await reaches(client, "eth0", dataAddress("b"))).toBe(true);
  });

  it("stands still as a whole while it is frozen", async () => {
    const machine = world.machines.a;
    let ticks = 0;
    const clock = machine.start("clock", ["sh", "-c", "while :; do echo; sleep 0.01; done"], {
      onLine: () => {
        ticks += 1;
      },
    });
    await until("ticks", () => ticks > 5);
    machine.freeze();
    const events = () => readFileSync(join(machine.cgroup.path, "cgroup.events"), "utf8");
    await until("frozen", () => events().includes("frozen 1"));
    // What it said before that may still be on its way here; a machine that is not frozen would never be quiet.
    let before = ticks;
    await until("quiet", async () => {
      before = ticks;
      await new Promise((resolve) => setTimeout(resolve, 300));
      return ticks === before;
    });
    expect(await reaches(client, "eth0", dataAddress("a"))).toBe(true);
    expect(ticks).toBe(before);
    machine.thaw();
    await until("ticks again", () => ticks > before + 5);
    machine.kill();
    await clock.ended;
  });

  it("loses a process, too, that joins it only after the kill", async () => {
    const machine = world.machines.a;
    machine.kill();
    const late = machine.start("late", ["sleep", "infinity"]);
    await until("joined", () => machine.cgroup.processes().includes(late.pid));
    await machine.cgroup.empty(limitsMs.condition);
    await late.ended;
    expect(machine.cgroup.processes()).toEqual([]);
  });

  it("gives its processes real-time priority when they ask", async () => {
    const said: string[] = [];
    const child = world.machines.a.start("chrt", ["chrt", "-f", "10", "chrt", "-p", "0"], {
      onLine: (line) => said.push(line),
    });
    await child.ended;
    await until("its words", () => said.length > 1);
    expect(said.join(" ")).toContain("SCHED_FIFO");
  });

  it("does not hold on to mounts that are others'", () => {
    mkdirSync(join(world.layout.baseDir, "seen"), { recursive: true });
    const mounts = execFileSync("nsenter", [
      ...world.machines.a.enterWords().slice(1, -1),
      "cat",
      "/proc/self/mountinfo",
    ]).toString();
    expect(mounts).not.toMatch(/ - (nsfs|fuse\S*|\S+ \/dev\/loop\d+) /);
  });
});

describe("broker", () => {
  const publish = (...more: string[]) =>
    inside(
      `${prefix}-a`,
      ...["mosquitto_pub", "-h", brokerAddress, "-p", "8883", "-t", "test", "-m", "hello"],
      ...more,
    );

  it("takes the password over TLS and nothing less", async () => {
    const { caFile, passwordFile } = planPaths(world.layout);
    const password = readFileSync(passwordFile, "utf8");
    const right = ["--cafile", caFile, "-u", mqttUser, "-P", password];
    await until("the broker", () => publish(...right) !== undefined);
    expect(publish("--cafile", caFile, "-u", mqttUser, "-P", "wrong")).toBeUndefined();
    expect(publish("-u", mqttUser, "-P", password)).toBeUndefined();
  });
});
