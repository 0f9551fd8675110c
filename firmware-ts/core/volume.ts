/**
 * The common volume in the decisions: when it is read, what is taken over from it, and which records are written (docs/design/0027-common-volume.md).
 *
 * A record is never written but after a reading that began when the right to write it was here already: only then is it known to be newer than
 * every other. What is read counts by epoch, then generation, then owner, whatever we knew before.
 *
 *     the partner's fingerprint differs, or it says "changed" ─┐
 *     a start, a race that was won, a record to be written ────┴─▶ reading ─▶ newer definitions are adopted ─▶ records are written
 */

import {
  compareWritings,
  type Definition,
  type VolumeRecord,
  type VolumeView,
  type VolumeWritten,
} from "../schema/definition.ts";
import { isSame } from "../schema/definition-digest.ts";
import { type ControllerId, partnerOf } from "../schema/ids.ts";
import { explain, type Outcome } from "../schema/outcome.ts";
import {
  andThen,
  type ControllerState,
  isWriting,
  joinParts,
  none,
  nothing,
  type Part,
  partnerOwns,
  type Step,
  tell,
  waitsForTurn,
  withEntry,
} from "./controller-state.ts";
import type { Known, VolumeState, Writing } from "./definition-types.ts";
import { isDeleted, setDefinition } from "./definitions.ts";
import type { Effect } from "./effects.ts";
import { holdsServer } from "./mandate.ts";

/** What a reading and a writing may take: twice what the drivers give one disk. */
const limitMs = 1000;

/** Wait after a reading that came to nothing: a controller that starts waits for it as for its registration (core/join). */
const readAgainMs = 500;

/** First wait after a writing that came to nothing; doubles with each further one in a row. */
const againMs = 250;
const againMsMax = 5000;

/** A fingerprint that differs from ours for so long is no beat that was under way: the volume is read. The next reading for it waits twice as long. */
const differsMs = 100;
/** Readings for it after which the operator is told: by then what was being written is read. */
const differsToldAfter = 3;

/** Wait after a race that was won: a takeover of one virtual server is over by then. */
const readAfterLossMs = 500;

/**
 * Wait after a start: who serves is written down when clients have found their way, and for all that have started by then after one reading. A reading of
 * all numbers is a mebibyte and a half from three disks, which a start of the next one, or a client, would miss: while others wait for their turn, it
 * waits until a full second, so that one serves all that have started within one. (27 followed each other in a takeover of 32.)
 */
const recordAfterMs = 1000;
const endOfSecond = (timeMs: number) => Math.ceil(timeMs / 1000) * 1000;

/** Troubles that are remembered as told. */
const damagedMax = 64;

/** What nobody reads otherwise is read now and then: so a disk that was replaced gets its records. */
const rereadMs = 600_000;

export const newVolume: VolumeState = {
  known: {},
  tried: {},
  reserved: [],
  reading: undefined,
  begun: 0,
  done: 0,
  wanted: 0,
  isThorough: false,
  readsThoroughly: false,
  isUnsure: false,
  readAtMs: 0,
  againAtMs: 0,
  failures: 0,
  joinAfter: 0,
  differsAgainMs: undefined,
  differsCount: 0,
  writings: none,
  asked: none,
  damaged: [],
};

const noState = { mounts: [], routes: [], devices: [] };

const withVolume = (state: ControllerState, more: Partial<VolumeState>): ControllerState => ({
  ...state,
  volume: { ...state.volume, ...more },
});

const backOffMs = (failures: number) => Math.min(againMsMax, againMs * 2 ** (failures - 1));

/** Asks for a reading that begins from now on; gives its number. */
export function askReading(state: ControllerState): readonly [ControllerState, number] {
  const wanted = state.volume.begun + 1;
  return [withVolume(state, { wanted }), wanted];
}

