/** One controller of a world: production decisions in a main process, a beat process, a block service, and hands that work. */
import { newController } from "../../firmware-ts/core/controller.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { ChangeCommand, ControllerEvent, MoveCommand } from "../../firmware-ts/core/events.ts";
import { type Timing, tickMs } from "../../firmware-ts/core/timing.ts";
import type { FromBeat } from "../../firmware-ts/loop/channel.ts";
import {
  type ControllerHost,
  ControllerLoop,
  type ControllerStride,
  type Happening,
} from "../../firmware-ts/loop/controller-loop.ts";
import { VolumeRequests } from "../../firmware-ts/loop/volume-requests.ts";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import type { Definition, VolumeView } from "../../firmware-ts/schema/definition.ts";
import { mergeDefinitions } from "../../firmware-ts/schema/definition-merge.ts";
import { fileDefinitions } from "../../firmware-ts/schema/file-definitions.ts";
import { type ControllerId, type LinkName, linkNames } from "../../firmware-ts/schema/ids.ts";
import type { PersistentRecord } from "../../firmware-ts/schema/journal.ts";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import type { CommandAnswer } from "../../firmware-ts/schema/status.ts";
import { ReservationOrder } from "../port/reservation-order.ts";
import { BeatProcess, sendReservation, wayTo } from "./beat-process.ts";
import type { Clock } from "./clock.ts";
import { Files } from "./files.ts";
import { forcedIsAudited } from "./invariants.ts";
import type { Kernel } from "./kernel.ts";
import type { Lan } from "./lan.ts";
import type { Machines } from "./machines.ts";
import { Places } from "./places.ts";
import { Process } from "./process.ts";
import type { Shelf } from "./shelf.ts";
import { type StepWatch, watchedHost } from "./steps.ts";
import { Channel, type Timeline } from "./timeline.ts";
import { readVolume, volumeNow } from "./volume.ts";
import type { Wires } from "./wires.ts";
import { Works, workMs } from "./works.ts";

export interface Journalled {
  readonly event: ControllerEvent;
  readonly effects: readonly Effect[];
}

export interface ControllerSetup {
  readonly config: Config;
  readonly timing: Timing;
  readonly configuration: number;
  readonly machines: Machines;
  readonly session: number;
  readonly record: PersistentRecord;
  readonly timeline: Timeline;
  readonly clock: Clock;
  readonly kernel: Kernel;
  readonly shelf: Shelf;
  readonly wires: Wires;
  readonly diskMs: () => number;
  readonly ipcMs: () => number;
  readonly stretch: () => number;
  /** Looked at when the rest is open. */
  readonly dataLinkUp: () => boolean;
  readonly persist: (record: PersistentRecord) => void;
  readonly say: (text: string) => void;
  readonly exited: (code: number, reason: string) => void;
  readonly gateUntil: (atMs: number) => void;
  /** Looks at every step of the decisions: coverage, audits. */
  readonly stepped: ((step: Stepped) => void) | undefined;
  /** Whether every event and its effects are kept. */
  readonly journalled: boolean;
  /** Works and announcements are told. */
  readonly tellsWorks: boolean;
  readonly data: DataSetup | undefined;
  /** Sees every step, where one is to be struck at. */
  readonly watch: StepWatch | undefined;
}

/** What a controller needs where there are clients. */
export interface DataSetup {
  readonly lan: Lan;
  readonly known: (server: string) => Set<number>;
  readonly newInstance: () => number;
  readonly readBarrier: boolean;
}

/** One step of the decisions. */
export interface Stepped extends ControllerStride {
  readonly who: ControllerId;
}

/** The answer to a command, as a line of the trace. */
function told({ accepted, vetoes, plan }: CommandAnswer): string {
  const why = vetoes.map(({ severity, code }) => `${severity}:${code}`).join(" ");
  const moves = plan.map((each) => `${each.virtualServer}: ${each.action}`).join(", ");
  return `answer: ${accepted ? "accepted" : "refused"} [${why}] plan: ${moves || "nothing"}`;
}

/** How a race went, disk by disk. */
function racedOn(detail: Readonly<Record<string, unknown>> | undefined): string {
  const disks = detail?.disks;
  if (typeof disks !== "object" || disks === null) return "";
  const each = Object.entries(disks).map(([serial, how]) => `${serial} ${String(how)}`);
  return ` (${each.join(", ")})`;
}

/** What an earlier life left behind is cleaned up before the decisions begin. */
export const cleanUpMs = 20;

/** To a command whose turn did not come in its time. */
const tooLate: ReservationAnswer = { status: "failed", reason: "earlier commands took too long" };

