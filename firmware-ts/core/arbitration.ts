/**
 * Arbitration on the coordinator disks: whoever preempts the partner's keys on a majority survives (Veritas' coordinator
 * disks; SAFETY: the race needs no clock). All disks are read in parallel and preempted in one order, the same on both sides.
 *
 *     reading ──own key gone──────────────▶ lost        (somebody preempted us here)
 *      ▲ │  └──partner has no key─────────▶ won
 *      │ ▼
 *      │ ready  (for its turn)
 *      │ ▼
 *     preempting ──GOOD, no key left──────▶ won
 *      └──────────RESERVATION CONFLICT                  (our registration went, or the victim's: read again)
 *     any ──error or deadline─────────────▶ failed      (counts for nobody)
 *
 * PREEMPT is atomic on a disk and fails for a nexus that is no longer registered (SPC-4 5.9.11.4), so two racers never
 * both win one disk. It fails as well when the victim's key is gone (a partner that restarts registers under another key, a
 * repeated command finds its work done): only what the disk says next tells the two apart.
 *
 * Why in order: with one disk dead, two racers that preempt in parallel may win one of the two others each, and then both stop.
 * In order, whoever loses a disk knows that the other is ahead, and leaves the later ones to it for a while.
 */
import { type ControllerId, partnerOf } from "../schema/ids.ts";
import type { ReservationAnswer, ReservationKey } from "../schema/reservation.ts";
import type { Effect } from "./effects.ts";
import { parseKey } from "./keys.ts";

/** A disk that has not answered a command for this long is not waited for by those after it. */
const slowMs = 10;

/** Head start of the partner where it has won an earlier disk: longer than a slow disk may hold it up, ticks included. */
const behindMs = 30;

/** Readings of one disk before it counts for nobody: each conflict means that somebody changed a key meanwhile. */
const readingsMax = 4;

type Stage =
  | { readonly at: "reading"; readonly pass: number; readonly askedMs: number }
  | {
      readonly at: "ready" | "preempting";
      readonly pass: number;
      readonly askedMs: number;
      readonly victims: readonly ReservationKey[];
    }
  | { readonly at: "won" }
  | { readonly at: "lost"; readonly sinceMs: number }
  | { readonly at: "failed"; readonly reason: string };

export interface Race {
  readonly id: number;
  readonly me: ControllerId;
  readonly pairId: number;
  /** The key under which we are registered on every coordinator. */
  readonly key: ReservationKey;
  readonly startedMs: number;
  readonly deadlineMs: number;
  readonly disks: Readonly<Record<string, Stage>>;
  /** Highest epoch seen in any key of the pair. */
  readonly epochSeen: number;
}

export type Verdict = "pending" | "won" | "lost";

export interface RaceSetup {
  readonly id: number;
  readonly me: ControllerId;
  readonly pairId: number;
  readonly key: ReservationKey;
  readonly coordinators: readonly string[];
  readonly nowMs: number;
  readonly timeoutMs: number;
}

type Step = readonly [Race, readonly Effect[]];

export function startRace(setup: RaceSetup): Step {
  if (setup.coordinators.length % 2 === 0)
    throw new Error("startRace: an even number of coordinators has no majority in a tie");
  const disks: Record<string, Stage> = {};
  // Sorted: the order in the configuration need not be the same on both controllers.
  for (const serial of setup.coordinators.toSorted())
    disks[serial] = { at: "reading", pass: 1, askedMs: setup.nowMs };
  const race: Race = {
    id: setup.id,
    me: setup.me,
    pairId: setup.pairId,
    key: setup.key,
    startedMs: setup.nowMs,
    deadlineMs: setup.nowMs + setup.timeoutMs,
    disks,
    epochSeen: parseKey(setup.key)?.epoch ?? 0,
  };
  return [race, setup.coordinators.map((serial) => ask(race, serial, { op: "readKeys" }))];
}

function ask(
  race: Race,
  serial: string,
  command: Extract<Effect, { kind: "reserve" }>["command"],
): Effect {
  const deadlineMs = race.deadlineMs - race.startedMs;
  return { kind: "reserve", token: raceToken(race, serial), serial, command, deadlineMs };
}

function raceToken(race: Race, serial: string): string {
  return `race:${race.id}:${serial}`;
}

/** The disk that a token of this race names; undefined for any other token (an older race's, for instance). */
export function raceDisk(race: Race, token: string): string | undefined {
  return Object.keys(race.disks).find((serial) => raceToken(race, serial) === token);
}

export function raceAnswer(
  race: Race,
  serial: string,
  answer: ReservationAnswer,
  nowMs: number,
): Step {
  const stage = race.disks[serial];
  if (!stage) throw new Error(`raceAnswer: ${serial} is not in this race`);
  const [next, effects] = answered(race, serial, stage, answer, nowMs);
  const [after, more] = raceTurns(next, nowMs);
  return [after, [...effects, ...more]];
}

function answered(
  race: Race,
  serial: string,
  stage: Stage,
  answer: ReservationAnswer,
  nowMs: number,
): Step {
  switch (stage.at) {
    case "reading":
      return [afterKeys(race, serial, stage, answer, nowMs), []];
    case "preempting":
      return afterPreempt(race, serial, stage, answer, nowMs);
    default:
      return [race, []]; // an answer that came after the deadline changes nothing
  }
}

