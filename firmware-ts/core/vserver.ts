/**
 * One virtual server on this controller: the file system sharing routine and its reverse (US 7,124,171 claim 1), each step
 * idempotent, resumable, with its own time limit and a postcondition that the performer verifies.
 *
 *                    ┌───────────── service died: hush ─────────────┐
 *                    ▼                                              │
 *     off ─▶ starting: claim → attach → mount → address → export → open → verify ─▶ serving
 *      ▲             │ a step fails                                 │ planned, or fenced    │
 *      │             ▼                                              ▼                       │
 *      └── stopping: flush → close → seal → release → unexport → unmount → detach ◀─────────┘
 *                    └─▶ failed (waits, then starts again or moves)
 *
 * Many that start claim their disks, and attach them, in turn (core/start-window).
 *
 * Fenced means: the disk says that it is no longer ours. Then the gate closes first, the service is killed, the file
 * system is shut down without writing, and nothing is released, because there is nothing left to release.
 */

import { bareAddresses, type VirtualServerConfig } from "../schema/config.ts";
import { bareAddress } from "../schema/ip-address.ts";
import type { Outcome } from "../schema/outcome.ts";
import { explain } from "../schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
  ReservationKey,
} from "../schema/reservation.ts";
import type { Effect, Report, Work } from "./effects.ts";
import { claimAnswer, claimEnded, startClaim, stillOwned } from "./ownership.ts";
import { awaiting, makeToken, report, waitFor } from "./vserver-parts.ts";
import { repairDone } from "./vserver-repair.ts";
import { enterStop } from "./vserver-stop.ts";
import {
  type VirtualServerContext as Context,
  disksOf,
  type Phase,
  type StartStep,
  type VirtualServerState as State,
  type VirtualServerStep as Step,
} from "./vserver-types.ts";

type Starting = Extract<Phase, { kind: "starting" }>;

/** The order of a first start, and of a restart in place, which keeps the volume. */
const order: readonly StartStep[] = [
  "claim",
  "attach",
  "mount",
  "address",
  "export",
  "open",
  "verify",
];
const orderInPlace: readonly StartStep[] = ["hush", "address", "export", "open", "verify"];

/** A refused gate is asked again after this time: the proof it needs comes with the next beat. */
const openAgainMs = 10;

/** Begins to serve under `key`; the addresses stay closed until `notBeforeMs`. With `waits` it has no room yet, and begins nothing before its turn. */
export function startServer(
  state: State,
  key: ReservationKey,
  notBeforeMs: number,
  context: Context,
  waits = false,
): Step {
  if (state.phase.kind !== "off" && state.phase.kind !== "failed")
    throw new Error(`startServer: ${state.config.name} is ${state.phase.kind}`);
  const { nowMs } = context;
  const next: State = { ...state, key, claims: {}, fault: undefined };
  const decided = { decidedMs: nowMs, notBeforeMs, inPlace: false };
  if (!waits) return enter(next, "claim", context, { ...decided, turnMs: nowMs });
  const phase: Starting = {
    ...{ kind: "starting", step: "claim", ...decided },
    ...{ pending: [], deadlineMs: nowMs, waitsForTurn: true },
  };
  return [{ ...next, phase }, []];
}

/** The file service died under us: silence first, then export and address again, and no sooner than it was to be opened anyway. */
export function restartService(state: State, context: Context): Step {
  const { phase } = state;
  const notBeforeMs = phase.kind === "starting" ? phase.notBeforeMs : context.nowMs;
  return enter({ ...state, failures: state.failures + 1 }, "hush", context, {
    decidedMs: context.nowMs,
    notBeforeMs,
    inPlace: true,
  });
}

/**
 * The file service starts anew with another configuration, which its place is made for; the disks are the same. What it had under the former one is
 * silent first, and off the interface before anything answers again.
 */
