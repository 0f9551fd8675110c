/** Hosts the loop of the beat process in real time: frames and their codecs, the gate, timers. */
import type { BeatMachine, BeatMachineHandlers } from "../../hal/port/beat-machine.ts";
import type { LinkHandlers } from "../../hal/port/link.ts";
import type { Timing } from "../core/timing.ts";
import { BeatLoop } from "../loop/beat-loop.ts";
import type { BeatCounters, FromBeat, LinkView, ToBeat } from "../loop/channel.ts";
import type { Beat } from "../schema/beat.ts";
import type { ControllerId, LinkName } from "../schema/ids.ts";
import { failed } from "../schema/outcome.ts";
import { fromProcessMs, monotonicMs as now, toProcessMs } from "./clock.ts";

const countersEveryMs = 1000;

export interface BeatHostSetup {
  readonly me: ControllerId;
  readonly session: number;
  readonly configuration: number;
  readonly timing: Timing;
  readonly links: readonly LinkName[];
  readonly coordinators: readonly string[];
  readonly encode: (beat: Beat) => Uint8Array;
  readonly decode: (frame: Uint8Array) => { ok: true; beat: Beat } | { ok: false; reason: string };
  readonly tell: (message: FromBeat) => void;
}

export interface BeatHost {
  readonly handlers: BeatMachineHandlers;
  /** Begins to tick; the machine must be open. */
  start(machine: BeatMachine): void;
  command(message: ToBeat): void;
  /** The main process is gone: gates closed, and when the kernel has confirmed it, a few beats that say so; then settles. */
  lastWords(): Promise<void>;
}

/** Until the machine is open nothing is decided that would need it. */
const notOpen = failed("gateFailed", "address gate", "the beat machine is not open");

export function hostBeatLoop(setup: BeatHostSetup): BeatHost {
  let machine: BeatMachine | undefined;
  let running = false;

  /** What is thrown here ends the process, as an uncaught exception: nothing of it is caught. */
  function run(): void {
    if (running) return;
    running = true;
    while (loop.hasWork) loop.advance();
    running = false;
  }

  const loop = new BeatLoop({
    ...setup,
    host: {
      wake: run,
      nowMs: now,
      after: (delayMs, then) => void setTimeout(then, delayMs),
      send(links, beat) {
        const frame = setup.encode(beat);
        for (const link of machine?.links ?? []) if (links.includes(link.name)) link.send(frame);
      },
      gate: {
        open: (addresses, leaseMs, decidedAtMs) =>
          machine?.gate.open(addresses, leaseMs, toProcessMs(decidedAtMs)) ?? notOpen,
        renew: (addresses, leaseMs, decidedAtMs) =>
          machine?.gate.renew(addresses, leaseMs, toProcessMs(decidedAtMs)) ?? notOpen,
        close: (addresses) => machine?.gate.close(addresses) ?? notOpen,
        know: (addresses) => machine?.gate.know(addresses) ?? notOpen,
        seal: () => machine?.gate.seal() ?? notOpen,
      },
      tell: setup.tell,
      reserve: (serial, command, deadlineMs, settle) =>
        void machine?.reserve(serial, command, deadlineMs).then(settle),
      writeRecord: (serial, record, isWanted, settle) => {
        if (machine) void machine.writeRecord(serial, record, isWanted).then(settle);
        else settle("failed");
      },
    },
  });

  function linkHandlers(link: LinkName): LinkHandlers {
    return {
      frame(frame) {
        const decoded = setup.decode(frame);
        if (decoded.ok) loop.frame(link, decoded.beat);
        else loop.refuse(decoded.reason);
      },
      carrier: (up) => loop.offer({ kind: "carrier", link, up }),
    };
  }

  function counters(): BeatCounters {
    const links: Partial<Record<LinkName, LinkView>> = {};
    const at = now();
    for (const link of machine?.links ?? []) {
      const heardMs = loop.state.links[link.name].lastHeardMs;
      const silentMs = heardMs === undefined ? undefined : Math.round(at - heardMs);
      links[link.name] = { ...link.counters(), silentMs };
    }
    const { refused, renewals } = loop;
    return { links, refused: { ...refused }, renewals, tickLateMsMax: loop.tickLateMsMax() };
  }

  return {
    handlers: {
      serial: linkHandlers("serial"),
      network: linkHandlers("network"),
      disk: {
        ...linkHandlers("disk"),
        remnant(frame) {
          const decoded = setup.decode(frame);
          if (decoded.ok) loop.offer({ kind: "remnant", beat: decoded.beat });
          else loop.refuse(decoded.reason);
        },
        written: (sentAtMs, accepted, refused, total) =>
          loop.offer({
            kind: "written",
            sentAtMs: fromProcessMs(sentAtMs),
            accepted,
            refused,
            total,
          }),
      },
      log: (message) => setup.tell({ kind: "log", message }),
    },
    start(opened) {
      machine = opened;
      loop.start();
      setInterval(() => setup.tell({ kind: "counters", counters: counters() }), countersEveryMs);
    },
    command: (message) => loop.command(message),
    lastWords: () => new Promise((resolve) => loop.lastWords(resolve)),
  };
}
