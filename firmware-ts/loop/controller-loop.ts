/**
 * The main loop of a controller: an event goes through the decisions, the effects are performed in their order (persist → fence →
 * act → announce), every outcome comes back as an event. There is no other path and no policy here.
 *
 * It does one thing at a time, a *stride*: it takes the next event, or it performs the next effect. Whoever hosts it decides when the
 * next stride is made: the daemon makes all of them at once, the simulator lets the world go on between any two (design 0024).
 */
import { controllerStep } from "../core/controller.ts";
import type { ControllerState } from "../core/controller-state.ts";
import type { Effect, Lifecycle, Report, Work } from "../core/effects.ts";
import type { ControllerEvent } from "../core/events.ts";
import type { VolumeRecord, VolumeView, VolumeWritten } from "../schema/definition.ts";
import type { PersistentRecord } from "../schema/journal.ts";
import type { Outcome } from "../schema/outcome.ts";
import type { ReservationAnswer, ReservationCommand } from "../schema/reservation.ts";
import type { CommandAnswer } from "../schema/status.ts";
import type { ToBeat } from "./channel.ts";
import type { Unstamped } from "./unstamped.ts";
import { Waiting } from "./waiting.ts";

export type Happening = Unstamped<ControllerEvent>;

/** One step of the decisions. */
export interface ControllerStride {
  readonly event: ControllerEvent;
  readonly before: ControllerState;
  readonly after: ControllerState;
  readonly effects: readonly Effect[];
}

/** What the loop needs of the process in which it runs. */
export interface ControllerHost {
  /** One more event waits: `advance` is to be called until the step is whole. `first`: before all that waits. May do so at once. */
  wake(first: boolean): void;
  /** The local monotonic clock, ms. */
  nowMs(): number;
  /** Kept when it returns. */
  persist(record: PersistentRecord): void;
  /** In order, and never lost while both processes live. */
  beat(message: ToBeat): void;
  /** A command to a data disk; `settle` is called once, after `deadlineMs` at the latest. */
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
    settle: (answer: ReservationAnswer) => void,
  ): void;
  /** `settle` is called once, after `limitMs` at the latest. All that is done to one virtual server is done in turn. */
  work(
    virtualServer: string,
    work: Work | Lifecycle,
    limitMs: number,
    settle: (outcome: Outcome<string | undefined>) => void,
  ): void;
  /**
   * What a majority of the coordinator disks hold or, thorough, all that answer within `limitMs`; `settle` is called once, after `limitMs` at the
   * latest.
   */
  readVolume(
    limitMs: number,
    isThorough: boolean,
    settle: (outcome: Outcome<VolumeView>) => void,
  ): void;
  /**
   * Offers a record to all coordinator disks, with what the kernel says of a virtual server that is served here as its state. `settle` is
   * called once, soon after `limitMs` at the latest; a disk that is slow may take the record later.
   */
  writeVolume(
    record: VolumeRecord,
    limitMs: number,
    settle: (written: VolumeWritten) => void,
  ): void;
  answer(id: number, answer: CommandAnswer): void;
  report(report: Report): void;
  exit(code: number, reason: string): void;
  /** After each step that was more than an idle tick, before its effects: the journal. */
  stepped(stride: ControllerStride): void;
}

export interface ControllerLoopSetup {
  readonly host: ControllerHost;
  readonly initial: ControllerState;
  /** Reached through the beat process, whose nexus writes there. */
  readonly coordinators: readonly string[];
  /** The decisions; others only to see mistakes caught. */
  readonly machine?: typeof controllerStep;
}

const tick: Happening = { kind: "tick" };

export class ControllerLoop {
  readonly #host: ControllerHost;
  readonly #machine: typeof controllerStep;
  readonly #coordinators: readonly string[];
  #state: ControllerState;
  readonly #events = new Waiting<Happening>();
  /** Effects of the last step that are still to be performed, from `#next` on. */
  #effects: readonly Effect[] = [];
  #next = 0;
  #begun = false;
  #tickWaits = false;
  /** The beat process is told of a tick's progress when the tick's effects are performed. */
  #progressed = false;
  #progressToldMs = Number.NEGATIVE_INFINITY;

  constructor({ host, initial, coordinators, machine = controllerStep }: ControllerLoopSetup) {
    this.#host = host;
    this.#machine = machine;
    this.#coordinators = coordinators;
    this.#state = initial;
  }

  get state(): ControllerState {
    return this.#state;
  }

