/**
 * Starting programs without handing down real-time scheduling: a file server under SCHED_FIFO could keep the processor from
 * the process that renews the address gate.
 */
import { readFileSync } from "node:fs";
import { statFields } from "./processes.ts";

/** sched(7): SCHED_FIFO and SCHED_RR, as proc_pid_stat(5) field 41 shows them. */
const realTimePolicies = new Set([1, 2]);

/** The command line that starts `program` under the ordinary policy, whatever this process runs under. */
export function ordinaryCommand(
  program: string,
  args: readonly string[],
): { program: string; args: string[] } {
  if (!realTimePolicies.has(ownPolicy())) return { program, args: [...args] };
  return { program: "chrt", args: ["-o", "0", program, ...args] };
}

function ownPolicy(): number {
  return Number(statFields(readFileSync("/proc/self/stat", "utf8"))[41 - 3]);
}
