/**
 * Where this kernel keeps control groups (cgroups(7)): version 2 has one tree for all controllers, version 1 a tree for each; both may be mounted, and
 * a controller is in one of them. Pure but for the last function, which reads what the others judge.
 *
 * Groups of version 2 are made below the group in which this process is: whoever ends that one (a service manager, a bench) ends what is in
 * them, too. Those of version 1 are made at the root of their trees; no service manager ends programs by these.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";

/** `cpuacct` counts what `cpu` limits; in version 2 every group counts. */
export const controllerNames = ["cpu", "cpuacct", "memory", "pids"] as const;
export type ControllerName = (typeof controllerNames)[number];

export interface Hierarchy {
  readonly version: 1 | 2;
  /** The folder in which groups are made. */
  readonly path: string;
}

export type Hierarchies = { readonly [name in ControllerName]?: Hierarchy };

/** The tree of version 2, as far as it concerns this process. */
export interface Unified {
  /** The group in which this process was started. */
  readonly path: string;
  /** It is the root of the tree, where processes and limits of others may be side by side. */
  readonly isRoot: boolean;
}

/**
 * Below a group that has limits for its children no process may be in the group itself (cgroups(7), "no internal processes"): the firmware moves
 * here. A service manager may also start it here (DelegateSubgroup= of systemd.resource-control(5)).
 */
export const firmwareGroup = "firmware";

interface Mount {
  readonly root: string;
  readonly path: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** Mounts of control groups, from `/proc/self/mountinfo` (proc(5)): of several on one path the last covers the others. */
function mountsIn(mountinfo: string): Mount[] {
  const byPath = new Map<string, Mount>();
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , root, path] = left.split(" ");
    const [type, , options = ""] = right.split(" ");
    if (root === undefined || path === undefined || type === undefined) continue;
    byPath.set(path, { root, path, type, options: options.split(",") });
  }
  return [...byPath.values()].filter(({ type }) => type === "cgroup" || type === "cgroup2");
}

/** The group of version 2 in which this process is; undefined where that tree is not mounted. `own` is `/proc/self/cgroup`. */
export function unifiedIn(mountinfo: string, own: string): Unified | undefined {
  const mount = mountsIn(mountinfo).find(({ type }) => type === "cgroup2");
  // Hierarchy number 0 without controllers is version 2 (cgroups(7)).
  const group = /^0::(.*)$/m.exec(own)?.[1];
  if (!mount || group === undefined) return undefined;
  const below = mount.root === "/" ? group : group.replace(mount.root, "");
  const suffix = `/${firmwareGroup}`;
  const inside = below.endsWith(suffix) ? below.slice(0, -suffix.length) : below;
  const isRoot = inside === "" || inside === "/";
  return { path: isRoot ? mount.path : join(mount.path, inside), isRoot };
}

/** Which controller is where. `offered` are those that the group of version 2 has (its `cgroup.controllers`). */
export function hierarchiesIn(
  mountinfo: string,
  unified: Unified | undefined,
  offered: readonly string[],
): Hierarchies {
  const version1 = mountsIn(mountinfo).filter(({ type }) => type === "cgroup");
  const found = controllerNames.flatMap((name): [ControllerName, Hierarchy][] => {
    // Every group of version 2 has cpu.stat, whether processors are limited in it or not.
    const counts = name === "cpuacct" && offered.includes("cpu");
    if (unified && (offered.includes(name) || counts))
      return [[name, { version: 2, path: unified.path }]];
    const mount = version1.find(({ options }) => options.includes(name));
    return mount ? [[name, { version: 1, path: mount.path }]] : [];
  });
  return Object.fromEntries(found);
}

/** What this machine has, for a process (`self`, or its id). Fault `ioError`. */
export function findHierarchies(process = "self"): Outcome<{
  readonly unified: Unified | undefined;
  readonly hierarchies: Hierarchies;
}> {
  try {
    const mountinfo = readFileSync("/proc/self/mountinfo", "utf8");
    const unified = unifiedIn(mountinfo, readFileSync(`/proc/${process}/cgroup`, "utf8"));
    const offered = unified
      ? readFileSync(join(unified.path, "cgroup.controllers"), "utf8").trim().split(" ")
      : [];
    return good({ unified, hierarchies: hierarchiesIn(mountinfo, unified, offered) });
  } catch (error) {
    return failed("ioError", "find control groups", "not read", error);
  }
}