/** Before it joins, a controller reads what was written while it was not there. */
export function readBeforeJoining(state: ControllerState): ControllerState {
  const [next, joinAfter] = askReading(state);
  return withVolume(next, { joinAfter, isUnsure: true });
}

/**
 * The partner is lost: what it has written last is read, what it had not finished, too. Nobody waits for that, and clients wait for what is taken
 * over: the reading begins a little later. That the partner knew something else is seen in its beats, and has been asked for (core/takeover).
 */
export function readAfterLoss(state: ControllerState, nowMs: number): ControllerState {
  const [next] = askReading(state);
  return withVolume(next, { isUnsure: true, againAtMs: nowMs + readAfterLossMs });
}

/**
 * A coordinator disk has registered us: what had been sent to it before is on it by now, or never will be. It is read; whoever is to ask all disks anyway
 * has not begun to.
 */
export function readAfterRegistering(state: ControllerState): ControllerState {
  if (state.volume.isUnsure) return state;
  const [next] = askReading(state);
  return withVolume(next, { isThorough: true });
}

/** Where a majority has answered, all are asked once more: a writing that was cut short may be on one disk alone, and would come to light at any later time. */
function lookFurther(state: ControllerState): ControllerState {
  if (!state.volume.isUnsure) return state;
  const [next] = askReading(state);
  return withVolume(next, { isUnsure: false, isThorough: true });
}

export function hasReadToJoin({ volume }: ControllerState): boolean {
  return volume.done >= volume.joinAfter;
}

/** Numbers are given away by one of the two each, so that both may create at the same time. */
export function giverOf(number: number): ControllerId {
  return number % 2 === 0 ? "a" : "b";
}

/** Who writes the record of a number that nobody claims. */
function keeperOf(state: ControllerState, number: number): ControllerId {
  const server = state.servers[number];
  return server && !isDeleted(server) ? server.definition.server.home : giverOf(number);
}

/** The record is ours to write in the pair. What was handed over is not, even where something of it is still being put away. */
function isOurs(state: ControllerState, number: number): boolean {
  const server = state.servers[number];
  const transfer = state.transfers[number];
  if (transfer?.role === "source" && transfer.at === "released") return false;
  if (server && holdsServer(state, server)) return true;
  return !partnerOwns(state, number) && keeperOf(state, number) === state.me;
}

/**
 * One controller at a time may write a number: alone, for all, with a fresh proof that nobody has preempted us; of a pair, the one that claims
 * it, and if nobody does, its home.
 */
export function mayWrite(state: ControllerState, number: number): boolean {
  if (state.volume.reserved.includes(number)) return false;
  if (state.mode === "alone") return state.soloFresh;
  return state.mode === "paired" && isOurs(state, number);
}

/** The controller at which a number can be changed. */
export function writerOf(state: ControllerState, number: number): ControllerId {
  if (state.mode === "alone" || isOurs(state, number)) return state.me;
  return partnerOf(state.me);
}

/** What a step looks at on the volume's account; most steps find nothing to do. */
export function volumeTick(state: ControllerState, nowMs: number): Part {
  let step = lookAtPartner(state, nowMs);
  step = joinParts(step, writeDue(step ? step[0] : state, nowMs));
  return joinParts(step, readDue(step ? step[0] : state, nowMs));
}

/** Two that differ do not pair, and a pair whose halves differ knows different things: whoever sees it reads until they agree. */
function lookAtPartner(state: ControllerState, nowMs: number): Part {
  const { partner, volume } = state;
  const isWaiting = volume.differsAgainMs !== undefined;
  if (!partner || partner.configuration === state.configuration) {
    const agreed = { differsAgainMs: undefined, differsCount: 0 };
    return isWaiting ? [withVolume(state, agreed), nothing] : undefined;
  }
  if (isWaiting) return readForPartner(state, nowMs);
  // A member hears of each change by a word of its partner; whoever is none yet has been told nothing.
  const differsAgainMs = nowMs + (state.mode === "paired" ? differsMs : 0);
  const seen = withVolume(state, { differsAgainMs });
  return readForPartner(seen, nowMs) ?? [seen, nothing];
}

