/** Limits of a virtual server in the words of control groups: which tree has what, what is written, and what is read (cgroups(7)). */
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { LimitsConfig } from "../../firmware-ts/schema/config.ts";
import { ControlGroup } from "../../hal/linux/control-groups/group.ts";
import { openControlGroups } from "../../hal/linux/control-groups/groups.ts";
import { hierarchiesIn, unifiedIn } from "../../hal/linux/control-groups/hierarchies.ts";
import { idleSetting, settingsOf, weightSetting } from "../../hal/linux/control-groups/settings.ts";
import { usageIn } from "../../hal/linux/control-groups/usage.ts";
import { lookAt, lookMs, type Yielding } from "../../hal/linux/control-groups/yielding.ts";
import { receivingOf, sendingOf } from "../../hal/linux/place/bandwidth.ts";

const line = (path: string, tail: string, root = "/") => `30 25 0:26 ${root} ${path} rw - ${tail}`;
const new2 = line("/sys/fs/cgroup", "cgroup2 cgroup2 rw,nsdelegate");
const beside = line("/sys/fs/cgroup/unified", "cgroup2 cgroup2 rw");
const old = ["cpu,cpuacct", "memory", "pids"].map((options) =>
  line(`/sys/fs/cgroup/${options}`, `cgroup cgroup rw,${options}`),
);
const freezer = line("/sys/fs/cgroup/freezer", "cgroup cgroup rw,freezer");
const other = line("/tmp", "tmpfs tmpfs rw");

describe("the trees of this kernel", () => {
  const own = "0::/system.slice/dyad.service\n";

  test("version 2: all in one folder, that of the service", () => {
    const unified = unifiedIn([other, new2].join("\n"), own);
    expect(unified).toEqual({ path: "/sys/fs/cgroup/system.slice/dyad.service", isRoot: false });
    const here = { version: 2, path: unified?.path };
    expect(hierarchiesIn(new2, unified, ["cpuset", "cpu", "io", "memory", "pids"])).toEqual({
      cpu: here,
      cpuacct: here,
      memory: here,
      pids: here,
    });
  });

  test("version 2: a firmware that was started in its own leaf has its service above it", () => {
    expect(unifiedIn(new2, "0::/system.slice/dyad.service/firmware\n")?.path).toBe(
      "/sys/fs/cgroup/system.slice/dyad.service",
    );
    expect(unifiedIn(new2, "0::/firmware\n")).toEqual({ path: "/sys/fs/cgroup", isRoot: true });
    expect(unifiedIn(new2, "0::/\n")?.isRoot).toBe(true);
  });

  test("version 2: a controller that the service was not given is not there", () => {
    const unified = unifiedIn(new2, own);
    expect(Object.keys(hierarchiesIn(new2, unified, ["memory"]))).toEqual(["memory"]);
    expect(hierarchiesIn(new2, unified, [])).toEqual({});
  });

  test("version 1: a tree for each, at its root", () => {
    const own1 = "4:memory:/somewhere\n3:pids:/\n1:cpu,cpuacct:/\n";
    const mounts = [freezer, ...old].join("\n");
    expect(unifiedIn(mounts, own1)).toBeUndefined();
    expect(hierarchiesIn(mounts, undefined, [])).toEqual({
      cpu: { version: 1, path: "/sys/fs/cgroup/cpu,cpuacct" },
      cpuacct: { version: 1, path: "/sys/fs/cgroup/cpu,cpuacct" },
      memory: { version: 1, path: "/sys/fs/cgroup/memory" },
      pids: { version: 1, path: "/sys/fs/cgroup/pids" },
    });
  });

  test("both: each controller where it is", () => {
    const mounts = [old[0], old[1], beside].join("\n");
    const unified = unifiedIn(mounts, "4:memory:/x\n0::/\n");
    const found = hierarchiesIn(mounts, unified, ["pids"]);
    expect(found.memory).toEqual({ version: 1, path: "/sys/fs/cgroup/memory" });
    expect(found.pids).toEqual({ version: 2, path: "/sys/fs/cgroup/unified" });
  });

  test("nothing is mounted, or only a part of the tree", () => {
    expect(unifiedIn(other, own)).toBeUndefined();
    expect(hierarchiesIn(freezer, undefined, [])).toEqual({});
    const part = line("/sys/fs/cgroup", "cgroup2 cgroup2 rw", "/machine");
    expect(unifiedIn(part, "0::/machine/dyad\n")?.path).toBe("/sys/fs/cgroup/dyad");
  });
});

