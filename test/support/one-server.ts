/** One virtual server with two disks, without a world around it: what it asks for, in short, and the answers to that. */

import type { Effect } from "../../firmware-ts/core/effects.ts";
import { makeKey } from "../../firmware-ts/core/keys.ts";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import { goOnInTurn, serverDone, serverReserved } from "../../firmware-ts/core/vserver.ts";
import { stopDone, stopReserved } from "../../firmware-ts/core/vserver-stop.ts";
import type {
  VirtualServerContext,
  VirtualServerState,
  VirtualServerStep,
} from "../../firmware-ts/core/vserver-types.ts";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ReservationAnswer } from "../../firmware-ts/schema/reservation.ts";
import { Pair } from "../../hal/sim/pair.ts";

const config = new Pair().config("a");
const [alpha] = config.virtualServers;
if (!alpha) throw new Error("one-server: the configuration has no virtual server");
const [volume] = alpha.volumes;
if (!volume) throw new Error("one-server: alpha has no volume");

export const timing = deriveTiming(config.timing);
export const key = makeKey({ controller: "a", pairId: 17, epoch: 5 });

/** What a claim of a disk begins with. */
export const claimOf = (disk: string) =>
  ["register", "readKeys", "readReservation"].map((op) => `${op} ${disk}`);

const server = {
  ...alpha,
  volumes: ["d1", "d2"].map((disk, i) => ({ ...volume, disk, id: i + 1 })),
};

export const off: VirtualServerState = {
  index: 0,
  definition: { number: 0, sequence: 0, wanted: "started", server },
  config: server,
  made: { config: server, isWhole: true },
  leftover: [],
  phase: { kind: "off" },
  claims: {},
  key: undefined,
  round: 0,
  failures: 0,
  movesFailed: 0,
  moveNotBeforeMs: 0,
};

export const serving: VirtualServerState = {
  ...off,
  phase: { kind: "serving", sinceMs: 0 },
  claims: { d1: { at: "owned" }, d2: { at: "owned" } },
  key,
};

export const at = (
  nowMs: number,
  change: Partial<VirtualServerContext> = {},
): VirtualServerContext => ({ nowMs, timing, pathsDown: [], partnerInStep: true, ...change });

/** "seal d1", "release d1", "gateClose", "vserver.fenced": one word or two for each effect. */
export function said(effects: readonly Effect[]): string[] {
  return effects.map((effect) => {
    switch (effect.kind) {
      case "gate":
        return effect.command.kind;
      case "reserve":
        return `${effect.command.op} ${effect.serial}`;
      case "work":
        return "disk" in effect.work ? `${effect.work.op} ${effect.work.disk}` : effect.work.op;
      case "report":
        return effect.report.code;
      default:
        return effect.kind;
    }
  });
}

export function stepOf({ phase }: VirtualServerState): string {
  return phase.kind === "starting" || phase.kind === "stopping" ? phase.step : phase.kind;
}

export function pendingOf({ phase }: VirtualServerState): readonly string[] {
  return phase.kind === "starting" || phase.kind === "stopping" ? phase.pending : [];
}

/** The outcome of a work or of the gate, for whichever half of the machine waits for it. */
export function outcome(
  state: VirtualServerState,
  token: string,
  value: Outcome<string | undefined>,
  context: VirtualServerContext,
): VirtualServerStep {
  const half = state.phase.kind === "starting" ? serverDone : stopDone;
  return half(state, token, value, context);
}

export const broken = failed("ioError", "test", "injected");

/** The first thing that it waits for fails. */
export function failing(
  state: VirtualServerState,
  context: VirtualServerContext,
  value: Outcome<string | undefined> = broken,
): VirtualServerStep {
  return outcome(state, pendingOf(state)[0] ?? "", value, context);
}

/** Nobody else starts: one that waits for its turn has it. */
export function inItsTurn(
  step: VirtualServerStep,
  context: VirtualServerContext,
): VirtualServerStep {
  const [state, effects] = step;
  if (state.phase.kind !== "starting" || !state.phase.waitsForTurn) return step;
  const [attaching, asked] = goOnInTurn(state, context);
  return [attaching, [...effects, ...asked]];
}

/** Everything that it waits for now succeeds. Of a step that asks disks: whatever they answer is given by `answer`. */
export function succeed(
  state: VirtualServerState,
  context: VirtualServerContext,
  answer: ReservationAnswer = { status: "good" },
): VirtualServerStep {
  let next = state;
  const effects: Effect[] = [];
  const step = stepOf(state);
  const asksDisks = step === "release" || step === "verify" || step === "claim";
  for (const token of pendingOf(state)) {
    const reserved = next.phase.kind === "starting" ? serverReserved : undefined;
    const [after, more] = asksDisks
      ? reserved
        ? reserved(next, token, answer, context)
        : stopReserved(next, token, context)
      : outcome(next, token, done, context);
    next = after;
    effects.push(...more);
  }
  return inItsTurn([next, effects], context);
}

/** Goes on successfully until `step`; gives what was asked for at each step on the way, that of `step` last. */
export function goOnTo(
  start: VirtualServerStep,
  step: string,
  context: VirtualServerContext,
  answer?: ReservationAnswer,
): { readonly state: VirtualServerState; readonly asked: readonly (readonly string[])[] } {
  let [state, effects] = start;
  const asked = [said(effects)];
  const stepsMax = 12;
  while (stepOf(state) !== step) {
    if (asked.length > stepsMax) throw new Error(`never at ${step}: ${asked.join("; ")}`);
    [state, effects] = succeed(state, context, answer);
    asked.push(said(effects));
  }
  return { state, asked };
}
