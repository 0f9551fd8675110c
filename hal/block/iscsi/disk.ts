/**
 * A disk reached by iSCSI: block device and persistent reservations over one session, hence one I_T nexus.
 *
 * Obligations: see `permission.ts` for when I/O flows. An I/O is repeated only when its predecessor can have no effect any
 * more (see `session.ts`), so a repeated write is the same write. RESERVATION CONFLICT and "preempted" end all I/O: nothing is sent any
 * more, they are reported at once, and what is under way fails upwards only when the disk is given up, or later.
 */
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../../firmware-ts/schema/reservation.ts";
import { encodeCdb } from "../../../firmware-ts/wire/scsi/cdb.ts";
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import { encodeUnmap } from "../../../firmware-ts/wire/scsi/parameters.ts";
import { type BlockDevice, inRange } from "../device.ts";
import { hasWriteCache } from "./caching.ts";
import type { IscsiIdentity } from "./connection.ts";
import { defaultDiskTiming, type IscsiDiskTiming } from "./disk-timing.ts";
import { type DiskFacts, identify } from "./identify.ts";
import { type Permission, PermissionGate } from "./permission.ts";
import { type Hold, performReservation, verifyHold } from "./reserve.ts";
import { IscsiSession } from "./session.ts";
import { judge, type Verdict } from "./verdict.ts";

export interface IscsiDiskHandlers {
  /**
   * The session is up and the disk found: `session` counts these, and a reset within a session counts as one. From now
   * on reservations work; I/O waits for `grant` or `verify` with this number.
   */
  readonly up?: (session: number) => void;
  readonly down?: (reason: string) => void;
  /** Another controller has taken the disk. Synchronous with the finding, once until the next grant. */
  readonly fenced?: (reason: string) => void;
}

export interface IscsiDiskOptions extends IscsiIdentity {
  readonly serial: string;
  readonly timing?: Partial<IscsiDiskTiming>;
  readonly handlers?: IscsiDiskHandlers;
}

interface Transfer {
  readonly out?: Buffer;
  readonly inBytes?: number;
  readonly isWanted?: (() => boolean) | undefined;
}

type WriteOptions = { readonly fua: boolean } & Pick<Transfer, "isWanted">;

export interface IscsiDiskStatus {
  readonly serial: string;
  readonly session: number;
  readonly up: boolean;
  readonly permission: Permission;
  readonly lun: number | undefined;
  readonly logins: number;
  readonly losses: number;
  readonly timeouts: number;
  readonly retries: number;
  readonly conflicts: number;
}

const synchronizeCache = {
  ...({ name: "synchronizeCache", cdbBytes: 10, immediate: false } as const),
  ...{ lba: 0, blocks: 0 },
};

