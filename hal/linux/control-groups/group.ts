/**
 * One control group: a folder in each tree that has one of its controllers. Files of control groups are answered by the kernel at once, so they are
 * read and written on this thread; but what may have to look for memory first is not (`setAside`).
 *
 * Obligations: `empty` is a success only when nothing but what was to be kept is in it; what is being made meanwhile is found, too.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { UsageStatus } from "../../../firmware-ts/schema/status.ts";
import { killQuietly, statFields } from "../processes.ts";
import { type ControllerName, controllerNames, type Hierarchies } from "./hierarchies.ts";
import type { Setting } from "./settings.ts";
import { forksRefusedIn, usageIn } from "./usage.ts";

const pollMs = 1;
const pidsMax = "pids.max";
/** Whoever makes new processes faster than they are killed makes none after so many rounds: all have at most this number. */
const roundsBeforeNoForks = 3;

export class ControlGroup {
  readonly #hierarchies: Hierarchies;
  readonly #name: string;
  /** The last limit of processes that was asked for. */
  #processes: string | undefined;

  /** `name` may have several parts; it is the same in every tree. */
  constructor(hierarchies: Hierarchies, name: string) {
    this.#hierarchies = hierarchies;
    this.#name = name;
  }

  child(name: string): ControlGroup {
    return new ControlGroup(this.#hierarchies, join(this.#name, name));
  }

  /** Its folders, each once: version 2 has one for all controllers. */
  get folders(): readonly string[] {
    return [...new Set(controllerNames.flatMap((name) => this.#folder(name) ?? []))];
  }

  /** Files by which a program joins it: it writes `0` to each (cgroups(7)). */
  get joinPaths(): readonly string[] {
    return this.folders.map((folder) => join(folder, "cgroup.procs"));
  }

  exists(): boolean {
    return this.folders.every((folder) => existsSync(folder));
  }

  /** Idempotent. Fault `ioError`. */
  make(): Outcome {
    return this.#try("make", () => {
      for (const folder of this.folders) mkdirSync(folder, { recursive: true });
    });
  }

  /** Lets groups below it be limited; there is nothing to be said in version 1. Fault `ioError`. */
  handDown(): Outcome {
    return this.#try("hand down", () => {
      const names = controllerNames.filter((name) => this.#hierarchies[name]?.version === 2);
      const [first] = names;
      const wanted = names.filter((name) => name !== "cpuacct").map((name) => `+${name}`);
      if (first && wanted.length > 0)
        this.#write(first, { file: "cgroup.subtree_control", value: wanted.join(" ") });
    });
  }

  /** Writes what differs from what is there. Fault `ioError`: the first that is refused ends it. */
  set(name: ControllerName, settings: readonly Setting[]): Outcome {
    this.#processes = settings.find(({ file }) => file === pidsMax)?.value ?? this.#processes;
    return this.#try("limit", () => {
      for (const setting of settings) if (this.#differs(name, setting)) this.#write(name, setting);
    });
  }

  /** The same where the kernel may take its time: not on this thread. */
  async setAside(name: ControllerName, settings: readonly Setting[]): Promise<Outcome> {
    try {
      for (const setting of settings) {
        const folder = this.#folder(name);
        if (folder === undefined || !this.#differs(name, setting)) continue;
        await writeFile(join(folder, setting.file), setting.value, { flag: "r+" });
      }
      return done;
    } catch (error) {
      return this.#refused("limit", error);
    }
  }

  #differs(name: ControllerName, { file, value }: Setting): boolean {
    return this.#read(name, file)?.trim() !== value;
  }

  usage(): UsageStatus {
    return usageIn(
      (name) => this.#hierarchies[name]?.version,
      (name, file) => this.#read(name, file),
    );
  }

