/** One controller of a world: production decisions in a main process, a beat process, a block service, and hands that work. */
import { newController } from "../../firmware-ts/core/controller.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { Command, ControllerEvent } from "../../firmware-ts/core/events.ts";
import { type Timing, tickMs } from "../../firmware-ts/core/timing.ts";
import { bareAddresses } from "../../firmware-ts/core/vserver-types.ts";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { type ControllerId, type LinkName, linkNames } from "../../firmware-ts/schema/ids.ts";
import type { PersistentRecord } from "../../firmware-ts/schema/journal.ts";
import { failed } from "../../firmware-ts/schema/outcome.ts";
import { BeatProcess, sendReservation, wayTo } from "./beat-process.ts";
import type { Clock } from "./clock.ts";
import { Files } from "./files.ts";
import { forcedIsAudited } from "./invariants.ts";
import type { Kernel } from "./kernel.ts";
import type { Lan } from "./lan.ts";
import type { Machines } from "./machines.ts";
import { Process } from "./process.ts";
import type { Shelf } from "./shelf.ts";
import { Channel, type Timeline } from "./timeline.ts";
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
  readonly dataLinkUp: boolean;
  readonly persist: (record: PersistentRecord) => void;
  readonly say: (text: string) => void;
  readonly exited: (code: number, reason: string) => void;
  readonly gateUntil: (atMs: number) => void;
  /** Looks at every step of the decisions: coverage, audits. */
  readonly stepped: ((step: Stepped) => void) | undefined;
  /** Whether every event and its effects are kept. */
  readonly journalled: boolean;
  readonly data: DataSetup | undefined;
}

/** What a controller needs where there are clients. */
export interface DataSetup {
  readonly lan: Lan;
  readonly known: (server: string) => Set<number>;
  readonly newInstance: () => number;
  readonly readBarrier: boolean;
}

/** One step of the decisions. */
export interface Stepped extends Journalled {
  readonly who: ControllerId;
  readonly before: ControllerState;
  readonly after: ControllerState;
}

/** How a race went, disk by disk. */
function racedOn(detail: Readonly<Record<string, unknown>> | undefined): string {
  const disks = detail?.disks;
  if (typeof disks !== "object" || disks === null) return "";
  const each = Object.entries(disks).map(([serial, how]) => `${serial} ${String(how)}`);
  return ` (${each.join(", ")})`;
}

/** What an earlier life left behind is cleaned up before the decisions begin. */
const cleanUpMs = 20;

type Happening = ControllerEvent extends infer E
  ? E extends { nowMs: number }
    ? Omit<E, "nowMs">
    : never
  : never;

export class Controller {
  readonly #setup: ControllerSetup;
  readonly #machine: Machines["controller"];
  readonly me: ControllerId;
  readonly main: Process;
  readonly block: Process;
  readonly hands: Process;
  /** The file services. */
  readonly served: Process;
  readonly files: Files | undefined;
  readonly beat: BeatProcess;
  readonly works: Works;
  readonly initial: ControllerState;
  readonly journal: Journalled[] = [];
  state: ControllerState;
  modeChanges = 0;
  readonly #ways = new Map<string, Channel>();
  readonly #downward: Channel;
  readonly #upward: Channel;
  /** What happened before the decisions began. */
  #early: Happening[] | undefined = [];

