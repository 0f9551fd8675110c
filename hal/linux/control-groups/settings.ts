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

/** Most processor time in each period; without a quota, no limit. */
interface Share {
  readonly quotaUs?: number;
  readonly periodUs: number;
}

/**
 * Of one that yields: as little as an operator may set at least. The group of all virtual servers has its full weight as long as one of them wants a
 * processor, so that what yields to its neighbours alone would still be in the way of the kernel's own threads. The period is long, because hundreds of
 * processes are stopped and started again in each.
 */
const yieldingShare: Share = { quotaUs: 5000, periodUs: 100_000 };

function shareOf(percent: number | undefined): Share {
  if (percent === undefined) return { periodUs };
  const scale = Math.max(1, Math.ceil((quotaUsMin * 100) / (percent * periodUs)));
  return { quotaUs: (percent * periodUs * scale) / 100, periodUs: periodUs * scale };
}

/** cpu.shares has 1024 where cpu.weight has 100; the kernel's bounds are 2 and 262,144. */
function sharesOf(weight: number): number {
  return Math.max(2, Math.round((weight * 1024) / 100));
}

/**
 * What a group of one virtual server is told; every limit, also one that is none, so that one that was set goes. In the order of writing. One that yields the
 * processors has no weight, and the kernel takes none.
 */
export function settingsOf(
  name: ControllerName,
  version: 1 | 2,
  limits: LimitsConfig,
  isYielding = false,
): readonly Setting[] {
  const { memoryMb, processes } = limits;
  const share = isYielding ? yieldingShare : shareOf(limits.cpuPercent);
  const memoryBytes = memoryMb === undefined ? undefined : String(memoryMb * 1024 * 1024);
  switch (name) {
    case "cpu":
      return [
        ...(isYielding ? [] : [weightSetting(version, limits.cpuWeight)]),
        ...(version === 2 ? cpu2(share) : cpu1(share)),
      ];
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

function cpu2({ quotaUs, periodUs }: Share): Setting[] {
  return [{ file: "cpu.max", value: `${quotaUs ?? "max"} ${periodUs}` }];
}

function cpu1({ quotaUs, periodUs }: Share): Setting[] {
  return [
    { file: "cpu.cfs_period_us", value: String(periodUs) },
    { file: "cpu.cfs_quota_us", value: String(quotaUs ?? -1) },
  ];
}

/** Whether programs of a group run only on processors that nobody else wants; in both versions, since Linux 5.15. With its end the weight is the kernel's own. */
export function idleSetting(isYielding: boolean): Setting {
  return { file: "cpu.idle", value: isYielding ? "1" : "0" };
}

/** The share of a group among its neighbours. */
export function weightSetting(version: 1 | 2, weight: number): Setting {
  return version === 2
    ? { file: "cpu.weight", value: String(weight) }
    : { file: "cpu.shares", value: String(sharesOf(weight)) };
}
