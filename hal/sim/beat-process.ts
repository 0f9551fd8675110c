/** The beat process of one controller: production `beatStep`, its links, its gates and its sessions to the coordinator disks. */
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type { BeatEffect, BeatEvent, Observation } from "../../firmware-ts/core/beat-types.ts";
import type { Timing } from "../../firmware-ts/core/timing.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { type ControllerId, type LinkName, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import type { Clock } from "./clock.ts";
import { DiskBeats, noPathMs } from "./disk-beats.ts";
import type { Kernel } from "./kernel.ts";
import type { Machines } from "./machines.ts";
import { Process } from "./process.ts";
import type { Shelf } from "./shelf.ts";
import { Channel, type Timeline } from "./timeline.ts";
import type { Wires } from "./wires.ts";

const tickMs = 5;

/** Frames that wait in the sockets of a process that does not read. */
const socketFramesMax = 64;

export interface BeatSetup {
  readonly me: ControllerId;
  readonly machines: Machines;
  readonly session: number;
  readonly configuration: number;
  readonly timing: Timing;
  readonly links: readonly LinkName[];
  readonly coordinators: readonly string[];
  readonly timeline: Timeline;
  readonly clock: Clock;
  readonly kernel: Kernel;
  readonly shelf: Shelf;
  readonly wires: Wires;
  /** One way of a disk command. */
  readonly diskMs: () => number;
  readonly observed: (observation: Observation) => void;
  /** The world looks at the gates at this time too. */
  readonly gateUntil: (atMs: number) => void;
}

export class BeatProcess {
  readonly #setup: BeatSetup;
  readonly #machine: Machines["beat"];
  readonly #clock: Clock;
  readonly process: Process;
  state: BeatState;
  /** Sent to the decisions of the main loop; counted for tests of refusals. */
  readonly refusedFrames: Record<string, number> = {};
  #socketFrames = 0;
  readonly #disk: DiskBeats;
  readonly #ways = new Map<string, Channel>();

