/** Limits of virtual servers, in this kernel's control groups: they hold, they change while programs run, and nothing of an earlier life is left. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { LimitsConfig } from "../../firmware-ts/schema/config.ts";
import { done } from "../../firmware-ts/schema/outcome.ts";
import type { UsageStatus } from "../../firmware-ts/schema/status.ts";
import {
  type ControlGroups,
  openControlGroups,
  removeControlGroups,
} from "../../hal/linux/control-groups/groups.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { endProcess, isAlive, rootMissing } from "./support/namespaces.ts";
import { moveToOwnGroup } from "./support/own-group.ts";

const parent = `dyadtest-groups-${process.pid}`;
const names = new Set(["one", "two"]);
const defaults: LimitsConfig = { cpuWeight: 100, processes: 512 };

describe.skipIf(rootMissing)("control groups", () => {
  let goBack: () => void;
  let groups: ControlGroups;
  const children: ChildProcess[] = [];

  const open = () => openControlGroups(parent);

  beforeAll(() => {
    goBack = moveToOwnGroup();
    groups = open();
  });
  afterEach(async () => {
    for (const name of names) await groups.empty(name, () => [], limitsMs.condition);
    for (const child of children.splice(0)) await endProcess(child);
  });
  afterAll(async () => {
    await until("the groups are removed", async () => {
      return (await removeControlGroups(parent, limitsMs.condition)).ok;
    });
    goBack();
  });

  /** Runs a program in a group as `enter.c` does: it joins before it becomes that program. */
  const start = async (name: string, ...words: string[]): Promise<ChildProcess> => {
    const join = 'for group in $1; do echo 0 > "$group"; done; shift; exec "$@"';
    const paths = (await groups.joinPaths(name)).join(" ");
    const child = spawn("sh", ["-ec", join, "sh", paths, ...words], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    children.push(child);
    return child;
  };
  const usage = (name: string): UsageStatus => {
    const used = groups.usage(name);
    if (!used) throw new Error(`${name} was never limited`);
    return used;
  };
  const endOf = (child: ChildProcess) =>
    new Promise<number | NodeJS.Signals | null>((resolve) =>
      child.once("exit", (code, signal) => resolve(signal ?? code)),
    );
  const has = (name: string, count: number) =>
    until(`${count} processes in ${name}`, () => (usage(name).processes ?? 0) >= count);
  const limit = async (name: string, limits: Partial<LimitsConfig>) =>
    expect(await groups.limit(name, { ...defaults, ...limits })).toEqual(done);

  test("this kernel has all that limits need; whatever is left out is told with its keys", () => {
    expect(groups.without).toEqual([]);
  });

  test("a program that joins is counted, with its children; who does not join is not", async () => {
    await limit("one", {});
    await limit("two", {});
    expect(usage("one").processes).toBe(0);
    await start("one", "sh", "-c", "sleep 1000 & sleep 1000 & wait");
    await has("one", 3);
    expect(usage("two").processes).toBe(0);
    const own = readFileSync("/proc/self/cgroup", "utf8");
    expect(own).not.toContain(`${parent}/`);
  });

  test("a program that makes more processes than it may gets none, and its group says how often", async () => {
    await limit("one", { processes: 256 });
    const forever = 'while :; do sleep 1000 & done 2>/dev/null; echo "never"';
    await start("one", "bash", "-c", forever);
    await until("a fork was refused", () => (usage("one").forksRefused ?? 0) > 0);
    expect(usage("one").processes).toBeLessThanOrEqual(256);
    // The one beside it makes as many as it likes.
    await limit("two", {});
    expect(await endOf(await start("two", "sh", "-c", "sleep 0 & wait"))).toBe(0);
  });

  test("a limit of processes is changed while programs run", async () => {
    await limit("one", { processes: 256 });
    await start("one", "bash", "-c", "while :; do sleep 1000 & done 2>/dev/null");
    await until("a fork was refused", () => (usage("one").forksRefused ?? 0) > 0);
    await limit("one", { processes: 300 });
    await has("one", 290);
    expect(usage("one").processes).toBeLessThanOrEqual(300);
  });

  test("processor time is bounded, by a share that can be changed and taken away", async () => {
    await limit("one", { cpuPercent: 10 });
    await start("one", "sh", "-c", "while :; do :; done");
    await has("one", 1);
    /** Processor time by wall time, over half a second of the former or 2 of the latter. */
    const share = async () => {
      const used = () => usage("one").cpuSeconds ?? 0;
      const [before, beganAt] = [used(), performance.now()];
      const pastS = () => (performance.now() - beganAt) / 1000;
      await until("it has run", () => used() - before >= 0.5 || pastS() >= 2);
      return (used() - before) / pastS();
    };
    // A timer of the kernel's tick may be late, and makes up for it in the next period.
    expect(await share()).toBeLessThan(0.15);
    expect(usage("one").throttledSeconds).toBeGreaterThan(0);
    await limit("one", {});
    const throttled = usage("one").throttledSeconds;
    // How much more it gets is the machine's; it is not throttled any more.
    await share();
    expect(usage("one").throttledSeconds).toBe(throttled);
  });

  test("memory is bounded: who takes more is killed, and nobody else", async () => {
    await limit("one", { memoryMb: 64 });
    await limit("two", { memoryMb: 64 });
    const bystander = await start("two", "sleep", "1000");
    const hog = await start("one", "sh", "-c", "head -c 200M /dev/zero | tail -c 200M | wc -c");
    await endOf(hog);
    expect(usage("one").oomKills).toBeGreaterThan(0);
    expect(usage("two").oomKills).toBe(0);
    expect(bystander.exitCode ?? bystander.signalCode).toBeNull();
    await limit("one", {});
    const free = await start("one", "sh", "-c", "head -c 200M /dev/zero | tail -c 200M | wc -c");
    const lines: string[] = [];
    if (free.stdout) createInterface({ input: free.stdout }).on("line", (line) => lines.push(line));
    expect(await endOf(free)).toBe(0);
    await until("it had room", () => lines[0] === String(200 * 1024 * 1024));
  });

  test("less memory than a running program holds is refused or costs it its life, and is said either way", async () => {
    await limit("one", {});
    const hold = 'held=$(head -c 100M /dev/zero | tr "\\0" x); echo held; sleep 1000';
    const holder = await start("one", "sh", "-c", hold);
    await until("it holds its memory", () => (usage("one").memoryMb ?? 0) >= 100);
    const beganAt = performance.now();
    const outcome = await groups.limit("one", { ...defaults, memoryMb: 64, processes: 300 });
    console.log(`less memory than is held: ${(performance.now() - beganAt).toFixed(1)} ms`);
    // Version 1 refuses (EBUSY) after a search for memory to give back, version 2 kills.
    if (outcome.ok) await until("it was killed", () => (usage("one").oomKills ?? 0) > 0);
    else {
      expect(outcome.fault.code).toBe("ioError");
      expect(isAlive(holder.pid ?? 0)).toBe(true);
    }
    // What could be set is set.
    const [pids = ""] = (await groups.joinPaths("one")).filter((path) => path.includes("pids"));
    if (pids) expect(readFileSync(join(dirname(pids), "pids.max"), "utf8")).toBe("300\n");
    await groups.empty("one", () => [], limitsMs.condition);
    await limit("one", { memoryMb: 64 });
  });

  test("what runs in it is ended, but what is to be kept; even a fork bomb", async () => {
    await limit("one", {});
    const kept = await start("one", "sleep", "1000");
    await start("one", "bash", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000");
    await has("one", 100);
    const keep = () => [kept.pid ?? 0];
    expect((await groups.empty("one", keep, limitsMs.condition)).ok).toBe(true);
    expect(kept.exitCode ?? kept.signalCode).toBeNull();
    await until("the others are gone", () => usage("one").processes === 1);
    // And it may make processes again.
    expect(await endOf(await start("one", "sh", "-c", "sleep 0 & wait"))).toBe(0);
  });

  test("while a fork bomb goes off its group yields the processors, and has its weight again afterwards", async () => {
    await limit("one", { cpuWeight: 70, processes: 256 });
    const [path = ""] = (await groups.joinPaths("one"))
      .map((each) => join(dirname(each), "cpu.idle"))
      .filter(existsSync);
    const weight = () =>
      ["cpu.shares", "cpu.weight"]
        .map((file) => join(dirname(path), file))
        .filter(existsSync)
        .map((each) => readFileSync(each, "utf8").trim());
    const before = weight();
    const changes: string[] = [];
    groups.watch((name, isYielding) => changes.push(`${name} ${isYielding}`));
    await start("one", "bash", "-c", "bomb() { bomb | bomb & }; while :; do bomb; done");
    await until("it yields", () => readFileSync(path, "utf8").trim() === "1");
    // Other limits are set meanwhile, and hold.
    await limit("one", { cpuWeight: 70, cpuPercent: 80, processes: 256 });
    await groups.empty("one", () => [], limitsMs.condition);
    await until("that is over", () => readFileSync(path, "utf8").trim() === "0");
    expect(changes).toEqual(["one true", "one false"]);
    expect(weight()).toEqual(before);
    groups.close();
  });

  test("to find nothing costs next to nothing: a stop looks whether something is left", async () => {
    await limit("one", {});
    const kept = await start("one", "sleep", "1000");
    await has("one", 1);
    const costsMs: number[] = [];
    for (let i = 0; i < 50; i += 1) {
      const beganAt = performance.now();
      expect((await groups.empty("one", () => [kept.pid ?? 0], 0)).ok).toBe(true);
      costsMs.push(performance.now() - beganAt);
    }
    const least = Math.min(...costsMs);
    console.log(`a look into a group: ${least.toFixed(3)} ms at least`);
    expect(isAlive(kept.pid ?? 0)).toBe(true);
  });

  test("a group that somebody has removed is there again for the next program", async () => {
    await limit("two", { processes: 300 });
    const [first = ""] = await groups.joinPaths("two");
    await until("it is removed", async () => (await removeControlGroups(parent, 1000)).ok);
    expect(existsSync(first)).toBe(false);
    expect(await groups.joinPaths("two")).toContain(first);
    expect(existsSync(first)).toBe(true);
    expect(await endOf(await start("two", "true"))).toBe(0);
  });

  test("one that goes takes its programs and its group along, and may be asked to go again", async () => {
    await limit("gone", { cpuPercent: 50 });
    const [path = ""] = await groups.joinPaths("gone");
    const program = await start("gone", "sleep", "1000");
    await has("gone", 1);
    for (let twice = 0; twice < 2; twice += 1) {
      expect(await groups.forget("gone", limitsMs.condition)).toEqual(done);
      expect(existsSync(path)).toBe(false);
      expect(groups.usage("gone")).toBeUndefined();
      expect(await groups.joinPaths("gone")).toEqual([]);
    }
    await until("it was killed", () => program.signalCode === "SIGKILL");
  });

  test("the next life ends what the last one left, also of virtual servers that are no more", async () => {
    await limit("one", { cpuPercent: 5 });
    await limit("gone", {});
    const left = [await start("one", "sleep", "1000"), await start("gone", "sleep", "1000")];
    await has("one", 1);
    await has("gone", 1);
    const [gone = ""] = await groups.joinPaths("gone");
    const next = open();
    expect(await next.emptyAll(limitsMs.condition)).toEqual(done);
    for (const child of left) await until("it was killed", () => child.signalCode === "SIGKILL");
    // Whoever has no limit any more has none.
    expect(await next.limit("one", defaults)).toEqual(done);
    expect(existsSync(gone)).toBe(true);
    await next.prune();
    expect(existsSync(gone)).toBe(false);
    groups = next;
    await start("one", "sh", "-c", "while :; do :; done");
    await has("one", 1);
    await until("it has run", () => (usage("one").cpuSeconds ?? 0) > 0.1);
    const throttled = usage("one").throttledSeconds;
    await until("it has run on", () => (usage("one").cpuSeconds ?? 0) > 0.3);
    expect(usage("one").throttledSeconds).toBe(throttled);
  });
});