export function changeInPlace(
  state: State,
  config: VirtualServerConfig,
  notBeforeMs: number,
  context: Context,
): Step {
  const had = [...state.config.addresses, ...state.leftover];
  const leftover = [...new Set(had)].filter((each) => !config.addresses.includes(each));
  return enter({ ...state, config, leftover }, "hush", context, {
    decidedMs: context.nowMs,
    notBeforeMs,
    inPlace: true,
  });
}

/** Between two states of it a start, also one in place, has come to its end: it is served. */
export function hasStarted(before: State, after: State): boolean {
  return before.phase.kind === "starting" && after.phase.kind === "serving";
}

/** The kernel closed the gate by itself: prove again that the disks are ours, then open it again. */
export function reopenGate(state: State, context: Context): Step {
  return enter(state, "open", context, {
    decidedMs: context.nowMs,
    notBeforeMs: context.nowMs,
    inPlace: true,
  });
}

type Carried = Pick<Starting, "decidedMs" | "notBeforeMs" | "inPlace" | "turnMs">;

function enter(state: State, step: StartStep, context: Context, carried: Carried): Step {
  const next: State = { ...state, round: state.round + 1 };
  const [pending, effects, claims] = begin(next, step, carried, context);
  const limit = context.timing.stepTimeoutMs;
  const limitMs =
    step === "hush"
      ? limit.stop
      : step === "open" || step === "verify"
        ? limit.address
        : limit[step];
  // Waiting for the partner's silence is not the step's own time.
  const waitMs = step === "open" ? Math.max(0, carried.notBeforeMs - context.nowMs) : 0;
  const phase: Starting = {
    kind: "starting",
    step,
    pending,
    deadlineMs: context.nowMs + waitMs + limitMs,
    decidedMs: carried.decidedMs,
    notBeforeMs: carried.notBeforeMs,
    inPlace: carried.inPlace,
    turnMs: carried.turnMs,
  };
  return [{ ...next, claims, phase }, effects];
}

type Begun = readonly [readonly string[], readonly Effect[], State["claims"]];

function begin(state: State, step: StartStep, carried: Carried, context: Context): Begun {
  const { config } = state;
  const disks = disksOf(config);
  const work = (list: readonly Work[]): Begun => {
    const [pending, effects] = waitFor(state, step, list, context);
    return [pending, effects, state.claims];
  };
  const token = makeToken(state, step, "gate");
  const addresses = bareAddresses(config);
  switch (step) {
    case "claim":
      return beginClaims(state, context);
    case "attach":
      return work(disks.map((disk) => ({ op: "attach", disk })));
    case "mount":
      return work(disks.map((disk) => ({ op: "mount", disk })));
    case "export":
      return work([{ op: "startService" }]);
    case "address":
      return work(addressWorks(state));
    case "hush": {
      const [pending, effects] = waitFor(state, step, [{ op: "stopService" }], context);
      const all = [...addresses, ...state.leftover.map(bareAddress)];
      const close: Effect = {
        kind: "gate",
        command: { kind: "gateClose", token, addresses: all },
      };
      return [[token, ...pending], [close, ...effects], state.claims];
    }
    case "open": {
      const { notBeforeMs } = carried;
      const open: Effect = {
        kind: "gate",
        command: { kind: "gateOpen", token, addresses, notBeforeMs },
      };
      return [[token], [open], state.claims];
    }
    case "verify":
      return beginVerify(state, context);
    default:
      throw new Error(`vserver: unknown step ${String(step)}`);
  }
}

/** Those that it does not have any more go before the others come. */
function addressWorks({ config, leftover }: State): Work[] {
  const goes = leftover.filter((each) => !config.addresses.includes(each));
  const add: Work = { op: "addAddresses" };
  return goes.length > 0 ? [{ op: "removeAddresses", addresses: goes }, add] : [add];
}

function beginClaims(state: State, context: Context): Begun {
  const key = keyOf(state);
  const claims: Record<string, State["claims"][string]> = {};
  const effects: Effect[] = [];
  const pending: string[] = [];
  for (const serial of disksOf(state.config)) {
    const [claim, commands] = startClaim(key);
    claims[serial] = claim;
    const token = makeToken(state, "claim", serial);
    pending.push(token);
    effects.push(...askDisk(token, serial, commands, context));
  }
  return [pending, effects, claims];
}

