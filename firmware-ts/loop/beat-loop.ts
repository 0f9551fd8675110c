/**
 * The loop of the beat process: frames, timers and commands in; beats, leases and observations out. All policy is in core/beat.ts. Like
 * the main loop it goes in strides (design 0024); gate calls are synchronous on purpose: between the decision on a lease and the
 * kernel's start of counting it nothing else of this process runs.
 */
import { beatStep } from "../core/beat.ts";
import { type BeatState, newBeatState } from "../core/beat-state.ts";
import type { BeatEffect, BeatEvent } from "../core/beat-types.ts";
import type { Timing } from "../core/timing.ts";
import type { Beat } from "../schema/beat.ts";
import type { ControllerId, LinkName } from "../schema/ids.ts";
import { explain, failed, type Outcome } from "../schema/outcome.ts";
import type { ReservationAnswer, ReservationCommand } from "../schema/reservation.ts";
import type { FromBeat, ToBeat } from "./channel.ts";
import type { Unstamped } from "./unstamped.ts";
import { VolumeDisks, type VolumeDisksHost } from "./volume-disks.ts";
import { Waiting } from "./waiting.ts";

/** How often last words are said on the slowest link: a beat may be lost. */
const lastBeats = 3;

/** A lease counts from `decidedAtMs` (the local monotonic clock), however long the call takes to reach the kernel. */
type Lease = (addresses: readonly string[], leaseMs: number, decidedAtMs: number) => Outcome;

/** What the loop needs of the process in which it runs. */
export interface BeatHost {
  /** One more event waits: `advance` is to be called until the step is whole. `first`: before all that waits. May do so at once. */
  wake(first: boolean): void;
  /** The local monotonic clock, ms. */
  nowMs(): number;
  /** A timer of this process, on its own clock. */
  after(delayMs: number, run: () => void): void;
  send(links: readonly LinkName[], beat: Beat): void;
  readonly gate: {
    readonly open: Lease;
    readonly renew: Lease;
    close(addresses: readonly string[]): Outcome;
    /** All floating addresses from now on: see hal/port/gate. */
    know(addresses: readonly string[]): Outcome;
    seal(): Outcome;
  };
  /** To the main process, in order. */
  tell(message: FromBeat): void;
  /** A command to a coordinator; `settle` is called once, after `deadlineMs` at the latest. */
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
    settle: (answer: ReservationAnswer) => void,
  ): void;
  /** A record to one coordinator: see loop/volume-disks. */
  readonly writeRecord: VolumeDisksHost["writeRecord"];
}

export interface BeatLoopSetup {
  readonly host: BeatHost;
  readonly me: ControllerId;
  /** Random, not 0, new at every start. */
  readonly session: number;
  readonly configuration: number;
  readonly timing: Timing;
  readonly links: readonly LinkName[];
  readonly coordinators: readonly string[];
  /** The decisions; others only to see mistakes caught. */
  readonly machine?: typeof beatStep;
}

type Happening = Unstamped<BeatEvent>;

/** What is passed on to the disks: no business of the beats. */
type DiskRequest = Extract<ToBeat, { kind: "reserve" | "volumeWrite" }>;

type GateEffect = Extract<BeatEffect, { kind: "open" | "renew" | "close" | "know" | "seal" }>;

const tick: Happening = { kind: "tick" };

/** The frequent ones are made by name: a copy of just any shape costs more than the decision on most of them. */
function stamped(happening: Happening, nowMs: number): BeatEvent {
  if (happening.kind === "frame") {
    const { kind, link, beat } = happening;
    return { kind, link, beat, nowMs };
  }
  if (happening.kind === "written") {
    const { kind, sentAtMs, accepted, refused, total } = happening;
    return { kind, sentAtMs, accepted, refused, total, nowMs };
  }
  if (happening.kind === "progress") return { kind: "progress", nowMs };
  return { ...happening, nowMs } as BeatEvent;
}

export class BeatLoop {
  readonly #host: BeatHost;
  readonly #machine: typeof beatStep;
  readonly #timing: Timing;
  #state: BeatState;
  readonly #events = new Waiting<Happening | DiskRequest>();
  #effects: readonly BeatEffect[] = [];
  #next = 0;
  /** Outcomes of gate calls: the machine hears of them before anything else, and is never entered twice. */
  readonly #outcomes = new Waiting<BeatEvent>();
  readonly #volume: VolumeDisks;
  #dueMs = 0;
  #ended: (() => void) | undefined;
  /** Frames that were refused, by reason. */
  readonly refused: Record<string, number> = {};
  renewals = 0;
  #tickLateMsMax = 0;

  constructor(setup: BeatLoopSetup) {
    this.#host = setup.host;
    this.#machine = setup.machine ?? beatStep;
    this.#timing = setup.timing;
    this.#state = newBeatState({ ...setup, nowMs: setup.host.nowMs() });
    this.#volume = new VolumeDisks(setup.coordinators, setup.host);
  }

  get state(): BeatState {
    return this.#state;
  }

  /** Begins to tick; gates and links must be open. */
  start(): void {
    const { beatTickMs } = this.#timing;
    this.#dueMs = this.#host.nowMs() + beatTickMs;
    this.#host.after(beatTickMs, this.#tickDue);
  }