function readForPartner(state: ControllerState, nowMs: number): Part {
  const { differsAgainMs, differsCount, wanted, done } = state.volume;
  if (differsAgainMs === undefined || nowMs < differsAgainMs || wanted > done) return undefined;
  const waitMs = Math.min(againMsMax, differsMs * 2 ** differsCount);
  const [next] = askReading(state);
  const count = differsCount + 1;
  // What only one disk has is not seen by whoever asks a majority without it.
  const isThorough = differsCount > 0;
  return [
    withVolume(next, { differsCount: count, differsAgainMs: nowMs + waitMs, isThorough }),
    count === differsToldAfter ? [tellDifference(state)] : nothing,
  ];
}

function tellDifference({ mode }: ControllerState): Effect {
  return mode === "paired"
    ? tell(
        "warning",
        "partner.configuration",
        "the partner knows other definitions of virtual servers; the common volume is read until both agree",
      )
    : tell(
        "error",
        "partner.configuration",
        "the partner's configuration differs in what both must agree on: no pair is made",
      );
}

function readDue(state: ControllerState, nowMs: number): Part {
  const { volume } = state;
  if (volume.reading !== undefined || nowMs < volume.againAtMs) return undefined;
  const isOld = volume.done > 0 && nowMs - volume.readAtMs >= rereadMs;
  if (volume.wanted <= volume.done && !isOld) return undefined;
  if (mayReadLater(state)) return undefined;
  const reading = volume.begun + 1;
  const token = `volume:read:${reading}`;
  const { isThorough } = volume;
  const begun = { reading, begun: reading, readAtMs: nowMs };
  const next = withVolume(state, { ...begun, readsThoroughly: isThorough, isThorough: false });
  return [next, [{ kind: "volumeRead", token, limitMs, isThorough }]];
}

/**
 * While virtual servers wait for their turn to start, clients wait for them, and for the processor time of a reading. A change, a join and a partner that knows
 * something else do not wait. Turns pass on by themselves (core/start-window), and so this ends.
 */
function mayReadLater(state: ControllerState): boolean {
  const { changes, volume } = state;
  if (changes !== none || volume.differsAgainMs !== undefined || !hasReadToJoin(state))
    return false;
  return state.servers.some(waitsForTurn);
}

/** What the disks say. */
export function volumeRead(
  state: ControllerState,
  token: string,
  outcome: Outcome<VolumeView>,
  nowMs: number,
): Step {
  const { reading, failures, readsThoroughly } = state.volume;
  if (reading === undefined || token !== `volume:read:${reading}`) return [state, nothing];
  if (!outcome.ok) {
    const why = explain(outcome.fault);
    const said = tell("warning", "volume.unreadable", `the common volume cannot be read: ${why}`);
    const againAtMs = nowMs + readAgainMs;
    // What was not found out is asked again in the same way.
    const isThorough = state.volume.isThorough || readsThoroughly;
    return [
      withVolume(state, { reading: undefined, failures: failures + 1, againAtMs, isThorough }),
      failures === 0 ? [said] : nothing,
    ];
  }
  const next = lookFurther(withVolume(state, { reading: undefined, done: reading, failures: 0 }));
  const said = tell("info", "volume.readable", "the common volume can be read again");
  const read: Step = [next, failures > 0 ? [said] : nothing];
  return andThen(read, (after) => takeView(after, outcome.value, nowMs));
}

function takeView(before: ControllerState, view: VolumeView, nowMs: number): Step {
  const { reserved } = view;
  // Each reading asks other disks: what was told of one is not told again.
  const news = view.damaged.filter((each) => !before.volume.damaged.includes(each));
  const damaged =
    news.length > 0
      ? [...before.volume.damaged, ...news].slice(-damagedMax)
      : before.volume.damaged;
  const said = tell("warning", "volume.damaged", `on the common volume: ${news.join("; ")}`);
  let step: Step = [withVolume(before, { reserved, damaged }), news.length > 0 ? [said] : nothing];
  for (const record of view.records) step = andThen(step, (state) => takeRecord(state, record));
  return andThen(step, (state) => [mendRecords(state, view, nowMs), nothing]);
}