/** The answers tell themselves apart: one token for all commands of a claim. */
function askDisk(
  token: string,
  serial: string,
  commands: readonly ReservationCommand[],
  context: Context,
): Effect[] {
  const deadlineMs = context.timing.reserveTimeoutMs;
  return commands.map((command) => ({ kind: "reserve", token, serial, command, deadlineMs }));
}

function beginVerify(state: State, context: Context): Begun {
  const effects: Effect[] = disksOf(state.config).map((serial) => ({
    kind: "reserve",
    token: makeToken(state, "verify", serial),
    serial,
    command: { op: "readReservation" },
    deadlineMs: context.timing.reserveTimeoutMs,
  }));
  const pending = disksOf(state.config).map((serial) => makeToken(state, "verify", serial));
  return [pending, effects, state.claims];
}

function keyOf(state: State): ReservationKey {
  if (state.key === undefined) throw new Error(`vserver ${state.config.name}: no key`);
  return state.key;
}

/** An answer of a disk to a command of this server; tokens of earlier steps are ignored. */
export function serverReserved(
  state: State,
  token: string,
  answer: ReservationAnswer,
  context: Context,
): Step {
  const phase = awaiting(state, "starting", token);
  if (!phase) return [state, []];
  const serial = token.split(":").at(-1) ?? "";
  if (phase.step === "verify") {
    if (answer.status === "failed")
      return failStep(state, `${serial}: ${answer.reason}`, false, context);
    if (!stillOwned(keyOf(state), answer))
      return failStep(state, `${serial} is held by another controller`, true, context);
    return settle(state, phase, token, context);
  }
  const claim = state.claims[serial];
  if (!claim) throw new Error(`vserver ${state.config.name}: ${serial} has no claim`);
  const [next, commands] = claimAnswer(claim, keyOf(state), answer);
  const after: State = { ...state, claims: { ...state.claims, [serial]: next } };
  if (!claimEnded(next)) return [after, askDisk(token, serial, commands, context)];
  if (next.at === "owned") return settle(after, phase, token, context);
  return failStep(after, `${serial}: ${next.reason}`, next.at === "refused", context);
}

/** The outcome of a piece of work; of the gate too. */
export function serverDone(
  state: State,
  token: string,
  outcome: Outcome<string | undefined>,
  context: Context,
): Step {
  if (state.phase.kind === "serving") return repairDone(state, token, outcome, context);
  const phase = awaiting(state, "starting", token);
  if (!phase) return [state, []];
  if (phase.step === "open") {
    if (!outcome.ok) {
      const againAtMs = context.nowMs + openAgainMs;
      return [{ ...state, phase: { ...phase, pending: [], againAtMs } }, []];
    }
    return settle(
      { ...state, phase: { ...phase, openedMs: context.nowMs } },
      { ...phase, openedMs: context.nowMs },
      token,
      context,
    );
  }
  if (!outcome.ok) {
    const fenced = outcome.fault.code === "fenced";
    return failStep(state, explain(outcome.fault), fenced, context);
  }
  return settle(state, phase, token, context);
}

/** Its turn has come: its disks are claimed, or become devices (core/start-window). */
export function goOnInTurn(state: State, context: Context): Step {
  const { phase } = state;
  if (phase.kind !== "starting" || !phase.waitsForTurn)
    throw new Error(`goOnInTurn: ${state.config.name} does not wait for a turn`);
  return enter(state, phase.step, context, { ...phase, turnMs: context.nowMs });
}

