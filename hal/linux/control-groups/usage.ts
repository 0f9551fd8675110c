/** What a group has used, from the files in which the kernel tells it. What is not told is absent. Pure. */
import type { UsageStatus } from "../../../firmware-ts/schema/status.ts";
import type { ControllerName } from "./hierarchies.ts";

const mebibyte = 1024 * 1024;

/** A number behind its name on a line of its own. */
function field(text: string | undefined, name: string): number | undefined {
  const found = new RegExp(`^${name} (\\d+)$`, "m").exec(text ?? "")?.[1];
  return found === undefined ? undefined : Number(found);
}

function whole(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+\s*$/.test(text) ? Number(text) : undefined;
}

/** Undefined stays undefined. */
function times(value: number | undefined, factor: number): number | undefined {
  return value === undefined ? undefined : value * factor;
}

/** From the text of `pids.events`. */
export function forksRefusedIn(text: string | undefined): number | undefined {
  return field(text, "max");
}

/** `read` gives the text of a file in the group of a controller, or undefined. */
export function usageIn(
  version: (name: ControllerName) => 1 | 2 | undefined,
  read: (name: ControllerName, file: string) => string | undefined,
): UsageStatus {
  const cpuStat = read("cpu", "cpu.stat");
  const newCpu = version("cpu") === 2;
  const newMemory = version("memory") === 2;
  const cpuSeconds =
    version("cpuacct") === 2
      ? times(field(read("cpuacct", "cpu.stat"), "usage_usec"), 1e-6)
      : times(whole(read("cpuacct", "cpuacct.usage")), 1e-9);
  const throttledSeconds = newCpu
    ? times(field(cpuStat, "throttled_usec"), 1e-6)
    : times(field(cpuStat, "throttled_time"), 1e-9);
  const memoryBytes = whole(read("memory", newMemory ? "memory.current" : "memory.usage_in_bytes"));
  const told: { readonly [key in keyof UsageStatus]-?: number | undefined } = {
    cpuSeconds: rounded(cpuSeconds, 1000),
    throttledSeconds: rounded(throttledSeconds, 1000),
    memoryMb: rounded(times(memoryBytes, 1 / mebibyte), 10),
    processes: whole(read("pids", "pids.current")),
    oomKills: field(read("memory", newMemory ? "memory.events" : "memory.oom_control"), "oom_kill"),
    forksRefused: forksRefusedIn(read("pids", "pids.events")),
  };
  return Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined));
}

function rounded(value: number | undefined, parts: number): number | undefined {
  return value === undefined ? undefined : Math.round(value * parts) / parts;
}