const defaults: LimitsConfig = { cpuWeight: 100, processes: 512 };
const all: LimitsConfig = {
  cpuWeight: 50,
  cpuPercent: 20,
  memoryMb: 256,
  processes: 1000,
  bandwidthMbit: 100,
};
/** As `file=value`, in the order of writing. */
const written = (version: 1 | 2, limits: LimitsConfig) =>
  (["cpu", "cpuacct", "memory", "pids"] as const).flatMap((name) =>
    settingsOf(name, version, limits).map(({ file, value }) => `${file}=${value}`),
  );

describe("what a group is told", () => {
  test.each([
    [
      2,
      defaults,
      "cpu.weight=100 cpu.max=max·10000 memory.max=max memory.oom.group=1 pids.max=512",
    ],
    [
      2,
      all,
      "cpu.weight=50 cpu.max=2000·10000 memory.max=268435456 memory.oom.group=1 pids.max=1000",
    ],
    [
      1,
      defaults,
      "cpu.shares=1024 cpu.cfs_period_us=10000 cpu.cfs_quota_us=-1 memory.limit_in_bytes=-1 pids.max=512",
    ],
    [
      1,
      all,
      "cpu.shares=512 cpu.cfs_period_us=10000 cpu.cfs_quota_us=2000 memory.limit_in_bytes=268435456 pids.max=1000",
    ],
  ] as const)("version %d, %o", (version, limits, expected) => {
    expect(written(version, limits).map((each) => each.replace(" ", "·"))).toEqual(
      expected.split(" "),
    );
  });

  test("a share of the processors is right, and its part of a period is never below what the kernel takes", () => {
    for (const cpuPercent of [5, 9, 10, 11, 99, 100, 250, 25_600]) {
      const [quota = 0, period = 1] =
        settingsOf("cpu", 2, { ...defaults, cpuPercent })[1]
          ?.value.split(" ")
          .map(Number) ?? [];
      expect(quota / period, `${cpuPercent} %`).toBeCloseTo(cpuPercent / 100, 10);
      expect(quota).toBeGreaterThanOrEqual(1000);
      expect(Number.isInteger(quota)).toBe(true);
    }
  });

  test("the least and the greatest weight are within the kernel's bounds, in both versions", () => {
    const shares = [1, 100, 10_000].map((weight) => Number(weightSetting(1, weight).value));
    expect(shares).toEqual([10, 1024, 102_400]);
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(2);
    expect(Math.max(...shares)).toBeLessThanOrEqual(262_144);
  });

  test("traffic: bursts and queues of slow limits hold a whole segment, those of fast ones are a time", () => {
    expect(sendingOf(1)).toEqual({ bytesPerS: 125_000, burstBytes: 16_384, queueBytes: 32_768 });
    expect(sendingOf(1000)).toEqual({
      bytesPerS: 125_000_000,
      burstBytes: 625_000,
      queueBytes: 6_250_000,
    });
    expect(receivingOf(1).burstBytes).toBe(125_000);
    // They are numbers of 32 bits to the kernel.
    const { burstBytes, queueBytes } = sendingOf(100_000);
    expect(Math.max(burstBytes, queueBytes)).toBeLessThan(2 ** 32);
  });
});