/** One thing less to wait for; the next step when it was the last. */
function settle(state: State, phase: Starting, token: string, context: Context): Step {
  const pending = phase.pending.filter((each) => each !== token);
  if (pending.length > 0) return [{ ...state, phase: { ...phase, pending } }, []];
  if (phase.step === "verify") return verified(state, phase, context);
  const steps = phase.inPlace ? orderInPlace : order;
  const following = steps[steps.indexOf(phase.step) + 1];
  if (!following) throw new Error(`vserver: nothing follows ${phase.step}`);
  if (following === "attach")
    return [{ ...state, phase: { ...phase, step: following, pending, waitsForTurn: true } }, []];
  // What it had left on its interface is its own again, or gone.
  const now = phase.step === "address" ? { ...state, leftover: [] } : state;
  const [next, effects] = enter(now, following, context, phase);
  const opened = phase.openedMs;
  if (opened === undefined || next.phase.kind !== "starting") return [next, effects];
  return [{ ...next, phase: { ...next.phase, openedMs: opened } }, effects];
}

/**
 * The gate is open on its first lease and the disks say that they are ours. If that took longer than the lease, time went
 * by unnoticed (a freeze, a debugger): what was proved is old, so the gate is closed and opened anew.
 */
function verified(state: State, phase: Starting, context: Context): Step {
  const addresses = bareAddresses(state.config);
  const elapsedMs = context.nowMs - (phase.openedMs ?? Number.NEGATIVE_INFINITY);
  if (elapsedMs >= context.timing.firstLeaseMs) {
    const token = makeToken(state, "reopen", "gate");
    const close: Effect = { kind: "gate", command: { kind: "gateClose", token, addresses } };
    const [next, effects] = enter(state, "open", context, phase);
    return [next, [close, ...effects]];
  }
  const lastStartMs = context.nowMs - phase.decidedMs;
  const next: State = {
    ...state,
    lastStartMs,
    clients: undefined,
    phase: { kind: "serving", sinceMs: context.nowMs },
  };
  const said: Report = {
    severity: "info",
    code: "vserver.serving",
    message: `${state.config.name} is served here, ${Math.round(lastStartMs)} ms after the decision`,
    detail: { virtualServer: state.config.name, startMs: lastStartMs },
  };
  return [
    next,
    [
      { kind: "gate", command: { kind: "gateKeep", addresses } },
      {
        kind: "work",
        token: makeToken(state, "announce", "announce"),
        virtualServer: state.config.name,
        work: { op: "announce", clients: state.clients },
        limitMs: context.timing.stepTimeoutMs.address,
      },
      { kind: "report", report: said },
    ],
  ];
}

/** A step failed: everything that was begun is undone, in the order of a stop, and the server waits as failed. */
function failStep(state: State, fault: string, fenced: boolean, context: Context): Step {
  if (state.phase.kind !== "starting") throw new Error("failStep: not starting");
  const step = state.phase.step;
  const sentence = `${step}: ${fault}`;
  const said = report(
    "error",
    fenced ? "vserver.fenced" : "vserver.stepFailed",
    `${state.config.name} cannot start here: ${sentence}`,
    { virtualServer: state.config.name, step },
  );
  const failing: State = { ...state, failures: state.failures + 1, fault: sentence };
  const [next, effects] = enterStop(failing, "close", context, {
    reason: "failed",
    forced: fenced,
    hasLetGo: false,
    fault: sentence,
  });
  return [next, [said, ...effects]];
}

/** Time goes by: limits, and steps to be begun again. */
export function startingTick(state: State, context: Context): Step {
  const { phase } = state;
  if (phase.kind !== "starting") return [state, []];
  if (phase.againAtMs !== undefined && context.nowMs >= phase.againAtMs) {
    if (context.nowMs < phase.deadlineMs) {
      const [next, effects] = enter(state, phase.step, context, phase);
      if (next.phase.kind !== "starting") throw new Error("startingTick: lost the phase");
      return [{ ...next, phase: { ...next.phase, deadlineMs: phase.deadlineMs } }, effects];
    }
    return failStep(state, "the gate was not allowed to open in time", false, context);
  }
  // Turns come by themselves: a wait has no limit of its own.
  if (context.nowMs >= phase.deadlineMs && !phase.waitsForTurn) {
    return failStep(state, "took longer than its limit", false, context);
  }
  return [state, []];
}
