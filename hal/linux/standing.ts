/**
 * How a process stands that does not answer: the difference between one that hangs and one that has not come to it yet. From proc(5), which
 * says it without asking the process.
 */
import { readdirSync, readFileSync } from "node:fs";
import { statFields } from "./processes.ts";

/**
 * `disk`: a thread of it waits for a disk, or for memory that is on one (state D), and only the kernel can help it. `works`: a thread runs or waits
 * for a processor (state R), or has had one. `still`: none of that; nobody but another thread or a signal will move it.
 */
export type Standing = "disk" | "works" | "still";

/** Processor time that a process without anything to do may have had in a second: its clocks and reapers. */
const idleTicksMax = 2;

/** Letter and processor time (user and system, in ticks of 10 ms) of one line of /proc/PID/stat or /proc/PID/task/TID/stat. */
export function parseStat(line: string): { readonly state: string; readonly ticks: number } {
  const fields = statFields(line);
  return { state: fields[0] ?? "", ticks: Number(fields[14 - 3]) + Number(fields[15 - 3]) };
}

/** Processor time that a process has had, in ticks; 0 for one that is gone. */
export function ticksOf(pid: number): number {
  const line = read(`/proc/${pid}/stat`);
  return line === undefined ? 0 : parseStat(line).ticks;
}

/**
 * How a process stands, with all that it has started, that had had `ticksBefore` when it was asked: one of those may be who has to answer. One that is
 * gone stands still.
 */
export function standingOf(pid: number, ticksBefore: number): Standing {
  const lines = familyOf(pid).flatMap(threadsOf);
  const states = new Set(lines.map((line) => parseStat(line).state));
  if (states.has("D")) return "disk";
  if (states.has("R") || ticksOf(pid) - ticksBefore > idleTicksMax) return "works";
  return "still";
}

/** More of them are not looked at: each takes as long as the last. */
const familyMax = 1000;

function familyOf(pid: number): number[] {
  const family = [pid];
  for (const each of family)
    if (family.length < familyMax)
      for (const children of taskFiles(each, "children"))
        family.push(...(children.match(/\d+/g) ?? []).map(Number));
  return family;
}

const threadsOf = (pid: number) => taskFiles(pid, "stat");

/** That file of each of its threads. */
function taskFiles(pid: number, name: "stat" | "children"): string[] {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  // One that ends while we look is no thread any more.
  return threads.flatMap((thread) => read(`/proc/${pid}/task/${thread}/${name}`) ?? []);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
