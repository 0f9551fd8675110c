/**
 * The beat machine: decides, frame by frame, whether the partner lives, what may be acknowledged, and how long the
 * kernel may keep our own addresses open. It runs in a process of its own with real-time priority; the main
 * loop tells it what to say (mandate) and which gates to keep, and learns of changes by observations.
 *
 *     frame ─▶ session known? ──no──▶ answered, not believed, until it acknowledges *our* session (a replay cannot)
 *                  │yes
 *                  ▼
 *              newer than all before ─▶ partner view, lease on our gates (if the partner grants), messages
 *
 *     silent on all links / stalled / dying gasp / goodbye / restarted ─▶ partnerLost, and nothing granted from then on
 *     silent on all links, and so were we ─▶ nothing granted, judged again (core/beat-silence)
 *
 * Safety (docs/SAFETY.md): `lastGrantedMs` is the receive time of the newest beat that any acknowledgement of ours with
 * `granting` named. The partner renews its gates to the *send* time of that beat plus gateTimeout, so on our clock they
 * are closed at lastGrantedMs + gateTimeout + margin. That holds only because granting stops in the very step that
 * declares the loss.
 */
import type { Beat, Mode } from "../schema/beat.ts";
import { type LinkName, linkNames } from "../schema/ids.ts";
import {
  closeForGood,
  closeGates,
  gateOutcome,
  keepGates,
  openDue,
  queueOpen,
  renewGates,
} from "./beat-gates.ts";
import { judge, noteTick, stalledFor } from "./beat-silence.ts";
import {
  type BeatState,
  inTurn,
  join,
  keepSent,
  nothing,
  observe,
  type Part,
  type Step,
  sentAt,
} from "./beat-state.ts";
import type { BeatEffect, BeatEvent, LossReason, Mandate } from "./beat-types.ts";
import { sameView, viewOf } from "./beat-view.ts";
import {
  hasColours,
  type LinkState,
  linkColour,
  linkColours,
  linkOf,
  nobodyHeard,
  withLink,
} from "./links.ts";

/** Sessions of the partner that have ended; a frame of one is a replay. */
const retiredSessionsMax = 16;

/** "No bound is known": far beyond any clock, and still a number in the journal. */
const unknownBoundMs = Number.MAX_SAFE_INTEGER;

/** Commands of a main loop; one that was still on its way when the loop died must not undo the last words. */
const commands: readonly BeatEvent["kind"][] = [
  "mandate",
  "progress",
  "grant",
  "gateOpen",
  "gateKeep",
  "gateClose",
];

export function beatStep(state: BeatState, event: BeatEvent): Step {
  if (state.ending !== "no" && commands.includes(event.kind)) return [state, []];
  switch (event.kind) {
    case "tick":
      return tick(state, event.nowMs);
    case "frame":
      return frameIn(epochOf(state, event.beat), event.link, event.beat, event.nowMs);
    case "remnant":
      return epochOf(state, event.beat);
    case "carrier":
      return carrier(state, event.link, event.up, event.nowMs);
    case "written":
      return written(state, event);
    case "mandate":
      return mandate(state, event.mandate, event.nowMs);
    case "progress":
      return [{ ...state, progressAtMs: event.nowMs }, nothing];
    case "grant":
      // A grant that was on its way when its contact ended must not outlive the loss that it knows nothing of.
      if (!state.partner || event.contact !== state.contact) return [state, []];
      return [{ ...state, granting: event.on }, []];
    case "gateOpen": {
      const queued = queueOpen(state, event);
      return join(queued, openDue(queued[0], event.nowMs));
    }
    case "gateKeep": {
      const keeping = keepGates(state, event.addresses);
      return join(keeping, renewGates(keeping[0], event.nowMs));
    }
    case "gateClose":
      return closeGates(state, event.token, event.addresses);
    case "lastWords":
      return closeForGood(state);
    case "gateOutcome":
      return sealed(gateOutcome(state, event), state, event.nowMs);
    default:
      return unreachable(event);
  }
}

