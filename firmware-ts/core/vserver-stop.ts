/**
 * The stopping half of the virtual server machine (see the diagram in core/vserver.ts).
 *
 * SAFETY releaseOnlyWhenGone: the release step is reached only after the kernel said that the file system is sealed, or that nothing is
 * mounted from the disk and nobody holds its device. When neither can be shown, the controller fences itself: it stops. What is tidied
 * after the release cannot write: the block service refuses its I/O before the release is sent, and the disk refuses it
 * afterwards (docs/design/0022-sealed-before-unmounted.md).
 */
import { bareAddresses } from "../schema/config.ts";
import type { Outcome } from "../schema/outcome.ts";
import { explain } from "../schema/outcome.ts";
import type { Effect, Work } from "./effects.ts";
import { releaseCommands } from "./ownership.ts";
import { awaiting, makeToken, report, waitFor } from "./vserver-parts.ts";
import {
  type VirtualServerContext as Context,
  disksOf,
  forcedStopSteps,
  type Phase,
  type VirtualServerState as State,
  type VirtualServerStep as Step,
  type StopReason,
  type StopStep,
  stopSteps,
} from "./vserver-types.ts";

type Stopping = Extract<Phase, { kind: "stopping" }>;

/** First wait after a failure; doubles with each further one. */
const retryMs = 1000;
const retryMsMax = 30_000;

interface Carried {
  readonly reason: StopReason;
  readonly forced: boolean;
  readonly hasLetGo: boolean;
  readonly fault?: string | undefined;
}

/** Stops a server from whatever it is doing. Stopping already: a stronger reason (fenced) takes over, a weaker one waits. */
export function stopServer(
  state: State,
  reason: StopReason,
  forced: boolean,
  context: Context,
  fault?: string,
): Step {
  const { phase } = state;
  if (phase.kind === "off") return [state, []];
  if (phase.kind === "failed") return [{ ...state, phase: { kind: "off" } }, []];
  if (phase.kind === "stopping") {
    if (!forced || phase.forced) {
      // It stops because it failed, and is asked for meanwhile: whoever takes it must not find it claimed here. And nobody who is
      // out waits for what is left of it.
      const isStronger = (phase.reason === "failed" && reason !== "failed") || reason === "fenced";
      return isStronger ? [{ ...state, phase: { ...phase, reason } }, []] : [state, []];
    }
    return enterStop(state, "close", context, { ...phase, reason, forced });
  }
  // Behind an open gate only as long as the service answers: a dead one would refuse clients that could have waited.
  const answering = !forced && phase.kind === "serving" && reason !== "failed";
  const carried = { reason, forced, hasLetGo: false, fault };
  return enterStop(state, answering ? "flush" : "close", context, carried);
}

export function enterStop(state: State, step: StopStep, context: Context, carried: Carried): Step {
  const next: State = { ...state, round: state.round + 1 };
  const [pending, effects] = begin(next, step, carried, context);
  const phase: Stopping = {
    kind: "stopping",
    step,
    pending,
    deadlineMs: context.nowMs + context.timing.stepTimeoutMs.stop,
    reason: carried.reason,
    forced: carried.forced,
    hasLetGo: carried.hasLetGo,
    fault: carried.fault,
  };
  return [{ ...next, phase }, effects];
}

function begin(
  state: State,
  step: StopStep,
  { forced, hasLetGo }: Carried,
  context: Context,
): readonly [readonly string[], readonly Effect[]] {
  const disks = disksOf(state.config);
  const each = (op: "flush" | "seal" | "abandon" | "detach"): Work[] =>
    disks.map((disk) => ({ op, disk }));
  switch (step) {
    case "flush":
      return waitFor(state, step, each("flush"), context);
    case "close": {
      const token = makeToken(state, step, "gate");
      const addresses = bareAddresses(state.config);
      return [[token], [{ kind: "gate", command: { kind: "gateClose", token, addresses } }]];
    }
    case "unexport":
      return waitFor(state, step, [{ op: forced ? "killService" : "stopService" }], context);
    case "seal":
      return waitFor(state, step, each("seal"), context);
    case "unmount":
      // A sealed file system has nothing left to write; one that could not be sealed must not.
      return waitFor(state, step, each("abandon"), context);
    case "detach":
      return waitFor(state, step, each("detach"), context);
    case "release":
      return hasLetGo ? [[], []] : beginRelease(state, context);
    default:
      throw new Error(`vserver: unknown step ${String(step)}`);
  }
}

