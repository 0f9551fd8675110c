/**
 * Joining: our registration on the coordinator disks, and when a controller that hears nobody may arbitrate.
 *
 * A registration is renewed only while starting, or while paired with a partner that hears us. Never while racing or alone:
 * the partner may have preempted us on this disk as one of the two it needs, and a registration made after that would
 * let us count the same disk as ours. For the same reason a registration counts in a race only if every race that the partner began
 * before it is known to be over (core/takeover, tooYoung). A race begun later finds our key, and must remove it.
 */
import type { ReservationAnswer, ReservationCommand } from "../schema/reservation.ts";
import {
  type ControllerState,
  type Part,
  type Registration,
  type Step,
  setMode,
  tell,
} from "./controller-state.ts";
import type { Effect } from "./effects.ts";
import { hasReadToJoin, readAfterRegistering } from "./volume.ts";

/** A coordinator that did not answer is asked again after this time. */
const againMs = 500;

const type = "writeExclusiveAllRegistrants";

/** Asks for registration on every coordinator whose turn it is. */
export function registerDue(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "starting" && state.mode !== "paired") return undefined;
  let next = state;
  let effects: Effect[] | undefined;
  for (const serial of state.config.shelf.coordinators) {
    const registration = state.registrations[serial];
    if (registration?.at !== "none" || nowMs < registration.againAtMs) continue;
    const round = next.round + 1;
    next = setRegistration({ ...next, round }, serial, {
      at: "registering",
      round,
      told: registration.told,
    });
    effects ??= [];
    effects.push(ask(next, serial, round, { op: "register", key: state.coordinatorKey }));
  }
  return effects && [next, effects];
}

function setRegistration(
  state: ControllerState,
  serial: string,
  registration: Registration,
): ControllerState {
  return { ...state, registrations: { ...state.registrations, [serial]: registration } };
}

function ask(
  state: ControllerState,
  serial: string,
  round: number,
  command: ReservationCommand,
): Effect {
  const deadlineMs = state.timing.reserveTimeoutMs;
  return { kind: "reserve", token: `join:${round}:${serial}`, serial, command, deadlineMs };
}

/** Register, see whether the disk is reserved, reserve it for all registrants if not. */
export function joinAnswer(
  state: ControllerState,
  token: string,
  answer: ReservationAnswer,
  nowMs: number,
): Step {
  const [, roundText, ...rest] = token.split(":");
  const serial = rest.join(":");
  const registration = state.registrations[serial];
  if (!registration || !("round" in registration) || registration.round !== Number(roundText))
    return [state, []];
  const { round, told } = registration;
  if (answer.status === "failed") return notRegistered(state, serial, answer.reason, nowMs);
  switch (registration.at) {
    case "registering":
      if (answer.status !== "good") return notRegistered(state, serial, answer.status, nowMs);
      return [
        setRegistration(state, serial, { at: "reading", round, told }),
        [ask(state, serial, round, { op: "readReservation" })],
      ];
    case "reading":
      if (answer.status !== "reservation")
        return notRegistered(state, serial, answer.status, nowMs);
      if (answer.holder?.type === type) return registered(state, serial, nowMs);
      if (answer.holder)
        return notRegistered(state, serial, `reserved as ${answer.holder.type} by others`, nowMs);
      return [
        setRegistration(state, serial, { at: "reserving", round, told }),
        [ask(state, serial, round, { op: "reserve", key: state.coordinatorKey, type })],
      ];
    case "reserving":
      if (answer.status === "good") return registered(state, serial, nowMs);
      return notRegistered(state, serial, `reserve answered ${answer.status}`, nowMs);
    default:
      throw new Error("joinAnswer: unknown stage");
  }
}

function registered(state: ControllerState, serial: string, nowMs: number): Step {
  const next = setRegistration(state, serial, { at: "registered", sinceMs: nowMs });
  return [
    readAfterRegistering(next),
    [tell("info", "coordinator.registered", `registered on coordinator disk ${serial}`)],
  ];
}

function notRegistered(state: ControllerState, serial: string, why: string, nowMs: number): Step {
  const before = state.registrations[serial];
  const told = before && "told" in before ? before.told : "";
  const next = setRegistration(state, serial, {
    at: "none",
    againAtMs: nowMs + againMs,
    told: why,
  });
  if (told === why) return [next, []];
  const sentence = `coordinator disk ${serial} does not register us: ${why}`;
  return [next, [tell("warning", "coordinator.failed", sentence)]];
}

/** Forgets all registrations, so that `starting` makes them anew. */
export function forgetRegistrations(state: ControllerState): ControllerState {
  const registrations: Record<string, Registration> = {};
  for (const serial of state.config.shelf.coordinators)
    registrations[serial] = { at: "none", againAtMs: 0, told: "" };
  return { ...state, registrations };
}

export function registeredCount(state: ControllerState): number {
  return Object.values(state.registrations).filter((each) => each.at === "registered").length;
}

export function majority(state: ControllerState): number {
  return Math.floor(state.config.shelf.coordinators.length / 2) + 1;
}

/** Starting ends when a majority of coordinators knows us, and we know what was written there while we were away. */
export function startingTick(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "starting" || registeredCount(state) < majority(state)) return undefined;
  if (!hasReadToJoin(state)) return undefined;
  const next = { ...state, quietSinceMs: nowMs };
  return setMode(next, "joining", nowMs, "registered on a majority of the coordinator disks");
}

/**
 * Nobody heard for long enough, *and* the coordinators can be read, so that a living partner's beats would be seen there: only
 * then may a controller that is not paired arbitrate. A loser of a split therefore stays out until the split is mended.
 */
export function mayRaceAlone(state: ControllerState, nowMs: number): boolean {
  if (state.mode !== "joining" || state.partner) return false;
  if (!state.diskReadable) return false;
  return nowMs - state.quietSinceMs >= state.timing.startupWaitMs;
}