function takeRecord(state: ControllerState, record: VolumeRecord): Step {
  const { definition, epoch, generation, owner, state: recorded } = record;
  const { number } = definition;
  const known = state.volume.known[number];
  const found: Known = { epoch, generation, owner, state: recorded };
  // What we have on its way to the disks says itself what becomes of it; and what is being undone is not taken for true meanwhile.
  if (isWriting(state, number) || (known && compareWritings(found, known) <= 0))
    return [state, nothing];
  const tried = state.changes[number] && state.volume.tried[number];
  if (tried && compareWritings(found, tried) <= 0) return [state, nothing];
  const next = withVolume(
    { ...state, epochSeen: Math.max(state.epochSeen, epoch) },
    { known: { ...state.volume.known, [number]: found } },
  );
  const held = next.servers[number]?.definition;
  return held && isSame(held, definition) ? [next, nothing] : setDefinition(next, definition);
}

/** Records of ours that too few disks hold, or none of those that were read. */
function mendRecords(before: ControllerState, view: VolumeView, nowMs: number): ControllerState {
  let state = before;
  const found = new Map(view.records.map((record) => [record.definition.number, record]));
  for (const { index } of before.servers) {
    const known = state.volume.known[index];
    const record = found.get(index);
    const isMissing = known !== undefined && (!record || compareWritings(record, known) < 0);
    if (!isMissing && !view.thin.includes(index)) continue;
    if (state.changes[index] || state.volume.writings[index] || !mayWrite(state, index)) continue;
    state = setWriting(state, index, wantedAt(nowMs));
  }
  return state;
}

/** A record of a number is to be written when it is due, or as soon after that as it may be. */
const wantedAt = (dueMs: number, failures = 0): Writing => ({
  why: "record",
  after: undefined,
  dueMs,
  failures,
});

/**
 * A virtual server has started: who serves it now, and since when, is written down, and nobody waits for it. What is written already stays: a start in
 * place, or a gate that was opened anew, is under the same epoch.
 */
export function recordStart(state: ControllerState, index: number, nowMs: number): ControllerState {
  if (state.changes[index] || isWriting(state, index)) return state;
  const known = state.volume.known[index];
  if (known?.owner === state.me && known.epoch >= state.epoch) return state;
  const dueMs = nowMs + recordAfterMs;
  const isOneOfMany = state.servers.some(waitsForTurn);
  return setWriting(state, index, wantedAt(isOneOfMany ? endOfSecond(dueMs) : dueMs));
}

export function setWriting(
  state: ControllerState,
  index: number,
  writing: Writing | undefined,
): ControllerState {
  return withVolume(state, { writings: withEntry(state.volume.writings, index, writing) });
}

/** Whatever waits to be written is not written any more; what the disks have is, by them. */
export function dropWritings(state: ControllerState): ControllerState {
  return withVolume(state, { writings: none, asked: none });
}

/** The partner has it: what we had to say of it is for the partner to say. */
export function dropWaiting(state: ControllerState, index: number): ControllerState {
  const writing = state.volume.writings[index];
  return writing && writing.token === undefined ? setWriting(state, index, undefined) : state;
}

function writeDue(state: ControllerState, nowMs: number): Part {
  if (state.volume.writings === none) return undefined;
  let step: Part;
  for (const key in state.volume.writings) {
    const index = Number(key);
    step = joinParts(step, writeOne(step ? step[0] : state, index, nowMs));
  }
  return step;
}

