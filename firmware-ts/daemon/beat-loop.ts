/**
 * The loop of the beat process: frames, timers and commands in; beats, leases and observations out. All policy is in
 * core/beat.ts. Gate calls are synchronous on purpose: between the decision on a lease and the kernel's start of
 * counting it nothing else of this process runs.
 */
import type { BeatMachine, BeatMachineHandlers } from "../../hal/port/beat-machine.ts";
import type { LinkHandlers } from "../../hal/port/link.ts";
import { beatStep } from "../core/beat.ts";
import { type BeatState, newBeatState } from "../core/beat-state.ts";
import type { BeatEffect, BeatEvent } from "../core/beat-types.ts";
import type { Timing } from "../core/timing.ts";
import type { Beat } from "../schema/beat.ts";
import type { ControllerId, LinkName } from "../schema/ids.ts";
import { explain, type Outcome } from "../schema/outcome.ts";
import type { BeatCounters, FromBeat, LinkView, ToBeat } from "./beat-channel.ts";
import { fromProcessMs, monotonicMs as now } from "./clock.ts";

/** Half a beat interval at the fastest setting: the precision of sending and of opening gates. */
const tickMs = 5;

const countersEveryMs = 1000;

/** How often last words are said on the slowest link: a beat may be lost. */
const lastBeats = 3;

export interface BeatLoopSetup {
  readonly me: ControllerId;
  readonly session: number;
  readonly configuration: number;
  readonly timing: Timing;
  readonly links: readonly LinkName[];
  readonly encode: (beat: Beat) => Uint8Array;
  readonly decode: (frame: Uint8Array) => { ok: true; beat: Beat } | { ok: false; reason: string };
  readonly tell: (message: FromBeat) => void;
}

export interface BeatLoop {
  readonly handlers: BeatMachineHandlers;
  /** Begins to tick; the machine must be open. */
  start(machine: BeatMachine): void;
  command(message: ToBeat): void;
  /** The main loop is gone: gates closed, and when the kernel has confirmed it, a few beats that say so; then settles. */
  lastWords(): Promise<void>;
}