/** Pause before a command that met BUSY or TASK SET FULL is repeated. */
const busyPauseMs = 5;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class IscsiDisk implements BlockDevice {
  readonly #options: IscsiDiskOptions;
  readonly #timing: IscsiDiskTiming;
  readonly #session: IscsiSession;
  readonly #gate: PermissionGate;
  #facts: DiskFacts | undefined;
  /** Counts verified-from-scratch states; 0 before the first. */
  #sessionNumber = 0;
  /** What the disk said last, once it could be asked. */
  #writeCache = true;
  /** Somebody was told that acknowledged writes are durable, and flushes no more. */
  #promisedDurable = false;
  /** Counts `revoke`: a verification that was under way meanwhile grants nothing. */
  #revocations = 0;
  #isUp = false;
  #closed = false;
  #retries = 0;
  #conflicts = 0;
  #upWaiters = new Set<() => void>();

  constructor(options: IscsiDiskOptions) {
    this.#options = options;
    this.#timing = { ...defaultDiskTiming, ...options.timing };
    this.#gate = new PermissionGate(this.#timing.fencedSilenceMs);
    this.#session = new IscsiSession(options, this.#timing, {
      up: () => void this.#identify(),
      down: (reason) => this.#down(reason),
    });
    this.#session.start();
  }

  /** Logs in and waits until the disk was found, or fails after the deadline and closes. */
  static async open(options: IscsiDiskOptions, deadlineMs: number): Promise<Outcome<IscsiDisk>> {
    let reason = "no answer";
    const disk = new IscsiDisk({
      ...options,
      handlers: {
        ...options.handlers,
        down: (why) => {
          reason = why;
          options.handlers?.down?.(why);
        },
      },
    });
    if (await disk.whenUp(deadlineMs)) return good(disk);
    await disk.close();
    return failed("diskLost", "open disk", `${options.serial}: ${reason}`);
  }

  /** 0 until the disk was first found. */
  get sizeBytes(): number {
    return this.#facts ? this.#facts.blocks * this.#facts.blockBytes : 0;
  }

  get blockSizeBytes(): number {
    return this.#facts?.blockBytes ?? 512;
  }

  /**
   * Whether acknowledged writes may be lost before a flush. Known from `verify` on: a disk that another controller holds does not
   * answer MODE SENSE. Whoever reads false may leave flushes out: should the disk get a cache later, it is flushed before I/O flows
   * again and after each write.
   */
  get writeCache(): boolean {
    if (!this.#writeCache) this.#promisedDurable = true;
    return this.#writeCache;
  }

  status(): IscsiDiskStatus {
    const { logins, losses, timeouts } = this.#session.counters;
    return {
      serial: this.#options.serial,
      session: this.#sessionNumber,
      up: this.#isUp,
      permission: this.#gate.state,
      lun: this.#facts?.lun,
      logins,
      losses,
      timeouts,
      retries: this.#retries,
      conflicts: this.#conflicts,
    };
  }

  /** Resolves with true once the disk is there, with false at the deadline. */
  whenUp(deadlineMs: number): Promise<boolean> {
    if (this.#isUp) return Promise.resolve(true);
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#upWaiters.delete(end);
        resolve(this.#isUp);
      };
      const timer = setTimeout(end, deadlineMs);
      this.#upWaiters.add(end);
    });
  }

  /** Lets I/O flow in session number `session`, without asking the disk: for a disk that is not reserved at all. */
  grant(session: number): Outcome {
    if (!this.#isUp || session !== this.#sessionNumber)
      return failed("refused", "grant", `session ${session} is over`);
    this.#gate.grant();
    return done;
  }

  /** Asks the disk whether this nexus is registered with the key and the reservation is ours; if so, lets I/O flow. */
  async verify(hold: Hold, deadlineMs: number): Promise<Outcome> {
    const session = this.#sessionNumber;
    const revocations = this.#revocations;
    const { initiatorName, isid } = this.#options;
    const port = { name: initiatorName, isid };
    const [verdict, writeCache] = await Promise.all([
      verifyHold(this.#run, port, hold, deadlineMs),
      hasWriteCache(this.#run, deadlineMs),
    ]);
    const isNew = writeCache && !this.#writeCache;
    this.#writeCache = writeCache;
    if (!verdict.ok) return verdict;
    if (isNew && this.#promisedDurable) {
      const flushed = await this.#run(synchronizeCache, {}, deadlineMs);
      if (flushed.kind !== "good") {
        // Asked again with the next verification: what was acknowledged may be in the cache.
        this.#writeCache = false;
        return failed(
          "diskError",
          "flush a new write cache",
          `${this.#options.serial}: no success`,
        );
      }
    }
    if (revocations !== this.#revocations)
      return failed("refused", "verify", `${this.#options.serial} was given up meanwhile`);
    return this.grant(session);
  }

  /** I/O is refused from now on, what waits included; what the disk is working on ends as it ends. */
  revoke(): void {
    this.#revocations += 1;
    this.#gate.revoke();
  }

  /** One persistent reservation command, see `Disks.reserve`. */
  reserve(command: ReservationCommand, deadlineMs: number): Promise<ReservationAnswer> {
    return performReservation(this.#run, command, deadlineMs);
  }

  async read(offset: number, length: number): Promise<Outcome<Buffer>> {
    const step = this.#facts?.maxTransferBytes ?? 0;
    if (length <= step) return this.#readPart(offset, length);
    const parts: Promise<Outcome<Buffer>>[] = [];
    for (const part of this.#split(offset, length)) parts.push(this.#readPart(part.at, part.size));
    const data: Buffer[] = [];
    for (const part of await Promise.all(parts)) {
      if (!part.ok) return part;
      data.push(part.value);
    }
    return good(Buffer.concat(data, length));
  }

  /** `isWanted` is asked in the turn in which it is sent, and again before it is repeated; after a no it is the fault `refused`. */
  async write(offset: number, data: Buffer, how: WriteOptions): Promise<Outcome> {
    const step = this.#facts?.maxTransferBytes ?? 0;
    if (data.length <= step) return this.#writePart(offset, data, how);
    const parts = this.#split(offset, data.length).map(({ at, size }) =>
      this.#writePart(at, data.subarray(at - offset, at - offset + size), how),
    );
    return allOf(await Promise.all(parts));
  }

  flush(): Promise<Outcome> {
    return this.#act("flush", synchronizeCache);
  }

  async trim(offset: number, length: number): Promise<Outcome> {
    const refused = this.#refuse("trim", offset, length);
    if (refused) return refused;
    const limit = this.#facts?.maxUnmapBlocks ?? 0;
    // A hint to a disk that cannot unmap is followed by doing nothing.
    if (limit === 0 || length === 0) return done;
    const answers: Promise<Outcome>[] = [];
    for (const { lba, blocks } of this.#blockRanges(offset, length, limit)) {
      const out = encodeUnmap([{ lba, blocks }]);
      const command = { name: "unmap", anchor: false, parameterBytes: out.length } as const;
      answers.push(this.#act("trim", command, { out }));
    }
    return allOf(await Promise.all(answers));
  }

  async writeZeroes(
    offset: number,
    length: number,
    { fua, mayTrim }: { readonly fua: boolean; readonly mayTrim: boolean },
  ): Promise<Outcome> {
    const refused = this.#refuse("write zeroes", offset, length);
    if (refused) return refused;
    const facts = this.#facts;
    if (length === 0 || facts === undefined) return done;
    const out = Buffer.alloc(facts.blockBytes);
    const common = { name: "writeSame", cdbBytes: 16, protect: 0, anchor: false } as const;
    const unmap = mayTrim && facts.writeSameUnmaps;
    const answers = this.#blockRanges(offset, length, facts.maxWriteSameBlocks).map((range) =>
      this.#act("write zeroes", { ...common, ...range, unmap, noData: false }, { out }),
    );
    const zeroed = allOf(await Promise.all(answers));
    // A disk without WRITE SAME refuses it as an illegal request; it takes zeroes as data.
    if (!zeroed.ok && zeroed.fault.code === "badInput")
      return this.write(offset, Buffer.alloc(length), { fua });
    if (!zeroed.ok) return zeroed;
    // WRITE SAME has no FUA bit (SBC-3 5.43).
    return fua ? this.flush() : this.#asPromised();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#gate.revoke();
    for (const end of [...this.#upWaiters]) end();
    await this.#session.close();
  }

  async #readPart(offset: number, length: number): Promise<Outcome<Buffer>> {
    const refused = this.#refuse("read", offset, length);
    if (refused) return refused;
    const command = { name: "read", cdbBytes: 16, protect: 0, dpo: false, fua: false } as const;
    const range = this.#range(offset, length);
    const answer = await this.#io("read", { ...command, ...range }, { inBytes: length });
    if (answer.ok && answer.value.length !== length)
      return failed("diskError", "read", `${answer.value.length} of ${length} bytes at ${offset}`);
    return answer;
  }

  async #writePart(offset: number, out: Buffer, { fua, isWanted }: WriteOptions): Promise<Outcome> {
    const refused = this.#refuse("write", offset, out.length);
    if (refused) return refused;
    const command = { name: "write", cdbBytes: 16, protect: 0, dpo: false, fua } as const;
    const range = this.#range(offset, out.length);
    const written = await this.#act("write", { ...command, ...range }, { out, isWanted });
    return written.ok && !fua ? this.#asPromised() : written;
  }

  /** What was promised of a disk without a cache holds for a disk that has got one. FUA would do, where the disk knows it. */
  #asPromised(): Promise<Outcome> {
    return this.#promisedDurable && this.#writeCache ? this.flush() : Promise.resolve(done);
  }

  #range(offset: number, length: number) {
    return { lba: offset / this.blockSizeBytes, blocks: length / this.blockSizeBytes };
  }

  #split(offset: number, length: number): { at: number; size: number }[] {
    const step = this.#facts?.maxTransferBytes || length;
    const count = Math.ceil(length / step);
    return Array.from({ length: count }, (_, index) => ({
      at: offset + index * step,
      size: Math.min(step, length - index * step),
    }));
  }

  #blockRanges(offset: number, length: number, limit: number) {
    const { lba, blocks } = this.#range(offset, length);
    const count = Math.ceil(blocks / limit);
    return Array.from({ length: count }, (_, index) => ({
      lba: lba + index * limit,
      blocks: Math.min(limit, blocks - index * limit),
    }));
  }

  #refuse(operation: string, offset: number, length: number) {
    if (inRange(this, offset, length)) return undefined;
    return failed("badInput", operation, `${length} bytes at ${offset} lie outside the disk`);
  }

  /** An I/O that returns no data. */
  async #act(operation: string, command: Command, transfer: Transfer = {}): Promise<Outcome> {
    const answer = await this.#io(operation, command, transfer);
    return answer.ok ? done : answer;
  }

  /** One I/O: waits for permission, sends, repeats where that is safe, until done or the deadline. */
  async #io(operation: string, command: Command, transfer: Transfer): Promise<Outcome<Buffer>> {
    const cdb = encodeCdb(command);
    const start = performance.now();
    for (;;) {
      const leftMs = this.#timing.ioTimeoutMs - (performance.now() - start);
      const permission =
        this.#gate.state === "granted" ? "granted" : await this.#gate.settled(leftMs);
      if (permission === "fenced") await this.#gate.fenceMayBeTold(leftMs);
      const refused = this.#refusal(operation, permission, leftMs);
      if (refused) return refused;
      if (transfer.isWanted?.() === false)
        return failed("refused", operation, `${this.#options.serial}: not wanted any more`);
      const lun = this.#facts?.lun ?? 0;
      const deadlineMs = Math.min(this.#timing.commandTimeoutMs, leftMs);
      const result = await this.#session.command({ lun, cdb, ...transfer, deadlineMs, io: true });
      const verdict = judge(result);
      if (verdict.kind === "good") return good(verdict.data);
      this.#heed(verdict);
      if (verdict.kind === "error") {
        const code = verdict.illegal ? "badInput" : "diskError";
        return failed(code, operation, `${this.#options.serial}: ${verdict.reason}`);
      }
      this.#retries += 1;
      if (verdict.kind === "busy") await pause(busyPauseMs);
    }
  }

  #refusal(operation: string, permission: Permission, leftMs: number) {
    const { serial } = this.#options;
    switch (permission) {
      case "granted":
        return leftMs > 0 ? undefined : failed("timeout", operation, `${serial}: out of time`);
      case "fenced":
        return failed("fenced", operation, `${serial} is held by another controller`);
      case "closed":
        return failed("refused", operation, `${serial} is not ours to use`);
      case "held":
        return failed("diskLost", operation, `${serial}: no verified session in time`);
    }
  }

  /** What a result says about our rights is acted upon before the result goes anywhere. */
  #heed(verdict: Verdict): void {
    switch (verdict.kind) {
      case "conflict":
        this.#conflicts += 1;
        this.#fence("RESERVATION CONFLICT");
        return;
      case "attention":
        if (verdict.meaning === "preempted") this.#fence(verdict.reason);
        else if (verdict.meaning === "unsettled") this.#unsettle(verdict.reason);
        return;
      case "transport":
        // "down": the session ended in this very turn, and `#down` has not run or has run; either way nothing may flow.
        if (verdict.failure === "down") this.#gate.hold();
        return;
    }
  }

  #fence(reason: string): void {
    // A disk without grant has no I/O to end, but that its registration was taken is news all the same.
    if (!this.#gate.fence() && this.#gate.state === "fenced") return;
    this.#options.handlers?.fenced?.(reason);
    // PREEMPT AND ABORT may end our commands without a word (SPC-4 5.9.11.5, TAS = 0): do not wait for their deadlines.
    if (this.#facts) this.#session.abortIo(this.#facts.lun);
  }

  #unsettle(reason: string): void {
    if (!this.#gate.hold()) return;
    this.#options.handlers?.down?.(reason);
    this.#announceUp();
  }

  #down(reason: string): void {
    this.#isUp = false;
    this.#gate.hold();
    this.#options.handlers?.down?.(reason);
  }

  #announceUp(): void {
    this.#isUp = true;
    this.#sessionNumber += 1;
    for (const end of [...this.#upWaiters]) end();
    this.#options.handlers?.up?.(this.#sessionNumber);
  }

  async #identify(): Promise<void> {
    const before = this.#facts;
    const { serial } = this.#options;
    const { logins } = this.#session.counters;
    const deadlineMs = this.#timing.commandTimeoutMs;
    const facts = await identify(this.#session, serial, before?.lun, deadlineMs);
    // Meanwhile the session may have been lost, and another one is being identified.
    if (this.#closed || !this.#session.up || logins !== this.#session.counters.logins) return;
    if (!facts.ok) {
      this.#session.drop(facts.fault.message);
      return;
    }
    const sameSize =
      before === undefined ||
      (before.blocks === facts.value.blocks && before.blockBytes === facts.value.blockBytes);
    if (!sameSize) {
      this.#session.drop(`${serial} has another size than before`);
      return;
    }
    this.#facts = facts.value;
    this.#announceUp();
  }

  /** A command beside the I/O (reservations): waits for the session, tells what its result says about our rights. */
  readonly #run = async (
    command: Command,
    transfer: { readonly out?: Buffer; readonly inBytes?: number },
    deadlineMs: number,
  ): Promise<Verdict> => {
    const start = performance.now();
    const isThere = await this.whenUp(deadlineMs);
    const leftMs = deadlineMs - (performance.now() - start);
    if (!isThere || this.#facts === undefined || leftMs <= 0)
      return { kind: "transport", failure: "down", reason: "no session in time" };
    const { lun } = this.#facts;
    const cdb = encodeCdb(command);
    const verdict = judge(
      await this.#session.command({ lun, cdb, ...transfer, deadlineMs: leftMs }),
    );
    if (verdict.kind === "attention") this.#heed(verdict);
    return verdict;
  };
}

function allOf(outcomes: readonly Outcome<unknown>[]): Outcome {
  for (const outcome of outcomes) if (!outcome.ok) return outcome;
  return done;
}
