/**
 * The block service: the sessions to a controller's disks, each exported by NBD, steered by the daemon.
 *
 * Obligations: an export passes I/O only between `allow` and `forbid`, and only in a session whose registration was
 * verified; what the disks say about reservations is told the daemon before the I/O that met it has failed.
 */
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { Foreseen } from "../../../firmware-ts/schema/range.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../../firmware-ts/schema/reservation.ts";
import { ReservationOrder } from "../../port/reservation-order.ts";
import { foresee } from "../foresee.ts";
import { IscsiDisk } from "../iscsi/disk.ts";
import type { NbdExport } from "../nbd-export.ts";
import { NbdServer } from "../nbd-server.ts";
import type {
  DiskSpec,
  DiskStatus,
  ServiceMessage,
  ServiceRequest,
  ServiceStatus,
} from "./protocol.ts";

const disksMax = 256;

interface Entry {
  readonly spec: DiskSpec;
  readonly disk: IscsiDisk;
  readonly order: ReservationOrder;
  /** Once the size is known. */
  exported: NbdExport | undefined;
}

export class BlockServiceCore {
  readonly #say: (message: ServiceMessage) => void;
  readonly #disks = new Map<string, Entry>();
  readonly #nbd: NbdServer;

  constructor(say: (message: ServiceMessage) => void) {
    this.#say = say;
    this.#nbd = new NbdServer({
      onFault: (reason, detail) => say({ kind: "nbdFault", reason, detail }),
    });
  }

  /** Performs one request and says its answer. */
  async handle(request: ServiceRequest): Promise<void> {
    const { id } = request;
    switch (request.op) {
      case "listen":
        return this.#answer(id, await this.#nbd.listen({ path: request.path }));
      case "open": {
        const opened = await this.#open(request.disk, request.waitMs);
        if (!opened.ok) return this.#answer(id, opened);
        return this.#say({ kind: "disk", id, disk: opened.value });
      }
      case "reserve": {
        return this.#say({ kind: "answer", id, answer: await this.#reserve(request) });
      }
      case "allow": {
        const allowed = await this.#allow(request);
        if (!allowed.ok) return this.#answer(id, allowed);
        return this.#say({ kind: "allowed", id, writeCache: allowed.value });
      }
      case "foresee": {
        const foreseen = await this.#foresee(request);
        return this.#say({ kind: "foreseen", id, ...(foreseen ? { foreseen } : {}) });
      }
      case "forbid":
        return this.#answer(id, await this.#forbid(request.serial));
      case "close":
        return this.#answer(id, await this.#closeDisk(request.serial));
      case "status":
        return this.#say({ kind: "status", id, status: this.#status() });
    }
  }

  /** Refuses all I/O, waits for what is under way, logs out everywhere. */
  async close(): Promise<void> {
    for (const { disk } of this.#disks.values()) disk.revoke();
    await this.#nbd.close();
    await Promise.all([...this.#disks.values()].map(({ disk }) => disk.close()));
    this.#disks.clear();
  }

  #answer(id: number, outcome: Outcome<unknown>): void {
    this.#say(outcome.ok ? { kind: "done", id } : { kind: "fault", id, fault: outcome.fault });
  }

  async #open(spec: DiskSpec, waitMs: number): Promise<Outcome<DiskStatus>> {
    const { serial } = spec;
    let entry = this.#disks.get(serial);
    if (entry === undefined) {
      if (this.#disks.size >= disksMax)
        return failed("refused", "open disk", `already ${disksMax} disks`);
      const twin = [...this.#disks.values()].find((other) => isSameNexus(other.spec, spec));
      if (twin !== undefined)
        return failed(
          "badInput",
          "open disk",
          `${twin.spec.serial} has the same ISID ${spec.isid}`,
        );
      const { timing, exported: _, ...identity } = spec;
      entry = {
        spec,
        order: new ReservationOrder(),
        exported: undefined,
        disk: new IscsiDisk({
          ...identity,
          timing: definedOf(timing ?? {}),
          handlers: {
            up: (session) => this.#up(serial, session),
            down: (reason) => this.#path(serial, false, reason),
            fenced: (reason) => this.#say({ kind: "fenced", serial, reason }),
          },
        }),
      };
      this.#disks.set(serial, entry);
    } else if (JSON.stringify(entry.spec) !== JSON.stringify(spec)) {
      return failed("refused", "open disk", `${serial} is open with other parameters`);
    }
    await entry.disk.whenUp(waitMs);
    return good(this.#statusOf(entry));
  }

  #up(serial: string, session: number): void {
    const entry = this.#disks.get(serial);
    if (entry === undefined) return;
    if (entry.spec.exported && entry.exported === undefined) {
      const added = this.#nbd.add({ name: serial, device: entry.disk, on: false });
      if (!added.ok) throw new Error(`block service: ${added.fault.message}`);
      entry.exported = added.value;
    }
    this.#path(serial, true, `session ${session}`);
  }

  #path(serial: string, up: boolean, reason: string): void {
    const session = this.#disks.get(serial)?.disk.status().session ?? 0;
    this.#say({ kind: "path", serial, up, session, reason });
  }

  async #allow(request: ServiceRequest & { op: "allow" }): Promise<Outcome<boolean>> {
    const entry = this.#disks.get(request.serial);
    if (entry === undefined) return failed("badInput", "allow", `${request.serial} is not open`);
    const { disk } = entry;
    if (request.hold) {
      const verified = await disk.verify(request.hold, request.deadlineMs);
      if (!verified.ok) return verified;
    } else {
      const granted = disk.grant(disk.status().session);
      if (!granted.ok) return granted;
    }
    entry.exported?.turnOn();
    return good(disk.writeCache);
  }

  /** Each read goes the way of a client's: none is sent after a `forbid`, and one that is under way is awaited by a release. */
  async #foresee(request: ServiceRequest & { op: "foresee" }): Promise<Foreseen | undefined> {
    const exported = this.#disks.get(request.serial)?.exported;
    if (exported === undefined) return undefined;
    const { sizeBytes } = exported.facts;
    const read = (from: number, length: number) => exported.read(from, length);
    // A hint is not worth the disks that end with this process.
    return await foresee({ sizeBytes, read }, request.deadlineMs).catch(() => undefined);
  }

  /**
   * SAFETY releaseOnlyWhenGone: a disk is given back when no I/O of ours is under way any more. A write still on its way would land
   * under the next owner, who finds nobody to preempt; rather not released at all, then it preempts us and aborts that write.
   */
  async #reserve(request: ServiceRequest & { op: "reserve" }): Promise<ReservationAnswer> {
    const { serial, command, deadlineMs } = request;
    const entry = this.#disks.get(serial);
    if (entry === undefined) return { status: "failed", reason: `${serial} is not open` };
    if (command.op !== "release" && command.op !== "unregister")
      return await inOrder(entry.order, command, deadlineMs, (leftMs) =>
        entry.disk.reserve(command, leftMs),
      );
    // No more I/O from this moment on, whenever its turn comes; and none then, whatever was allowed meanwhile.
    void this.#forbid(serial);
    return await inOrder(entry.order, command, deadlineMs, async (leftMs) => {
      const endMs = performance.now() + leftMs;
      if (!(await inTime(this.#forbid(serial), leftMs)))
        return { status: "failed", reason: `I/O of ${serial} is still under way` };
      return await entry.disk.reserve(command, endMs - performance.now());
    });
  }

  async #forbid(serial: string): Promise<Outcome> {
    const entry = this.#disks.get(serial);
    if (entry === undefined) return done;
    const off = entry.exported?.turnOff();
    entry.disk.revoke();
    await off;
    return done;
  }

  async #closeDisk(serial: string): Promise<Outcome> {
    const entry = this.#disks.get(serial);
    if (entry === undefined) return done;
    entry.disk.revoke();
    if (entry.exported) await this.#nbd.remove(serial);
    this.#disks.delete(serial);
    await entry.disk.close();
    return done;
  }

  #status(): ServiceStatus {
    return {
      disks: [...this.#disks.values()].map((entry) => this.#statusOf(entry)),
      nbdConnections: this.#nbd.connections,
      nbdFaults: Object.fromEntries(this.#nbd.faults),
    };
  }

  #statusOf({ disk, exported }: Entry): DiskStatus {
    const { lun, ...status } = disk.status();
    const idle = { reads: 0, writes: 0, readBytes: 0, writtenBytes: 0, failed: 0, refused: 0 };
    return {
      ...status,
      ...(lun === undefined ? {} : { lun }),
      sizeBytes: disk.sizeBytes,
      blockSizeBytes: disk.blockSizeBytes,
      ...(exported?.counters ?? idle),
    };
  }
}

