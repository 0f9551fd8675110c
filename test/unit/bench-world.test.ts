import { isIPv4 } from "node:net";
import { describe, expect, it } from "vitest";
import { daemonMemoryMbMax, expectations } from "../../bench/campaign/expectations.ts";
import { spread } from "../../bench/campaign/figures.ts";
import { isolationProblems, neighbourFaultResult } from "../../bench/campaign/isolation-result.ts";
import { movesResult } from "../../bench/campaign/moves-result.ts";
import type { RunRecord } from "../../bench/campaign/one-run.ts";
import { type ClientCounts, memoryProblems, resultOf } from "../../bench/campaign/result.ts";
import { faults } from "../../bench/faults/index.ts";
import { chooseCgroup } from "../../bench/world/cgroup.ts";
import {
  brokerAddress,
  clientAddress,
  controllerIds,
  dataAddress,
  gatewayAddress,
  layoutOf,
  ownsNamespace,
} from "../../bench/world/layout.ts";
import { isSameLoop } from "../../bench/world/loops.ts";
import { configOf } from "../../bench/world/plan.ts";
import { deriveTiming, timingFaults } from "../../firmware-ts/core/timing.ts";
import { formatConfig, parseConfigText } from "../../firmware-ts/schema/config-text.ts";
import { sharedConfigurationCrc } from "../../firmware-ts/wire/configuration.ts";

describe("layout of a world", () => {
  it("refuses a prefix that could not be a name", () => {
    for (const prefix of ["", "Dyad", "9a", "a-b", "../x", "elevenchars"])
      expect(() => layoutOf(prefix)).toThrow(/lower-case/);
    expect(() => layoutOf("dyad", { clientCount: 33 })).toThrow(/1 to 32/);
    expect(() => layoutOf("dyad", { serverCount: 65 })).toThrow(/1 to 64/);
  });

  it("has half of its virtual servers at home on each controller, and every address once", () => {
    const { servers } = layoutOf("dyad", { clientCount: 32, serverCount: 64 });
    expect(servers.filter(({ home }) => home === "a").length).toBe(32);
    const addresses = [
      ...servers.map(({ address }) => address),
      ...Array.from({ length: 32 }, (_, i) => clientAddress(i)),
      ...controllerIds.map(dataAddress),
      brokerAddress,
    ];
    expect(new Set(addresses).size).toBe(addresses.length);
    expect(addresses.every((address) => isIPv4(address))).toBe(true);
  });

  it("of customers: all at home on one controller, each with a gateway of its own on the data LAN", () => {
    const { servers, namespaces } = layoutOf("dyad", { kind: "customers" });
    expect(servers.map(({ home }) => home)).toEqual(["a", "a"]);
    const gateways = servers.map(({ gateway }) => gateway);
    expect(gateways).toEqual([gatewayAddress(0), gatewayAddress(1)]);
    for (const name of namespaces.routers) expect(ownsNamespace("dyad", name)).toBe(true);
    const many = { clientCount: 17, serverCount: 17 };
    expect(() => layoutOf("dyad", { ...many, kind: "customers" })).toThrow(/1 to 16/);
    expect(() => layoutOf("dyad", { clientCount: 1, kind: "customers" })).toThrow(/1 to 1/);
    const limits = { vs2: { cpuPercent: 20 } };
    const { virtualServers } = configOf(layoutOf("dyad", { kind: "customers" }), "a", { limits });
    expect(virtualServers.map((each) => each.limits.cpuPercent)).toEqual([undefined, 20]);
    expect(virtualServers.map(({ routes }) => routes[0]?.via)).toEqual(gateways);
    expect(layoutOf("dyad").namespaces.routers).toEqual([]);
  });

  it("owns all of its namespaces and no other world's", () => {
    const { namespaces } = layoutOf("dyad", { clientCount: 3 });
    const { controllers, clients, switch: switchName, shelf, broker } = namespaces;
    for (const name of [...Object.values(controllers), ...clients, switchName, shelf, broker])
      expect(ownsNamespace("dyad", name)).toBe(true);
    for (const name of ["dyadk-a", "dyad-x", "dyad-c", "dyad", "xdyad-a"])
      expect(ownsNamespace("dyad", name)).toBe(false);
  });
});

describe("cgroup hierarchy", () => {
  const v2 = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
  const freezer = "31 25 0:27 / /sys/fs/cgroup/freezer rw shared:3 - cgroup cgroup rw,freezer";
  const cpu = "32 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";

  it("is version 2 wherever that is mounted", () => {
    expect(chooseCgroup([cpu, freezer, v2].join("\n"))).toEqual({
      version: 2,
      path: "/sys/fs/cgroup/unified",
    });
  });
  it("else the freezer of version 1, never another controller", () => {
    expect(chooseCgroup([cpu, freezer, ""].join("\n"))).toEqual({
      version: 1,
      path: "/sys/fs/cgroup/freezer",
    });
    expect(chooseCgroup(cpu)).toBeUndefined();
  });
});

