/**
 * The control groups of a controller: one for each virtual server, below one of its own. Every program of a virtual server joins before it becomes
 * that program (place/enter.c); the firmware's own processes are in none of them, so that no limit of a customer is theirs.
 *
 * Obligations: nothing of an earlier life is in a group when this is open; a kernel that lacks a controller, or refuses a limit, is told, and
 * never a reason not to serve.
 */
import { writeFileSync } from "node:fs";
import type { LimitsConfig } from "../../../firmware-ts/schema/config.ts";
import { done, explain, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { UsageStatus } from "../../../firmware-ts/schema/status.ts";
import { ControlGroup } from "./group.ts";
import {
  type ControllerName,
  controllerNames,
  findHierarchies,
  firmwareGroup,
  type Hierarchies,
  type Hierarchy,
  type Unified,
} from "./hierarchies.ts";
import { idleSetting, settingsOf, weightSetting } from "./settings.ts";
import { lookAt, lookMs, type Yielding } from "./yielding.ts";

/**
 * All virtual servers together, against whatever else runs on the controller: as much as niceness -10 is worth (9548 against 1024), which is
 * what the block service has, and what a file server had alone before there were groups. Niceness counts within a group only (sched(7)).
 */
const serversWeight = 1000;

/** A process that is not quite gone keeps its group for so long at most. */
const removeMs = 100;

/** The keys of the configuration that each controller is for. */
const keysOf: { readonly [name in ControllerName]: readonly string[] } = {
  cpu: ["cpu_weight", "cpu_percent"],
  cpuacct: [],
  memory: ["memory_mb"],
  pids: ["processes"],
};

export interface ControlGroups {
  /** Keys of the configuration that have no effect on this kernel, and why. */
  readonly without: readonly { readonly keys: readonly string[]; readonly why: string }[];
  /** Kills what is in any of the groups, also in those of virtual servers that nobody knows any more. Fault `timeout`. */
  emptyAll(timeoutMs: number): Promise<Outcome>;
  /**
   * Makes the group and sets its limits, for what runs in it already, too. Idempotent. Fault `ioError`: what could be set is set. Less memory than is in use
   * takes as long as the kernel needs to find it.
   */
  limit(name: string, limits: LimitsConfig): Promise<Outcome>;
  /** Files by which a program joins the group of a virtual server; made anew if somebody has removed it. */
  joinPaths(name: string): Promise<readonly string[]>;
  /** Kills what is in the group but `keep`, and waits until it is gone. Fault `timeout`. */
  empty(name: string, keep: () => readonly number[], timeoutMs: number): Promise<Outcome>;
  /** Undefined for one that was never limited. */
  usage(name: string): UsageStatus | undefined;
  /**
   * From now on those yield the processors to all others whose programs are refused new processes, many at a time (yielding.ts). `changed`: one begins to
   * yield, or ends.
   */
  watch(changed: (name: string, isYielding: boolean) => void): void;
  /** Removes the group, with what is left in it. Idempotent. Fault `timeout`. */
  forget(name: string, timeoutMs: number): Promise<Outcome>;
  /** Removes groups of an earlier life whose virtual servers nobody has limited in this one. */
  prune(): Promise<void>;
  /** Removes those in which nothing is left. */
  close(): void;
}

/**
 * Opens the control groups below `parent`, in the trees of this machine if no others are given. What an earlier life left in them is still there. In version 2 this process moves to a group of its own, so this comes
 * before it has children.
 */
export function openControlGroups(parent: string, found = findHierarchies()): ControlGroups {
  if (found.ok) return new Groups(parent, prepare(parent, found.value));
  const why = explain(found.fault);
  const refusals = Object.fromEntries(controllerNames.map((name) => [name, why]));
  return new Groups(parent, { found: {}, hierarchies: {}, refusals });
}

/** Removes the groups of a controller that is no more, with what is left in them. Faults: `timeout`, `ioError`. */
export async function removeControlGroups(parentName: string, timeoutMs: number): Promise<Outcome> {
  const found = findHierarchies();
  if (!found.ok) return found;
  const parent = new ControlGroup(found.value.hierarchies, parentName);
  const emptied = await eachChild(parent, async (child) => {
    const ended = await child.empty(() => [], timeoutMs);
    return ended.ok ? await child.removeSoon(removeMs) : ended;
  });
  return emptied.ok ? parent.remove() : emptied;
}

async function eachChild(
  parent: ControlGroup,
  action: (child: ControlGroup, name: string) => Promise<Outcome>,
): Promise<Outcome> {
  const names = parent.children();
  const outcomes = await Promise.all(names.map((name) => action(parent.child(name), name)));
  return outcomes.find((each) => !each.ok) ?? done;
}

interface Ready {
  /** All that there are: an earlier life may have used what this one cannot. */
  readonly found: Hierarchies;
  /** Those in which limits hold. */
  readonly hierarchies: Hierarchies;
  /** Why a controller that is there cannot be used. */
  readonly refusals: { readonly [name in ControllerName]?: string };
}

/** Makes the group of all, in the trees that take it. */
function prepare(
  parentName: string,
  {
    unified,
    hierarchies: found,
  }: { readonly unified: Unified | undefined; readonly hierarchies: Hierarchies },
): Ready {
  const usable: [ControllerName, Hierarchy][] = [];
  const refusals: { [name in ControllerName]?: string } = {};
  const handed = handDown(unified, ofVersion(2, found));
  for (const name of controllerNames) {
    const hierarchy = found[name];
    if (!hierarchy) continue;
    const parent = new ControlGroup({ [name]: hierarchy }, parentName);
    const outcome = hierarchy.version === 2 && !handed.ok ? handed : parent.make();
    if (outcome.ok) usable.push([name, hierarchy]);
    else refusals[name] = explain(outcome.fault);
  }
  const taken: Hierarchies = Object.fromEntries(usable);
  const ready = makeParent(new ControlGroup(taken, parentName), taken);
  if (ready.ok) return { found, hierarchies: taken, refusals };
  const why = explain(ready.fault);
  const all = Object.fromEntries(usable.map(([name]) => [name, why]));
  return { found, hierarchies: {}, refusals: { ...refusals, ...all } };
}

/** The group of all: with a weight of its own, and with controllers for what is made in it. Idempotent. Fault `ioError`. */
function makeParent(parent: ControlGroup, { cpu }: Hierarchies): Outcome {
  const made = parent.make();
  const below = made.ok ? parent.handDown() : made;
  if (!below.ok || !cpu) return below;
  return parent.set("cpu", [weightSetting(cpu.version, serversWeight)]);
}

function ofVersion(version: 1 | 2, hierarchies: Hierarchies): Hierarchies {
  const entries = Object.entries(hierarchies).filter(([, each]) => each.version === version);
  return Object.fromEntries(entries);
}

/**
 * In version 2 the group in which the firmware is hands its controllers down to those that are made in it, which it may only when no process is
 * in itself.
 */
function handDown(unified: Unified | undefined, hierarchies: Hierarchies): Outcome {
  const own = new ControlGroup(hierarchies, ".");
  if (!unified || own.folders.length === 0) return done;
  if (unified.isRoot) return own.handDown();
  const firmware = own.child(firmwareGroup);
  const made = firmware.make();
  if (!made.ok) return made;
  const operation = `leave control group ${unified.path}`;
  try {
    for (const path of firmware.joinPaths) writeFileSync(path, "0", { flag: "r+" });
  } catch (error) {
    return failed("ioError", operation, "refused", error);
  }
  const others = own.processes();
  if (others.length === 0) return own.handDown();
  return failed(
    "refused",
    operation,
    `other processes are in it: ${others.slice(0, 8).join(", ")}`,
  );
}

interface Entry {
  readonly group: ControlGroup;
  limits: LimitsConfig;
  seen: Yielding | undefined;
}

class Groups implements ControlGroups {
  readonly without: ControlGroups["without"];
  readonly #parent: ControlGroup;
  /** The same group, wherever there may be one. */
  readonly #everywhere: ControlGroup;
  readonly #hierarchies: Hierarchies;
  readonly #groups = new Map<string, Entry>();
  #looking: NodeJS.Timeout | undefined;

  constructor(parentName: string, { found, hierarchies, refusals }: Ready) {
    this.#parent = new ControlGroup(hierarchies, parentName);
    this.#everywhere = new ControlGroup(found, parentName);
    this.#hierarchies = hierarchies;
    this.without = controllerNames.flatMap((name) => {
      const keys = keysOf[name];
      if (hierarchies[name] || keys.length === 0) return [];
      return [{ keys, why: refusals[name] ?? `no control group has ${name} here` }];
    });
  }

  emptyAll(timeoutMs: number): Promise<Outcome> {
    return eachChild(this.#everywhere, (child) => child.empty(() => [], timeoutMs));
  }

  async limit(name: string, limits: LimitsConfig): Promise<Outcome> {
    const known = this.#groups.get(name);
    if (known) known.limits = limits;
    else this.#groups.set(name, { group: this.#parent.child(name), limits, seen: undefined });
    return await this.#apply(name);
  }

  async #apply(name: string): Promise<Outcome> {
    const known = this.#groups.get(name);
    if (!known) return done;
    const { group, limits, seen } = known;
    // Somebody may have removed all of them.
    const ready = this.#parent.exists() ? done : makeParent(this.#parent, this.#hierarchies);
    const made = ready.ok ? group.make() : ready;
    if (!made.ok) return made;
    const outcomes: Outcome[] = [];
    for (const controller of controllerNames) {
      const hierarchy = this.#hierarchies[controller];
      if (!hierarchy) continue;
      const isYielding = seen?.untilMs !== undefined;
      const settings = settingsOf(controller, hierarchy.version, limits, isYielding);
      // The kernel looks for memory to give back within the call.
      const set =
        controller === "memory"
          ? group.setAside(controller, settings)
          : group.set(controller, settings);
      outcomes.push(await set);
    }
    return outcomes.find((each) => !each.ok) ?? done;
  }

  async joinPaths(name: string): Promise<readonly string[]> {
    const known = this.#groups.get(name);
    if (!known) return [];
    if (!known.group.exists()) await this.#apply(name);
    // A program that finds no group to join is not started (enter.c); it had better run without.
    return known.group.exists() ? known.group.joinPaths : [];
  }

  async empty(name: string, keep: () => readonly number[], timeoutMs: number): Promise<Outcome> {
    const group = this.#groups.get(name)?.group;
    return group ? await group.empty(keep, timeoutMs) : done;
  }

  usage(name: string): UsageStatus | undefined {
    return this.#groups.get(name)?.group.usage();
  }

  watch(changed: (name: string, isYielding: boolean) => void): void {
    const look = () => {
      for (const [name, entry] of this.#groups) this.#look(name, entry, changed);
    };
    this.#looking = setInterval(look, lookMs).unref();
  }

  #look(name: string, entry: Entry, changed: (name: string, isYielding: boolean) => void): void {
    const { group, seen } = entry;
    const refused = group.forksRefused();
    const { cpu } = this.#hierarchies;
    if (refused === undefined || !cpu) return;
    const next = lookAt(seen, refused, performance.now());
    entry.seen = next;
    const isYielding = next.untilMs !== undefined;
    if (isYielding === (seen?.untilMs !== undefined)) return;
    const set = group.set("cpu", [
      idleSetting(isYielding),
      ...settingsOf("cpu", cpu.version, entry.limits, isYielding),
    ]);
    // A kernel before Linux 5.15 cannot.
    if (set.ok) changed(name, isYielding);
  }

  async forget(name: string, timeoutMs: number): Promise<Outcome> {
    const group = this.#everywhere.child(name);
    const emptied = await group.empty(() => [], timeoutMs);
    if (!emptied.ok) return emptied;
    this.#groups.delete(name);
    // An empty one that stays harms nobody, and goes with the next life.
    await group.removeSoon(removeMs);
    return done;
  }

  async prune(): Promise<void> {
    await eachChild(this.#everywhere, (child, name) =>
      this.#groups.has(name) ? Promise.resolve(done) : child.removeSoon(removeMs),
    );
  }

  close(): void {
    clearInterval(this.#looking);
    // One in which something is left stays, and is emptied by the next life.
    for (const { group } of this.#groups.values()) group.remove();
    this.#parent.remove();
  }
}
