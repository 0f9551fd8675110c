/**
 * A control group of version 2 for this process alone, as a service manager gives one to a service (Delegate=yes of systemd.resource-control(5)): where
 * version 2 has the controllers, groups are made below one's own, and the test's parents are in that of the test.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findHierarchies } from "../../../hal/linux/control-groups/hierarchies.ts";

const controllers = ["cpu", "memory", "pids"];

/** Returns the way back; nothing is changed where version 1 has the controllers. */
export function moveToOwnGroup(): () => void {
  const found = findHierarchies();
  if (!found.ok) throw new Error(JSON.stringify(found.fault));
  const { unified } = found.value;
  if (!unified) return () => undefined;
  const home = /^0::(.*)$/m.exec(readFileSync("/proc/self/cgroup", "utf8"))?.[1] ?? "/";
  const root = unified.isRoot ? unified.path : unified.path.slice(0, -home.length);
  const offered = readFileSync(join(root, "cgroup.controllers"), "utf8").trim().split(" ");
  const wanted = controllers.filter((name) => offered.includes(name));
  if (wanted.length === 0) return () => undefined;
  const path = join(root, `dyadtest-${process.pid}`);
  writeFileSync(join(root, "cgroup.subtree_control"), wanted.map((name) => `+${name}`).join(" "));
  mkdirSync(path);
  writeFileSync(join(path, "cgroup.procs"), "0");
  return () => {
    writeFileSync(join(root, home, "cgroup.procs"), "0");
    for (const each of [join(path, "firmware"), path]) rmdirSync(each);
  };
}
