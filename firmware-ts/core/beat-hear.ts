/**
 * The beat machine hears: which life of the partner a frame is of, whether it is believed, and what follows from it for the view of the
 * partner, the lease on our gates, and the messages.
 */
import type { Beat, Mode } from "../schema/beat.ts";
import { type LinkName, linkNames } from "../schema/ids.ts";
import { renewGates } from "./beat-gates.ts";
import { lose } from "./beat-loss.ts";
import { type BeatState, join, nothing, observe, type Step, sentAt } from "./beat-state.ts";
import type { BeatEffect, LossReason } from "./beat-types.ts";
import { sameView, viewOf } from "./beat-view.ts";
import { type LinkState, type Links, linkOf, nobodyHeard, withLink } from "./links.ts";

/** Sessions of the partner that have ended; a frame of one is a replay. */
const retiredSessionsMax = 16;

/** Epochs only rise, and a beat is signed: an old one can teach us an epoch that was really in force, and nothing wrong. */
export function epochOf(state: BeatState, { epoch }: Beat): Step {
  if (epoch <= state.epochHeard) return [state, nothing];
  return [{ ...state, epochHeard: epoch }, [observe({ kind: "epoch", epoch })]];
}

export function frameIn(step: Step, link: LinkName, beat: Beat, nowMs: number): Step {
  return join(step, frame(step[0], link, beat, nowMs));
}

function frame(state: BeatState, link: LinkName, beat: Beat, nowMs: number): Step {
  if (isOver(state, beat)) return refuse(state, "session");
  const known = state.heard?.session === beat.session;
  if (known && beat.sequence <= linkOf(state.links, link).sequence) {
    // The disk keeps the last beat for ever: reading it again is no attack.
    return link === "disk" ? [state, nothing] : refuse(state, "replay");
  }
  const ackedAtMs = answeredAt(state, beat, nowMs);
  if (!known && ackedAtMs === undefined) return meet(state, beat, nowMs);
  // A frame of an earlier life that was long under way: it must not end the session that has answered as much or more.
  if (!known && beat.ack.sequence <= state.heardAck) return refuse(state, "stale");
  return accept(state, link, beat, ackedAtMs, nowMs);
}

/**
 * A session that has ended is believed no more. But an end can be a mistake: a late frame of the partner's last life, met before the new
 * life had answered as much, passes for a life newer still. The living one answers what was said since, which no frame of a dead one
 * can. So once the session that took its place has answered such a thing, the end was no mistake: who still speaks is a life that was
 * left over, and its leases and last words would count as those of its successor. Whoever says last words or goodbye ends in any case.
 */
function isOver(state: BeatState, beat: Beat): boolean {
  const ended = state.retired.find((each) => each.session === beat.session);
  if (!ended) return false;
  const { ack, dyingGasp, goodbye } = beat;
  const isReplaced = state.heardAck > ended.sequence;
  const answers = ack.session === state.session && ack.sequence > ended.sequence;
  return isReplaced || dyingGasp || goodbye || !answers;
}

/** When we sent the beat that this one acknowledges; undefined when that is too long ago to prove anything, or was never. */
function answeredAt(state: BeatState, { ack }: Beat, nowMs: number): number | undefined {
  if (ack.session !== state.session) return undefined;
  const atMs = sentAt(state.sent, ack.sequence);
  // What we have sent is forgotten when we send: after a stall, what comes first is not.
  const isFresh = atMs !== undefined && nowMs - atMs <= state.timing.freshAckMs;
  return isFresh ? atMs : undefined;
}

function refuse(state: BeatState, reason: "replay" | "session" | "stale"): Step {
  return [state, [observe({ kind: "frameRefused", reason })]];
}

/**
 * A session that we do not know: it is acknowledged (as a receipt) so that it can prove itself, and not believed before it
 * has named a beat that we sent lately.
 */
function meet(state: BeatState, beat: Beat, nowMs: number): Step {
  // Whatever the reason for the silence: a partner that restarted while we did not run is to be met at once.
  const silent = nobodyHeard(state.links, state.timing, nowMs);
  // While the known session speaks, a stranger must not steal the one acknowledgement that a beat has room for.
  if (state.heard && !silent) return refuse(state, "stale");
  return [{ ...state, candidate: { session: beat.session, sequence: beat.sequence } }, []];
}

function accept(
  state: BeatState,
  link: LinkName,
  beat: Beat,
  ackedAtMs: number | undefined,
  nowMs: number,
): Step {
  const isKnown = state.heard?.session === beat.session;
  let step: Step = isKnown ? [state, nothing] : newSession(state, beat);
  const isNewest = beat.sequence > (step[0].heard?.sequence ?? 0);
  const links = heardOn(step[0].links, link, beat.sequence, ackedAtMs !== undefined, nowMs);
  const doubtedSinceMs = ackedAtMs === undefined ? step[0].doubtedSinceMs : undefined;
  if (!isNewest)
    step = join(step, [{ ...step[0], links, candidate: undefined, doubtedSinceMs }, nothing]);
  else {
    step = join(step, believe(step[0], beat, { links, doubtedSinceMs, ackedAtMs }, nowMs));
    step = join(step, renewGates(step[0], nowMs));
  }
  // After the partner is shown, so that the main loop knows whose message it is; a lost partner's is not taken. Nor is one that was said to
  // an earlier life of ours, or long ago: what it speaks of has ended, and whoever still means it repeats it in a beat that answers us.
  const isForUs = ackedAtMs !== undefined && isMeantStill(step[0], beat);
  return isForUs ? join(step, takeMessage(step[0], beat)) : step;
}