describe("a loop device that was recorded", () => {
  const was = { device: "/dev/loop3", backing: "/dev/shm/dyad-bench-x/a/run/disks/D1.disk" };

  it("is known again by the end of its file's path, and when nothing but the root is left of it", () => {
    for (const backing of [was.backing, "/run/disks/D1.disk", "/"])
      expect(isSameLoop(was, { device: was.device, backing })).toBe(true);
  });
  it("is another one when somebody has taken its number", () => {
    expect(isSameLoop(was, { device: "/dev/loop3", backing: "/tmp/other.img" })).toBe(false);
    expect(isSameLoop(was, { device: "/dev/loop4", backing: was.backing })).toBe(false);
  });
});

describe("configuration of the bench", () => {
  it.each([
    { tls: false, servers: 2 },
    { tls: true, servers: 2 },
    { tls: false, servers: 64 },
  ])("is what the daemon reads, %o", ({ tls, servers }) => {
    const crcs = controllerIds.map((id) => {
      const text = formatConfig(configOf(layoutOf("dyad", { serverCount: servers }), id, { tls }));
      const parsed = parseConfigText(text, "dyad.toml");
      if (!parsed.ok) throw new Error(parsed.fault.message);
      expect(parsed.value.controller.id).toBe(id);
      expect(timingFaults(deriveTiming(parsed.value.timing))).toEqual([]);
      return sharedConfigurationCrc(parsed.value);
    });
    expect(crcs[0]).toBe(crcs[1]);
  });
});

describe("figures", () => {
  it("are those of the series, in any order", () => {
    expect(spread([3, 1, 2])).toEqual({ min: 1, median: 2, max: 3 });
    expect(spread([4, 1, 2, 3])).toEqual({ min: 1, median: 2.5, max: 4 });
    expect(spread([])).toBeUndefined();
  });
});

const run: RunRecord = {
  victim: "a",
  winner: "b",
  epoch: 2,
  addressOutageMs: 200,
  outagesMs: {},
  neighbourOutageMs: 0,
  neighbourGapMs: 30,
  nfsReadGapMs: 210,
  nfsWriteGapMs: 220,
  gapsMs: { "c1-nfs3": { read: 210, write: 220 } },
  graceWaitMs: 30,
  doubleAnswers: 0,
  unexpectedTakeovers: 0,
  settleMs: 300,
  mendMs: 400,
  problems: [],
};
const counts: ClientCounts = {
  lostAckedWrites: 0,
  staleReads: 0,
  rolledBackReads: 0,
  phantomReads: 0,
  corruptReads: 0,
  ackedWrites: 10,
  reads: 10,
  opensReclaimed: 9,
  openFilesLost: 0,
  locksReclaimed: 5,
  locksLost: 0,
  refusals: 20,
  findings: [],
};

describe("judgement of a series", () => {
  it("has an expectation for every fault", () => {
    expect(faults.map((each) => each.name).sort()).toEqual(Object.keys(expectations).sort());
  });

  it("finds nothing wrong where nothing is, and names a common winner once", () => {
    const result = resultOf("kill9", [run, { ...run, epoch: 4 }], counts, []);
    expect(result).toMatchObject({ winner: "b", epochs: [2, 4], problems: [] });
    const mixed = resultOf("split", [run, { ...run, winner: "a" }], counts, []);
    expect(mixed.winner).toEqual(["b", "a"]);
  });

  it.each([
    ["lost", { lostAckedWrites: 1 }],
    ["stale", { staleReads: 1 }],
    ["nobody wrote", { phantomReads: 1 }],
    ["corrupt", { corruptReads: 1 }],
    ["rolled back", { rolledBackReads: 1 }],
    ["open files lost", { openFilesLost: 1 }],
    ["locks lost", { locksLost: 1 }],
  ])("complains about what is %s", (word, wrong) => {
    const { problems } = resultOf("kill9", [run], { ...counts, ...wrong }, []);
    expect(problems.join()).toContain(word);
  });

  it.each([
    ["double", { doubleAnswers: 2 }],
    ["unexpected", { unexpectedTakeovers: 1 }],
    ["median", { addressOutageMs: 60 }],
  ])("complains about a run with %s", (word, wrong) => {
    const { problems } = resultOf("term", [{ ...run, addressOutageMs: 20, ...wrong }], counts, []);
    expect(problems.join()).toContain(word);
  });

  it("tells how long clients waited for grace, where there are clients that may", () => {
    const told = resultOf("kill9", [run, { ...run, graceWaitMs: 40 }], counts, []);
    expect(told.graceWaitMs).toEqual({ min: 30, median: 35, max: 40 });
    const stateless = resultOf("kill9", [{ ...run, graceWaitMs: undefined }], counts, []);
    expect(stateless.graceWaitMs).toBeUndefined();
  });

  it("complains about an epoch that fell", () => {
    const fell = resultOf("kill9", [run, { ...run, epoch: 1 }], counts, []);
    expect(fell.problems.join()).toContain("epoch");
  });

  it("complains about a controller that holds too much, be it only if it were alone", () => {
    const within = {
      daemonPssMb: daemonMemoryMbMax,
      daemonRssMb: 500,
      daemonAloneMb: daemonMemoryMbMax,
      driversPssMb: 500,
    };
    expect(memoryProblems({ a: within, b: within })).toEqual([]);
    for (const beyond of [{ daemonPssMb: 150.1 }, { daemonAloneMb: 150.1 }]) {
      const problems = memoryProblems({ a: within, b: { ...within, ...beyond } });
      expect(problems).toEqual([expect.stringContaining("controller b held 150.1 MiB")]);
    }
  });
});