  constructor(setup: BeatSetup) {
    this.#setup = setup;
    this.#machine = setup.machines.beat;
    this.#clock = setup.clock;
    this.process = new Process(setup.timeline);
    this.state = newBeatState({ ...setup, nowMs: setup.clock.nowMs });
    this.#disk = new DiskBeats({
      ...setup,
      frame: (beat) => this.frame("disk", beat),
      carrier: (up) => this.command((nowMs) => ({ kind: "carrier", nowMs, link: "disk", up })),
    });
    setup.kernel.close(setup.kernel.openGates(), setup.timeline.nowMs);
    this.#everyTick();
    if (setup.links.includes("disk")) this.#pollLater();
  }

  get #nowMs(): number {
    return this.#clock.nowMs;
  }

  #everyTick(): void {
    const { timeline } = this.#setup;
    let waiting = false;
    const job = () => {
      waiting = false;
      this.#step({ kind: "tick", nowMs: this.#nowMs });
    };
    const beat = () => {
      if (!this.process.alive) return;
      timeline.after(tickMs, beat);
      if (waiting) return;
      waiting = true;
      this.process.give(job, this.process.frozen);
    };
    timeline.after(tickMs, beat);
  }

  /** A command of the main loop; its time is when this process takes it. */
  command(make: (nowMs: number) => BeatEvent): void {
    this.process.give(() => this.#step(make(this.#nowMs)));
  }

  /** The main loop has been round once more. */
  progress(): void {
    this.process.give(this.#progress);
  }

  readonly #progress = () => this.#step({ kind: "progress", nowMs: this.#clock.nowMs });

  /** A frame from a wire. */
  frame(link: LinkName, beat: Beat): void {
    if (this.process.frozen && this.#socketFrames >= socketFramesMax) return;
    this.#socketFrames += 1;
    this.process.give(() => {
      this.#socketFrames -= 1;
      this.#step({ kind: "frame", nowMs: this.#nowMs, link, beat });
    });
  }

  #step(event: BeatEvent): void {
    const [state, effects] = this.#machine(this.state, event);
    this.state = state;
    if (effects.length > 0)
      this.process.giveAll(effects.map((effect) => () => this.#perform(effect)));
  }

  #perform(effect: BeatEffect): void {
    const { kernel, timeline } = this.#setup;
    const { nowMs } = timeline;
    switch (effect.kind) {
      case "send":
        for (const link of effect.links) this.#send(link, effect.beat);
        return;
      case "open":
      case "renew": {
        const leaseMs = Math.floor(effect.untilMs - this.#nowMs);
        const untilMs = nowMs + this.#setup.clock.worldMs(leaseMs);
        const asked = () =>
          effect.kind === "open"
            ? kernel.open(effect.addresses, untilMs, nowMs)
            : kernel.renew(effect.addresses, untilMs, nowMs);
        const ok = leaseMs > 0 && asked();
        if (ok) this.#setup.gateUntil(untilMs);
        this.#outcome(effect, ok);
        return;
      }
      case "close":
        kernel.close(effect.addresses, nowMs);
        this.#outcome(effect, true);
        return;
      case "seal":
        kernel.close(kernel.openGates(), nowMs);
        this.#outcome(effect, true);
        return;
      case "observe": {
        const { observation } = effect;
        if (observation.kind === "frameRefused") {
          const { reason } = observation;
          this.refusedFrames[reason] = (this.refusedFrames[reason] ?? 0) + 1;
        } else this.#setup.observed(observation);
        return;
      }
      default:
        throw new Error(`beat process: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  /** Gate calls are synchronous: their outcome comes before anything else. */
  #outcome(effect: Exclude<BeatEffect, { kind: "send" | "observe" }>, ok: boolean): void {
    const { kind: action, token, addresses } = effect;
    const reason = ok ? "" : "the kernel refuses";
    this.#step({ kind: "gateOutcome", nowMs: this.#nowMs, action, token, addresses, ok, reason });
  }

  #send(link: LinkName, beat: Beat): void {
    const { me, wires } = this.#setup;
    if (link === "disk") this.#writeBeat(beat);
    else wires.send(link, partnerOf(me), beat);
  }

  #writeBeat(beat: Beat): void {
    const { coordinators } = this.#setup;
    const sentAtMs = this.#nowMs;
    const total = coordinators.length;
    this.#disk.write(beat, (accepted, refused) =>
      this.command((nowMs) => ({ kind: "written", nowMs, sentAtMs, accepted, refused, total })),
    );
  }

  #pollLater(): void {
    const { timeline, timing } = this.#setup;
    const poll = () => {
      this.#disk.poll();
      timeline.after(timing.diskBeatIntervalMs / 2, due);
    };
    // A process that does not run asks nothing.
    const due = () => this.process.give(poll);
    poll();
  }

  /** A reservation command on a coordinator, through the nexus that writes the beats. */
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
    settle: (answer: ReservationAnswer) => void,
  ): void {
    this.process.give(() =>
      sendReservation(
        { ...this.#setup, process: this.process, way: wayTo(this.#ways, this.#setup, serial) },
        serial,
        command,
        deadlineMs,
        settle,
      ),
    );
  }

  /** The main process is gone: gates closed, then a few beats that say so. */
  lastWords(): void {
    const { timeline, timing } = this.#setup;
    this.command((nowMs) => ({ kind: "lastWords", nowMs }));
    const saidMs = 3 * Math.max(timing.beatIntervalMs, timing.diskBeatIntervalMs);
    // A frozen process does not end either.
    timeline.after(saidMs, () => this.process.give(() => this.process.kill()));
  }
}

/** The way of one nexus to one disk. */
export function wayTo(
  ways: Map<string, Channel>,
  setup: { readonly timeline: Timeline; readonly diskMs: () => number },
  serial: string,
): Channel {
  const way = ways.get(serial) ?? new Channel(setup.timeline, setup.diskMs);
  ways.set(serial, way);
  return way;
}

/** One command on its way to a disk and back: it acts when it arrives, whatever became of its sender meanwhile. */
export function sendReservation(
  from: {
    readonly me: ControllerId;
    readonly timeline: Timeline;
    readonly shelf: Shelf;
    readonly process: Process;
    readonly diskMs: () => number;
    readonly way: Channel;
  },
  serial: string,
  command: ReservationCommand,
  deadlineMs: number,
  settle: (answer: ReservationAnswer) => void,
): void {
  const { timeline, process } = from;
  let settled = false;
  let late = false;
  const answer = (value: ReservationAnswer) => {
    if (settled) return;
    settled = true;
    process.give(() => settle(value));
  };
  const act = () => {
    const result = from.shelf.perform(serial, from.me, command);
    if (result) timeline.after(from.diskMs(), () => answer(result));
    else timeline.after(noPathMs, () => answer({ status: "failed", reason: "no path" }));
  };
  from.way.send(() => {
    const slowMs = from.shelf.slowMs(serial);
    if (slowMs === 0) return act();
    // A slow disk acts later, if nobody has aborted the command meanwhile: a preemption, a new session, the initiator at its deadline.
    const aborts = from.shelf.aborts(serial, from.me);
    timeline.after(slowMs, () => {
      if (!late && aborts === from.shelf.aborts(serial, from.me)) act();
    });
  });
  timeline.after(deadlineMs, () => {
    late = true;
    answer({ status: "failed", reason: "no answer in time" });
  });
}
