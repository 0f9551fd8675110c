/**
 * The way of operations through a mirror, and the hold. Decisions about legs are in `mirror-device.ts`.
 *
 *     asked ─▶ in its turn ─▶ extents active ─▶ sent to the legs ─▶ answered ─▶ marked where a leg lacks it ─▶ acknowledged
 *                   ╰── held, unsent, while a leg is lost or settling ─╯   ╰── held, sent ──╯
 *
 * A flush passes no order and no log; a read goes to one leg.
 */
import {
  done,
  explain,
  type Fault,
  failed,
  type Outcome,
} from "../../../firmware-ts/schema/outcome.ts";
import type { BlockDevice } from "../device.ts";
import type { ActivityPort, DirtyPort, LegName, LegState, MirrorHandlers, Range } from "./ports.ts";
import { RangeOrder, type RangeTicket } from "./range-order.ts";
import { piecesOf, rangesOf, Unflushed } from "./unflushed.ts";

export interface Leg {
  readonly name: LegName;
  device: BlockDevice;
  state: LegState;
  /** Counts what was found or told of its losses, also while a decision is carried out. */
  faults: number;
}

interface Change extends Range {
  readonly perform: (device: BlockDevice) => Promise<Outcome>;
  readonly settle: (outcome: Outcome) => void;
  ticket: RangeTicket | undefined;
  /** Legs without an answer yet. */
  pending: number;
  readonly has: Record<LegName, boolean>;
  /** What a leg lacks of it is dirty, durably. */
  marked: boolean;
}

export interface MirrorCounters {
  /** Operations that wait for a decision. */
  readonly held: number;
  readonly active: number;
  readonly unflushedBytes: number;
  readonly losses: Readonly<Record<LegName, number>>;
}

interface FlowOptions {
  readonly sizeBytes: number;
  readonly dirty: DirtyPort;
  readonly activity: ActivityPort;
  readonly handlers: MirrorHandlers;
  readonly unflushedGrainsMax: number;
}

export class MirrorFlow {
  readonly legs: Readonly<Record<LegName, Leg>>;
  readonly order = new RangeOrder();
  readonly #both: readonly [Leg, Leg];
  readonly #options: FlowOptions;
  readonly #unflushed = new Unflushed();
  readonly #awake = new Unflushed();
  /** Between sending and acknowledgement, and not held. */
  readonly #active = new Set<Change>();
  /** Their extents are on the way into the log, some of them perhaps there already. */
  readonly #waking = new Set<Change>();
  #heldChanges: Change[] = [];
  #heldStarts: (() => void)[] = [];
  readonly #losses: Record<LegName, number> = { local: 0, remote: 0 };
  #flushingItself = false;
  #reads = 0;
  /** What goes to the legs beside the changes, ranges of its own or decisions. */
  #exclusives = 0;
  #decisions = 0;
  #whenQuiet: (() => void)[] = [];
  #failure: Outcome | undefined;

  constructor(local: Leg, remote: Leg, options: FlowOptions) {
    this.legs = { local, remote };
    this.#both = [local, remote];
    this.#options = options;
  }

  /** Whether changes and flushes go on. */
  get flows(): boolean {
    return this.#both.every(({ state }) => state !== "lost" && state !== "settling");
  }

  get failure(): Outcome | undefined {
    return this.#failure;
  }

