/**
 * Real-time priority for the process that keeps the heartbeats: under load its timers stay within a few ms, where an
 * ordinary process is late by up to 290.
 *
 * Obligations. Such a process must not wait for a thread that it keeps from the processor. All threads are raised, since the main one
 * waits for the pool that writes to the serial port; and garbage is collected by the main thread alone, because V8's incremental sweeper
 * repeats itself without a pause until a helper is done: with one such process on each processor no helper ever
 * runs, and the machine stood still for minutes (docs/design/0001-processes-and-beats.md). Neither children (ordinary.ts) nor threads that are made later inherit it (SCHED_RESET_ON_FORK). Memory is not locked: V8 gives pages
 * back by madvise(2), which the kernel refuses for locked ones, and V8 ends the process over that (tried).
 */
import { access, readdirSync } from "node:fs";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  errno,
  errorName,
  SCHED_FIFO,
  SCHED_OTHER,
  SCHED_RESET_ON_FORK,
  setScheduler,
} from "./syscalls.ts";

/** Of Node: no helper threads for garbage. */
export const realTimeFlag = "--single-threaded-gc";

const operation = "take real-time priority";

/**
 * Gives every present thread of this process SCHED_FIFO at `priority` (1–99). Fault `refused` without CAP_SYS_NICE, or when the process
 * was not started with `realTimeFlag`.
 */
export function takeRealTimePriority(priority: number): Outcome {
  if (!Number.isInteger(priority) || priority < 1 || priority > 99) {
    return failed("badInput", operation, `priority ${priority}, expected 1 to 99`);
  }
  if (!process.execArgv.includes(realTimeFlag))
    return failed("refused", operation, `node was started without ${realTimeFlag}`);
  // Node starts its pool at the first use; asking for anything makes it exist before the threads are listed.
  access("/", () => undefined);
  return schedule("self", SCHED_FIFO | SCHED_RESET_ON_FORK, priority);
}

/**
 * The same for another process, with all threads that it makes later: for one that starts no programs, and, if it is a node, was started with
 * `realTimeFlag`. Faults: `refused` without CAP_SYS_NICE, `ioError` when it is gone.
 */
export function giveRealTimePriority(pid: number, priority: number): Outcome {
  return schedule(String(pid), SCHED_FIFO, priority);
}

/** Makes it ordinary again, with the niceness that it had. Faults as above. */
export function takeBackRealTimePriority(pid: number): Outcome {
  return schedule(String(pid), SCHED_OTHER, 0);
}

/** All present threads; a fault is told when all have been tried. */
function schedule(process: string, policy: number, priority: number): Outcome {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${process}/task`);
  } catch (error) {
    return failed("ioError", operation, `process ${process} is gone`, error);
  }
  let outcome: Outcome = done;
  for (const thread of threads) {
    const set = setScheduler(Number(thread), policy, priority);
    // It has ended since.
    if (set >= 0 || set === -errno.ESRCH) continue;
    outcome = failed("refused", operation, `sched_setscheduler(${thread}): ${errorName(set)}`);
  }
  return outcome;
}