export function createBeatLoop(setup: BeatLoopSetup): BeatLoop {
  let machine: BeatMachine | undefined;
  let state: BeatState = newBeatState({ ...setup, nowMs: now() });
  const refused: Record<string, number> = {};
  let renewals = 0;
  let tickLateMsMax = 0;
  const waiting: BeatEvent[] = [];
  let running = false;

  /** Outcomes of synchronous effects come back through the same queue: the machine is never entered twice. */
  function feed(event: BeatEvent): void {
    waiting.push(event);
    if (running) return;
    running = true;
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [after, effects] = beatStep(state, next);
      state = after;
      for (const effect of effects) perform(effect);
    }
    running = false;
  }

  function perform(effect: BeatEffect): void {
    if (!machine) return;
    switch (effect.kind) {
      case "send": {
        const frame = setup.encode(effect.beat);
        for (const link of machine.links) if (effect.links.includes(link.name)) link.send(frame);
        return;
      }
      case "open":
      case "renew": {
        const { gate } = machine;
        // The gate counts the lease from here, however long the call takes to reach the kernel.
        const decidedAtMs = performance.now();
        const leaseMs = Math.floor(effect.untilMs - now());
        const gone = { ok: false, message: "the lease was over before it could begin" } as const;
        if (effect.kind === "renew") renewals += 1;
        if (leaseMs <= 0) return outcome(effect, effect.kind, gone.ok, gone.message);
        const result =
          effect.kind === "open"
            ? gate.open(effect.addresses, leaseMs, decidedAtMs)
            : gate.renew(effect.addresses, leaseMs, decidedAtMs);
        return gateOutcome(effect, effect.kind, result);
      }
      case "close":
        return gateOutcome(effect, "close", machine.gate.close(effect.addresses));
      case "seal":
        return gateOutcome(effect, "seal", machine.gate.seal());
      case "observe":
        if (effect.observation.kind === "frameRefused") count(effect.observation.reason);
        else setup.tell({ kind: "observation", observation: effect.observation });
        return;
      default:
        throw new Error(`beat loop: unknown effect ${JSON.stringify(effect)}`);
    }
  }

  type GateAction = Extract<BeatEvent, { kind: "gateOutcome" }>["action"];
  type GateEffect = { readonly token: string; readonly addresses: readonly string[] };

  function gateOutcome(effect: GateEffect, action: GateAction, result: Outcome): void {
    outcome(effect, action, result.ok, result.ok ? "" : explain(result.fault));
  }

  function outcome(
    { token, addresses }: GateEffect,
    action: GateAction,
    ok: boolean,
    reason: string,
  ): void {
    feed({ kind: "gateOutcome", nowMs: now(), action, token, addresses, ok, reason });
  }

  function count(reason: string): void {
    refused[reason] = (refused[reason] ?? 0) + 1;
  }

  function linkHandlers(link: LinkName): LinkHandlers {
    return {
      frame: (frame, receivedAtMs) => {
        const decoded = setup.decode(frame);
        if (decoded.ok)
          feed({ kind: "frame", nowMs: fromProcessMs(receivedAtMs), link, beat: decoded.beat });
        else count(decoded.reason);
      },
      carrier: (up) => feed({ kind: "carrier", nowMs: now(), link, up }),
    };
  }

  function counters(): BeatCounters {
    const links: Partial<Record<LinkName, LinkView>> = {};
    const at = now();
    for (const link of machine?.links ?? []) {
      const heardMs = state.links[link.name].lastHeardMs;
      const silentMs = heardMs === undefined ? undefined : Math.round(at - heardMs);
      links[link.name] = { ...link.counters(), silentMs };
    }
    const report = { links, refused: { ...refused }, renewals, tickLateMsMax };
    tickLateMsMax = 0;
    return report;
  }

  return {
    handlers: {
      serial: linkHandlers("serial"),
      network: linkHandlers("network"),
      disk: {
        ...linkHandlers("disk"),
        written: (sentAtMs, accepted, refusedCount, total) =>
          feed({
            kind: "written",
            nowMs: now(),
            sentAtMs: fromProcessMs(sentAtMs),
            accepted,
            refused: refusedCount,
            total,
          }),
      },
      log: (message) => setup.tell({ kind: "log", message }),
    },
    start(opened) {
      machine = opened;
      let dueMs = now() + tickMs;
      const tick = () => {
        const at = now();
        tickLateMsMax = Math.max(tickLateMsMax, at - dueMs);
        feed({ kind: "tick", nowMs: at });
        // After a stall the next tick judges what this one could not: a whole period goes by first, in which everything that waits in
        // sockets, in the serial port and behind the thread pool is read.
        dueMs = at > dueMs + tickMs ? at + tickMs : dueMs + tickMs;
        setTimeout(tick, Math.max(0, dueMs - now()));
      };
      setTimeout(tick, tickMs);
      setInterval(() => setup.tell({ kind: "counters", counters: counters() }), countersEveryMs);
    },
    command(message) {
      const nowMs = now();
      switch (message.kind) {
        case "mandate":
          return feed({ kind: "mandate", nowMs, mandate: message.mandate });
        case "progress":
          return feed({ kind: "progress", nowMs });
        case "grant":
          return feed({ kind: "grant", nowMs, on: message.on, contact: message.contact });
        case "gate":
          return feed({ ...message.command, nowMs });
        case "reserve": {
          const { token, serial, command, deadlineMs } = message;
          void machine
            ?.reserve(serial, command, deadlineMs)
            .then((answer) => setup.tell({ kind: "reserved", token, answer }));
          return;
        }
        default:
          throw new Error(`beat loop: unknown command ${JSON.stringify(message)}`);
      }
    },
    async lastWords() {
      feed({ kind: "lastWords", nowMs: now() });
      if (state.ending !== "closed") return;
      const { beatIntervalMs, diskBeatIntervalMs } = setup.timing;
      const saidMs = lastBeats * Math.max(beatIntervalMs, diskBeatIntervalMs);
      await new Promise((resolve) => setTimeout(resolve, saidMs));
    },
  };
}
