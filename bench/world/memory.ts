/** What a controller's processes hold in memory, as the kernel counts it. */
import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import type { Cgroup } from "./cgroup.ts";

export interface MemoryReading {
  /** The firmware's own processes (main, beat, block service): proportional share, and resident, MiB. */
  readonly daemonPssMb: number;
  readonly daemonRssMb: number;
  /** Programs it drives: file servers, device exports. */
  readonly driversPssMb: number;
}

/** Sums over the processes of one controller. Those that end meanwhile count for nothing. */
export function readMemory(cgroup: Cgroup): MemoryReading {
  const sums = { daemonPssMb: 0, daemonRssMb: 0, driversPssMb: 0 };
  for (const pid of cgroup.processes()) {
    try {
      const program = basename(readlinkSync(`/proc/${pid}/exe`));
      // smaps_rollup (proc(5)): shared pages count by their share, so that the sum over processes is what they hold.
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
      const pss = kilobytes(rollup, "Pss") / 1024;
      if (program === "dyad-echo") continue;
      if (program !== "node") sums.driversPssMb += pss;
      else {
        sums.daemonPssMb += pss;
        sums.daemonRssMb += kilobytes(rollup, "Rss") / 1024;
      }
    } catch {
      // Ended between the listing and the reading.
    }
  }
  const round = (value: number) => Math.round(value * 10) / 10;
  return {
    daemonPssMb: round(sums.daemonPssMb),
    daemonRssMb: round(sums.daemonRssMb),
    driversPssMb: round(sums.driversPssMb),
  };
}

function kilobytes(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
}