/** Preempts where it is our turn. Called after each answer and with time, because a slow disk holds the others up for a while. */
export function raceTurns(race: Race, nowMs: number): Step {
  let next = race;
  const effects: Effect[] = [];
  for (const [serial, stage] of Object.entries(race.disks)) {
    if (stage.at !== "ready" || !isTurn(next, serial, nowMs)) continue;
    const [after, more] = preemptNext(next, serial, stage, nowMs);
    next = after;
    effects.push(...more);
  }
  return [next, effects];
}

function isTurn(race: Race, serial: string, nowMs: number): boolean {
  const order = Object.keys(race.disks);
  const earlier = order.slice(0, order.indexOf(serial)).map((each) => race.disks[each]);
  const verdict = raceVerdict(race);
  // Once a majority is won nobody is raced against: the partner's key goes from the remaining disks too.
  if (verdict !== "pending") return verdict === "won";
  return !earlier.some((stage) => stage && holdsUp(stage, nowMs));
}

/** Whether a disk makes those after it wait. */
function holdsUp(stage: Stage, nowMs: number): boolean {
  switch (stage.at) {
    case "reading":
    case "preempting":
      return nowMs - stage.askedMs < slowMs;
    case "ready":
      return true;
    case "lost":
      return nowMs - stage.sinceMs < behindMs;
    case "won":
    case "failed":
      return false;
    default:
      throw new Error(`race: unknown stage ${JSON.stringify(stage)}`);
  }
}

function set(race: Race, serial: string, stage: Stage): Race {
  return { ...race, disks: { ...race.disks, [serial]: stage } };
}

function afterKeys(
  race: Race,
  serial: string,
  { pass, askedMs }: Extract<Stage, { at: "reading" }>,
  answer: ReservationAnswer,
  nowMs: number,
): Race {
  if (answer.status !== "keys")
    return set(race, serial, { at: "failed", reason: describe(answer) });
  const partner = partnerOf(race.me);
  const owners = answer.keys.map((key) => ({ key, owner: parseKey(key) }));
  const ours = owners.filter(({ owner }) => owner?.pairId === race.pairId);
  const epochSeen = Math.max(race.epochSeen, ...ours.map(({ owner }) => owner?.epoch ?? 0));
  const next = { ...race, epochSeen };
  if (!answer.keys.includes(race.key)) return set(next, serial, { at: "lost", sinceMs: nowMs });
  const victims = [
    ...new Set(ours.filter((o) => o.owner?.controller === partner).map((o) => o.key)),
  ];
  if (victims.length === 0) return set(next, serial, { at: "won" });
  return set(next, serial, { at: "ready", pass, askedMs, victims });
}

/** Preempts the next victim on a disk; won when none is left. */
function preemptNext(
  race: Race,
  serial: string,
  { pass, victims }: Extract<Stage, { readonly victims: unknown }>,
  nowMs: number,
): Step {
  const [victim] = victims;
  if (victim === undefined) return [set(race, serial, { at: "won" }), []];
  const command = {
    op: "preempt",
    key: race.key,
    victim,
    type: "writeExclusiveAllRegistrants",
  } as const;
  const stage: Stage = { at: "preempting", pass, askedMs: nowMs, victims };
  return [set(race, serial, stage), [ask(race, serial, command)]];
}

function afterPreempt(
  race: Race,
  serial: string,
  stage: Extract<Stage, { readonly victims: unknown }>,
  answer: ReservationAnswer,
  nowMs: number,
): Step {
  const { pass, victims } = stage;
  if (answer.status === "good")
    return preemptNext(race, serial, { ...stage, victims: victims.slice(1) }, nowMs);
  if (answer.status === "conflict") {
    if (pass >= readingsMax)
      return [set(race, serial, { at: "failed", reason: "its keys keep changing" }), []];
    const again = set(race, serial, { at: "reading", pass: pass + 1, askedMs: nowMs });
    return [again, [ask(race, serial, { op: "readKeys" })]];
  }
  return [set(race, serial, { at: "failed", reason: describe(answer) }), []];
}

function describe(answer: ReservationAnswer): string {
  return answer.status === "failed" ? answer.reason : `unexpected answer: ${answer.status}`;
}

/** Disks that did not answer in time count for nobody. */
export function raceDeadline(race: Race, nowMs: number): Race {
  if (nowMs < race.deadlineMs) return race;
  let next = race;
  for (const [serial, stage] of Object.entries(race.disks))
    if (isOpen(stage)) next = set(next, serial, { at: "failed", reason: "no answer in time" });
  return next;
}

function isOpen(stage: Stage): boolean {
  return stage.at === "reading" || stage.at === "ready" || stage.at === "preempting";
}

/** Won as soon as a majority is won; lost as soon as a majority can no longer be won. */
export function raceVerdict(race: Race): Verdict {
  const stages = Object.values(race.disks);
  const majority = Math.floor(stages.length / 2) + 1;
  const won = stages.filter((stage) => stage.at === "won").length;
  if (won >= majority) return "won";
  const open = stages.filter(isOpen).length;
  return won + open >= majority ? "pending" : "lost";
}

/** Disk by disk, for the event that tells the operator how the race went. */
export function raceSummary(race: Race): Record<string, string> {
  const entries = Object.entries(race.disks).map(([serial, stage]) => [
    serial,
    stage.at === "failed" ? `failed: ${stage.reason}` : stage.at,
  ]);
  return Object.fromEntries(entries) as Record<string, string>;
}