  constructor(setup: ControllerSetup) {
    this.#setup = setup;
    this.#machine = setup.machines.controller;
    const { timeline, kernel, shelf, config, timing, configuration } = setup;
    this.me = config.controller.id;
    this.#downward = new Channel(timeline, setup.ipcMs);
    this.#upward = new Channel(timeline, setup.ipcMs);
    this.main = new Process(timeline);
    this.block = new Process(timeline);
    this.hands = new Process(timeline);
    this.served = new Process(timeline);
    this.files = setup.data && this.#newFiles(setup.data);
    this.initial = newController({ config, timing, configuration });
    this.state = this.initial;
    this.works = new Works({
      me: this.me,
      timeline,
      kernel,
      shelf,
      hands: this.hands,
      duration: (work) => workMs[work] * setup.stretch(),
      files: this.files,
    });
    this.beat = new BeatProcess({
      ...setup,
      me: this.me,
      links: linkNames.filter((name: LinkName) => Boolean(config.links[name])),
      coordinators: config.shelf.coordinators,
      observed: (observation) => this.happenLater({ kind: "seen", observation }),
    });
    timeline.after(cleanUpMs, () => this.main.give(() => this.#begin()));
  }

  #newFiles(data: DataSetup): Files {
    return new Files({
      ...this.#setup,
      ...data,
      me: this.me,
      block: this.block,
      files: this.served,
      addressesOf: (name) => {
        const server = this.#setup.config.virtualServers.find((each) => each.name === name);
        return server ? bareAddresses(server) : [];
      },
      way: (disk) => (arrive) => wayTo(this.#ways, this.#setup, disk).send(arrive),
    });
  }

  #begin(): void {
    const { kernel, record, timeline, dataLinkUp } = this.#setup;
    kernel.forgetUse();
    const early = this.#early ?? [];
    this.#early = undefined;
    this.happen({ kind: "boot", record });
    // The beats are heard while the rest is still being opened; the data NIC is looked at last.
    for (const happening of early) this.happen(happening);
    this.happen({ kind: "carrier", up: dataLinkUp });
    let waiting = false;
    const { clock } = this.#setup;
    const progress = () => this.beat.progress();
    const job = () => {
      waiting = false;
      this.#step({ kind: "tick", nowMs: clock.nowMs });
      this.#toBeat(progress);
    };
    const tick = () => {
      if (!this.main.alive) return;
      timeline.after(tickMs, tick);
      if (waiting) return;
      waiting = true;
      this.main.give(job, this.main.frozen);
    };
    timeline.after(tickMs, tick);
  }

  happen(happening: Happening): void {
    if (this.#early) this.#early.push(happening);
    else this.main.give(() => this.#take(happening));
  }

  /** Something that another process of this controller tells the main process. */
  happenLater(happening: Happening): void {
    this.#upward.send(() => this.happen(happening));
  }

  command(command: Omit<Command, "id" | "by">): void {
    this.happen({ kind: "command", command: { id: 1, by: "operator", ...command } });
  }

  #take(happening: Happening): void {
    this.#step({ ...happening, nowMs: this.#setup.clock.nowMs } as ControllerEvent);
  }

  #step(event: ControllerEvent): void {
    const before = this.state;
    const [after, effects] = this.#machine(before, event);
    // A tick that finds nothing to do: most of them.
    if (after === before && effects.length === 0 && event.kind === "tick") return;
    this.state = after;
    if (after.mode !== before.mode) this.modeChanges += 1;
    if (event.kind === "command") forcedIsAudited(event, effects);
    if (this.#setup.journalled) this.journal.push({ event, effects });
    this.#setup.stepped?.({ who: this.me, before, after, event, effects });
    if (effects.length > 0) this.main.giveAll(effects.map((effect) => () => this.#perform(effect)));
  }

  #toBeat(job: () => void): void {
    this.#downward.send(job);
  }

  #perform(effect: Effect): void {
    const { say, persist } = this.#setup;
    switch (effect.kind) {
      case "persist":
        return persist(effect.record);
      case "gate":
        return this.#toBeat(() => this.beat.command((nowMs) => ({ ...effect.command, nowMs })));
      case "grant": {
        const { kind: _kind, ...grant } = effect;
        return this.#toBeat(() =>
          this.beat.command((nowMs) => ({ kind: "grant", nowMs, ...grant })),
        );
      }
      case "mandate":
        return this.#toBeat(() =>
          this.beat.command((nowMs) => ({ kind: "mandate", nowMs, mandate: effect.mandate })),
        );
      case "reserve":
        return this.#reserve(effect);
      case "work":
        return this.#work(effect);
      case "answer": {
        const { accepted, vetoes, plan } = effect.answer;
        const why = vetoes.map(({ severity, code }) => `${severity}:${code}`).join(" ");
        const moves = plan.map((each) => `${each.virtualServer}: ${each.action}`).join(", ");
        return say(
          `answer: ${accepted ? "accepted" : "refused"} [${why}] plan: ${moves || "nothing"}`,
        );
      }
      case "report":
        return say(
          `${effect.report.code}: ${effect.report.message}${racedOn(effect.report.detail)}`,
        );
      case "exit":
        return this.#exit(effect.code, effect.reason);
      default:
        throw new Error(`main process: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  #reserve({ token, serial, command, deadlineMs }: Extract<Effect, { kind: "reserve" }>): void {
    const settle = (answer: Extract<ControllerEvent, { kind: "reserved" }>["answer"]) =>
      this.happenLater({ kind: "reserved", token, answer });
    const { config } = this.#setup;
    this.#toBeat(() => {
      if (config.shelf.coordinators.includes(serial))
        this.beat.reserve(serial, command, deadlineMs, settle);
      else
        this.block.give(() =>
          sendReservation(
            {
              ...this.#setup,
              me: this.me,
              process: this.block,
              way: wayTo(this.#ways, this.#setup, serial),
            },
            serial,
            command,
            deadlineMs,
            settle,
          ),
        );
    });
  }

  #work({ token, virtualServer, work, limitMs }: Extract<Effect, { kind: "work" }>): void {
    const server = this.#setup.config.virtualServers.find(({ name }) => name === virtualServer);
    if (!server) throw new Error(`work: no virtual server ${virtualServer}`);
    let settled = false;
    const settle = (outcome: Extract<ControllerEvent, { kind: "done" }>["outcome"]) => {
      if (settled) return;
      settled = true;
      this.happen({ kind: "done", token, outcome });
    };
    this.works.perform(server, work, settle);
    this.#setup.timeline.after(limitMs, () =>
      settle(failed("timeout", work.op, `no end within ${limitMs} ms`)),
    );
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
