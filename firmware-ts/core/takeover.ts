/**
 * Takeover: from the loss of the partner to the decision to serve what it served.
 *
 *     partnerLost ─▶ racing: PREEMPT on all coordinator disks
 *         majority ─▶ alone: new epoch, kept on disk first; then every virtual server that is not ours starts here,
 *                     in parallel, each beginning with PREEMPT AND ABORT on its disks; addresses open no earlier than
 *                     `openNotBefore`
 *         no majority ─▶ out: gates close first, then everything is abandoned, then we start over as a guest
 *
 * US 7,124,171 claim 1 (failover routine): the second server executes the same steps as the first did.
 */

import type { ReservationAnswer } from "../schema/reservation.ts";
import {
  raceAnswer,
  raceDeadline,
  raceDisk,
  raceSummary,
  raceTurns,
  raceVerdict,
  startRace,
} from "./arbitration.ts";
import type { LossReason } from "./beat-types.ts";
import { dropChanges } from "./change.ts";
import {
  andThen,
  type ControllerState,
  dataKey,
  dropOutbox,
  none,
  ownsServer,
  type Part,
  replaceServer,
  type Step,
  serverContext,
  setMode,
  setTransfer,
  tell,
} from "./controller-state.ts";
import { mayStart } from "./definitions.ts";
import type { Effect } from "./effects.ts";
import { forgetRegistrations } from "./join.ts";
import { hasRoomForClaim } from "./start-window.ts";
import { askReading, readAfterLoss, readBeforeJoining } from "./volume.ts";
import { startServer } from "./vserver.ts";
import { stopServer } from "./vserver-stop.ts";

const lossText: Readonly<Record<LossReason, string>> = {
  silent: "it is silent on every link",
  stalled: "its main loop makes no progress",
  dyingGasp: "its main process is gone, it says with closed gates",
  goodbye: "it said goodbye",
  restarted: "it has restarted",
};

/** The partner is gone, for a reason that the beat machine gives; nothing is granted to it any more. */
export function partnerLost(
  state: ControllerState,
  loss: NonNullable<ControllerState["loss"]>,
  nowMs: number,
): Step {
  // Only a pair's loss bounds the partner's gates. A partner that a guest had heard, racing or saying goodbye, may win and serve
  // alone before the guest races; and one that is heard again during a race is lost with that race, for which no new bound is known.
  const ofPair = state.mode === "paired" || (state.mode === "racing" && state.loss !== undefined);
  // What it has written and we do not know yet may be a stop: that is not left for later.
  const knewOther = state.partner && state.partner.configuration !== state.configuration;
  const asking = knewOther ? askReading(state)[0] : state;
  let next: ControllerState = {
    ...dropOutbox(asking),
    partner: undefined,
    queuedMoves: [],
    loss: ofPair ? loss : undefined,
    quietSinceMs: nowMs,
    // Whoever comes next has read what it asked about.
    volume: { ...asking.volume, asked: none },
  };
  // A promise of the lost partner is void; whatever is half-way here goes on or is taken over below.
  for (const index of Object.keys(state.transfers))
    next = setTransfer(next, Number(index), undefined);
  const lost: Step = [
    next,
    [tell("warning", "partner.lost", `the partner is lost: ${lossText[loss.reason]}`, { ...loss })],
  ];
  if (state.mode !== "paired") return lost;
  return andThen(lost, (after) =>
    beginRace(after, nowMs, `the partner is lost: ${lossText[loss.reason]}`),
  );
}

/** Starts the race; registrations that are too young take no part (see core/join). */
export function beginRace(state: ControllerState, nowMs: number, why: string): Step {
  const round = state.round + 1;
  const [race, asks] = startRace({
    id: round,
    me: state.me,
    pairId: state.config.pair.id,
    key: state.coordinatorKey,
    coordinators: state.config.shelf.coordinators,
    nowMs,
    timeoutMs: state.timing.raceTimeoutMs,
  });
  const step = setMode({ ...state, round, race }, "racing", nowMs, why);
  return [step[0], [...step[1], ...asks]];
}

/**
 * A registration counts when no race of the partner can have counted the disk without it. In a race for a lost partner that means: the
 * partner gave us a lease on a beat that we sent afterwards, so it had not lost us then, and whatever it begins later finds our key. Age
 * does not show it, because a registration also becomes old in a controller that is frozen between its registration and its loss
 * (models/arbitration.pml, BUG_UNPROVED); nor is it needed. A guest that hears nobody has no such lease, and counts on time: a race of
 * the partner that began before two races ago has ended, and a partner that won one would be heard.
 */
