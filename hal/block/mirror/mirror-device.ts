/**
 * A disk on two legs: the replica here and the partner's. Each write goes to both at once, overlapping ones in the same order, and is
 * acknowledged when both have it.
 *
 *                  legLost                continueWithout             attach             joined
 *     inSync ─────────────────▶ lost ─────────────────────▶ out ─────────────▶ target ───────────▶ inSync
 *                               │  ╰── legBack ─▶ inSync     ◀──── a fault ──────╯
 *                               ╰── fail ─▶ nothing goes on any more
 *
 * Obligations: while a leg is lost nothing is acknowledged and nothing fails; reads go on while the local leg has everything. What may be on
 * one leg only is dirty before it is acknowledged: what one answered and the other did not, and what both answered and have not flushed,
 * because the lost one may have lost its power. The legs belong to whoever made them, and stay open.
 */
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { type BlockDevice, inRange } from "../device.ts";
import { type Leg, type MirrorCounters, MirrorFlow } from "./flow.ts";
import type { ActivityPort, DirtyPort, LegName, LegState, MirrorHandlers, Range } from "./ports.ts";

export interface MirrorOptions {
  readonly local: BlockDevice;
  /** Both legs must have the mirror's size or more. Undefined while it is out: everything that is written is dirty. */
  readonly remote: BlockDevice | undefined;
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly dirty: DirtyPort;
  readonly activity: ActivityPort;
  readonly handlers: MirrorHandlers;
  /** A flush is made when so many grains are unflushed: as much has to be copied after a loss. Default 4096 (256 MiB of 64 KiB). */
  readonly unflushedGrainsMax?: number;
}

export interface MirrorStatus extends MirrorCounters {
  readonly legs: Readonly<Record<LegName, LegState>>;
  readonly failed: boolean;
  readonly dirtyBytes: number;
}

/** What a copy, a comparison or a repair came to. */
export type PartOutcome = "done" | "different" | "left";

/** In pieces of this size a leg that is back gets what it may have lost. */
const pieceBytes = 1024 * 1024;

