/**
 * Process trees as a whole: frozen, thawed and killed as a machine would be. The unified hierarchy (cgroup v2) does all of
 * that by one write each; where only the v1 freezer is there, killing is freezing, signalling and thawing.
 *
 * Nothing is limited by these groups; where they have controllers they hand them down, for the firmware to limit its virtual servers by.
 * No controller is asked for that is not there: under RT_GROUP_SCHED a process in a group with a CPU controller and without a
 * real-time budget may not ask for SCHED_FIFO, which heartbeats need.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { BenchError } from "./error.ts";
import { limitMs, waitFor } from "./exec.ts";

export interface CgroupRoot {
  readonly version: 1 | 2;
  readonly path: string;
}

/** Chooses among the mounts of `/proc/self/mountinfo` (proc(5)): cgroup2 wherever it is, else the v1 freezer. */
export function chooseCgroup(mountinfo: string): CgroupRoot | undefined {
  let freezer: CgroupRoot | undefined;
  for (const line of mountinfo.split("\n")) {
    const [left, right] = line.split(" - ");
    const path = left?.split(" ")[4];
    const [type, , options] = right?.split(" ") ?? [];
    if (path === undefined || type === undefined) continue;
    if (type === "cgroup2") return { version: 2, path };
    if (type === "cgroup" && options?.split(",").includes("freezer"))
      freezer = { version: 1, path };
  }
  return freezer;
}

/** The hierarchy of this machine. Throws `unsupported` where there is none. */
export function findCgroup(): CgroupRoot {
  const found = chooseCgroup(readFileSync("/proc/self/mountinfo", "utf8"));
  if (!found)
    throw new BenchError(
      "unsupported",
      "findCgroup",
      "neither cgroup2 nor the v1 freezer is mounted",
    );
  return found;
}

/** Those that the firmware limits virtual servers by. */
const limitingControllers = ["cpu", "memory", "pids"];

export class Cgroup {
  readonly path: string;
  readonly #version: 1 | 2;

  constructor(root: CgroupRoot, name: string) {
    this.path = join(root.path, name);
    this.#version = root.version;
  }

  child(name: string): Cgroup {
    return new Cgroup({ version: this.#version, path: this.path }, name);
  }

  create(): void {
    mkdirSync(this.path, { recursive: true });
  }

  /** Lets groups below have the controllers that this one has; processes may then be in those only ("no internal processes", cgroups(7)). */
  handDown(): void {
    const offered = readIfThere(join(this.path, "cgroup.controllers")).trim().split(" ");
    const wanted = offered.filter((name) => limitingControllers.includes(name));
    if (wanted.length === 0) return;
    const words = wanted.map((name) => `+${name}`).join(" ");
    writeFileSync(join(this.path, "cgroup.subtree_control"), words);
  }

  exists(): boolean {
    return existsSync(this.path);
  }

  /** The file into which a process writes its id to join. */
  get joinPath(): string {
    return join(this.path, "cgroup.procs");
  }

  /** Processes of this group and of all below it. */
  processes(): number[] {
    const own = readIfThere(this.joinPath).split("\n").filter(Boolean).map(Number);
    return [...own, ...this.#children().flatMap((each) => each.processes())];
  }

  /** Stops every process at once; returns when the kernel says so (tasks deep in a system call stop on their way out). */
  freeze(): void {
    if (this.#version === 2) writeFileSync(join(this.path, "cgroup.freeze"), "1");
    else writeFileSync(join(this.path, "freezer.state"), "FROZEN");
  }

  thaw(): void {
    if (this.#version === 2) writeFileSync(join(this.path, "cgroup.freeze"), "0");
    else writeFileSync(join(this.path, "freezer.state"), "THAWED");
  }

  /** SIGKILL to every process, also to those forked meanwhile and to frozen ones. */
  kill(): void {
    if (this.#version === 2) writeFileSync(join(this.path, "cgroup.kill"), "1");
    else this.#killV1();
  }

  /**
   * Kills until no thread of the group is left. Killed processes need a moment, more so when they sleep in a dying file system; and one
   * that was just being started joins only now. A process whose first thread has ended is listed no more, while another one may still
   * be unmounting: the kernel's own word counts, where it gives one.
   */
  async empty(deadlineMs: number): Promise<void> {
    const isEmpty = () => {
      if (!this.#populated()) return true;
      this.kill();
      return false;
    };
    await waitFor(`empty ${this.path}`, isEmpty, { deadlineMs, intervalMs: 2 });
  }

  /** Kills what is left and removes the group with all below it. */
  async remove(deadlineMs = limitMs): Promise<void> {
    await waitFor(
      `remove ${this.path}`,
      () => {
        if (!this.exists()) return true;
        // Again in each round: a process that was just starting may have joined since.
        this.kill();
        this.#rmdir();
        return !this.exists();
      },
      { deadlineMs, intervalMs: 3 },
    );
  }

  #populated(): boolean {
    if (this.#version === 1) return this.processes().length > 0;
    return /^populated 1$/m.test(readIfThere(join(this.path, "cgroup.events")));
  }

  #children(): Cgroup[] {
    if (!this.exists()) return [];
    return readdirSync(this.path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => this.child(entry.name));
  }

  #rmdir(): void {
    for (const child of this.#children()) child.#rmdir();
    rmdirSync(this.path);
  }

  #killV1(): void {
    for (const child of this.#children()) child.#killV1();
    this.freeze();
    for (const pid of readIfThere(this.joinPath).split("\n").filter(Boolean).map(Number)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone already, which is what was asked for.
      }
    }
    this.thaw();
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