/** Whether a promise settles within the time. */
async function inTime(promise: Promise<unknown>, limitMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), limitMs);
  });
  const isInTime = await Promise.race([promise.then(() => true), late]);
  clearTimeout(timer);
  return isInTime;
}

/** Performs a command in its turn, in what is left of the time; one whose turn does not come in time is never performed. */
async function inOrder(
  order: ReservationOrder,
  command: ReservationCommand,
  deadlineMs: number,
  perform: (leftMs: number) => Promise<ReservationAnswer>,
): Promise<ReservationAnswer> {
  const sinceMs = performance.now();
  const { promise: turn, resolve: begin } = Promise.withResolvers<void>();
  const leave = order.enter(command, begin);
  try {
    if (!(await inTime(turn, deadlineMs)))
      return { status: "failed", reason: `earlier commands took ${deadlineMs} ms` };
    return await perform(deadlineMs - (performance.now() - sinceMs));
  } finally {
    leave();
  }
}

/** Two sessions of one nexus would reinstate each other for ever (RFC 7143 6.3.5). */
function isSameNexus(one: DiskSpec, other: DiskSpec): boolean {
  return (
    one.isid === other.isid &&
    one.initiatorName === other.initiatorName &&
    one.targetName === other.targetName
  );
}

/** Without the keys whose value is undefined, so that defaults apply. */
function definedOf<T extends object>(partial: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(partial).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
