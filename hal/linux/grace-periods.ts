/**
 * RCU grace periods of the kernel. Whoever freezes or unmounts a file system, removes an address or changes the packet filter waits for
 * one or several; on a quiet machine each takes 10 ms and more, because the kernel batches them to save interrupts. Expedited ones take
 * a tenth of a millisecond on the few processors of a controller (kernel-parameters: rcupdate.rcu_expedited, also found in
 * /sys/kernel). Sealing a file system takes 2 ms instead of 45.
 *
 * They are driven by a few threads of the kernel, which are ordinary unless it was told otherwise when it was built or started
 * (rcutree.kthread_prio), and wait for a processor behind every file service. Each renewal of a lease is a change of the packet filter: with 64
 * virtual servers that started, a beat process of real-time priority stood still in `synchronize_rcu_expedited` for up to 441 ms, and its partner
 * took over. So those threads go before the beats.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { statFields } from "./processes.ts";
import { giveRealTimePriority, takeBackRealTimePriority } from "./realtime.ts";

/** Of the whole machine, not of a namespace. */
export const expeditedPath = "/sys/kernel/rcu_expedited";

/** From now on every grace period of this machine is expedited. Fault `refused`: everything works, planned moves take longer. */
export function expediteGracePeriods(path: string = expeditedPath): Outcome {
  try {
    if (readFileSync(path, "utf8").trim() !== "1") writeFileSync(path, "1");
    return done;
  } catch (error) {
    return failed("refused", "expedite grace periods", path, error);
  }
}

/** The parent of all threads of the kernel. */
const kthreadd = 2;
/** Normal and expedited grace periods; what else RCU has (callbacks, tasks) nobody waits for here. */
const threadNames = /^rcu_(exp_|preempt|sched)/;

/** Process numbers of the threads that drive grace periods; none in a process namespace of our own, where they are not seen. */
export function gracePeriodThreads(): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && isGracePeriodThread(pid));
}

function isGracePeriodThread(pid: number): boolean {
  try {
    const parent = Number(statFields(readFileSync(`/proc/${pid}/stat`, "utf8"))[4 - 3]);
    return parent === kthreadd && threadNames.test(readFileSync(`/proc/${pid}/comm`, "utf8"));
  } catch {
    // It ended since.
    return false;
  }
}

/** From now on whoever waits for a grace period waits for nobody of a lower priority than this. Fault `refused`: beats may be late on a busy machine. */
export function raiseGracePeriods(priority: number): Outcome {
  const threads = gracePeriodThreads();
  if (threads.length === 0)
    return failed("refused", "raise grace periods", "no thread of the kernel's RCU is seen");
  return all(threads, (pid) => giveRealTimePriority(pid, priority));
}

/** They are ordinary again. */
export function lowerGracePeriods(): Outcome {
  return all(gracePeriodThreads(), takeBackRealTimePriority);
}

function all(threads: readonly number[], change: (pid: number) => Outcome): Outcome {
  return threads.map(change).find(({ ok }) => !ok) ?? done;
}
