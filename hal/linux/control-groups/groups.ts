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
import { settingsOf, weightSetting } from "./settings.ts";

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
  /** Whether all that an earlier life left is gone. Fault `timeout`. */
  readonly left: Outcome;
  /** Makes the group and sets its limits, for what runs in it already, too. Idempotent. Fault `ioError`: what could be set is set. */
  limit(name: string, limits: LimitsConfig): Outcome;
  /** Files by which a program joins the group of a virtual server; made anew if somebody has removed it. */
  joinPaths(name: string): readonly string[];
  /** Kills what is in the group but `keep`, and waits until it is gone. Fault `timeout`. */
  empty(name: string, keep: () => readonly number[], timeoutMs: number): Promise<Outcome>;
  usage(name: string): UsageStatus;
  /** Removes those in which nothing is left. */
  close(): void;
}

/**
 * Kills what an earlier life left in groups below `parent`, also of virtual servers that nobody knows any more, and opens them for the
 * virtual servers of today (`names`).
 */
export async function openControlGroups(options: {
  readonly parent: string;
  readonly names: ReadonlySet<string>;
  readonly timeoutMs: number;
}): Promise<ControlGroups> {
  const found = findHierarchies();
  if (!found.ok) {
    const why = explain(found.fault);
    const refusals = Object.fromEntries(controllerNames.map((name) => [name, why]));
    return new Groups(options.parent, { hierarchies: {}, refusals }, done);
  }
  const { unified, hierarchies } = found.value;
  const left = await emptyAll(new ControlGroup(hierarchies, options.parent), options);
  return new Groups(options.parent, prepare(options.parent, unified, hierarchies), left);
}

/** Removes the groups of a controller that is no more, with what is left in them. Faults: `timeout`, `ioError`. */
export async function removeControlGroups(parentName: string, timeoutMs: number): Promise<Outcome> {
  const found = findHierarchies();
  if (!found.ok) return found;
  const parent = new ControlGroup(found.value.hierarchies, parentName);
  const emptied = await emptyAll(parent, { names: new Set(), timeoutMs });
  // Also what could not be removed a moment ago.
  return emptied.ok ? parent.remove() : emptied;
}

async function emptyAll(
  parent: ControlGroup,
  { names, timeoutMs }: { readonly names: ReadonlySet<string>; readonly timeoutMs: number },
): Promise<Outcome> {
  const outcomes = await Promise.all(
    parent.children().map(async (name) => {
      const group = parent.child(name);
      const emptied = await group.empty(() => [], timeoutMs);
      // An empty one that stays harms nobody.
      if (!names.has(name)) await group.removeSoon(removeMs);
      return emptied;
    }),
  );
  return outcomes.find((each) => !each.ok) ?? done;
}

interface Ready {
  readonly hierarchies: Hierarchies;
  /** Why a controller that is there cannot be used. */
  readonly refusals: { readonly [name in ControllerName]?: string };
}

/** Makes the group of all, in the trees that take it. */
function prepare(
  parentName: string,
  unified: Unified | undefined,
  hierarchies: Hierarchies,
): Ready {
  const usable: [ControllerName, Hierarchy][] = [];
  const refusals: { [name in ControllerName]?: string } = {};
  const handed = handDown(unified, ofVersion(2, hierarchies));
  for (const name of controllerNames) {
    const hierarchy = hierarchies[name];
    if (!hierarchy) continue;
    const parent = new ControlGroup({ [name]: hierarchy }, parentName);
    const outcome = hierarchy.version === 2 && !handed.ok ? handed : parent.make();
    if (outcome.ok) usable.push([name, hierarchy]);
    else refusals[name] = explain(outcome.fault);
  }
  const taken: Hierarchies = Object.fromEntries(usable);
  const ready = makeParent(new ControlGroup(taken, parentName), taken);
  if (ready.ok) return { hierarchies: taken, refusals };
  const why = explain(ready.fault);
  return { hierarchies: {}, refusals: Object.fromEntries(usable.map(([name]) => [name, why])) };
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

class Groups implements ControlGroups {
  readonly without: ControlGroups["without"];
  readonly left: Outcome;
  readonly #parent: ControlGroup;
  readonly #hierarchies: Hierarchies;
  readonly #groups = new Map<string, { readonly group: ControlGroup; limits: LimitsConfig }>();

  constructor(parentName: string, { hierarchies, refusals }: Ready, left: Outcome) {
    this.left = left;
    this.#parent = new ControlGroup(hierarchies, parentName);
    this.#hierarchies = hierarchies;
    this.without = controllerNames.flatMap((name) => {
      const keys = keysOf[name];
      if (hierarchies[name] || keys.length === 0) return [];
      return [{ keys, why: refusals[name] ?? `no control group has ${name} here` }];
    });
  }

  limit(name: string, limits: LimitsConfig): Outcome {
    const group = this.#groups.get(name)?.group ?? this.#parent.child(name);
    this.#groups.set(name, { group, limits });
    // Somebody may have removed all of them.
    const ready = this.#parent.exists() ? done : makeParent(this.#parent, this.#hierarchies);
    const made = ready.ok ? group.make() : ready;
    if (!made.ok) return made;
    const outcomes = controllerNames.map((controller) => {
      const hierarchy = this.#hierarchies[controller];
      return hierarchy
        ? group.set(controller, settingsOf(controller, hierarchy.version, limits))
        : done;
    });
    return outcomes.find((each) => !each.ok) ?? done;
  }

  joinPaths(name: string): readonly string[] {
    const known = this.#groups.get(name);
    if (!known) return [];
    if (!known.group.exists()) this.limit(name, known.limits);
    // A program that finds no group to join is not started (enter.c); it had better run without.
    return known.group.exists() ? known.group.joinPaths : [];
  }

  async empty(name: string, keep: () => readonly number[], timeoutMs: number): Promise<Outcome> {
    const group = this.#groups.get(name)?.group;
    return group ? await group.empty(keep, timeoutMs) : done;
  }

  usage(name: string): UsageStatus {
    return this.#groups.get(name)?.group.usage() ?? {};
  }

  close(): void {
    // One in which something is left stays, and is emptied by the next life.
    for (const { group } of this.#groups.values()) group.remove();
    this.#parent.remove();
  }
}