describe("who yields the processors", () => {
  /** What becomes of counts of refusals, one each quarter of a second. */
  const yielding = (...counts: number[]) => {
    let seen: Yielding | undefined;
    return counts.map((refused, i) => {
      seen = lookAt(seen, refused, i * lookMs);
      return seen.untilMs !== undefined;
    });
  };

  test("whoever is refused many at a time, not whoever was once, or is now and then", () => {
    expect(yielding(5000, 5000, 5000)).toEqual([false, false, false]);
    expect(yielding(0, 15, 30, 45)).toEqual([false, false, false, false]);
    expect(yielding(0, 16, 16)).toEqual([false, true, true]);
  });

  test("until there were fewer for five seconds, counted from the last time", () => {
    const looks = 5000 / lookMs;
    const calm = new Array<number>(looks).fill(1000);
    const counts = [0, 500, 1000, ...calm, 1001, 2000];
    const seen = yielding(...counts);
    expect(seen.indexOf(true)).toBe(1);
    expect(seen.indexOf(false, 1)).toBe(2 + looks);
    expect(seen.at(-1)).toBe(true);
  });

  test.each([1, 2] as const)(
    "version %d: has no weight meanwhile, which the kernel would refuse",
    (version) => {
      const files = (isYielding: boolean) =>
        settingsOf("cpu", version, all, isYielding).map(({ file }) => file);
      const { file } = weightSetting(version, 1);
      expect(files(false)).toContain(file);
      expect(files(true)).toEqual(files(false).filter((each) => each !== file));
      expect([idleSetting(true), idleSetting(false)].map(({ value }) => value)).toEqual(["1", "0"]);
    },
  );
});

describe("what a group has used", () => {
  test("version 2", () => {
    const files: Record<string, string> = {
      "cpu.stat": "usage_usec 1234567\nuser_usec 1\nnr_throttled 3\nthrottled_usec 2500000\n",
      "memory.current": "104857600\n",
      "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\n",
      "pids.current": "23\n",
      "pids.events": "max 41\n",
    };
    expect(
      usageIn(
        () => 2,
        (_, file) => files[file],
      ),
    ).toEqual({
      cpuSeconds: 1.235,
      throttledSeconds: 2.5,
      memoryMb: 100,
      processes: 23,
      oomKills: 2,
      forksRefused: 41,
    });
  });

  test("version 1", () => {
    const files: Record<string, string> = {
      "cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 2500000000\n",
      "cpuacct.usage": "1234567890\n",
      "memory.usage_in_bytes": "1048576\n",
      "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
      "pids.current": "4\n",
      "pids.events": "max 0\n",
    };
    expect(
      usageIn(
        () => 1,
        (_, file) => files[file],
      ),
    ).toEqual({
      cpuSeconds: 1.235,
      throttledSeconds: 2.5,
      memoryMb: 1,
      processes: 4,
      oomKills: 1,
      forksRefused: 0,
    });
  });

  test("what is not told is absent, and what makes no sense is not told", () => {
    const nothing = usageIn(
      () => undefined,
      () => undefined,
    );
    expect(nothing).toEqual({});
    const odd = usageIn(
      () => 2,
      () => "max\n",
    );
    expect(odd).toEqual({});
  });
});