function tooYoung(state: ControllerState, serial: string, startedMs: number): boolean {
  const registration = state.registrations[serial];
  if (registration?.at !== "registered") return true;
  const { loss } = state;
  if (loss) return registration.sinceMs > (loss.leasedAtMs ?? Number.NEGATIVE_INFINITY);
  return startedMs - registration.sinceMs < 2 * state.timing.raceTimeoutMs;
}

/** An answer for the race; tokens of older races are ignored. */
export function takeoverReserved(
  state: ControllerState,
  token: string,
  answer: ReservationAnswer,
  nowMs: number,
): Step {
  if (state.mode !== "racing" || !state.race) return [state, []];
  // An answer that waited here while we slept is as late as one that was long on its way: by now the loser may be back.
  const running = raceDeadline(state.race, nowMs);
  const serial = raceDisk(running, token);
  if (serial === undefined) return [state, []];
  const [race, effects] = tooYoung(state, serial, running.startedMs)
    ? raceAnswer(running, serial, { status: "failed", reason: "registered too lately" }, nowMs)
    : raceAnswer(running, serial, answer, nowMs);
  return andThen([{ ...state, race }, effects], (next) => judgeRace(next, nowMs));
}

export function racingTick(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "racing" || !state.race) return undefined;
  const [race, effects] = raceTurns(raceDeadline(state.race, nowMs), nowMs);
  if (race === state.race) return undefined;
  return andThen([{ ...state, race }, effects], (next) => judgeRace(next, nowMs));
}

function judgeRace(state: ControllerState, nowMs: number): Step {
  const { race } = state;
  if (!race) throw new Error("judgeRace: no race");
  const verdict = raceVerdict(race);
  const disks = raceSummary(race);
  switch (verdict) {
    case "pending":
      return [state, []];
    case "lost":
      return goOut(
        { ...state, race: undefined },
        nowMs,
        "the race for the coordinator disks is lost",
        {
          disks,
        },
      );
    case "won":
      return andThen(win(state, race.epochSeen, nowMs), (next) => [
        next,
        [tell("warning", "race.won", "a majority of the coordinator disks is ours", { disks })],
      ]);
    default:
      throw new Error(`judgeRace: unknown verdict ${String(verdict)}`);
  }
}

/** The partner may have raised its epoch once more than we heard: it goes one step above what it knows of us. */
const unheardEpochs = 1;

/**
 * A new epoch, remembered before anything is done under it; then every server that is not ours. What the partner may have written last is
 * read when that is well under way: nobody waits for it.
 */
function win(state: ControllerState, epochInKeys: number, nowMs: number): Step {
  const epoch = Math.max(state.epoch, state.epochSeen, epochInKeys) + unheardEpochs + 1;
  const risen: ControllerState = {
    ...readAfterLoss(state, nowMs),
    race: undefined,
    epoch,
    epochSeen: epoch,
  };
  const persisted: Step = [risen, [{ kind: "persist", record: { version: 1, epoch } }]];
  return andThen(persisted, (next) =>
    andThen(setMode(next, "alone", nowMs, `arbitration won, epoch ${epoch}`), (after) =>
      takeAll(after, nowMs),
    ),
  );
}

/**
 * When the partner's addresses may be opened, on our clock (SAFETY, core/timing). Goodbye and last words: now, because both are
 * said by a life that has closed its gates for good. Otherwise its gates end gateTimeout after the last beat that we granted, or, if it may have been alone, soloGateTimeout after our preempt.
 */
export function openNotBefore(state: ControllerState, nowMs: number): number {
  const { loss, timing } = state;
  if (loss?.reason === "goodbye" || loss?.reason === "dyingGasp") return nowMs;
  const soloEndMs = nowMs + timing.soloSilentMs;
  if (!loss) return soloEndMs;
  const ackEndMs =
    loss.lastGrantedMs === undefined ? 0 : loss.lastGrantedMs + timing.partnerSilentMs;
  // No later than from this moment: whatever the partner was, our preempt has ended by now.
  return Math.max(ackEndMs, Math.min(loss.soloBoundMs, soloEndMs), nowMs);
}