  /** Begins: what was offered before is taken after the boot. */
  start(record: PersistentRecord): void {
    this.#events.unshift({ kind: "boot", record });
    this.#begun = true;
    for (let waiting = this.#events.length; waiting > 0; waiting -= 1) this.#host.wake(false);
  }

  /** An event that waits for its stride. */
  offer(event: Happening): void {
    this.#events.push(event);
    if (this.#begun) this.#host.wake(false);
  }

  /**
   * Time has gone by; a tick that still waits is enough. It comes before all that waits.
   */
  tick(): void {
    if (this.#tickWaits) return;
    this.#tickWaits = true;
    this.#events.unshift(tick);
    if (this.#begun) this.#host.wake(true);
  }

  /** Something waits for a stride. */
  get hasWork(): boolean {
    return this.inStep || (this.#begun && this.#events.length > 0);
  }

  /** The last step is not performed whole yet: nothing else of this process comes in between. */
  get inStep(): boolean {
    return this.#next < this.#effects.length || this.#progressed;
  }

  /** One stride: the next effect, or the next event. True while the step is not performed whole. */
  advance(): boolean {
    const effect = this.#effects[this.#next];
    if (effect) {
      this.#next += 1;
      this.#perform(effect);
    } else if (!this.#progressed) this.#take();
    if (this.#progressed && this.#next >= this.#effects.length) {
      this.#progressed = false;
      this.#host.beat(progress);
    }
    return this.inStep;
  }

  #take(): void {
    const happening = this.#begun ? this.#events.shift() : undefined;
    if (!happening) return;
    const isTick = happening === tick;
    if (isTick) this.#tickWaits = false;
    const nowMs = this.#host.nowMs();
    const event: ControllerEvent = isTick
      ? { kind: "tick", nowMs }
      : ({ ...happening, nowMs } as ControllerEvent);
    const before = this.#state;
    const [after, effects] = this.#machine(before, event);
    this.#state = after;
    this.#effects = effects;
    this.#next = 0;
    this.#progressed = isTick && nowMs - this.#progressToldMs >= this.#state.timing.progressEveryMs;
    if (this.#progressed) this.#progressToldMs = nowMs;
    // Most ticks find nothing to do; a journal without them replays to the same decisions.
    if (isTick && after === before && effects.length === 0) return;
    this.#host.stepped({ event, before, after, effects });
  }

  #perform(effect: Effect): void {
    const host = this.#host;
    switch (effect.kind) {
      case "persist":
        return host.persist(effect.record);
      case "gate":
        return host.beat({ kind: "gate", command: effect.command });
      case "grant":
        return host.beat({ kind: "grant", on: effect.on, contact: effect.contact });
      case "mandate":
        return host.beat({ kind: "mandate", mandate: effect.mandate });
      case "reserve":
        return this.#reserve(effect);
      case "work":
        return this.#work(effect.virtualServer, effect.work, effect);
      case "define": {
        const { definition } = effect;
        return this.#work(definition.server.name, { op: "define", definition }, effect);
      }
      case "forget":
        return this.#work(effect.name, { op: "forget", number: effect.number }, effect);
      case "volumeRead":
      case "volumeWrite":
        return this.#volume(effect);
      case "answer":
        return host.answer(effect.id, effect.answer);
      case "report":
        return host.report(effect.report);
      case "exit":
        return host.exit(effect.code, effect.reason);
      default:
        throw new Error(`controller loop: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  #work(
    virtualServer: string,
    work: Work | Lifecycle,
    { token, limitMs }: { readonly token: string; readonly limitMs: number },
  ): void {
    this.#host.work(virtualServer, work, limitMs, (outcome) =>
      this.offer({ kind: "done", token, outcome }),
    );
  }

  #volume(effect: Extract<Effect, { kind: "volumeRead" | "volumeWrite" }>): void {
    const { token, limitMs } = effect;
    if (effect.kind === "volumeRead")
      return this.#host.readVolume(limitMs, effect.isThorough, (outcome) =>
        this.offer({ kind: "volume", token, outcome }),
      );
    this.#host.writeVolume(effect.record, limitMs, (written) =>
      this.offer({ kind: "volumeWritten", token, written }),
    );
  }

  #reserve(effect: Extract<Effect, { kind: "reserve" }>): void {
    const { token, serial, command, deadlineMs } = effect;
    if (this.#coordinators.includes(serial))
      return this.#host.beat({ kind: "reserve", token, serial, command, deadlineMs });
    this.#host.reserve(serial, command, deadlineMs, (answer) =>
      this.offer({ kind: "reserved", token, answer }),
    );
  }
}

const progress: ToBeat = { kind: "progress" };