  get counters(): MirrorCounters {
    return {
      held: this.#heldChanges.length + this.#heldStarts.length,
      active: this.#active.size,
      unflushedBytes: this.#unflushed.size * this.#options.dirty.grainBytes,
      losses: { ...this.#losses },
    };
  }

  /** Sends a change to the legs in its turn; `perform` does it on one. */
  change(range: Range, perform: Change["perform"]): Promise<Outcome> {
    return new Promise((settle) => {
      const { offset, length } = range;
      const change: Change = {
        offset,
        length,
        perform,
        settle,
        ticket: undefined,
        pending: 0,
        has: { local: false, remote: false },
        marked: false,
      };
      let begun = false;
      const ticket = this.order.enter(offset, length, true, () => {
        begun = true;
        if (change.ticket !== undefined) this.#start(change);
      });
      change.ticket = ticket;
      if (begun) this.#start(change);
    });
  }

  /** Reads from the leg that has everything, the local one if both do, behind the changes that were asked before. */
  read({ offset, length }: Range): Promise<Outcome<Buffer>> {
    return new Promise((settle) => {
      const leave = () => {
        this.order.leave(ticket);
        this.#reads -= 1;
        this.#notifyQuiet();
      };
      const start = () => {
        if (this.#failure && !this.#failure.ok) {
          settle(this.#failure);
          leave();
          return;
        }
        const leg = this.#readable();
        if (leg === undefined) {
          this.#heldStarts.push(start);
          return;
        }
        void leg.device.read(offset, length).then((outcome) => {
          if (!outcome.ok && this.#failure === undefined) {
            this.legFailed(leg, outcome.fault);
            start();
            return;
          }
          settle(outcome);
          leave();
        });
      };
      this.#reads += 1;
      // In a turn of its own: the ticket is there when the read begins.
      const ticket = this.order.enter(offset, length, false, () => queueMicrotask(start));
    });
  }

  /** Everything acknowledged before is durable on every leg that counts. */
  flush(): Promise<Outcome> {
    return new Promise((settle) => this.#startFlush(settle));
  }

  /** Performs a work that excludes every change of the range; it reads and writes the legs itself. */
  exclusive<T>({ offset, length }: Range, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const ticket = this.order.enter(offset, length, true, () =>
        queueMicrotask(() => {
          this.#exclusives += 1;
          work()
            .then(resolve, reject)
            .finally(() => {
              this.#exclusives -= 1;
              this.order.leave(ticket);
              this.#notifyQuiet();
            });
        }),
      );
    });
  }

  /** Performs a decision, or what ends a copy: closing waits for it. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#decisions += 1;
    try {
      return await work();
    } finally {
      this.#decisions -= 1;
      this.#notifyQuiet();
    }
  }

  /** A fault of a leg, or of the metadata on it. */
  legFailed(leg: Leg, fault: Fault): void {
    leg.faults += 1;
    if (leg.state === "inSync") {
      leg.state = "lost";
      this.#losses[leg.name] += 1;
      this.#options.handlers.legLost(leg.name, explain(fault));
    } else if (leg.state === "target") {
      this.#losses[leg.name] += 1;
      // Nobody is asked: it lacked something, so nobody could go on with it alone.
      void this.leave(leg);
      this.#options.handlers.legLost(leg.name, explain(fault));
    }
  }

  /** From here on the leg is not written to. What it may lack is marked before anything more is acknowledged. Faults: those of the mark. */
  leave(leg: Leg): Promise<Outcome> {
    return this.during(() => this.#leave(leg));
  }

  async #leave(leg: Leg): Promise<Outcome> {
    leg.state = "settling";
    const marked = await this.#options.dirty.mark(this.owed());
    const other = this.other(leg);
    if (marked?.ok === false || other.state !== "inSync") {
      leg.state = "lost";
      if (marked?.ok === false) this.legFailed(other, marked.fault);
      return marked?.ok === false
        ? marked
        : failed("refused", "mirror", `the ${other.name} leg was lost as well`);
    }
    leg.state = "out";
    this.release();
    return this.#failure ?? done;
  }

  /** What a leg may have lost with its power, or never got: everything since the last flush, what is held among it. */
  owed(): readonly Range[] {
    const { grainBytes } = this.#options.dirty;
    return rangesOf(this.#unflushed.all(), grainBytes, this.#options.sizeBytes);
  }

  /** Something was written to a leg beside the changes, and is not flushed. */
  noteUnflushed(range: Range): void {
    this.#note(range);
  }

  /** Resolves when no change and no copy is under way to a leg. Changes and flushes must be held, or this may be never. */
  async quiet(): Promise<void> {
    while (this.#active.size > 0 || this.#exclusives > 0)
      await new Promise<void>((resolve) => this.#whenQuiet.push(resolve));
  }

  /** Resolves when no operation at all is under way: for closing. */
  async idle(): Promise<void> {
    while (this.#active.size + this.#reads + this.#exclusives + this.#decisions > 0)
      await new Promise<void>((resolve) => this.#whenQuiet.push(resolve));
  }

  /** What is held and was sent is on both legs now. */
  heldAreOnBoth(): void {
    for (const { has } of this.#heldChanges) {
      has.local = true;
      has.remote = true;
    }
  }

  /** What a leg has answered of the held changes, it has answered before it was out, and may have lost since. */
  heldAreNotOn(name: LegName): void {
    for (const { has } of this.#heldChanges) has[name] = false;
  }

  /** Lets go what was held, as far as it can go on. */
  release(): void {
    if (!this.flows && this.#failure === undefined) return;
    const [changes, starts] = [this.#heldChanges, this.#heldStarts];
    this.#heldChanges = [];
    this.#heldStarts = [];
    for (const change of changes) this.#conclude(change);
    for (const start of starts) start();
  }

  /** Nothing goes on any more. What is held fails, and what is asked. */
  fail(failure: Outcome): void {
    this.#failure ??= failure;
    this.release();
  }

  other(leg: Leg): Leg {
    return leg === this.#both[0] ? this.#both[1] : this.#both[0];
  }

  #start(change: Change): void {
    if (this.#failure) {
      this.#finish(change, this.#failure);
      return;
    }
    if (!this.flows) {
      this.#heldStarts.push(() => this.#start(change));
      return;
    }
    const waking = this.#options.activity.activate(change);
    if (waking === undefined) {
      this.#send(change);
      return;
    }
    this.#waking.add(change);
    void waking.then((outcome) => {
      this.#waking.delete(change);
      if (!outcome.ok) this.metadataFailed(outcome.fault);
      if (outcome.ok && this.flows && !this.#failure) this.#send(change);
      else this.#start(change);
    });
  }

  #send(change: Change): void {
    this.#active.add(change);
    const { local, remote } = this.legs;
    // The remote one first: it is on its way while a local device may work in this very turn.
    const takers = [remote, local].filter(({ state }) => state === "inSync" || state === "target");
    change.pending = takers.length;
    for (const leg of takers)
      void change.perform(leg.device).then((outcome) => this.#answered(change, leg, outcome));
  }

  #answered(change: Change, leg: Leg, outcome: Outcome): void {
    change.pending -= 1;
    if (outcome.ok) change.has[leg.name] = true;
    else this.legFailed(leg, outcome.fault);
    if (change.pending === 0) this.#conclude(change);
  }

  #conclude(change: Change): void {
    this.#note(change);
    if (this.#failure) {
      this.#finish(change, this.#failure);
      return;
    }
    if (!this.flows) {
      this.#active.delete(change);
      this.#heldChanges.push(change);
      this.#notifyQuiet();
      return;
    }
    if (change.marked || !this.#lacks(change)) {
      this.#finish(change, done);
      return;
    }
    this.#active.add(change);
    const marking = this.#options.dirty.mark([{ offset: change.offset, length: change.length }]);
    if (marking === undefined) {
      this.#finish(change, done);
      return;
    }
    void marking.then((outcome) => {
      if (outcome.ok) change.marked = true;
      else this.metadataFailed(outcome.fault);
      this.#conclude(change);
    });
  }

  /**
   * Whether a leg is not in sync with the change. What one that is out has answered does not count: it was told before the leg was lost,
   * and may have gone with its power.
   */
  #lacks({ has }: Change): boolean {
    let lacks = false;
    for (const { name, state } of this.#both) {
      if (state === "out" || (state === "target" && !has[name])) lacks = true;
      if (state === "inSync" && !has[name])
        throw new Error(`mirror: a change that the ${name} leg lacks is about to be acknowledged`);
    }
    return lacks;
  }

  #finish(change: Change, outcome: Outcome): void {
    this.#active.delete(change);
    change.settle(outcome);
    if (change.ticket !== undefined) this.order.leave(change.ticket);
    this.#notifyQuiet();
    if (this.#unflushed.size > this.#options.unflushedGrainsMax) this.#flushItself();
  }

  #notifyQuiet(): void {
    if (this.#whenQuiet.length === 0 || this.#active.size > 0) return;
    for (const resolve of this.#whenQuiet.splice(0)) resolve();
  }

  #note(range: Range): void {
    if (range.length === 0) return;
    const { dirty, activity } = this.#options;
    this.#unflushed.add(...piecesOf(range, dirty.grainBytes));
    this.#awake.add(...piecesOf(range, activity.extentBytes));
  }

  #startFlush(settle: (outcome: Outcome) => void): void {
    if (this.#failure) {
      settle(this.#failure);
      return;
    }
    if (!this.flows) {
      this.#heldStarts.push(() => this.#startFlush(settle));
      return;
    }
    const [grains, extents] = [this.#unflushed.flushing(), this.#awake.flushing()];
    const takers = this.#both.filter(({ state }) => state === "inSync" || state === "target");
    const flushes = takers.map(async (leg) => {
      const outcome = await leg.device.flush();
      if (!outcome.ok) this.legFailed(leg, outcome.fault);
      return outcome.ok;
    });
    void Promise.all(flushes).then((oks) => {
      if (this.flows && oks.every((ok) => ok)) {
        this.#unflushed.flushed(grains);
        this.#rest(this.#awake.flushed(extents));
        settle(done);
        return;
      }
      this.#startFlush(settle);
    });
  }

  #rest(extents: readonly number[]): void {
    const { activity } = this.#options;
    const busy = new Set<number>();
    for (const change of [...this.#active, ...this.#waking]) {
      const [first, last] = piecesOf(change, activity.extentBytes);
      for (let extent = first; extent <= last; extent += 1) busy.add(extent);
    }
    const idle = extents.filter((extent) => !busy.has(extent));
    for (const extent of extents) if (busy.has(extent)) this.#awake.add(extent, extent);
    if (idle.length > 0) activity.mayRest(idle);
  }

  /** Somebody above who never flushes shall not make a loss expensive: what is unflushed is bounded. */
  #flushItself(): void {
    if (this.#flushingItself) return;
    this.#flushingItself = true;
    void this.flush().then(() => {
      this.#flushingItself = false;
    });
  }

  /** The metadata are on the local disk while that serves. */
  metadataFailed(fault: Fault): void {
    const keeper = this.#both.find(({ state }) => state === "inSync");
    if (keeper) this.legFailed(keeper, fault);
  }

  #readable(): Leg | undefined {
    const { local, remote } = this.legs;
    if (local.state === "inSync") return local;
    const isDecided = local.state === "out" || local.state === "target";
    return isDecided && remote.state === "inSync" ? remote : undefined;
  }
}
