/** Looks for traces of a world, by every way in which one could be left. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { Cgroup, findCgroup } from "../../../bench/world/cgroup.ts";
import { controllerIds, layoutOf } from "../../../bench/world/layout.ts";
import { loopsBelow } from "../../../bench/world/loops.ts";
import { listNamespaces } from "../../../bench/world/network.ts";
import { configOf } from "../../../bench/world/plan.ts";
import { controlGroupOf } from "../../../hal/bench/places.ts";
import { ControlGroup } from "../../../hal/linux/control-groups/group.ts";
import { findHierarchies } from "../../../hal/linux/control-groups/hierarchies.ts";

/** Everything that is still there, in words; empty when nothing is. */
export async function leftovers(prefix: string): Promise<string[]> {
  const layout = layoutOf(prefix);
  const namespaces = await listNamespaces(prefix);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(layout.baseDir));
  const cgroup = new Cgroup(findCgroup(), layout.cgroupName);
  return [
    ...namespaces.map((name) => `namespace ${name}`),
    ...loopsBelow(layout.baseDir).map((loop) => `loop device ${loop.device}`),
    ...mounts.map((line) => `mount ${line}`),
    ...(cgroup.exists() ? [`cgroup ${cgroup.path}`] : []),
    ...controllerIds.flatMap((id) => limitingGroups(controlGroupOf(configOf(layout, id)))),
    ...(existsSync(layout.baseDir) ? [layout.baseDir] : []),
    ...(existsSync(`/run/dyad-bench/${prefix}.jsonl`) ? ["ledger"] : []),
    ...processesNaming(layout.baseDir),
  ];
}

/** What the firmware made for its virtual servers, in any tree. */
function limitingGroups(name: string): string[] {
  const found = findHierarchies();
  if (!found.ok) throw new Error(found.fault.message);
  const { folders } = new ControlGroup(found.value.hierarchies, name);
  return folders.filter((folder) => existsSync(folder)).map((folder) => `cgroup ${folder}`);
}

/** Processes with the world's directory on their command line: the daemons, their helpers, file servers, the shelf. */
function processesNaming(directory: string): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      return words.includes(`${directory}/`) ? [`process ${pid}: ${words}`] : [];
    } catch {
      return [];
    }
  });
}
