/** Limits of virtual servers, in this kernel's control groups: they hold, they change while programs run, and nothing of an earlier life is left. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { LimitsConfig } from "../../firmware-ts/schema/config.ts";
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

  const open = () => openControlGroups({ parent, names, timeoutMs: limitsMs.condition });

  beforeAll(async () => {
    goBack = moveToOwnGroup();
    groups = await open();
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
  const start = (name: string, ...words: string[]): ChildProcess => {
    const join = 'for group in $1; do echo 0 > "$group"; done; shift; exec "$@"';
    const paths = groups.joinPaths(name).join(" ");
    const child = spawn("sh", ["-ec", join, "sh", paths, ...words], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    children.push(child);
    return child;
  };
  const endOf = (child: ChildProcess) =>
    new Promise<number | NodeJS.Signals | null>((resolve) =>
      child.once("exit", (code, signal) => resolve(signal ?? code)),
    );
  const has = (name: string, count: number) =>
    until(`${count} processes in ${name}`, () => (groups.usage(name).processes ?? 0) >= count);
  const limit = (name: string, limits: Partial<LimitsConfig>) =>
    expect(groups.limit(name, { ...defaults, ...limits })).toEqual({ ok: true, value: undefined });

  test("this kernel has all that limits need; whatever is left out is told with its keys", () => {
    expect(groups.left.ok).toBe(true);
    expect(groups.without).toEqual([]);
  });

  test("a program that joins is counted, with its children; who does not join is not", async () => {
    limit("one", {});
    limit("two", {});
    expect(groups.usage("one").processes).toBe(0);
    start("one", "sh", "-c", "sleep 1000 & sleep 1000 & wait");
    await has("one", 3);
    expect(groups.usage("two").processes).toBe(0);
    const own = readFileSync("/proc/self/cgroup", "utf8");
    expect(own).not.toContain(`${parent}/`);
  });

  test("a program that makes more processes than it may gets none, and its group says how often", async () => {
    limit("one", { processes: 256 });
    const forever = 'while :; do sleep 1000 & done 2>/dev/null; echo "never"';
    start("one", "bash", "-c", forever);
    await until("a fork was refused", () => (groups.usage("one").forksRefused ?? 0) > 0);
    expect(groups.usage("one").processes).toBeLessThanOrEqual(256);
    // The one beside it makes as many as it likes.
    limit("two", {});
    expect(await endOf(start("two", "sh", "-c", "sleep 0 & wait"))).toBe(0);
  });

  test("a limit of processes is changed while programs run", async () => {
    limit("one", { processes: 256 });
    start("one", "bash", "-c", "while :; do sleep 1000 & done 2>/dev/null");
    await until("a fork was refused", () => (groups.usage("one").forksRefused ?? 0) > 0);
    limit("one", { processes: 300 });
    await has("one", 290);
    expect(groups.usage("one").processes).toBeLessThanOrEqual(300);
  });

  test("processor time is bounded, by a share that can be changed and taken away", async () => {
    limit("one", { cpuPercent: 10 });
    start("one", "sh", "-c", "while :; do :; done");
    await has("one", 1);
    /** Processor time by wall time, over half a second of the former or 2 of the latter. */
    const share = async () => {
      const used = () => groups.usage("one").cpuSeconds ?? 0;
      const [before, beganAt] = [used(), performance.now()];
      const pastS = () => (performance.now() - beganAt) / 1000;
      await until("it has run", () => used() - before >= 0.5 || pastS() >= 2);
      return (used() - before) / pastS();
    };
    // A timer of the kernel's tick may be late, and makes up for it in the next period.
    expect(await share()).toBeLessThan(0.15);
    expect(groups.usage("one").throttledSeconds).toBeGreaterThan(0);
    limit("one", {});
    const throttled = groups.usage("one").throttledSeconds;
    // How much more it gets is the machine's; it is not throttled any more.
    await share();
    expect(groups.usage("one").throttledSeconds).toBe(throttled);
  });

  test("memory is bounded: who takes more is killed, and nobody else", async () => {
    limit("one", { memoryMb: 64 });
    limit("two", { memoryMb: 64 });
    const bystander = start("two", "sleep", "1000");
    const hog = start("one", "sh", "-c", "head -c 200M /dev/zero | tail -c 200M | wc -c");
    await endOf(hog);
    expect(groups.usage("one").oomKills).toBeGreaterThan(0);
    expect(groups.usage("two").oomKills).toBe(0);
    expect(bystander.exitCode ?? bystander.signalCode).toBeNull();
    limit("one", {});
    const free = start("one", "sh", "-c", "head -c 200M /dev/zero | tail -c 200M | wc -c");
    const lines: string[] = [];
    if (free.stdout) createInterface({ input: free.stdout }).on("line", (line) => lines.push(line));
    expect(await endOf(free)).toBe(0);
    await until("it had room", () => lines[0] === String(200 * 1024 * 1024));
  });

  test("what runs in it is ended, but what is to be kept; even a fork bomb", async () => {
    limit("one", {});
    const kept = start("one", "sleep", "1000");
    start("one", "bash", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000");
    await has("one", 100);
    const keep = () => [kept.pid ?? 0];
    expect((await groups.empty("one", keep, limitsMs.condition)).ok).toBe(true);
    expect(kept.exitCode ?? kept.signalCode).toBeNull();
    await until("the others are gone", () => groups.usage("one").processes === 1);
    // And it may make processes again.
    expect(await endOf(start("one", "sh", "-c", "sleep 0 & wait"))).toBe(0);
  });

  test("to find nothing costs next to nothing: a stop looks whether something is left", async () => {
    limit("one", {});
    const kept = start("one", "sleep", "1000");
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
    limit("two", { processes: 300 });
    const [first = ""] = groups.joinPaths("two");
    await until("it is removed", async () => (await removeControlGroups(parent, 1000)).ok);
    expect(existsSync(first)).toBe(false);
    expect(groups.joinPaths("two")).toContain(first);
    expect(existsSync(first)).toBe(true);
    expect(await endOf(start("two", "true"))).toBe(0);
  });

  test("the next life ends what the last one left, also of virtual servers that are no more", async () => {
    limit("one", { cpuPercent: 5 });
    limit("gone", {});
    const left = [start("one", "sleep", "1000"), start("gone", "sleep", "1000")];
    await has("one", 1);
    await has("gone", 1);
    const [gone = ""] = groups.joinPaths("gone");
    const next = await open();
    expect(next.left.ok).toBe(true);
    for (const child of left) await until("it was killed", () => child.signalCode === "SIGKILL");
    expect(existsSync(gone)).toBe(false);
    // Whoever has no limit in the new configuration has none.
    expect(next.limit("one", defaults).ok).toBe(true);
    groups = next;
    start("one", "sh", "-c", "while :; do :; done");
    await has("one", 1);
    await until("it has run", () => (groups.usage("one").cpuSeconds ?? 0) > 0.1);
    const throttled = groups.usage("one").throttledSeconds;
    await until("it has run on", () => (groups.usage("one").cpuSeconds ?? 0) > 0.3);
    expect(groups.usage("one").throttledSeconds).toBe(throttled);
  });
});