export class MirrorDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly #dirty: DirtyPort;
  readonly #flow: MirrorFlow;
  #closed = false;
  #attachments = 0;
  /** Called with the time that each change took, while somebody measures. */
  onLatency: ((latencyMs: number) => void) | undefined;

  private constructor(options: MirrorOptions) {
    const { local, remote, sizeBytes, dirty, activity, handlers } = options;
    this.sizeBytes = sizeBytes;
    this.blockSizeBytes = options.blockSizeBytes;
    this.#dirty = dirty;
    this.#flow = new MirrorFlow(
      { name: "local", device: local, state: "inSync", faults: 0 },
      { name: "remote", device: remote ?? local, state: remote ? "inSync" : "out", faults: 0 },
      {
        ...{ sizeBytes, dirty, activity, handlers },
        unflushedGrainsMax: options.unflushedGrainsMax ?? 4096,
      },
    );
  }

  /** Fault `badInput` when a leg cannot carry it. */
  static create(options: MirrorOptions): Outcome<MirrorDevice> {
    const { local, remote, sizeBytes, blockSizeBytes, dirty, activity } = options;
    const wrong = [local, ...(remote ? [remote] : [])]
      .map((leg) => unfit(leg, options))
      .find(Boolean);
    if (wrong) return failed("badInput", "mirror", wrong);
    if (sizeBytes % blockSizeBytes !== 0 || !isPowerOfTwo(blockSizeBytes))
      return failed("badInput", "mirror", `${sizeBytes} bytes in blocks of ${blockSizeBytes}`);
    for (const piece of [dirty.grainBytes, activity.extentBytes])
      if (!isPowerOfTwo(piece) || piece % blockSizeBytes !== 0)
        return failed("badInput", "mirror", `pieces of ${piece} bytes`);
    return good(new MirrorDevice(options));
  }

  get status(): MirrorStatus {
    const { local, remote } = this.#flow.legs;
    return {
      ...this.#flow.counters,
      legs: { local: local.state, remote: remote.state },
      failed: this.#flow.failure !== undefined,
      dirtyBytes: this.#dirty.dirtyBytes,
    };
  }

  read(offset: number, length: number): Promise<Outcome<Buffer>> {
    const refused = this.#refuse("read", offset, length);
    if (refused) return Promise.resolve(refused);
    return this.#flow.read({ offset, length });
  }

  write(offset: number, data: Buffer, options: { readonly fua: boolean }): Promise<Outcome> {
    const { length } = data;
    return this.#change("write", { offset, length }, (leg) => leg.write(offset, data, options));
  }

  flush(): Promise<Outcome> {
    if (this.#closed) return Promise.resolve(failed("refused", "flush", "the mirror is closed"));
    return this.#flow.flush();
  }

  /** As zeroes: what a trim leaves behind is unspecified, and may differ from leg to leg. */
  trim(offset: number, length: number): Promise<Outcome> {
    return this.writeZeroes(offset, length, { fua: false, mayTrim: true });
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly mayTrim: boolean },
  ): Promise<Outcome> {
    const range = { offset, length };
    return this.#change("write zeroes", range, (leg) => leg.writeZeroes(offset, length, options));
  }

  /** What is held fails. Waits for what is under way, copies and decisions among it, as long as the devices and the metadata take. The legs stay open. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#flow.fail(failed("refused", "mirror", "the mirror is closed"));
    await this.#flow.idle();
  }

  /** Somebody knows that a leg is lost, or was: its session ended, though nothing was under way. */
  lose(name: LegName, reason: string): void {
    const fault = { code: "diskLost", operation: "mirror", message: reason } as const;
    this.#flow.legFailed(this.#flow.legs[name], fault);
  }

  /**
   * Goes on with the other leg. Only who has proof that nobody else goes on with the lost one may call this. Resolves when everything that the
   * lost leg may lack is marked, and what was held goes on. Faults: `refused`, and those of the mark: the leg that keeps the metadata is lost then as well, and only `fail` is left.
   */
  async continueWithout(name: LegName): Promise<Outcome> {
    const leg = this.#flow.legs[name];
    const wrong = this.#undecidable(leg, "continue without");
    return wrong ?? this.#flow.leave(leg);
  }

  /**
   * The lost leg is there again and nobody has continued with it alone. It gets whatever it may lack: all that was not flushed since, for it
   * may have lost its power, and all that is held. Then that is acknowledged. `device` replaces the one that was lost. Faults: `refused`,
   * and those of the legs; the leg is lost then, and reported so again.
   */
  legBack(name: LegName, device?: BlockDevice): Promise<Outcome> {
    return this.#flow.during(() => this.#takeBack(name, device));
  }

  async #takeBack(name: LegName, device?: BlockDevice): Promise<Outcome> {
    const leg = this.#flow.legs[name];
    const wrong = this.#undecidable(leg, "take back") ?? this.#unfit(device);
    if (wrong) return wrong;
    leg.state = "settling";
    await this.#flow.quiet();
    const device_ = device ?? leg.device;
    const { faults } = leg;
    let restored = await this.#restore(leg, device_);
    if (this.#flow.failure) {
      leg.state = "lost";
      return this.#flow.failure;
    }
    if (restored.ok && leg.faults !== faults)
      restored = failed("diskLost", "take back", "the leg was lost again meanwhile");
    if (!restored.ok) {
      leg.state = "inSync";
      this.#flow.legFailed(leg, restored.fault);
      return restored;
    }
    leg.device = device_;
    this.#flow.heldAreOnBoth();
    leg.state = "inSync";
    this.#flow.release();
    return done;
  }

  /** Nothing goes on any more: everything that is held or asked fails, for a reason in an operator's words. */
  fail(reason: string): void {
    this.#flow.fail(failed("diskLost", "mirror", reason));
  }

  /** A leg that is out is written to from now on. What it lacks stays dirty until somebody copies it (`Resync`). */
  attach(name: LegName, device: BlockDevice): Promise<Outcome> {
    return this.#flow.during(() => this.#attach(name, device));
  }

  async #attach(name: LegName, device: BlockDevice): Promise<Outcome> {
    const leg = this.#flow.legs[name];
    if (this.#flow.failure) return this.#flow.failure;
    if (leg.state !== "out" || this.#flow.other(leg).state !== "inSync")
      return failed("refused", "attach leg", `the ${name} leg is ${leg.state}`);
    const wrong = this.#unfit(device);
    if (wrong) return wrong;
    // Every change goes either before this, and is dirty, or to both.
    leg.state = "settling";
    await this.#flow.quiet();
    if (this.#flow.failure) {
      leg.state = "out";
      return this.#flow.failure;
    }
    this.#flow.heldAreNotOn(name);
    leg.device = device;
    leg.state = this.#flow.other(leg).state === "inSync" ? "target" : "out";
    this.#attachments += 1;
    this.#flow.release();
    return leg.state === "target" ? done : failed("refused", "attach leg", "the source was lost");
  }

  /**
   * Nothing is dirty any more: from now on the leg counts, and its loss holds writes. That both are equal may be persisted behind this call
   * only: before it a fault of the leg would make it untrue without asking anybody.
   */
  joined(name: LegName): Outcome {
    const leg = this.#flow.legs[name];
    if (this.#flow.failure) return this.#flow.failure;
    if (leg.state !== "target") return failed("refused", "join leg", `the leg is ${leg.state}`);
    if (this.#dirty.next(0) !== undefined)
      return failed("refused", "join leg", `${this.#dirty.dirtyBytes} bytes are dirty`);
    leg.state = "inSync";
    return done;
  }

  /** Counts the calls of `attach`: what was copied in an earlier one may be lost. */
  get attachment(): number {
    return this.#attachments;
  }

  /** Copies a range to the target, with no change under way to it. `left` when that is not the target of this attachment any more. */
  copy(attachment: number, range: Range): Promise<PartOutcome> {
    return this.#flow.exclusive(range, async () => {
      const { target, source } = this.#direction(attachment);
      if (target === undefined || source === undefined) return "left";
      const copied = await this.#copyBetween(source, target.device, target, range);
      return copied.ok && this.#direction(attachment).target === target ? "done" : "left";
    });
  }

  /** What was copied is durable at the target, and the ranges are clean, unless the target was lost meanwhile. */
  settle(attachment: number, ranges: readonly Range[]): Promise<Outcome> {
    return this.#flow.during(() => this.#settle(attachment, ranges));
  }

  async #settle(attachment: number, ranges: readonly Range[]): Promise<Outcome> {
    const { target } = this.#direction(attachment);
    if (target === undefined) return failed("refused", "settle copies", "there is no target");
    const flushed = await target.device.flush();
    if (!flushed.ok) {
      this.#flow.legFailed(target, flushed.fault);
      return flushed;
    }
    if (this.#direction(attachment).target !== target)
      return failed("diskLost", "settle copies", "the target was lost meanwhile");
    const cleaned = await this.#dirty.clean(ranges);
    if (!cleaned.ok) this.#flow.metadataFailed(cleaned.fault);
    return cleaned;
  }

  /** Compares both legs of a range, with no change under way to it; with `from`, what differs is copied from that leg. */
  compare(range: Range, from?: LegName): Promise<PartOutcome> {
    return this.#flow.exclusive(range, async () => {
      const { local, remote } = this.#flow.legs;
      const areBoth = () =>
        local.state === "inSync" && remote.state === "inSync" && this.#flow.failure === undefined;
      if (!areBoth()) return "left";
      const [here, there] = await Promise.all([
        this.#readLeg(local, range),
        this.#readLeg(remote, range),
      ]);
      if (here === undefined || there === undefined || !areBoth()) return "left";
      if (here.equals(there)) return "done";
      if (from === undefined) return "different";
      const [source, target] = from === "local" ? [local, remote] : [remote, local];
      const data = from === "local" ? here : there;
      this.#flow.noteUnflushed(range);
      const written = await target.device.write(range.offset, data, { fua: false });
      // Again: a flush that began meanwhile may have missed it.
      this.#flow.noteUnflushed(range);
      if (!written.ok) this.#flow.legFailed(target, written.fault);
      return written.ok && source.state === "inSync" ? "different" : "left";
    });
  }

  #change(
    operation: string,
    range: Range,
    perform: (leg: BlockDevice) => Promise<Outcome>,
  ): Promise<Outcome> {
    const refused = this.#refuse(operation, range.offset, range.length);
    if (refused) return Promise.resolve(refused);
    if (range.length === 0) return Promise.resolve(done);
    const changed = this.#flow.change(range, perform);
    if (this.onLatency === undefined) return changed;
    const sinceMs = performance.now();
    return changed.then((outcome) => {
      this.onLatency?.(performance.now() - sinceMs);
      return outcome;
    });
  }

  #refuse(operation: string, offset: number, length: number) {
    if (this.#closed) return failed("refused", operation, "the mirror is closed");
    if (inRange(this, offset, length)) return undefined;
    return failed("badInput", operation, `${length} bytes at ${offset} lie outside the mirror`);
  }

  #undecidable(leg: Leg, operation: string) {
    const other = this.#flow.other(leg);
    if (this.#flow.failure) return failed("refused", operation, "the mirror has failed");
    if (leg.state !== "lost")
      return failed("refused", operation, `the ${leg.name} leg is ${leg.state}`);
    if (other.state === "inSync") return undefined;
    return failed("refused", operation, `the ${other.name} leg is ${other.state}`);
  }

  #unfit(device: BlockDevice | undefined) {
    const wrong = device && unfit(device, this);
    return wrong ? failed("badInput", "mirror", wrong) : undefined;
  }

  async #restore(leg: Leg, device: BlockDevice): Promise<Outcome> {
    const source = this.#flow.other(leg);
    for (const { offset, length } of this.#flow.owed())
      for (let at = offset; at < offset + length; at += pieceBytes) {
        const range = { offset: at, length: Math.min(pieceBytes, offset + length - at) };
        const copied = await this.#copyBetween(source, device, undefined, range);
        if (!copied.ok) return copied;
      }
    const flushed = await device.flush();
    if (!flushed.ok) return flushed;
    return source.state === "inSync"
      ? done
      : failed("refused", "take back", `the ${source.name} leg is ${source.state}`);
  }

  /** A fault of the source is reported as its own; one of the target where there is such a leg. */
  async #copyBetween(
    source: Leg,
    device: BlockDevice,
    target: Leg | undefined,
    range: Range,
  ): Promise<Outcome> {
    const read = await source.device.read(range.offset, range.length);
    if (!read.ok) {
      this.#flow.legFailed(source, read.fault);
      return read;
    }
    if (this.#flow.failure) return this.#flow.failure;
    const written = await device.write(range.offset, read.value, { fua: false });
    if (!written.ok && target) this.#flow.legFailed(target, written.fault);
    return written;
  }

  async #readLeg(leg: Leg, { offset, length }: Range): Promise<Buffer | undefined> {
    const read = await leg.device.read(offset, length);
    if (read.ok) return read.value;
    this.#flow.legFailed(leg, read.fault);
    return undefined;
  }

  #direction(attachment: number): { target: Leg | undefined; source: Leg | undefined } {
    if (this.#flow.failure) return { target: undefined, source: undefined };
    const { local, remote } = this.#flow.legs;
    const isNow = attachment === this.#attachments;
    const target = [local, remote].find(({ state }) => isNow && state === "target");
    const source = [local, remote].find(({ state }) => state === "inSync");
    return { target, source };
  }
}

const isPowerOfTwo = (value: number) => value > 0 && Number.isInteger(Math.log2(value));

function unfit(
  leg: BlockDevice,
  mirror: Pick<BlockDevice, "sizeBytes" | "blockSizeBytes">,
): string | undefined {
  if (leg.sizeBytes < mirror.sizeBytes)
    return `a leg of ${leg.sizeBytes} bytes for ${mirror.sizeBytes}`;
  if (mirror.blockSizeBytes % leg.blockSizeBytes === 0) return undefined;
  return `a leg in blocks of ${leg.blockSizeBytes} bytes for ${mirror.blockSizeBytes}`;
}