/**
 * Both commands go out at once: they are performed in their order (`Disks.reserve` of hal/port).
 *
 * SAFETY: a disk without a reservation takes writes from everybody. A partner that froze with writes on their way was preempted, and the
 * first of them is answered by a unit attention (SPC-4 5.9.11.4); but it is the only one. So a disk stays reserved
 * as long as the partner is not known to have begun a new life: whoever starts next preempts the key.
 */
function beginRelease(
  state: State,
  context: Context,
): readonly [readonly string[], readonly Effect[]] {
  const { key } = state;
  if (key === undefined || !context.partnerInStep) return [[], []];
  const pending: string[] = [];
  const effects: Effect[] = [];
  for (const serial of disksOf(state.config)) {
    // Without a path there is nobody to tell; the next owner preempts the key.
    if (!state.claims[serial] || context.pathsDown.includes(serial)) continue;
    releaseCommands(key).forEach((command, i) => {
      const token = makeToken(state, `release${i}`, serial);
      pending.push(token);
      const deadlineMs = context.timing.reserveTimeoutMs;
      effects.push({ kind: "reserve", token, serial, command, deadlineMs });
    });
  }
  return [pending, effects];
}

/** Whatever the disk answers to a release, it is not ours afterwards: a conflict says that it was not before. */
export function stopReserved(state: State, token: string, context: Context): Step {
  const phase = awaiting(state, "stopping", token);
  if (!phase) return [state, []];
  return settle(state, phase, token, context);
}

export function stopDone(
  state: State,
  token: string,
  outcome: Outcome<string | undefined>,
  context: Context,
): Step {
  const phase = awaiting(state, "stopping", token);
  if (!phase) return [state, []];
  if (outcome.ok) {
    // Only a kill has something to say.
    const clients = phase.step === "unexport" ? (outcome.value ?? state.clients) : state.clients;
    return settle({ ...state, clients }, phase, token, context);
  }
  return stepFailed(state, phase, explain(outcome.fault), context);
}

/** What a failed stop step means for the data decides how hard we insist. */
function stepFailed(state: State, phase: Stopping, why: string, context: Context): Step {
  const { name } = state.config;
  switch (phase.step) {
    case "seal":
    case "unexport":
    case "unmount":
      if (!phase.forced) {
        const said = report("warning", "vserver.stopForced", `${name}: ${why}; stopping by force`, {
          virtualServer: name,
        });
        const [next, effects] = enterStop(state, "unexport", context, { ...phase, forced: true });
        return [next, [said, ...effects]];
      }
      return mayWait(phase)
        ? tidyLater(state, phase, why, context)
        : selfFence(state, `${name} could not be taken down: ${why}`);
    case "detach":
      return mayWait(phase)
        ? tidyLater(state, phase, why, context)
        : selfFence(state, `${name} could not be taken down: ${why}`);
    case "close":
      return selfFence(state, `${name} could not be taken down: ${why}`);
    default:
      return advance(state, phase, context);
  }
}

/** What is left harms nobody. A controller that is out serves nothing, and has no better way back than to start anew. */
function mayWait({ hasLetGo, reason }: Stopping): boolean {
  return hasLetGo && reason !== "fenced";
}

/**
 * The disk is released, and somebody looks at its idle device (udev and blkid do), or still stands in a directory of the sealed volume.
 * That is no reason to end what else is served here; but nothing starts on what is left of an earlier time, so the server stays stopping
 * until it is gone.
 */
