/** Looking at processes, and ending them. */
import { readFileSync } from "node:fs";

/**
 * The fields of a line of /proc/PID/stat from the third on (proc_pid_stat(5)): field n is at n - 3. Field 2 is the command in parentheses and may
 * contain anything, so they are counted from behind it.
 */
export function statFields(line: string): readonly string[] {
  return line.slice(line.lastIndexOf(")") + 2).split(" ");
}

/** Fields 40 and 41 of proc_pid_stat(5), the state (3) being the first of those that are counted. */
const [prioritySlot, policySlot] = [40 - 3, 41 - 3];

/** How a process, or `thread-self`, is scheduled (sched(7)): its policy as in sched_setscheduler(2), and its real-time priority. Throws when it is gone. */
export function schedulingOf(process: number | "thread-self"): {
  readonly policy: number;
  readonly priority: number;
} {
  const fields = statFields(readFileSync(`/proc/${process}/stat`, "utf8"));
  return { policy: Number(fields[policySlot]), priority: Number(fields[prioritySlot]) };
}

export function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended meanwhile, which is what was wanted.
  }
}