describe("what many virtual servers come to", () => {
  const { servers } = layoutOf("dyad", { clientCount: 3, serverCount: 4 });
  const [a1, b1, a2, b2] = servers.map(({ address }) => address) as [
    string,
    string,
    string,
    string,
  ];
  const clients = [
    { name: "c1", virtualServer: "vs1" },
    { name: "c2", virtualServer: "vs2" },
    { name: "c10", virtualServer: "vs3" },
  ];
  const record = (first: number, second: number, neighbour: number): RunRecord => ({
    ...run,
    outagesMs: { [a1]: first, [a2]: second, [b1]: neighbour, [b2]: 0 },
    gapsMs: {
      "c1-nfs3": { read: first, write: 1 },
      "c2-nfs3": { read: 1, write: neighbour + 1 },
      "c10-nfs3": { read: 1, write: second },
    },
  });
  const moves = {
    servers,
    clients,
    probeIntervalMs: 1,
    records: [record(10, 30, 2), record(20, 90, 0)],
    broken: [],
    counts,
  };

  it("tells those that moved from those that stayed", () => {
    expect(movesResult("transfer", moves)).toMatchObject({
      test: "vserver transfer",
      count: 2,
      servers: 4,
      runs: 2,
      addressOutageMs: { min: 10, median: 25, max: 90 },
      lastOutageMs: { min: 30, median: 60, max: 90 },
      neighbourOutageMs: { min: 0, median: 0, max: 2 },
      clientGapMs: { min: 10, median: 25, max: 90 },
      neighbourGapMs: { min: 1, median: 2, max: 3 },
      graceWaitMs: { min: 30, median: 30, max: 30 },
      problems: [],
    });
  });

  it.each([
    ["lost", { counts: { ...counts, lostAckedWrites: 1 } }],
    ["stale", { counts: { ...counts, rolledBackReads: 1 } }],
    ["files lost", { counts: { ...counts, openFilesLost: 1 } }],
    ["locks lost", { counts: { ...counts, locksLost: 1 } }],
    ["double", { records: [{ ...run, doubleAnswers: 1 }] }],
    ["unexpected", { records: [{ ...run, unexpectedTakeovers: 1 }] }],
    ["run 3: no end", { broken: ["run 3: no end"] }],
    ["run 1: silent", { records: [{ ...run, problems: ["silent"] }] }],
  ])("complains about what is %s", (word, wrong) => {
    expect(movesResult("takeover", { ...moves, ...wrong }).problems.join()).toContain(word);
  });
});

describe("what a neighbour's trouble comes to", () => {
  const stretch = (medianMs: number, p99Ms: number) => ({
    read: { medianMs, p99Ms },
    write: { medianMs: 2 * medianMs, p99Ms },
  });
  const runs = [
    { before: stretch(1, 4), during: stretch(1.2, 8), after: stretch(3, 4) },
    { before: stretch(2, 4), during: stretch(2.1, 4), after: stretch(2, 4) },
    { before: stretch(2, 4), during: stretch(2.6, 6), after: stretch(2, 4) },
  ];
  const result = neighbourFaultResult("forkBomb", runs);

  it("is told against the rest before and after it, run by run", () => {
    expect(result).toMatchObject({ fault: "forkBomb", runs: 3 });
    expect(result.read.medianRatio).toEqual({ min: 0.6, median: 1.05, max: 1.3 });
    expect(result.write.p99Ratio).toEqual({ min: 1, median: 1.5, max: 2 });
    expect(result.read.atRest.medianMs).toEqual({ min: 1, median: 2, max: 3 });
    expect(result.write.during.medianMs).toEqual({ min: 2.4, median: 4.2, max: 5.2 });
  });

  it("may be 10 per cent in the median, and no more", () => {
    const of = (ratio: number) => [
      { before: stretch(2, 4), during: stretch(2 * ratio, 4), after: stretch(2, 4) },
    ];
    const problems = (ratio: number) =>
      isolationProblems([neighbourFaultResult("fullDisk", of(ratio))], counts);
    expect(problems(1.1)).toEqual([]);
    expect(problems(1.11).join()).toMatch(/fullDisk: the median read took 1.11 .*median write/);
    const lost = { ...counts, lostAckedWrites: 1 };
    expect(isolationProblems([], lost).join()).toContain("1 acknowledged writes lost");
  });
});