/** When the gates have just been closed for good, the beats say so at once. */
function sealed(step: Step, before: BeatState, nowMs: number): Step {
  if (step[0].ending === before.ending) return step;
  return join(step, sayEverywhere(step[0], nowMs));
}

function unreachable(event: never): never {
  throw new Error(`beatStep: unknown event ${JSON.stringify(event)}`);
}

/** What a tick looks at, in this order, after it has judged the silence. Most ticks find nothing to do. */
const tickParts = [sendDue, openDue, showSolo, showLinks];

function tick(state: BeatState, nowMs: number): Step {
  const stallMs = stalledFor(state, nowMs);
  const noted = noteTick(state, stallMs, nowMs);
  const judged = join([noted, nothing], judgeSilence(noted, stallMs, nowMs));
  return inTurn(judged, nowMs, tickParts);
}

/** Tells the main loop when the proof by the coordinators begins and ends. */
function showSolo(state: BeatState, nowMs: number): Part {
  const soloFresh = nowMs < state.soloLeaseMs;
  if (soloFresh === state.shown.soloFresh) return undefined;
  const next = { ...state, shown: { ...state.shown, soloFresh } };
  return [next, [observe({ kind: "solo", fresh: soloFresh })]];
}

/** Tells the main loop when a light changes, not at every beat. */
function showLinks(state: BeatState, nowMs: number): Part {
  const { links, timing, shown } = state;
  const diskReadable = links.disk.present && links.disk.carrier;
  if (shown.diskReadable === diskReadable && hasColours(shown.colours, links, timing, nowMs))
    return undefined;
  const colours = linkColours(links, timing, nowMs);
  const next = { ...state, shown: { ...shown, colours, diskReadable } };
  return [next, [observe({ kind: "links", colours, diskReadable })]];
}

function judgeSilence(state: BeatState, stallMs: number, nowMs: number): Part {
  if (!state.partner) return undefined;
  const verdict = judge(state, stallMs, nowMs);
  if (verdict === "heard") return undefined;
  if (verdict === "lost") return lose(state, "silent");
  return [{ ...state, doubtedSinceMs: state.doubtedSinceMs ?? nowMs }, nothing];
}

/** Ends the partner's session in our eyes: from here on nothing is granted. */
function lose(state: BeatState, reason: LossReason): Step {
  const soloBoundMs = soloBound(state);
  const next: BeatState = {
    ...state,
    contact: state.contact + 1,
    granting: false,
    partner: undefined,
    doubtedSinceMs: undefined,
    pairedHeardAtMs: undefined,
  };
  return [
    next,
    [
      observe({
        kind: "partnerLost",
        reason,
        lastGrantedMs: state.lastGrantedMs,
        soloBoundMs,
        leasedAtMs:
          state.ackLeaseMs > 0 ? state.ackLeaseMs - state.timing.gateTimeoutMs : undefined,
      }),
    ],
  ];
}

/**
 * A partner that was alone renews by its coordinator writes until it turns paired; what it renewed just before lives for
 * soloGateTimeout more. We learn of the turn when a beat says so, hence from that moment, and without one, from now on.
 */
function soloBound(state: BeatState): number {
  if (!state.partner) return 0;
  const turned = state.pairedHeardAtMs;
  if (turned === undefined) return unknownBoundMs;
  return turned + state.timing.soloSilentMs;
}

