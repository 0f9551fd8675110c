/** How the firmware of a controller is started: as its service unit on an appliance would (docs/design/0015-memory.md). */

import { realTimeFlag } from "../../hal/linux/realtime.ts";

/** The processes that it starts inherit them. */
const nodeFlags = [
  realTimeFlag,
  "--max-old-space-size=64",
  "--max-semi-space-size=1",
  // Heaps are collected rather than grown.
  "--optimize-for-size",
  // A takeover makes many functions hot at once. Maglev queues a compilation for each of them with memory of its own, and 10 MB stay
  // taken; TurboFan, which compiles the few that stay hot, has a queue of bounded length.
  "--no-maglev",
];

const environment = [
  // A mount on a dead device holds a thread of the pool for as long as it lasts.
  "UV_THREADPOOL_SIZE=16",
  // Sixteen threads would each keep freed memory of their own.
  "MALLOC_ARENA_MAX=1",
  // Otherwise the C library raises both with every large block that it sees, and gives back less and less.
  "MALLOC_TRIM_THRESHOLD_=131072",
  "MALLOC_MMAP_THRESHOLD_=131072",
];

/** A program of this repository under SCHED_FIFO: what the machine of an appliance has in hardware. */
export function realTimeNode(priority: number, program: string, ...args: string[]): string[] {
  return ["chrt", "-f", String(priority), process.execPath, realTimeFlag, program, ...args];
}

/** The command line, for the program of `bundledFirmware` and a configuration. */
export function firmwareWords(program: string, config: string): string[] {
  return ["env", ...environment, process.execPath, ...nodeFlags, program, "--config", config];
}
