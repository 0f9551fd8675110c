/** The beat process of one controller: the production loop, its links, its gates and its sessions to the coordinator disks. */
import type { BeatState } from "../../firmware-ts/core/beat-state.ts";
import type { Timing } from "../../firmware-ts/core/timing.ts";
import { type BeatHost, BeatLoop } from "../../firmware-ts/loop/beat-loop.ts";
import type { FromBeat, ToBeat } from "../../firmware-ts/loop/channel.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { type ControllerId, type LinkName, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import type { Clock } from "./clock.ts";
import { DiskBeats, noPathMs, pollEveryMs } from "./disk-beats.ts";
import type { Kernel } from "./kernel.ts";
import type { Machines } from "./machines.ts";
import { Process } from "./process.ts";
import type { Shelf } from "./shelf.ts";
import { doWatched, type StepWatch, watchedHost } from "./steps.ts";
import { Channel, type Timeline } from "./timeline.ts";
import { writeRecord } from "./volume.ts";
import type { Wires } from "./wires.ts";

/** Frames that wait in the sockets of a process that does not read. */
const socketFramesMax = 64;

const refused = failed("gateExpired", "address gate", "the kernel refuses");

export interface BeatSetup {
  readonly me: ControllerId;
  readonly machines: Machines;
  readonly session: number;
  readonly configuration: number;
  readonly timing: Timing;
  readonly links: readonly LinkName[];
  readonly coordinators: readonly string[];
  /** Addresses that the gate knows from the start. */
  readonly floating: readonly string[];
  readonly timeline: Timeline;
  readonly clock: Clock;
  readonly kernel: Kernel;
  readonly shelf: Shelf;
  readonly wires: Wires;
  /** One way of a disk command. */
  readonly diskMs: () => number;
  readonly tell: (message: FromBeat) => void;
  /** The world looks at the gates at this time too. */
  readonly gateUntil: (atMs: number) => void;
  readonly watch: StepWatch | undefined;
}

export class BeatProcess {
  readonly #setup: BeatSetup;
  readonly process: Process;
  readonly #loop: BeatLoop;
  /** Frames that came while nobody read. */
  #socketFrames = 0;
  readonly #disk: DiskBeats;
  readonly #ways = new Map<string, Channel>();

  constructor(setup: BeatSetup) {
    this.#setup = setup;
    const { timeline, kernel } = setup;
    this.process = new Process(timeline);
    this.#loop = new BeatLoop({
      ...setup,
      machine: setup.machines.beat,
      host: this.#watched(this.#host()),
    });
    this.#disk = new DiskBeats({
      ...setup,
      frame: (beat) => this.frame("disk", beat),
      remnant: (beat) => this.#loop.offer({ kind: "remnant", beat }),
      carrier: (up) => this.#loop.offer({ kind: "carrier", link: "disk", up }),
    });
    kernel.close(kernel.openGates(), timeline.nowMs);
    kernel.know(setup.floating, timeline.nowMs);
    this.#loop.start();
    if (setup.links.includes("disk")) this.#pollLater();
  }

  #watched(host: BeatHost): BeatHost {
    const { watch, me } = this.#setup;
    if (!watch) return host;
    const part = { who: me, name: "beat", isAlive: () => this.process.alive };
    return watchedHost(host, watch, part, ["wake", "nowMs", "after"]);
  }

  #host(): BeatHost {
    const { timeline, clock, kernel, tell } = this.#setup;
    const { process } = this;
    const stride = () => this.#loop.advance();
    return {
      wake: (first) => process.give(stride, first),
      nowMs: () => clock.nowMs,
      after: (delayMs, run) =>
        timeline.after(clock.worldMs(delayMs), () => {
          if (process.alive) run();
        }),
      send: (links, beat) => {
        for (const link of links) this.#send(link, beat);
      },
      gate: {
        open: (addresses, leaseMs) => this.#lease("open", addresses, leaseMs),
        renew: (addresses, leaseMs) => this.#lease("renew", addresses, leaseMs),
        close: (addresses) => {
          kernel.close(addresses, timeline.nowMs);
          return done;
        },
        know: (addresses) => {
          kernel.know(addresses, timeline.nowMs);
          return done;
        },
        seal: () => {
          kernel.close(kernel.openGates(), timeline.nowMs);
          return done;
        },
      },
      tell,
      reserve: (serial, command, deadlineMs, settle) =>
        sendReservation(
          { ...this.#setup, process, way: wayTo(this.#ways, this.#setup, serial) },
          serial,
          command,
          deadlineMs,
          settle,
        ),
      writeRecord: (serial, record, isWanted, settle) =>
        writeRecord(
          { ...this.#setup, process, way: wayTo(this.#ways, this.#setup, serial) },
          serial,
          record,
          isWanted,
          settle,
        ),
    };
  }

  get state(): BeatState {
    return this.#loop.state;
  }

  /** Frames that were refused, by reason. */
  get refusedFrames(): Readonly<Record<string, number>> {
    return this.#loop.refused;
  }

  /** A word of the main process. */
  command(message: ToBeat): void {
    this.#loop.command(message);
  }

  /** A frame from a wire. */
  frame(link: LinkName, beat: Beat): void {
    if (!this.process.frozen) this.#socketFrames = 0;
    else if (++this.#socketFrames > socketFramesMax) return;
    this.#loop.frame(link, beat);
  }

  /** A frame from a wire that the codec has refused. */
  refuse(reason: string): void {
    if (!this.process.frozen) this.#loop.refuse(reason);
  }

  #lease(how: "open" | "renew", addresses: readonly string[], leaseMs: number): Outcome {
    const { kernel, timeline, clock, gateUntil } = this.#setup;
    const { nowMs } = timeline;
    const untilMs = nowMs + clock.worldMs(leaseMs);
    if (!kernel[how](addresses, untilMs, nowMs)) return refused;
    gateUntil(untilMs);
    return done;
  }

  #send(link: LinkName, beat: Beat): void {
    const { me, wires } = this.#setup;
    if (link === "disk") this.#writeBeat(beat);
    else wires.send(link, partnerOf(me), beat);
  }

  #writeBeat(beat: Beat): void {
    const { coordinators, clock } = this.#setup;
    const sentAtMs = clock.nowMs;
    const total = coordinators.length;
    this.#disk.write(beat, (accepted, refusedCount) =>
      this.#loop.offer({ kind: "written", sentAtMs, accepted, refused: refusedCount, total }),
    );
  }

  #pollLater(): void {
    const { timeline, timing } = this.#setup;
    const poll = () => {
      this.#disk.poll();
      timeline.after(pollEveryMs(timing), due);
    };
    // A process that does not run asks nothing.
    const due = () => this.process.give(poll);
    poll();
  }

  /** The main process is gone. */
  lastWords(): void {
    // A frozen process does not end either.
    this.#loop.lastWords(() => this.process.give(() => this.process.kill()));
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
    readonly watch: StepWatch | undefined;
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
    const deed = { who: from.me, name: "disk", args: [serial, command] };
    const arrived = () => from.shelf.perform(serial, from.me, command);
    // Nobody calls it back.
    const result = doWatched(from.watch, deed, () => true, arrived);
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
