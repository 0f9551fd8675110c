/** Hosts the main loop in real time: every stride at once, on the one clock of the machine, with the drivers of this process. */
import type { Disks } from "../../hal/port/storage.ts";
import type { ControllerState } from "../core/controller-state.ts";
import type { Report } from "../core/effects.ts";
import { tickMs } from "../core/timing.ts";
import type { ToBeat } from "../loop/channel.ts";
import { ControllerLoop, type Happening } from "../loop/controller-loop.ts";
import type { PersistentRecord } from "../schema/journal.ts";
import type { CommandAnswer } from "../schema/status.ts";
import { monotonicMs } from "./clock.ts";
import type { Journal } from "./journal.ts";
import type { Performer } from "./performer.ts";
import type { Volume } from "./volume.ts";

export interface HostSetup {
  readonly initial: ControllerState;
  readonly coordinators: readonly string[];
  readonly disks: Disks;
  readonly performer: Performer;
  readonly volume: Pick<Volume, "read" | "write">;
  readonly journal: Journal;
  readonly persist: (record: PersistentRecord) => void;
  readonly beat: (message: ToBeat) => void;
  readonly report: (report: Report) => void;
  readonly answer: (id: number, answer: CommandAnswer) => void;
  readonly exit: (code: number, reason: string) => void;
  /** A broken invariant: the loop will not move again, and the process has to end. */
  readonly broken: (error: unknown) => void;
}

export interface Host {
  /** Hands an event to the decisions; returns when all its effects are under way. */
  happen(event: Happening): void;
  start(record: PersistentRecord): void;
  stop(): void;
  state(): ControllerState;
}

export function hostLoop(setup: HostSetup): Host {
  let running = false;
  let timer: NodeJS.Timeout | undefined;

  /**
   * What is thrown here ends the process, whoever happens to be the caller: left to a caller that catches (an HTTP handler, a promise), it
   * would leave a controller that holds everything and decides nothing.
   */
  function run(): void {
    if (running) return;
    running = true;
    try {
      while (loop.hasWork) loop.advance();
      running = false;
    } catch (error) {
      setup.broken(error);
    }
  }

  const loop = new ControllerLoop({
    initial: setup.initial,
    coordinators: setup.coordinators,
    host: {
      wake: run,
      nowMs: monotonicMs,
      persist: setup.persist,
      beat: setup.beat,
      reserve: (serial, command, deadlineMs, settle) =>
        void setup.disks.reserve(serial, command, deadlineMs).then(settle),
      work: setup.performer.perform,
      readVolume: setup.volume.read,
      writeVolume: setup.volume.write,
      answer: setup.answer,
      report: setup.report,
      stepped: ({ event, effects }) => setup.journal.write(event, effects),
      exit: (code, reason) => {
        setup.journal.flush();
        setup.exit(code, reason);
      },
    },
  });

  return {
    happen: (event) => loop.offer(event),
    state: () => loop.state,
    start(record) {
      loop.start(record);
      timer = setInterval(() => loop.tick(), tickMs);
    },
    stop: () => clearInterval(timer),
  };
}
