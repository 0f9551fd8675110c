/**
 * The hands of one controller: works on virtual servers in the order of the production queue, with durations, failures and hangs that
 * a test chooses. Postconditions are the kernel's: a mount needs a device and a disk that lets writes through.
 */
import type { Lifecycle, Work } from "../../firmware-ts/core/effects.ts";
import { WorkQueue } from "../../firmware-ts/loop/work-queue.ts";
import { bareAddresses, type VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import {
  done,
  explain,
  type FaultCode,
  failed,
  type Outcome,
} from "../../firmware-ts/schema/outcome.ts";
import type { Files } from "./files.ts";
import type { Kernel } from "./kernel.ts";
import type { Places } from "./places.ts";
import type { Process } from "./process.ts";
import type { Shelf } from "./shelf.ts";
import { doWatched, type StepWatch } from "./steps.ts";
import type { Timeline } from "./timeline.ts";

export type WorkName = (Work | Lifecycle)["op"];

/** Usual durations, ms; as measured on the bench. */
export const workMs: Readonly<Record<WorkName, number>> = {
  attach: 4,
  detach: 2,
  mount: 3,
  flush: 5,
  seal: 5,
  abandon: 4,
  startService: 20,
  stopService: 5,
  killService: 2,
  addAddresses: 1,
  removeAddresses: 1,
  announce: 1,
  define: 15,
  forget: 8,
};

/** What a test does to the works of one kind. */
export type Trouble = { readonly kind: "fail"; left: number } | { readonly kind: "hang" };

export interface WorksSetup {
  readonly me: ControllerId;
  readonly timeline: Timeline;
  readonly kernel: Kernel;
  readonly shelf: Shelf;
  readonly hands: Process;
  /** The process that asks; its timers count the limits. */
  readonly main: Process;
  readonly places: Places;
  readonly duration: (work: WorkName) => number;
  /** Absent in worlds without clients. */
  readonly files: Files | undefined;
  /** Told of each work that has ended; absent where nobody asks. */
  readonly told: ((text: string) => void) | undefined;
  readonly watch: StepWatch | undefined;
  /** A timer of the main process; the result ends it. */
  readonly after: (delayMs: number, run: () => void) => () => void;
}

/** A work and how it ended, as a line of the trace. */
function sentence(name: string, work: Work | Lifecycle, outcome: Outcome<unknown>): string {
  const what = "disk" in work ? `${work.op} ${work.disk}` : work.op;
  return `${name}: ${what}: ${outcome.ok ? "done" : explain(outcome.fault)}`;
}

type Settle = (outcome: Outcome<string | undefined>) => void;

export class Works {
  readonly #setup: WorksSetup;
  readonly #queue: WorkQueue<Work | Lifecycle>;
  /** Kills asked for, for each virtual server. */
  readonly #kills = new Map<string, number>();
  readonly trouble = new Map<WorkName, Trouble>();
  /** What a kill says of clients that the volume does not know. */
  unsavedClients: string | undefined;
  /** Works that hang, to be let go by `release`. */
  #hanging: (() => void)[] = [];

  constructor(setup: WorksSetup) {
    this.#setup = setup;
    this.#queue = new WorkQueue({
      after: setup.after,
      run: (name, work, _limitMs, ended) => this.#run(name, work, ended),
    });
  }

  perform(name: string, work: Work | Lifecycle, limitMs: number, settle: Settle): void {
    this.#queue.perform(name, work, limitMs, settle);
  }

  #killsOf(name: string): number {
    return this.#kills.get(name) ?? 0;
  }

  #run(name: string, work: Work | Lifecycle, ended: Settle): void {
    const { me, timeline, hands, main, watch } = this.#setup;
    if (work.op === "killService") this.#kills.set(name, this.#killsOf(name) + 1);
    const kills = this.#killsOf(name);
    // A service that is killed while it starts does not come up.
    const isKilled = () => work.op === "startService" && kills !== this.#killsOf(name);
    const finish = () =>
      hands.give(() => {
        const killed = () => failed("serviceFailed", work.op, "killed while it started");
        const act = () => (isKilled() ? killed() : this.#outcome(name, work));
        const deed = { who: me, name: "hands", args: [name, work] };
        const outcome = doWatched(watch, deed, () => hands.alive, act);
        if (!outcome) return;
        this.#setup.told?.(sentence(name, work, outcome));
        main.give(() => ended(this.#heard(name, work, outcome)));
      });
    hands.give(() => {
      if (this.trouble.get(work.op)?.kind === "hang") this.#hanging.push(finish);
      else timeline.after(this.#setup.duration(work.op), finish);
    });
  }

  /** A service that ended before its start was heard of is not started: whoever asked took no notice of its end. */
  #heard(name: string, { op }: Work | Lifecycle, outcome: Outcome<string | undefined>) {
    const isGone = op === "startService" && !this.#setup.kernel.services.has(name);
    return isGone && outcome.ok ? failed("serviceFailed", op, "it has ended") : outcome;
  }

  /** Lets go what hangs. */
  release(op: WorkName): void {
    this.trouble.delete(op);
    for (const finish of this.#hanging.splice(0)) finish();
  }

  #outcome(name: string, work: Work | Lifecycle): Outcome<string | undefined> {
    const trouble = this.trouble.get(work.op);
    if (trouble?.kind === "fail" && trouble.left > 0) {
      trouble.left -= 1;
      return failed("ioError", work.op, "injected failure");
    }
    const { places } = this.#setup;
    if (work.op === "define") return places.define(work.definition);
    if (work.op === "forget") return places.forget(work.number, name);
    return this.#perform(places.serverOf(name), work);
  }

  #perform(server: VirtualServerConfig, work: Work): Outcome<string | undefined> {
    const { kernel, files, places } = this.#setup;
    switch (work.op) {
      case "attach":
        return this.#attach(server.name, work.disk);
      case "mount":
        if (!kernel.attached.has(work.disk)) return failed("mountFailed", "mount", "not attached");
        return this.#withDisk(work.disk, "mount", () => {
          kernel.changes += 1;
          // A volume that is mounted already keeps its page cache.
          if (!kernel.mounted.has(work.disk)) files?.mounted(work.disk);
          kernel.mounted.add(work.disk);
        });
      case "flush":
        return this.#withDisk(work.disk, "flush", () => files?.flushed(work.disk));
      case "seal":
        if (!kernel.mounted.has(work.disk) || kernel.sealed.has(work.disk)) return done;
        return this.#withDisk(work.disk, "seal", () => {
          kernel.sealed.add(work.disk);
          files?.sealed(work.disk);
        });
      case "abandon":
        kernel.mounted.delete(work.disk);
        kernel.sealed.delete(work.disk);
        kernel.broken.delete(work.disk);
        files?.gone(work.disk);
        return done;
      case "detach":
        if (kernel.mounted.has(work.disk)) return failed("stillMounted", "detach", "mounted");
        kernel.attached.delete(work.disk);
        kernel.lost.delete(work.disk);
        places.detach(work.disk);
        return done;
      default:
        return this.#service(server, work);
    }
  }

  /** The disk is asked whether this nexus holds it: keys alone do not tell, for another may have registered the same. */
  #attach(name: string, disk: string): Outcome<string> {
    const { kernel, shelf, me, files, places } = this.#setup;
    if (!shelf.reachable(disk, me)) return failed("diskLost", "attach", `${disk} does not answer`);
    if (shelf.holder(disk)?.by !== me)
      return failed("fenced", "attach", `the reservation of ${disk} is not ours`);
    // A new device in its place, unless something still uses the one that is gone.
    if (kernel.lost.has(disk) && kernel.mounted.has(disk))
      return failed("attachFailed", "attach", `${disk} is in use`);
    places.attach(name, disk);
    kernel.lost.delete(disk);
    kernel.attached.add(disk);
    files?.attached(disk);
    return { ok: true, value: `/dev/${disk}` };
  }

  #service(server: VirtualServerConfig, work: Work): Outcome<string | undefined> {
    const { kernel, files, places } = this.#setup;
    const addresses = bareAddresses(server);
    const volumes = server.volumes.map(({ disk }) => disk);
    switch (work.op) {
      case "startService": {
        if (!volumes.every((disk) => kernel.mounted.has(disk)))
          return failed("serviceFailed", "startService", "not mounted");
        if (!addresses.every((each) => kernel.addresses.has(each)))
          return failed("serviceFailed", "startService", "no address to bind");
        kernel.services.add(server.name);
        files?.started(server, addresses);
        return done;
      }
      case "killService":
        // The volume is given up.
        for (const disk of volumes) files?.refuse(disk);
        kernel.endService(server.name);
        files?.stopped(server.name);
        return { ok: true, value: this.unsavedClients };
      case "stopService":
        kernel.endService(server.name);
        files?.stopped(server.name);
        return done;
      case "addAddresses":
        places.putOn(server.name, server.addresses);
        return done;
      case "removeAddresses":
        places.takeOff(work.addresses);
        return done;
      case "announce":
        files?.announced(server, addresses);
        return done;
      default:
        throw new Error(`works: unknown work ${JSON.stringify(work)}`);
    }
  }

  /** What needs the disk's word: journal replay of a mount, the last writes of a seal. */
  #withDisk(disk: string, operation: string, act: () => void): Outcome<string | undefined> {
    const { kernel, shelf, me, files } = this.#setup;
    if (kernel.lost.has(disk)) return failed("ioError", operation, `the device of ${disk} is gone`);
    if (kernel.broken.has(disk)) return failed("ioError", operation, `${disk} is read-only`);
    const code: FaultCode | undefined = !shelf.reachable(disk, me)
      ? "diskLost"
      : shelf.mayWrite(disk, me) && !files?.isFenced(disk)
        ? undefined
        : "fenced";
    if (code !== undefined) return failed(code, operation, `${disk} does not take the write`);
    act();
    return done;
  }
}
