/**
 * Removes a world, whether it is ours and running or what a killed run left behind. Everything is found by name or in the
 * ledger, nothing is remembered in memory, so both cases are one.
 */
import { existsSync, rmSync } from "node:fs";
import { explain } from "../../firmware-ts/schema/outcome.ts";
import { controlGroupOf } from "../../hal/bench/places.ts";
import { removeControlGroups } from "../../hal/linux/control-groups/groups.ts";
import { Cgroup, findCgroup } from "./cgroup.ts";
import { BenchError } from "./error.ts";
import { ipBatch, limitMs, waitFor } from "./exec.ts";
import { restoreSettings } from "./kernel-settings.ts";
import { controllerIds, type Layout } from "./layout.ts";
import { Ledger, startTicksOf } from "./ledger.ts";
import { detachLoops, type LoopDevice, loopsBelow } from "./loops.ts";
import { listNamespaces } from "./network.ts";
import { configOf } from "./plan.ts";
import { signal } from "./processes.ts";

/** What was there to clean, for people. */
export interface Cleaned {
  readonly processes: number;
  readonly namespaces: readonly string[];
  readonly loops: readonly string[];
  readonly files: boolean;
}

/** Idempotent, and safe to interrupt: whatever is left is found again. */
export async function cleanWorld(layout: Layout): Promise<Cleaned> {
  const ledger = new Ledger(layout.prefix);
  const cgroup = new Cgroup(findCgroup(), layout.cgroupName);
  // Before the mount namespaces go, and written down: afterwards the paths no longer tell whose the devices are.
  const now = loopsBelow(layout.baseDir);
  for (const { device, backing } of now) ledger.loop(device, backing);
  const entries = ledger.entries();
  const processes = await killAll(cgroup, entries);
  const recorded = entries.flatMap((entry): LoopDevice[] => (entry.kind === "loop" ? [entry] : []));
  await removeGroups(layout);
  await detachLoops([...recorded, ...now]);
  const namespaces = await removeNamespaces(layout.prefix);
  const files = existsSync(layout.baseDir);
  rmSync(layout.baseDir, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
  restoreSettings(ledger);
  ledger.remove();
  return { processes, namespaces, loops: now.map((each) => each.device), files };
}

/** The groups that the firmware made for virtual servers: in version 1 they are in trees of their own. */
async function removeGroups(layout: Layout): Promise<void> {
  for (const id of controllerIds) {
    const name = controlGroupOf(configOf(layout, id));
    await waitFor(`remove control group ${name}`, () => isRemoved(name), {
      deadlineMs: limitMs,
      intervalMs: 5,
    });
  }
}

async function isRemoved(name: string): Promise<boolean> {
  const removed = await removeControlGroups(name, limitMs);
  if (!removed.ok) throw new Error(explain(removed.fault));
  return true;
}

/**
 * Controllers before their holders: whoever leaves a mount namespace last unmounts what is left in it. If that were the server of the
 * FUSE file below a mount, it would wait for its own answer, for ever, and with it everybody who looks at its loop device.
 */
async function killAll(cgroup: Cgroup, entries: ReturnType<Ledger["entries"]>): Promise<number> {
  const inGroup = cgroup.exists() ? cgroup.processes() : [];
  const controllers = controllerIds.map((id) => cgroup.child(id)).filter((each) => each.exists());
  for (const each of controllers) each.kill();
  await Promise.all(controllers.map((each) => each.empty(limitMs)));
  await cgroup.remove();
  const stray = entries.filter(
    (entry) => entry.kind === "process" && startTicksOf(entry.pid) === entry.startTicks,
  );
  const pids = stray.flatMap((entry) => (entry.kind === "process" ? [entry.pid] : []));
  for (const pid of pids) signal(pid, "SIGKILL");
  await waitFor("end of recorded processes", () => stray.every(gone), { deadlineMs: limitMs });
  return new Set([...inGroup, ...pids]).size;
}

/** A zombie is gone too: only its parent, perhaps we ourselves a moment later, still counts it. */
function gone(entry: ReturnType<Ledger["entries"]>[number]): boolean {
  return (
    entry.kind !== "process" || startTicksOf(entry.pid) !== entry.startTicks || isZombie(entry.pid)
  );
}

function isZombie(pid: number): boolean {
  return !existsSync(`/proc/${pid}/exe`) || startTicksOf(pid) === undefined;
}

async function removeNamespaces(prefix: string): Promise<string[]> {
  const names = await listNamespaces(prefix);
  if (names.length === 0) return [];
  await ipBatch(
    undefined,
    names.map((name) => `netns del ${name}`),
    true,
  ).catch(() => undefined);
  const left = await listNamespaces(prefix);
  if (left.length > 0)
    throw new BenchError("worldBroken", "clean", `namespaces stay: ${left.join(" ")}`);
  return names;
}
