/** The beat machine speaks: what a beat says, when it leaves on which link, and to whom it is a lease (SAFETY: granting). */
import type { Beat } from "../schema/beat.ts";
import { type LinkName, linkNames } from "../schema/ids.ts";
import { type BeatState, keepSent, type Part, type Step } from "./beat-state.ts";
import type { BeatEffect } from "./beat-types.ts";
import { linkColour } from "./links.ts";

/** Sends one beat on every link that is due; all carry the same sequence number. */
export function sendDue(state: BeatState, nowMs: number): Part {
  const { links, nextSendMs } = state;
  const serial = links.serial.present && nowMs >= nextSendMs.serial;
  const network = links.network.present && nowMs >= nextSendMs.network;
  const disk = links.disk.present && nowMs >= nextSendMs.disk;
  if (!serial && !network && !disk) return undefined;
  const isDue = { serial, network, disk };
  return send(
    state,
    linkNames.filter((name) => isDue[name]),
    nowMs,
  );
}

export function send(state: BeatState, due: readonly LinkName[], nowMs: number): Step {
  const sequence = state.sequence + 1;
  const { mandate, timing } = state;
  const ack = state.candidate ?? state.heard ?? { session: 0, sequence: 0 };
  // Whom we doubt we promise nothing: to the partner a postponed loss is a loss.
  const trusted = state.candidate === undefined && state.doubtedSinceMs === undefined;
  const granting = state.granting && trusted && mayGrant(state);
  const { message } = mandate;
  // The main loop may not know yet that the partner has restarted: numbers of its last session mean nothing to this one.
  const current = mandate.messageSession === ack.session;
  const bare: Beat = {
    sender: state.me,
    session: state.session,
    sequence,
    ack: { session: ack.session, sequence: ack.sequence },
    granting,
    mode: mandate.mode,
    epoch: mandate.epoch,
    configuration: mandate.configuration,
    progressAgeMs: Math.min(65_535, Math.max(0, Math.round(nowMs - state.progressAtMs))),
    goodbye: mandate.goodbye,
    dyingGasp: state.ending === "closed",
    dataLinkDown: mandate.dataLinkDown,
    owned: mandate.owned,
    serving: mandate.serving,
    messageAck: current ? mandate.messageAck : 0,
  };
  const beat = current && message ? { ...bare, message } : bare;
  const nextSendMs = { ...state.nextSendMs };
  for (const name of due) {
    // What is said between two turns of a link takes none of them: many such words would make it silent.
    if (nextSendMs[name] > nowMs) continue;
    const interval = name === "disk" ? timing.diskBeatIntervalMs : timing.beatIntervalMs;
    // Catch up without bursts: a late beat moves the schedule.
    nextSendMs[name] =
      nextSendMs[name] + interval > nowMs ? nextSendMs[name] + interval : nowMs + interval;
  }
  const next: BeatState = {
    ...state,
    sequence,
    nextSendMs,
    sent: keepSent(state.sent, { sequence, atMs: nowMs }, nowMs - timing.freshAckMs),
    lastGrantedMs: granting ? state.heardAtMs : state.lastGrantedMs,
  };
  return [next, sendEffects(due, beat, state, nowMs)];
}

/**
 * A grant was decided by the main loop, which may have seen less of the partner than we have, and is in force for its whole contact. Alone
 * we answer at the partner's addresses, so then only a guest has our word: one that says so after it has heard that we are alone. It
 * answers nowhere before it has heard more.
 */
function mayGrant({ mandate, partner }: BeatState): boolean {
  switch (mandate.mode) {
    case "joining":
    case "paired":
    case "leaving":
      return true;
    case "alone":
      return partner?.mode === "joining" && partner.answersTurn === mandate.turn;
    // Nothing is promised before we are on the coordinators, while we race, or when we have lost.
    case "starting":
    case "racing":
    case "out":
      return false;
    default:
      throw new Error(`beat: unknown mode ${String(mandate.mode)}`);
  }
}

/** Last words do not wait for the turn of their link. */
export function sayEverywhere(state: BeatState, nowMs: number): Step {
  return send(
    state,
    linkNames.filter((name) => state.links[name].present),
    nowMs,
  );
}

/** A message makes a beat five times longer: the slow serial line carries it only when the network does not. */
function sendEffects(
  due: readonly LinkName[],
  beat: Beat,
  state: BeatState,
  nowMs: number,
): BeatEffect[] {
  if (!beat.message || !due.includes("serial")) return [{ kind: "send", links: due, beat }];
  const network = linkColour("network", state.links.network, state.timing, nowMs);
  if (network === "red" || network === "absent") return [{ kind: "send", links: due, beat }];
  const others = due.filter((name) => name !== "serial");
  const { message: _message, ...short } = beat;
  const effects: BeatEffect[] = [{ kind: "send", links: ["serial"], beat: short }];
  if (others.length > 0) effects.push({ kind: "send", links: others, beat });
  return effects;
}