export class Controller {
  readonly #setup: ControllerSetup;
  readonly me: ControllerId;
  readonly main: Process;
  readonly block: Process;
  readonly hands: Process;
  /** The file services. */
  readonly served: Process;
  readonly files: Files | undefined;
  readonly beat: BeatProcess;
  readonly works: Works;
  readonly places: Places;
  #nextCommand = 1;
  readonly initial: ControllerState;
  readonly journal: Journalled[] = [];
  readonly #loop: ControllerLoop;
  modeChanges = 0;
  readonly #ways = new Map<string, Channel>();
  /** Of the commands for each data disk. */
  readonly #orders = new Map<string, ReservationOrder>();
  /** Of the sessions over which the common volume is read. */
  readonly #volumeWays = new Map<string, Channel>();
  readonly #requests: VolumeRequests;
  /** The common volume, as the main process has it. */
  readonly volume: {
    readonly read: ControllerHost["readVolume"];
    readonly write: ControllerHost["writeVolume"];
  };
  readonly #downward: Channel;
  readonly #upward: Channel;

  constructor(setup: ControllerSetup) {
    this.#setup = setup;
    const { timeline, config, timing, configuration } = setup;
    this.me = config.controller.id;
    this.#downward = new Channel(timeline, setup.ipcMs);
    this.#upward = new Channel(timeline, setup.ipcMs);
    this.main = new Process(timeline);
    this.block = new Process(timeline);
    this.hands = new Process(timeline);
    this.served = new Process(timeline);
    this.files = setup.data && this.#newFiles(setup.data);
    const requests = new VolumeRequests({
      after: (delayMs, run) => this.#after(delayMs, run),
      nowMs: () => this.#setup.clock.nowMs,
      beat: (message) => this.#downward.send(() => this.beat.command(message)),
      total: config.shelf.coordinators.length,
    });
    this.#requests = requests;
    this.volume = {
      read: (limitMs, isThorough, settle) => this.#readVolume(limitMs, isThorough, settle),
      write: (record, limitMs, settle) => requests.write(record, limitMs, settle),
    };
    const definitions = this.#definitions();
    this.initial = newController({ config, timing, configuration, definitions });
    this.#loop = new ControllerLoop({
      initial: this.initial,
      coordinators: config.shelf.coordinators,
      machine: setup.machines.controller,
      host: this.#watched(this.#host()),
    });
    const places = new Places({ ...setup, me: this.me, definitions });
    this.places = places;
    this.works = new Works({
      ...setup,
      places,
      me: this.me,
      hands: this.hands,
      main: this.main,
      duration: (work) => workMs[work] * setup.stretch(),
      files: this.files,
      after: (delayMs, run) => this.#after(delayMs, run),
      told: setup.tellsWorks ? setup.say : undefined,
    });
    this.beat = new BeatProcess({
      ...setup,
      me: this.me,
      links: linkNames.filter((name: LinkName) => Boolean(config.links[name])),
      coordinators: config.shelf.coordinators,
      floating: definitions
        .filter(({ wanted }) => wanted !== "deleted")
        .flatMap(({ server }) => bareAddresses(server)),
      tell: (message) => this.#upward.send(() => this.#hear(message)),
    });
    timeline.after(cleanUpMs, () => this.main.give(() => this.#begin()));
  }

  get state(): ControllerState {
    return this.#loop.state;
  }

  /** What the file says, and what the common volume says instead, as far as it can be read now. Interfaces of an earlier life are gone by then. */
  #definitions(): readonly Definition[] {
    const { config, shelf, kernel } = this.#setup;
    kernel.addresses.clear();
    const read = volumeNow(shelf, this.me, config.shelf.coordinators);
    return read.ok ? mergeDefinitions(config, read.value).definitions : fileDefinitions(config);
  }

  #newFiles(data: DataSetup): Files {
    return new Files({
      ...this.#setup,
      ...data,
      me: this.me,
      block: this.block,
      files: this.served,
      main: this.main,
      told: this.#setup.tellsWorks ? this.#setup.say : undefined,
      way: (disk) => (arrive) => wayTo(this.#ways, this.#setup, disk).send(arrive),
    });
  }

  #watched(host: ControllerHost): ControllerHost {
    const { watch } = this.#setup;
    if (!watch) return host;
    const part = { who: this.me, name: "main", isAlive: () => this.main.alive };
    return watchedHost(host, watch, part, ["wake", "nowMs", "stepped"]);
  }

  #host(): ControllerHost {
    const { clock, persist, say } = this.#setup;
    const stride = () => this.#loop.advance();
    return {
      wake: (first) => this.main.give(stride, first),
      nowMs: () => clock.nowMs,
      persist,
      beat: (message) => this.#downward.send(() => this.beat.command(message)),
      reserve: (serial, command, deadlineMs, settle) =>
        this.#reserve(serial, command, deadlineMs, settle),
      work: (server, work, limitMs, settle) => this.works.perform(server, work, limitMs, settle),
      readVolume: (limitMs, isThorough, settle) => this.volume.read(limitMs, isThorough, settle),
      writeVolume: (record, limitMs, settle) => this.volume.write(record, limitMs, settle),
      answer: (_id, answer) => say(told(answer)),
      report: ({ code, message, detail }) => say(`${code}: ${message}${racedOn(detail)}`),
      exit: (code, reason) => this.#exit(code, reason),
      stepped: (stride) => this.#stepped(stride),
    };
  }

  /** A timer of the main process; the result ends it. */
  #after(delayMs: number, run: () => void): () => void {
    const { timeline, clock } = this.#setup;
    let isOver = false;
    timeline.after(clock.worldMs(delayMs), () => {
      if (!isOver) this.main.give(run, true);
    });
    return () => {
      isOver = true;
    };
  }

  #readVolume(
    limitMs: number,
    isThorough: boolean,
    settle: (outcome: Outcome<VolumeView>) => void,
  ): void {
    readVolume(
      {
        ...this.#setup,
        me: this.me,
        process: this.main,
        coordinators: this.#setup.config.shelf.coordinators,
        way: (serial) => wayTo(this.#volumeWays, this.#setup, serial),
        after: (delayMs, run) => this.#after(delayMs, run),
      },
      limitMs,
      isThorough,
      settle,
    );
  }

  #begin(): void {
    const { kernel, record, timeline, dataLinkUp } = this.#setup;
    kernel.forgetUse();
    this.#loop.start(record);
    // The beats are heard while the rest is still being opened; the data NIC is looked at last.
    this.happen({ kind: "carrier", up: dataLinkUp() });
    const tick = () => {
      if (!this.main.alive) return;
      timeline.after(tickMs, tick);
      this.#loop.tick();
    };
    timeline.after(tickMs, tick);
  }

  happen(happening: Happening): void {
    this.#loop.offer(happening);
  }

  /** Something that another process of this controller tells the main process. */
  happenLater(happening: Happening): void {
    this.#upward.send(() => this.happen(happening));
  }

  #hear(message: FromBeat): void {
    if (message.kind === "observation")
      this.happen({ kind: "seen", observation: message.observation });
    else if (message.kind === "reserved")
      this.happen({ kind: "reserved", token: message.token, answer: message.answer });
    else if (message.kind === "volumeWritten") this.#requests.written(message);
  }

  command(command: Omit<MoveCommand, "id" | "by"> | Omit<ChangeCommand, "id" | "by">): void {
    const id = this.#nextCommand++;
    this.happen({ kind: "command", command: { ...command, id, by: "operator" } });
  }

  #stepped({ event, before, after, effects }: ControllerStride): void {
    if (after.mode !== before.mode) this.modeChanges += 1;
    if (event.kind === "command") forcedIsAudited(event, effects);
    if (this.#setup.journalled) this.journal.push({ event, effects });
    this.#setup.stepped?.({ who: this.me, before, after, event, effects });
  }

  #reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
    settle: (answer: ReservationAnswer) => void,
  ): void {
    const from = {
      ...this.#setup,
      me: this.me,
      process: this.block,
      way: wayTo(this.#ways, this.#setup, serial),
    };
    const { timeline } = this.#setup;
    const send = () => {
      const sinceMs = timeline.nowMs;
      const leave = this.#orderOf(serial).enter(command, () => {
        const leftMs = deadlineMs - (timeline.nowMs - sinceMs);
        const answered = (answer: ReservationAnswer) => {
          leave();
          this.#upward.send(() => settle(answer));
        };
        // It may be its turn in the very moment in which it enters.
        if (leftMs > 0) sendReservation(from, serial, command, leftMs, answered);
        else timeline.after(0, () => this.block.give(() => answered(tooLate)));
      });
    };
    this.#downward.send(() => this.block.give(send));
  }

  #orderOf(serial: string): ReservationOrder {
    const order = this.#orders.get(serial) ?? new ReservationOrder();
    this.#orders.set(serial, order);
    return order;
  }

  #exit(code: number, reason: string): void {
    if (!this.main.alive) return;
    this.crash();
    this.#setup.exited(code, reason);
  }

  /** The main process ends, for whatever reason, and with it all but the beat process, which has something to say yet. */
  crash(): void {
    if (!this.main.alive) return;
    this.main.kill();
    this.hands.kill();
    this.block.kill();
    this.files?.killed();
    this.served.kill();
    this.beat.lastWords();
  }

  get processes(): readonly Process[] {
    return [this.main, this.beat.process, this.block, this.hands, this.served];
  }

  get alive(): boolean {
    return this.main.alive;
  }

  get frozen(): boolean {
    return this.processes.some((each) => each.frozen);
  }

  kill(): void {
    this.files?.killed();
    for (const each of this.processes) each.kill();
  }

  freeze(what: "all" | "main" | "beat"): void {
    for (const each of this.#some(what)) each.frozen = true;
  }

  thaw(what: "all" | "main" | "beat"): void {
    for (const each of this.#some(what)) each.thaw();
  }

  #some(what: "all" | "main" | "beat"): readonly Process[] {
    if (what === "main") return [this.main];
    return what === "beat" ? [this.beat.process] : this.processes;
  }
}
