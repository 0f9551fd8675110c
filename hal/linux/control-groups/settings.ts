/** Limits of a virtual server in the words of either version of control groups (cgroups(7); the kernel's cgroup-v1 and cgroup-v2 documents). Pure. */
import type { LimitsConfig } from "../../../firmware-ts/schema/config.ts";
import type { ControllerName } from "./hierarchies.ts";

/** One file of a group, and what is written to it. */
export interface Setting {
  readonly file: string;
  readonly value: string;
}

/**
 * Time over which a share of the processors is counted. The kernel's own choice, 100 ms, lets a virtual server stand still for nearly as long
 * whenever it has used up its share, and lets it take a processor from the others for as long at a time. It takes no share below 1 ms.
 */
const periodUs = 10_000;
const quotaUsMin = 1000;

function bandwidth(percent: number): { quotaUs: number; periodUs: number } {
  const scale = Math.max(1, Math.ceil((quotaUsMin * 100) / (percent * periodUs)));
  return { quotaUs: (percent * periodUs * scale) / 100, periodUs: periodUs * scale };
}

/** cpu.shares has 1024 where cpu.weight has 100; the kernel's bounds are 2 and 262,144. */
function sharesOf(weight: number): number {
  return Math.max(2, Math.round((weight * 1024) / 100));
}

/** What a group of one virtual server is told; every limit, also one that is none, so that one that was set goes. In the order of writing. */
export function settingsOf(
  name: ControllerName,
  version: 1 | 2,
  limits: LimitsConfig,
): readonly Setting[] {
  const { memoryMb, processes } = limits;
  const memoryBytes = memoryMb === undefined ? undefined : String(memoryMb * 1024 * 1024);
  switch (name) {
    case "cpu":
      return version === 2 ? cpu2(limits) : cpu1(limits);
    case "cpuacct":
      return [];
    case "memory":
      return version === 2
        ? [
            { file: "memory.max", value: memoryBytes ?? "max" },
            // A file server that has lost one of its processes is none; its spare is started anew with it.
            { file: "memory.oom.group", value: "1" },
          ]
        : [{ file: "memory.limit_in_bytes", value: memoryBytes ?? "-1" }];
    case "pids":
      return [{ file: "pids.max", value: String(processes) }];
  }
}

function cpu2({ cpuWeight, cpuPercent }: LimitsConfig): Setting[] {
  const most = cpuPercent === undefined ? undefined : bandwidth(cpuPercent);
  const value = most ? `${most.quotaUs} ${most.periodUs}` : `max ${periodUs}`;
  return [weightSetting(2, cpuWeight), { file: "cpu.max", value }];
}

function cpu1({ cpuWeight, cpuPercent }: LimitsConfig): Setting[] {
  const most = cpuPercent === undefined ? undefined : bandwidth(cpuPercent);
  return [
    weightSetting(1, cpuWeight),
    { file: "cpu.cfs_period_us", value: String(most?.periodUs ?? periodUs) },
    { file: "cpu.cfs_quota_us", value: String(most?.quotaUs ?? -1) },
  ];
}

/** The share of a group among its neighbours. */
export function weightSetting(version: 1 | 2, weight: number): Setting {
  return version === 2
    ? { file: "cpu.weight", value: String(weight) }
    : { file: "cpu.shares", value: String(sharesOf(weight)) };
}