function takeAll(state: ControllerState, nowMs: number): Step {
  const notBeforeMs = openNotBefore(state, nowMs);
  let step: Step = [{ ...state, openNotBeforeMs: notBeforeMs }, []];
  for (const server of state.servers) {
    if (server.phase.kind !== "off") continue;
    step = andThen(step, (next) =>
      mayStart(next, server) ? takeServer(next, server.index, notBeforeMs, nowMs) : [next, []],
    );
  }
  return step;
}

/**
 * Starts one virtual server here, under an epoch above all that we know of: the partner may not have been able to release the
 * disks (path lost), or an earlier attempt met a newer key. Whoever calls has just seen the authority for it: a race won,
 * the partner's word, or a coordinator majority that still lets our beats through; and has asked whether it may be started at all.
 */
export function takeServer(
  before: ControllerState,
  index: number,
  notBeforeMs: number,
  nowMs: number,
): Step {
  const server = before.servers[index];
  if (!server) throw new Error(`takeServer: no virtual server ${index}`);
  if (!mayStart(before, server))
    throw new Error(`takeServer: ${server.config.name} is not to be started here`);
  const theirs = before.partner?.epoch ?? 0;
  const raised = before.epochSeen > before.epoch || theirs >= before.epoch;
  const epoch = raised ? Math.max(before.epochSeen, theirs) + 1 : before.epoch;
  const state = { ...before, epoch, epochSeen: epoch };
  const persist: Effect[] = raised ? [{ kind: "persist", record: { version: 1, epoch } }] : [];
  const [next, effects] = startServer(
    server,
    dataKey(state),
    notBeforeMs,
    serverContext(state, nowMs),
    !hasRoomForClaim(before, nowMs),
  );
  const waitMs = Math.max(0, Math.round(notBeforeMs - nowMs));
  const said = tell("info", "vserver.starting", `${server.config.name} starts here`, {
    virtualServer: server.config.name,
    epoch: state.epoch,
    addressWaitMs: waitMs,
  });
  return [replaceServer(state, next), [...persist, said, ...effects]];
}

/** We lost, or a disk says so: silence first, clean up second, and nothing is released that is no longer ours. */
export function goOut(
  state: ControllerState,
  nowMs: number,
  why: string,
  detail?: Readonly<Record<string, unknown>>,
): Step {
  if (state.mode === "out" || state.mode === "leaving") return [state, []];
  let next: ControllerState = {
    ...dropOutbox(state),
    race: undefined,
    queuedMoves: [],
    outReason: why,
    parts: withoutResumes(state.parts),
  };
  for (const index of Object.keys(state.transfers))
    next = setTransfer(next, Number(index), undefined);
  let step = andThen(setMode(next, "out", nowMs, why), (after) => [
    after,
    detail ? [tell("error", "controller.fenced", why, detail)] : [],
  ]);
  step = andThen(step, (after) => dropChanges(after, "this controller has fallen out", false));
  for (const server of state.servers) {
    step = andThen(step, (after) => {
      const current = after.servers[server.index];
      if (!current) return [after, []];
      const [stopped, effects] = stopServer(current, "fenced", true, serverContext(after, nowMs));
      return [replaceServer(after, stopped), effects];
    });
  }
  return step;
}

/** What was stopped here for its change is the partner's now. */
function withoutResumes(parts: ControllerState["parts"]): ControllerState["parts"] {
  if (parts === none) return parts;
  const entries = Object.entries(parts).map(([key, each]) => [key, { ...each, isResumed: false }]);
  return Object.fromEntries(entries);
}

/** Out ends when nothing is left here; then we start over, as a guest that owns nothing. */
export function outTick(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "out" || state.servers.some(ownsServer)) return undefined;
  const servers = state.servers.map((server) => ({ ...server, phase: { kind: "off" } as const }));
  const epoch = Math.max(state.epoch, state.epochSeen);
  // The partner, if it is heard, stays: it is not shown again before something about it changes. How it was lost does not:
  // it may have won since, and then its gates live on another proof than the one that the loss speaks of.
  const guest = { ...state, servers, epoch, loss: undefined };
  const next = forgetRegistrations({ ...guest, coordinatorKey: dataKey(guest) });
  return setMode(
    readBeforeJoining(next),
    "starting",
    nowMs,
    "everything left behind is cleaned up",
  );
}