function tidyLater(state: State, phase: Stopping, why: string, context: Context): Step {
  const waiting: Stopping = {
    ...phase,
    pending: [],
    deadlineMs: context.nowMs + retryMs,
    isHeld: true,
  };
  const { name } = state.config;
  const said = report(
    "warning",
    "vserver.deviceHeld",
    `${name}: ${why}; tried again every second`,
    {
      virtualServer: name,
    },
  );
  return [{ ...state, phase: waiting }, phase.isHeld ? [] : [said]];
}

/** Nothing here can write to its disks any more and they are released: what is left is tidying, and the partner may have it. */
export function hasLetGo({ phase }: State): boolean {
  if (phase.kind === "stopping") return phase.hasLetGo;
  return phase.kind === "off" || phase.kind === "failed";
}

/** Handed over, and yet not gone: the partner may have it, but we cannot take it back. */
export function isHeld({ phase }: State): boolean {
  return phase.kind === "stopping" && phase.hasLetGo && phase.isHeld === true;
}

/** A controller that cannot stop serving, or cannot let go of a disk, ends; its kernel and the disks do the rest. */
function selfFence(state: State, reason: string): Step {
  return [
    state,
    [
      report("error", "controller.selfFence", `${reason}; this controller stops itself`),
      { kind: "exit", code: 70, reason },
    ],
  ];
}

function settle(state: State, phase: Stopping, token: string, context: Context): Step {
  const pending = phase.pending.filter((each) => each !== token);
  if (pending.length > 0) return [{ ...state, phase: { ...phase, pending } }, []];
  return advance(state, phase, context);
}

function advance(state: State, phase: Stopping, context: Context): Step {
  const steps = phase.forced ? forcedStopSteps : stopSteps;
  const following = steps[steps.indexOf(phase.step) + 1];
  if (!following) return finished(state, phase, context);
  const carried = { ...phase, hasLetGo: phase.hasLetGo || phase.step === "release" };
  const [next, effects] = enterStop(state, following, context, carried);
  if (next.phase.kind !== "stopping" || next.phase.pending.length > 0) return [next, effects];
  // Nothing to release (never claimed): on at once.
  const [last, more] = advance(next, next.phase, context);
  return [last, [...effects, ...more]];
}

/**
 * Nothing is left to wait for; the addresses go off the NIC by themselves, and count as left there until that is known. So do those of its place: a
 * service that started anew between a change of the place and its own has got them.
 */
function finished(state: State, phase: Stopping, context: Context): Step {
  const placed = state.made?.config.addresses ?? [];
  const addresses = [...new Set([...state.config.addresses, ...placed, ...state.leftover])];
  const work: Work = { op: "removeAddresses", addresses };
  const [, effects] = waitFor(state, "unaddress", [work], context);
  return [stopped({ ...state, leftover: addresses }, phase, context), effects];
}

/** What it had left on its interface is gone from there; undefined when that is not what the outcome says. */
export function hasLeft(
  state: State,
  token: string,
  outcome: Outcome<string | undefined>,
): State | undefined {
  const isIt = token === makeToken(state, "unaddress", "removeAddresses");
  return isIt && outcome.ok ? { ...state, leftover: [] } : undefined;
}

function stopped(state: State, phase: Stopping, context: Context): State {
  const clean: State = { ...state, claims: {}, key: undefined };
  if (phase.reason !== "failed") return { ...clean, phase: { kind: "off" } };
  const waitMs = Math.min(retryMsMax, retryMs * 2 ** Math.max(0, state.failures - 1));
  return {
    ...clean,
    phase: {
      kind: "failed",
      fault: phase.fault ?? "unknown",
      retryAtMs: context.nowMs + waitMs,
    },
  };
}

export function stoppingTick(state: State, context: Context): Step {
  const { phase } = state;
  if (phase.kind !== "stopping" || context.nowMs < phase.deadlineMs) return [state, []];
  if (phase.isHeld && phase.pending.length === 0) {
    const [next, effects] = enterStop(state, phase.step, context, phase);
    if (next.phase.kind !== "stopping") throw new Error("stoppingTick: lost the phase");
    return [{ ...next, phase: { ...next.phase, isHeld: true } }, effects];
  }
  return stepFailed(state, phase, `${phase.step} took longer than its limit`, context);
}
