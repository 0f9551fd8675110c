/**
 * The one loop of a controller: an event goes through the decisions, the effects are performed in their order (persist → fence →
 * act → announce), every outcome comes back as an event. There is no other path and no policy here.
 */
import type { Disks } from "../../hal/port/storage.ts";
import { controllerStep } from "../core/controller.ts";
import type { ControllerState } from "../core/controller-state.ts";
import type { Effect, Report } from "../core/effects.ts";
import type { ControllerEvent } from "../core/events.ts";
import { tickMs } from "../core/timing.ts";
import type { PersistentRecord } from "../schema/journal.ts";
import { failed } from "../schema/outcome.ts";
import type { CommandAnswer } from "../schema/status.ts";
import type { ToBeat } from "./beat-channel.ts";
import { monotonicMs } from "./clock.ts";
import type { Journal } from "./journal.ts";
import type { Performer } from "./performer.ts";

/** An event without its time: the loop stamps it when it takes it. */
export type Happening = ControllerEvent extends infer E
  ? E extends { nowMs: number }
    ? Omit<E, "nowMs">
    : never
  : never;

export interface LoopSetup {
  readonly initial: ControllerState;
  readonly coordinators: readonly string[];
  readonly disks: Disks;
  readonly performer: Performer;
  readonly journal: Journal;
  readonly persist: (record: PersistentRecord) => void;
  readonly beat: (message: ToBeat) => void;
  readonly report: (report: Report) => void;
  readonly answer: (id: number, answer: CommandAnswer) => void;
  readonly exit: (code: number, reason: string) => void;
}

export interface Loop {
  /** Hands an event to the decisions; returns when all its effects are under way. */
  happen(event: Happening): void;
  start(record: PersistentRecord): void;
  stop(): void;
  state(): ControllerState;
}

export function createLoop(setup: LoopSetup): Loop {
  let state = setup.initial;
  const waiting: Happening[] = [];
  let running = false;
  let timer: NodeJS.Timeout | undefined;

  function happen(happening: Happening): void {
    waiting.push(happening);
    if (running) return;
    running = true;
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) step(next);
    running = false;
  }

  function step(happening: Happening): void {
    const event = { ...happening, nowMs: monotonicMs() } as ControllerEvent;
    const before = state;
    const [after, effects] = controllerStep(before, event);
    state = after;
    const idle = event.kind === "tick" && after === before && effects.length === 0;
    if (!idle) setup.journal.write(event, effects);
    for (const effect of effects) perform(effect);
  }

  function perform(effect: Effect): void {
    switch (effect.kind) {
      case "persist":
        return setup.persist(effect.record);
      case "gate":
        return setup.beat({ kind: "gate", command: effect.command });
      case "grant":
        return setup.beat({ kind: "grant", on: effect.on, contact: effect.contact });
      case "mandate":
        return setup.beat({ kind: "mandate", mandate: effect.mandate });
      case "reserve":
        return reserve(effect);
      case "work":
        return work(effect);
      case "answer":
        return setup.answer(effect.id, effect.answer);
      case "report":
        return setup.report(effect.report);
      case "exit":
        setup.journal.flush();
        return setup.exit(effect.code, effect.reason);
      default:
        throw new Error(`loop: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  /** Coordinator disks are reached through the beat process, whose nexus writes there; data disks through the block service. */
  function reserve(effect: Extract<Effect, { kind: "reserve" }>): void {
    const { token, serial, command, deadlineMs } = effect;
    if (setup.coordinators.includes(serial))
      return setup.beat({ kind: "reserve", token, serial, command, deadlineMs });
    void setup.disks
      .reserve(serial, command, deadlineMs)
      .then((answer) => happen({ kind: "reserved", token, answer }));
  }

  function work(effect: Extract<Effect, { kind: "work" }>): void {
    const { token, virtualServer, limitMs } = effect;
    void setup.performer
      .perform(virtualServer, effect.work, limitMs)
      .catch((error: unknown) =>
        failed("ioError", effect.work.op, "the driver failed unexpectedly", error),
      )
      .then((outcome) => happen({ kind: "done", token, outcome }));
  }

  return {
    happen,
    state: () => state,
    start(record) {
      happen({ kind: "boot", record });
      timer = setInterval(() => {
        happen({ kind: "tick" });
        setup.beat({ kind: "progress" });
      }, tickMs);
    },
    stop: () => clearInterval(timer),
  };
}