  /** How often a program in it was refused a new process; undefined where the kernel does not say. */
  forksRefused(): number | undefined {
    return forksRefusedIn(this.#read("pids", "pids.events"));
  }

  /** Names of the groups below it, in any tree. */
  children(): readonly string[] {
    const names = this.folders.flatMap((folder) => {
      try {
        return readdirSync(folder, { withFileTypes: true }).filter((each) => each.isDirectory());
      } catch {
        return [];
      }
    });
    return [...new Set(names.map(({ name }) => name))];
  }

  /** Processes in it, in any tree. One that has ended but for its parent's asking is none. */
  processes(): readonly number[] {
    const texts = this.joinPaths.map((path) => readIfThere(path) ?? "");
    return [...new Set(texts.flatMap((text) => text.split("\n").filter(Boolean).map(Number)))];
  }

  /**
   * Kills all that is in it but `keep`, which is asked in each round, and what is in a process group that one of these leads, and waits until nothing else is there. Costs a look when there is nothing.
   * Fault `timeout`.
   */
  async empty(keep: () => readonly number[], timeoutMs: number): Promise<Outcome> {
    const startedAt = performance.now();
    const before = this.#processes ?? this.#read("pids", pidsMax)?.trim();
    let forbidden = false;
    try {
      for (let round = 1; ; round += 1) {
        const kept = new Set(keep());
        const others = this.processes().filter(
          (pid) => !kept.has(pid) && !kept.has(processGroupOf(pid)),
        );
        if (others.length === 0) return done;
        if (performance.now() - startedAt > timeoutMs) {
          const left = others.slice(0, 8).join(", ");
          return failed("timeout", `empty ${this.#name}`, `${others.length} live: ${left}`);
        }
        forbidden = round >= roundsBeforeNoForks;
        if (forbidden) this.#limitProcesses("0");
        if (kept.size === 0) this.#killAtOnce();
        for (const pid of others) killQuietly(pid);
        await delay(pollMs);
      }
    } finally {
      // Asked for another limit meanwhile: that one.
      if (forbidden) this.#limitProcesses(this.#processes ?? before);
    }
  }

  /** Removes it, where nothing is in it. Fault `ioError`. */
  remove(): Outcome {
    return this.#try("remove", () => {
      for (const folder of this.folders) if (existsSync(folder)) rmdirSync(folder);
    });
  }

  /** As `remove`, again and again as long as something in it is on its way out. Fault `ioError`. */
  async removeSoon(timeoutMs: number): Promise<Outcome> {
    const startedAt = performance.now();
    for (;;) {
      const removed = this.remove();
      if (removed.ok || performance.now() - startedAt > timeoutMs) return removed;
      await delay(pollMs);
    }
  }

  #limitProcesses(value: string | undefined): void {
    if (value === undefined) return;
    this.#try("limit", () => {
      if (this.#read("pids", pidsMax) !== undefined) this.#write("pids", { file: pidsMax, value });
    });
  }

  /** Version 2 kills a whole group, also what is forked meanwhile (since Linux 5.14). */
  #killAtOnce(): void {
    for (const folder of this.folders) {
      const path = join(folder, "cgroup.kill");
      if (existsSync(path)) this.#try("kill", () => writeFileSync(path, "1", { flag: "r+" }));
    }
  }

  #folder(name: ControllerName): string | undefined {
    const hierarchy = this.#hierarchies[name];
    return hierarchy && join(hierarchy.path, this.#name);
  }

  #read(name: ControllerName, file: string): string | undefined {
    const folder = this.#folder(name);
    return folder === undefined ? undefined : readIfThere(join(folder, file));
  }

  #write(name: ControllerName, { file, value }: Setting): void {
    const folder = this.#folder(name);
    if (folder !== undefined) writeFileSync(join(folder, file), value, { flag: "r+" });
  }

  #try(verb: string, action: () => void): Outcome {
    try {
      action();
      return done;
    } catch (error) {
      return this.#refused(verb, error);
    }
  }

  #refused(verb: string, error: unknown): Outcome {
    return failed("ioError", `${verb} control group ${this.#name}`, "refused", error);
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** proc_pid_stat(5), field 5; NaN for one that is gone. */
function processGroupOf(pid: number): number {
  return Number(statFields(readIfThere(`/proc/${pid}/stat`) ?? "")[5 - 3]);
}