/**
 * A newer beat may have overtaken this one, and show that its sender has fallen out meanwhile and come back: whatever it promised before,
 * it has forgotten. Each time it comes back as a member its epoch is higher (models/transfer.pml, BUG_EARLIER_TURN).
 */
function isMeantStill({ partner }: BeatState, { mode, epoch }: Beat): boolean {
  return partner?.mode === mode && partner.epoch === epoch;
}

/** A beat that answers nothing which we said lately shows no living link: it is old, or the way works in one direction only. */
function heardOn(
  links: Links,
  name: LinkName,
  sequence: number,
  fresh: boolean,
  nowMs: number,
): Links {
  const { present, carrier, lastHeardMs, stalledMs } = linkOf(links, name);
  const link: LinkState = fresh
    ? { present, carrier, lastHeardMs: nowMs, stalledMs: 0, sequence }
    : { present, carrier, lastHeardMs, stalledMs, sequence };
  return withLink(links, name, link);
}

/** Same process, new session: whatever the partner's last session held is lost, and said so before the new one is shown. */
function newSession(state: BeatState, beat: Beat): Step {
  const [next, effects]: Step = state.partner ? lose(state, "restarted") : [state, nothing];
  const others = next.retired.filter((each) => each.session !== beat.session);
  const ended = next.heard && { session: next.heard.session, sequence: next.sequence };
  const retired = ended ? [...others, ended] : others;
  const links = { ...next.links };
  for (const name of linkNames) links[name] = { ...links[name], sequence: 0 };
  const met: BeatState = {
    ...next,
    links,
    heard: { session: beat.session, sequence: 0 },
    heardAck: 0,
    candidate: undefined,
    messageSeen: 0,
    messageAcked: 0,
    retired: retired.slice(-retiredSessionsMax),
  };
  return [met, effects];
}

function takeMessage(state: BeatState, beat: Beat): Step {
  let { messageSeen, messageAcked } = state;
  const { message } = beat;
  const isNew = message !== undefined && message.id > messageSeen;
  const isAcked = beat.messageAck > messageAcked;
  if (!isNew && !isAcked) return [state, nothing];
  const effects: BeatEffect[] = [];
  if (isNew) {
    messageSeen = message.id;
    effects.push(observe({ kind: "message", id: messageSeen, body: message.body }));
  }
  if (isAcked) {
    messageAcked = beat.messageAck;
    effects.push(observe({ kind: "messageAcked", id: messageAcked }));
  }
  return [{ ...state, messageSeen, messageAcked }, effects];
}

/** What a beat shows by having come, whatever it says: its link, and the end of a doubt. */
interface Heard {
  readonly links: Links;
  readonly doubtedSinceMs: number | undefined;
  readonly ackedAtMs: number | undefined;
}

/** The newest word of the partner: how it is, and how long our gates may live. One copy of the state for all that follows from it. */
function believe(
  state: BeatState,
  beat: Beat,
  { links, doubtedSinceMs, ackedAtMs }: Heard,
  nowMs: number,
): Step {
  const leaseMs =
    beat.granting && ackedAtMs !== undefined
      ? Math.max(state.ackLeaseMs, ackedAtMs + state.timing.gateTimeoutMs)
      : state.ackLeaseMs;
  const heard = { session: beat.session, sequence: beat.sequence };
  const heardAck =
    ackedAtMs === undefined ? state.heardAck : Math.max(state.heardAck, beat.ack.sequence);
  const { mandate, partner, turnFirst } = state;
  const ending = endOf(beat, state);
  // A contact begins with an answer to what we said lately: so both ways are open, and the beat is no old one.
  if (ending || (!partner && ackedAtMs === undefined)) {
    const next: BeatState = {
      ...state,
      links,
      candidate: undefined,
      doubtedSinceMs,
      heard,
      heardAtMs: nowMs,
      heardAck,
      ackLeaseMs: leaseMs,
    };
    return ending && partner ? lose(next, ending) : [next, nothing];
  }
  const answersTurn = heardAck >= turnFirst ? mandate.turn : (partner?.answersTurn ?? 0);
  const view = viewOf(beat, state.contact, answersTurn);
  const believed: BeatState = {
    ...state,
    links,
    candidate: undefined,
    doubtedSinceMs,
    heard,
    heardAtMs: nowMs,
    heardAck,
    ackLeaseMs: leaseMs,
    partner: view,
    pairedHeardAtMs: view.mode === "alone" ? undefined : (state.pairedHeardAtMs ?? nowMs),
  };
  const changed = !partner || !sameView(partner, view);
  return [believed, changed ? [observe({ kind: "partner", view })] : nothing];
}

/** Modes in which a controller may hold something of the pair; from these it cannot become a guest but by losing. */
const member: readonly Mode[] = ["paired", "racing", "alone", "leaving"];

/** A partner that says so itself is lost at once, whatever its links show. */
function endOf(beat: Beat, state: BeatState): LossReason | undefined {
  if (beat.goodbye) return "goodbye";
  if (beat.dyingGasp) return "dyingGasp";
  if (beat.mode === "out" || beat.mode === "starting") return "restarted";
  if (beat.mode === "joining" && state.partner && member.includes(state.partner.mode))
    return "restarted";
  if (beat.progressAgeMs >= state.timing.progressTimeoutMs) return "stalled";
  return undefined;
}