  readonly #tickDue = (): void => {
    this.#events.unshift(tick);
    this.#host.wake(true);
  };

  /**
   * After a stall the next tick judges what this one could not: a whole period goes by first, in which everything that waits in
   * sockets, in the serial port and behind the thread pool is read.
   */
  #ticked(nowMs: number): void {
    const { beatTickMs } = this.#timing;
    const lateMs = nowMs - this.#dueMs;
    this.#tickLateMsMax = Math.max(this.#tickLateMsMax, lateMs);
    this.#dueMs = lateMs > beatTickMs ? nowMs + beatTickMs : this.#dueMs + beatTickMs;
    this.#host.after(Math.max(0, this.#dueMs - nowMs), this.#tickDue);
  }

  /** Longest lateness of a tick since the last question, ms. */
  tickLateMsMax(): number {
    const lateMs = this.#tickLateMsMax;
    this.#tickLateMsMax = 0;
    return lateMs;
  }

  offer(event: Happening | DiskRequest): void {
    this.#events.push(event);
    this.#host.wake(false);
  }

  /** A frame that the codec has understood. */
  frame(link: LinkName, beat: Beat): void {
    this.offer({ kind: "frame", link, beat });
  }

  /** A frame that the codec has refused. */
  refuse(reason: string): void {
    this.refused[reason] = (this.refused[reason] ?? 0) + 1;
  }

  /** The main process asks for something. */
  command(message: ToBeat): void {
    this.offer(message.kind === "gate" ? message.command : message);
  }

  /**
   * The main process is gone: the gates are closed, and when the kernel has confirmed it a few beats say so; then `ended` is called. Without
   * that confirmation nothing is said: the leases end by themselves.
   */
  lastWords(ended: () => void): void {
    this.#ended = ended;
    this.offer({ kind: "lastWords" });
  }

  get hasWork(): boolean {
    return this.inStep || this.#events.length > 0;
  }

  /** The last step is not performed whole yet: nothing else of this process comes in between. */
  get inStep(): boolean {
    return this.#next < this.#effects.length || this.#outcomes.length > 0;
  }

  /** One stride: the next effect, or the next event. True while the step is not performed whole. */
  advance(): boolean {
    const effect = this.#effects[this.#next];
    if (effect) {
      this.#next += 1;
      this.#perform(effect);
    } else this.#take();
    if (this.inStep) return true;
    if (this.#ended && this.#state.ending !== "no") this.#lastWordsSaid(this.#ended);
    return false;
  }

  #lastWordsSaid(ended: () => void): void {
    this.#ended = undefined;
    if (this.#state.ending !== "closed") return ended();
    const { beatIntervalMs, diskBeatIntervalMs } = this.#timing;
    this.#host.after(lastBeats * Math.max(beatIntervalMs, diskBeatIntervalMs), ended);
  }

  #take(): void {
    const outcome = this.#outcomes.shift();
    if (outcome) return this.#step(outcome);
    const happening = this.#events.shift();
    if (!happening) return;
    if (happening.kind === "reserve" || happening.kind === "volumeWrite")
      return this.#pass(happening);
    const nowMs = this.#host.nowMs();
    if (happening !== tick) return this.#step(stamped(happening, nowMs));
    this.#ticked(nowMs);
    this.#step({ kind: "tick", nowMs });
  }

  #pass(request: DiskRequest): void {
    const { token } = request;
    if (request.kind === "volumeWrite")
      return this.#volume.write(request.record, request.untilMs - this.#host.nowMs(), (written) =>
        this.#host.tell({ kind: "volumeWritten", token, written }),
      );
    const { serial, command, deadlineMs } = request;
    if (command.op === "register") this.#volume.registering(serial);
    this.#host.reserve(serial, command, deadlineMs, (answer) =>
      this.#host.tell({ kind: "reserved", token, answer }),
    );
  }

  #step(event: BeatEvent): void {
    const [after, effects] = this.#machine(this.#state, event);
    this.#state = after;
    this.#effects = effects;
    this.#next = 0;
  }

  #perform(effect: BeatEffect): void {
    const { gate } = this.#host;
    switch (effect.kind) {
      case "send":
        return this.#host.send(effect.links, effect.beat);
      case "open":
      case "renew":
        return this.#outcome(effect, this.#lease(effect));
      case "close":
        return this.#outcome(effect, gate.close(effect.addresses));
      case "know":
        return this.#outcome(effect, gate.know(effect.addresses));
      case "seal":
        return this.#outcome(effect, gate.seal());
      case "observe":
        if (effect.observation.kind === "frameRefused")
          return this.refuse(effect.observation.reason);
        return this.#host.tell({ kind: "observation", observation: effect.observation });
      default:
        throw new Error(`beat loop: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  /** Never longer than what is left at this moment: whole milliseconds, rounded down. */
  #lease(effect: Extract<BeatEffect, { kind: "open" | "renew" }>): Outcome {
    const { gate } = this.#host;
    if (effect.kind === "renew") this.renewals += 1;
    const decidedAtMs = this.#host.nowMs();
    const leaseMs = Math.floor(effect.untilMs - decidedAtMs);
    if (leaseMs <= 0)
      return failed(
        "gateExpired",
        `${effect.kind} gate`,
        "the lease was over before it could begin",
      );
    return effect.kind === "open"
      ? gate.open(effect.addresses, leaseMs, decidedAtMs)
      : gate.renew(effect.addresses, leaseMs, decidedAtMs);
  }

  #outcome({ kind: action, token, addresses }: GateEffect, result: Outcome): void {
    const { ok } = result;
    const reason = result.ok ? "" : explain(result.fault);
    const nowMs = this.#host.nowMs();
    this.#outcomes.push({ kind: "gateOutcome", nowMs, action, token, addresses, ok, reason });
  }
}