function writeOne(state: ControllerState, index: number, nowMs: number): Part {
  const writing = state.volume.writings[index];
  const server = state.servers[index];
  if (!writing || !server || writing.token !== undefined) return undefined;
  if (state.mode === "paired" && !isOurs(state, index)) return [dropWaiting(state, index), nothing];
  if (nowMs < writing.dueMs || !mayWrite(state, index)) return undefined;
  if (writing.after === undefined) {
    const [asked, after] = askReading(state);
    return [setWriting(asked, index, { ...writing, after }), nothing];
  }
  if (state.volume.done < writing.after) return undefined;
  return write(state, server.definition, writing.why);
}

/** Offers a definition to all coordinator disks, newer than everything that is known of its number. Whoever calls may write it. */
export function write(state: ControllerState, definition: Definition, why: Writing["why"]): Step {
  const { number } = definition;
  const { known, tried: triedBefore, writings } = state.volume;
  const before = [known[number], triedBefore[number]].filter((each) => each !== undefined);
  const stamp: Known = {
    // An earlier life may have written the next generation, on a disk that nobody has read since: its epoch was below what the partner has said since.
    epoch: Math.max(state.epoch, state.epochSeen, ...before.map(({ epoch }) => epoch)),
    generation: Math.max(0, ...before.map(({ generation }) => generation)) + 1,
    owner: state.me,
    state: known[number]?.state ?? noState,
  };
  const token = `volume:write:${number}:${stamp.generation}`;
  const tried = withVolume(state, { tried: { ...triedBefore, [number]: stamp } });
  const failures = writings[number]?.failures ?? 0;
  const next = setWriting(tried, number, { why, after: 0, dueMs: 0, failures, token });
  const record: VolumeRecord = { format: 1, ...stamp, definition };
  return [next, [{ kind: "volumeWrite", token, record, limitMs }]];
}

/** What became of a writing: whose it was, and whether a majority has it. */
export interface Ended {
  readonly number: number;
  readonly why: Writing["why"];
  readonly isStored: boolean;
  /** For the operator. */
  readonly how: string;
}

/** Which writing has ended; undefined when nobody waits for it any more. */
export function endOfWriting(
  { volume }: ControllerState,
  token: string,
  written: VolumeWritten,
): Ended | undefined {
  const number = Number(token.split(":")[2]);
  const writing = volume.writings[number];
  if (writing?.token !== token) return undefined;
  const { accepted, refused, overtaken, total } = written;
  const isStored = 2 * accepted > total;
  const others = [
    refused > 0 ? `, ${refused} refused it` : "",
    overtaken > 0 ? `, ${overtaken} hold a newer one` : "",
  ];
  const how = `${accepted} of ${total} coordinator disks took it${others.join("")}`;
  return { number, why: writing.why, isStored, how };
}

/** A majority has what was tried: from now on it is what holds. */
export function nowKnown(state: ControllerState, number: number): ControllerState {
  const { known, tried } = state.volume;
  const stored = tried[number];
  if (!stored) throw new Error(`volume: nothing was written of ${number}`);
  return withVolume(state, { known: { ...known, [number]: stored } });
}

/** A record of who serves, or one that was written again: repeated until a majority has it. */
export function recordEnded(before: ControllerState, ended: Ended, nowMs: number): Step {
  const { number, isStored, how } = ended;
  const state = isStored ? nowKnown(before, number) : before;
  const writing = state.volume.writings[number];
  const name = state.servers[number]?.definition.server.name ?? `#${number}`;
  const failures = writing?.failures ?? 0;
  if (isStored) {
    const said = tell("info", "volume.written", `the record of ${name} is on the common volume`);
    return [setWriting(state, number, undefined), failures > 0 ? [said] : nothing];
  }
  const said = tell(
    "warning",
    "volume.unwritten",
    `the record of ${name} is not on the common volume: ${how}; it is tried again`,
  );
  const next = wantedAt(nowMs + backOffMs(failures + 1), failures + 1);
  return [setWriting(state, number, next), failures === 0 ? [said] : nothing];
}