/** A tree of version 2 as plain files: what is written where, and in which order it can only be. */
describe("version 2, from the service's group down", () => {
  let own: string;
  const files = {
    "": ["cgroup.procs", "cgroup.subtree_control"],
    firmware: ["cgroup.procs"],
    "dyad-1": ["cgroup.procs", "cgroup.subtree_control", "cpu.weight"],
    "dyad-1/one": ["cgroup.procs", "cpu.weight", "cpu.max", "memory.max", "memory.oom.group"],
  };
  const path = (...parts: string[]) => join(own, ...parts);
  const textOf = (...parts: string[]) => readFileSync(path(...parts), "utf8");
  const open = () => {
    const here = { version: 2, path: own } as const;
    const hierarchies = { cpu: here, cpuacct: here, memory: here, pids: here };
    const found = { unified: { path: own, isRoot: false }, hierarchies };
    return openControlGroups("dyad-1", { ok: true, value: found });
  };

  beforeEach(() => {
    own = mkdtempSync(join(tmpdir(), "dyad-unified-"));
    for (const [folder, names] of Object.entries(files)) {
      mkdirSync(path(folder), { recursive: true });
      for (const name of names) writeFileSync(path(folder, name), "");
    }
    writeFileSync(path("dyad-1", "one", "pids.max"), "");
  });
  afterEach(() => rmSync(own, { recursive: true }));

  test("the firmware goes to a leaf, each group hands its controllers down, and the limits are at the bottom", async () => {
    const groups = open();
    expect(groups.without).toEqual([]);
    expect(textOf("firmware", "cgroup.procs")).toBe("0");
    for (const folder of ["", "dyad-1"])
      expect(textOf(folder, "cgroup.subtree_control")).toBe("+cpu +memory +pids");
    expect(textOf("dyad-1", "cpu.weight")).toBe("1000");
    expect((await groups.limit("one", all)).ok).toBe(true);
    const told = ["cpu.weight", "cpu.max", "memory.max", "memory.oom.group", "pids.max"];
    expect(told.map((file) => textOf("dyad-1", "one", file))).toEqual(
      settingsOf("cpu", 2, all)
        .concat(settingsOf("memory", 2, all), settingsOf("pids", 2, all))
        .map(({ value }) => value),
    );
    expect(await groups.joinPaths("one")).toEqual([path("dyad-1", "one", "cgroup.procs")]);
  });

  test("where others are in the service's group nothing is limited, everything is told, and programs run all the same", async () => {
    writeFileSync(path("cgroup.procs"), `${process.pid}\n`);
    const groups = open();
    expect(groups.without.flatMap(({ keys }) => keys)).toEqual([
      ...["cpu_weight", "cpu_percent", "memory_mb", "processes"],
    ]);
    for (const { why } of groups.without) expect(why).toContain(String(process.pid));
    expect((await groups.limit("one", all)).ok).toBe(true);
    expect(textOf("dyad-1", "one", "pids.max")).toBe("");
    expect(await groups.joinPaths("one")).toEqual([]);
  });

  test("what is refused does not keep the rest from being set", async () => {
    rmSync(path("dyad-1", "one", "cpu.max"));
    const groups = open();
    const outcome = await groups.limit("one", all);
    expect(JSON.stringify(outcome)).toContain("cpu.max");
    expect(textOf("dyad-1", "one", "memory.max")).toBe("268435456");
    expect(textOf("dyad-1", "one", "pids.max")).toBe("1000");
  });
});

/** The files of a group as plain files: the kernel is not asked. */
describe("a group", () => {
  let folder: string;
  let group: ControlGroup;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "dyad-group-"));
    mkdirSync(join(folder, "one"));
    group = new ControlGroup({ pids: { version: 2, path: folder } }, "one");
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const at = (file: string) => join(folder, "one", file);

  test("is told only what it does not know", () => {
    writeFileSync(at("pids.max"), "512\n");
    utimesSync(at("pids.max"), 1, 1);
    expect(group.set("pids", settingsOf("pids", 2, defaults)).ok).toBe(true);
    expect(statSync(at("pids.max")).mtimeMs).toBe(1000);
    expect(group.set("pids", settingsOf("pids", 2, all)).ok).toBe(true);
    expect(readFileSync(at("pids.max"), "utf8")).toBe("1000");
  });

  test("that lacks a file says which, as a value", () => {
    const outcome = group.set("pids", settingsOf("pids", 2, defaults));
    expect(!outcome.ok && outcome.fault.code).toBe("ioError");
    expect(JSON.stringify(outcome)).toContain("pids.max");
  });

  test("is empty when its list is, and counts nobody who is to be kept", async () => {
    writeFileSync(at("cgroup.procs"), `${process.pid}\n`);
    expect(group.processes()).toEqual([process.pid]);
    expect((await group.empty(() => [process.pid], 0)).ok).toBe(true);
    writeFileSync(at("cgroup.procs"), "");
    expect((await group.empty(() => [], 0)).ok).toBe(true);
  });

  test("whose processes do not go is a timeout that names them, and has its limit back", async () => {
    writeFileSync(at("pids.max"), "512");
    // Nobody has this number; signals to it are lost.
    writeFileSync(at("cgroup.procs"), "4194304\n");
    const outcome = await group.empty(() => [], 30);
    expect(outcome).toMatchObject({ ok: false, fault: { code: "timeout" } });
    expect(!outcome.ok && outcome.fault.message).toContain("4194304");
    expect(readFileSync(at("pids.max"), "utf8")).toBe("512");
  });
});