/** Sends one beat on every link that is due; all carry the same sequence number. */
function sendDue(state: BeatState, nowMs: number): Part {
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

function send(state: BeatState, due: readonly LinkName[], nowMs: number): Step {
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
    configuration: state.configuration,
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
function sayEverywhere(state: BeatState, nowMs: number): Step {
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

/** What the main loop says is heard by the partner now, not at the next tick: a transfer is made of such turns. */
function mandate(state: BeatState, said: Mandate, nowMs: number): Step {
  const turnFirst = said.turn === state.mandate.turn ? state.turnFirst : state.sequence + 1;
  const next = { ...state, mandate: said, turnFirst };
  const urgent = (["network", "serial"] as const).find((name) => state.links[name].present);
  const step: Step = urgent ? send(next, [urgent], nowMs) : [next, nothing];
  return join(step, renewGates(step[0], nowMs));
}

function carrier(state: BeatState, name: LinkName, up: boolean, nowMs: number): Step {
  if (state.links[name].carrier === up) return [state, []];
  const links = withLink(state.links, name, { ...state.links[name], carrier: up });
  const next: BeatState = { ...state, links };
  return join([next, nothing], showLinks(next, nowMs));
}

/** Epochs only rise, and a beat is signed: an old one can teach us an epoch that was really in force, and nothing wrong. */
function epochOf(state: BeatState, { epoch }: Beat): Step {
  if (epoch <= state.epochHeard) return [state, nothing];
  return [{ ...state, epochHeard: epoch }, [observe({ kind: "epoch", epoch })]];
}

function frameIn(step: Step, link: LinkName, beat: Beat, nowMs: number): Step {
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
 * can. Last words and goodbye are the exception: whoever says them ends, and may live beside its successor for a moment.
 */
function isOver(state: BeatState, beat: Beat): boolean {
  const ended = state.retired.find((each) => each.session === beat.session);
  if (!ended) return false;
  const { ack, dyingGasp, goodbye } = beat;
  return dyingGasp || goodbye || ack.session !== state.session || ack.sequence <= ended.sequence;
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
  const newest = step[0].heard?.sequence ?? 0;
  step = join(step, heardOn(step[0], link, beat.sequence, ackedAtMs !== undefined, nowMs));
  if (beat.sequence > newest) {
    step = join(step, believe(step[0], beat, ackedAtMs, nowMs));
    step = join(step, renewGates(step[0], nowMs));
  }
  // After the partner is shown, so that the main loop knows whose message it is; a lost partner's is not taken. Nor is one that was said to
  // an earlier life of ours, or long ago: what it speaks of has ended, and whoever still means it repeats it in a beat that answers us.
  const isForUs = step[0].partner !== undefined && ackedAtMs !== undefined;
  return isForUs ? join(step, takeMessage(step[0], beat)) : step;
}

/** A beat that answers nothing which we said lately shows no living link: it is old, or the way works in one direction only. */
function heardOn(
  state: BeatState,
  name: LinkName,
  sequence: number,
  fresh: boolean,
  nowMs: number,
): Step {
  const { present, carrier, lastHeardMs, stalledMs } = linkOf(state.links, name);
  const link: LinkState = fresh
    ? { present, carrier, lastHeardMs: nowMs, stalledMs: 0, sequence }
    : { present, carrier, lastHeardMs, stalledMs, sequence };
  const links = withLink(state.links, name, link);
  const doubtedSinceMs = fresh ? undefined : state.doubtedSinceMs;
  return [{ ...state, links, candidate: undefined, doubtedSinceMs }, nothing];
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

/** The newest word of the partner: how it is, and how long our gates may live. */
function believe(state: BeatState, beat: Beat, ackedAtMs: number | undefined, nowMs: number): Step {
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
    const next: BeatState = { ...state, heard, heardAtMs: nowMs, heardAck, ackLeaseMs: leaseMs };
    return ending && partner ? lose(next, ending) : [next, nothing];
  }
  const answersTurn = heardAck >= turnFirst ? mandate.turn : (partner?.answersTurn ?? 0);
  const view = viewOf(beat, state.contact, answersTurn);
  const believed: BeatState = {
    ...state,
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

/** A write that a majority of coordinators let through proves that nobody had preempted us when it was sent. */
function written(
  state: BeatState,
  event: { nowMs: number; sentAtMs: number; accepted: number; refused: number; total: number },
): Step {
  const majority = Math.floor(event.total / 2) + 1;
  if (event.refused >= majority)
    return [state, [observe({ kind: "soloRefused", sentAtMs: event.sentAtMs })]];
  if (event.accepted < majority) return [state, nothing];
  const soloLeaseMs = Math.max(state.soloLeaseMs, event.sentAtMs + state.timing.soloGateTimeoutMs);
  const next: BeatState = { ...state, soloLeaseMs };
  return join([next, nothing], renewGates(next, event.nowMs));
}
