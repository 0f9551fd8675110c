/**
 * One controller as a machine: its network namespace stays, as a chassis does; its mount namespace and its processes come with
 * power and go with it. State that a real controller keeps on its boot disk stays in `stateDir`.
 *
 * Glossary: *holder*: the process that keeps the mount namespace while no other process of the controller lives; it stands
 * outside the controller's cgroup, so that killing all processes (`kill9`) leaves mounts, addresses and packet filter to a
 * kernel that runs on, while `powerOff` takes the holder too.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { firmwareGroup } from "../../hal/linux/control-groups/hierarchies.ts";
import type { Cgroup } from "./cgroup.ts";
import { BenchError } from "./error.ts";
import { limitMs, waitFor } from "./exec.ts";
import type { Layout } from "./layout.ts";
import type { Ledger } from "./ledger.ts";
import { detachLoops, loopsBelow } from "./loops.ts";
import { type Processes, type Started, signal } from "./processes.ts";

export interface MachinePaths {
  readonly dir: string;
  readonly stateDir: string;
  /** In memory on a real controller: empty after each boot. */
  readonly runDir: string;
  readonly config: string;
  readonly socket: string;
}

export function machinePaths(layout: Layout, id: ControllerId): MachinePaths {
  const dir = join(layout.baseDir, id);
  return {
    dir,
    stateDir: join(dir, "state"),
    runDir: join(dir, "run"),
    config: join(dir, "dyad.toml"),
    socket: join(dir, "run", "dyad.sock"),
  };
}

/**
 * What a booted machine has and a copy of ours has not. First everything goes that was copied and belongs to others: a copied
 * mount of somebody's loop or FUSE device, or of a namespace, would keep it busy for as long as we live. Then a `/sys` that
 * shows this network namespace and the control groups of the one kernel, a fresh `/run` (rpcbind and ganesha keep sockets there), and an NFS state directory
 * that survives boots.
 */
const bootScript = `
awk '$0 ~ / - (nsfs|fuse[^ ]*|[^ ]+ \\/dev\\/loop[0-9]+) / { print $5 }' /proc/self/mountinfo |
  while read -r point; do umount -c -l "$point" 2>/dev/null || :; done
mount -t tmpfs -o mode=755,size=64m tmpfs /run
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
mkdir -p /run/rpcbind /run/ganesha /run/lock /run/dbus
if [ -d /var/lib/nfs ]; then mount --bind "$1" /var/lib/nfs; fi
echo ready
exec sleep infinity
`;

/** The role of the firmware itself. */
const daemonRole = "daemon";

export class Machine {
  readonly id: ControllerId;
  readonly namespace: string;
  readonly paths: MachinePaths;
  readonly cgroup: Cgroup;
  readonly #infra: Cgroup;
  readonly #processes: Processes;
  readonly #ledger: Ledger;
  #holder: Started | undefined;

  constructor(
    id: ControllerId,
    parts: {
      layout: Layout;
      processes: Processes;
      ledger: Ledger;
      cgroup: Cgroup;
      infra: Cgroup;
    },
  ) {
    this.id = id;
    this.namespace = parts.layout.namespaces.controllers[id];
    this.paths = machinePaths(parts.layout, id);
    this.cgroup = parts.cgroup;
    this.#infra = parts.infra;
    this.#processes = parts.processes;
    this.#ledger = parts.ledger;
  }

  get powered(): boolean {
    return this.#holder?.alive() ?? false;
  }

  /** Makes the mount namespace; settles when it is ready for processes. */
  async powerOn(): Promise<void> {
    if (this.powered) throw new BenchError("worldBroken", `power on ${this.id}`, "is on already");
    rmSync(this.paths.runDir, { recursive: true, force: true });
    const nfsState = join(this.paths.dir, "nfs");
    for (const dir of [this.paths.stateDir, this.paths.runDir, nfsState])
      mkdirSync(dir, { recursive: true, mode: 0o700 });
    this.cgroup.create();
    this.cgroup.handDown();
    let ready = false;
    const holder = this.#processes.start({
      role: `${this.id}-holder`,
      cgroup: this.#infra,
      inside: this.namespace,
      argv: ["unshare", "--mount", "--propagation", "private"].concat([
        "sh",
        "-ec",
        bootScript,
        "sh",
        nfsState,
      ]),
      onLine: (line) => {
        ready ||= line === "ready";
      },
    });
    this.#holder = holder;
    await waitFor(
      `boot ${this.id}`,
      () => {
        if (!holder.alive()) throw new BenchError("worldBroken", `boot ${this.id}`, "holder ended");
        return ready;
      },
      { deadlineMs: limitMs, intervalMs: 2 },
    );
  }

  /** Starts a process on this controller. */
  start(
    role: string,
    argv: readonly string[],
    options: { onLine?: (line: string) => void; input?: boolean } = {},
  ): Started {
    if (!this.#holder?.alive())
      throw new BenchError("worldBroken", `start ${role}`, `controller ${this.id} is off`);
    // As a service manager starts it: in a group that it may divide (Delegate=, DelegateSubgroup= of systemd.resource-control(5)).
    const cgroup = this.cgroup.child(
      role === daemonRole ? join(daemonRole, firmwareGroup) : "programs",
    );
    cgroup.create();
    return this.#processes.start({
      role: `${this.id}-${role}`,
      cgroup,
      inside: { holder: this.#holder.pid },
      argv,
      ...options,
    });
  }

  /** Words that run a program inside this controller without belonging to its processes: for looking on. */
  enterWords(): string[] {
    const holder = this.#holder?.pid;
    if (holder === undefined)
      throw new BenchError("worldBroken", `enter ${this.id}`, "the controller is off");
    return ["nsenter", "-t", String(holder), "-n", "-m", "--"];
  }

  freeze(): void {
    this.cgroup.freeze();
  }

  thaw(): void {
    this.cgroup.thaw();
  }

  /** SIGKILL to every process; the kernel's part of the machine (mounts, addresses, packet filter) stays. */
  kill(): void {
    this.cgroup.kill();
  }

  /**
   * Kills every process at once; the returned function waits until all of them and every mount are gone, and nothing was written back.
   * The holder goes last, so that it unmounts, and not the server of a FUSE file, who would wait for itself.
   */
  powerOff(): () => Promise<void> {
    const loops = loopsBelow(this.paths.dir);
    for (const { device, backing } of loops) this.#ledger.loop(device, backing);
    if (this.cgroup.exists()) this.cgroup.kill();
    const holder = this.#holder;
    return async () => {
      if (this.cgroup.exists()) {
        this.cgroup.thaw();
        await this.cgroup.empty(limitMs);
      }
      if (holder) signal(holder.pid, "SIGKILL");
      await holder?.ended;
      await detachLoops(loops);
    };
  }
}
