/** What a controller's processes hold in memory, as the kernel counts it. */
import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Cgroup } from "./cgroup.ts";
import { controllerIds } from "./layout.ts";

export interface MemoryReading {
  /** The firmware's own processes (main, beat, block service): proportional share, and resident, MiB. */
  readonly daemonPssMb: number;
  readonly daemonRssMb: number;
  /**
   * The share that they would have if nobody else on the machine ran the same program: here the other controller, the shelf and the clients
   * do, on an appliance nobody does.
   */
  readonly daemonAloneMb: number;
  /** Programs it drives: file servers, device exports. */
  readonly driversPssMb: number;
}

export type MemoryReadings = { readonly [id in ControllerId]: MemoryReading };

/** Sums over the processes of one controller. Those that end meanwhile count for nothing. */
export function readMemory(cgroup: Cgroup): MemoryReading {
  const sums = { pss: 0, rss: 0, own: 0, drivers: 0 };
  let sharedMax = 0;
  for (const pid of cgroup.processes()) {
    try {
      const program = basename(readlinkSync(`/proc/${pid}/exe`));
      // smaps_rollup (proc(5)): shared pages count by their share, so that the sum over processes is what they hold.
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
      const of = (...names: string[]) =>
        names.reduce((sum, name) => sum + kilobytes(rollup, name), 0);
      if (program === "dyad-echo") continue;
      if (program !== "node") {
        sums.drivers += of("Pss");
        continue;
      }
      sums.pss += of("Pss");
      sums.rss += of("Rss");
      sums.own += of("Private_Clean", "Private_Dirty");
      // What they share is the program itself, nearly the same pages of it in each of them.
      sharedMax = Math.max(sharedMax, of("Shared_Clean", "Shared_Dirty"));
    } catch {
      // Ended between the listing and the reading.
    }
  }
  const megabytes = (kb: number) => Math.round((kb / 1024) * 10) / 10;
  return {
    daemonPssMb: megabytes(sums.pss),
    daemonRssMb: megabytes(sums.rss),
    daemonAloneMb: megabytes(sums.own + sharedMax),
    driversPssMb: megabytes(sums.drivers),
  };
}

function kilobytes(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
}

/** Reads both controllers again and again, and keeps the highest figures of each. */
export class MemoryWatch {
  readonly #groups: { readonly [id in ControllerId]: Cgroup };
  #highest: MemoryReadings;

  constructor(machines: { readonly [id in ControllerId]: { readonly cgroup: Cgroup } }) {
    this.#groups = { a: machines.a.cgroup, b: machines.b.cgroup };
    this.#highest = { a: readMemory(this.#groups.a), b: readMemory(this.#groups.b) };
  }

  look(): void {
    for (const id of controllerIds) {
      const highest = higher(this.#highest[id], readMemory(this.#groups[id]));
      this.#highest = { ...this.#highest, [id]: highest };
    }
  }

  get highest(): MemoryReadings {
    return this.#highest;
  }
}

function higher(one: MemoryReading, other: MemoryReading): MemoryReading {
  return {
    daemonPssMb: Math.max(one.daemonPssMb, other.daemonPssMb),
    daemonRssMb: Math.max(one.daemonRssMb, other.daemonRssMb),
    daemonAloneMb: Math.max(one.daemonAloneMb, other.daemonAloneMb),
    driversPssMb: Math.max(one.driversPssMb, other.driversPssMb),
  };
}
