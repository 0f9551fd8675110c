/**
 * A controller's side of the witness, for one volume: what to ask when, and what the answers prove. Events in, the next question out; the
 * caller carries it to the witness (hal/port/witness) and brings back what came of it.
 *
 * What the caller owes (docs/design/0040-witness.md, "What the mirror owes"):
 * - `settled` is wanted only while both copies are in sync at that base, and neither controller holds a right to continue alone any more;
 * - `alone` is wanted only for a copy that is consistent and not outdated, with its current generation as the base;
 * - a proof is used by making `next` the copy's durable generation, before the first write is acknowledged.
 */
import type { ControllerId } from "../../schema/ids.ts";
import { partnerOf } from "../../schema/ids.ts";
import { explain, type Outcome } from "../../schema/outcome.ts";
import type { WitnessAnswer, WitnessRecord, WitnessRequest } from "../../schema/witness.ts";

export type Want =
  | { readonly kind: "nothing" }
  /** The witness shall be ready to grant from this base. */
  | { readonly kind: "settled"; readonly base: string }
  /** To continue from `base` without the partner, as `next`, in the promotion `epoch`. */
  | {
      readonly kind: "alone";
      readonly base: string;
      readonly next: string;
      readonly epoch: number;
    };

export type RefusedWhy =
  | "heldByPartner"
  | "unregistered"
  | "otherBase"
  | "otherWitness" // another identity than the one that is stored with the volume
  | "wentBack" // it has forgotten what it had said: its state was restored from an older copy
  | "spentBase" // the wanted generation was granted from before: an old copy has been put back
  | "full";

export type Verdict =
  | { readonly kind: "idle" }
  /** Not known: nothing may be concluded from it. */
  | { readonly kind: "unknown"; readonly reason: string }
  /** The witness grants from the wanted base to whoever asks first. */
  | { readonly kind: "ready" }
  /** The wanted base was granted to `by`, who did not use it; only `by` could continue alone. A new generation mends that. */
  | { readonly kind: "spent"; readonly by: ControllerId }
  /** SAFETY: the partner is refused for this base, now and for ever. */
  | {
      readonly kind: "proof";
      readonly base: string;
      readonly next: string;
      readonly version: number;
    }
  | { readonly kind: "refused"; readonly why: RefusedWhy };

export interface WitnessClient {
  readonly me: ControllerId;
  readonly witness: string;
  readonly volume: string;
  readonly want: Want;
  readonly verdict: Verdict;
  /** What is known of the record: null, there is none; undefined, it has to be looked at. */
  readonly record: WitnessRecord | null | undefined;
  /** The record was told since the present want or the last pause: good enough for a verdict. An older one is good for a question. */
  readonly fresh: boolean;
  /** The highest version that was ever seen; kept with the volume, it also notices what went back while this controller was down. */
  readonly seenVersion: number;
  /** It has gone back once: whatever it says from then on proves nothing. */
  readonly wentBack: boolean;
  readonly asked: { readonly id: number; readonly request: WitnessRequest } | undefined;
  readonly lastAskId: number;
  /** Failures in a row, and questions without a pause in a row. */
  readonly failures: number;
  readonly hurried: number;
  /** A `tick` at or after this time asks again. Absent: nothing to wait for. */
  readonly wakeAtMs: number | undefined;
}

export type WitnessEvent =
  | { readonly kind: "want"; readonly want: Want; readonly nowMs: number }
  | {
      readonly kind: "answer";
      readonly id: number;
      readonly outcome: Outcome<WitnessAnswer>;
      readonly nowMs: number;
    }
  | { readonly kind: "tick"; readonly nowMs: number };

export interface Step {
  readonly client: WitnessClient;
  readonly ask?: {
    readonly id: number;
    readonly request: WitnessRequest;
    readonly deadlineMs: number;
  };
}

/** How long one question may take, ms; the port ends it. */
export const askDeadlineMs = 1000;
/** Pauses after failures, ms; the last one from then on. */
export const retryPausesMs = [100, 200, 400, 800, 1600, 3200, 5000] as const;
/** Between two looks when it is the partner's turn, ms; and when nothing is to be done: a refusal, or all as it should be. */
export const turnPauseMs = 1000;
export const watchPauseMs = 10_000;
/** So many answers in a row may each lead to the next question at once; a witness that contradicts itself is not asked in a loop. */
export const hurriedMax = 8;

/** `seenVersion`: as it was kept with the volume, 0 for a volume that this witness is new to. */
export function startWitnessClient(
  me: ControllerId,
  witness: string,
  volume: string,
  seenVersion = 0,
): WitnessClient {
  return {
    me,
    witness,
    volume,
    want: { kind: "nothing" },
    verdict: { kind: "idle" },
    record: undefined,
    fresh: false,
    seenVersion,
    wentBack: false,
    asked: undefined,
    lastAskId: 0,
    failures: 0,
    hurried: 0,
    wakeAtMs: undefined,
  };
}

/** One event. Times are of one monotonic clock. Late answers, of a question that was given up, change nothing. */
export function stepWitnessClient(client: WitnessClient, event: WitnessEvent): Step {
  switch (event.kind) {
    case "want":
      return wanted(client, event.want, event.nowMs);
    case "answer":
      if (client.asked?.id !== event.id) return { client };
      return event.outcome.ok
        ? answered(client, client.asked.request, event.outcome.value, event.nowMs)
        : failedToAsk(client, explain(event.outcome.fault), event.nowMs);
    case "tick":
      if (client.wakeAtMs === undefined || event.nowMs < client.wakeAtMs) return { client };
      // Whatever was known has had time to change.
      return proceed({ ...client, record: undefined, fresh: false, hurried: 0 }, event.nowMs);
  }
}

/** The question may have taken effect all the same: the record has to be looked at. */
function failedToAsk(client: WitnessClient, reason: string, nowMs: number): Step {
  const { failures } = client;
  const pauseMs = retryPausesMs[Math.min(failures, retryPausesMs.length - 1)] ?? watchPauseMs;
  const next = { ...client, record: undefined, failures: failures + 1 };
  return settle(next, { kind: "unknown", reason }, nowMs + pauseMs);
}

function wanted(client: WitnessClient, want: Want, nowMs: number): Step {
  // A question of the old want may have taken effect, and nobody will hear the answer: the record has to be looked at.
  const record = client.asked === undefined ? client.record : undefined;
  const next = { ...client, want, record, fresh: false, failures: 0, hurried: 0 };
  if (want.kind === "nothing") return settle(next, { kind: "idle" }, undefined);
  return proceed({ ...next, verdict: { kind: "unknown", reason: "not answered yet" } }, nowMs);
}

function answered(
  client: WitnessClient,
  request: WitnessRequest,
  { witness, result, record }: WitnessAnswer,
  nowMs: number,
): Step {
  if (witness !== client.witness || result === "otherWitness")
    return watching({ ...client, record: undefined }, refused("otherWitness"), nowMs);
  const version = record?.version ?? 0;
  if (version < client.seenVersion)
    return settle({ ...client, wentBack: true }, refused("wentBack"), undefined);
  const known = { ...client, record, fresh: true, seenVersion: version, failures: 0 };
  if (result === "full" || result === "spentBase") return watching(known, refused(result), nowMs);
  if (request.kind === "claim" && result === "done") return proven(known, request, record, nowMs);
  if (known.hurried >= hurriedMax) return watching(known, contradiction, nowMs);
  return proceed({ ...known, hurried: known.hurried + 1 }, nowMs);
}

/** SAFETY: what was granted is checked against what was asked; a witness that answers something else proves nothing. */
function proven(
  client: WitnessClient,
  { base, next, version }: Extract<WitnessRequest, { kind: "claim" }>,
  record: WitnessRecord | null,
  nowMs: number,
): Step {
  const standing = record?.standing;
  if (
    standing?.kind !== "held" ||
    standing.by !== client.me ||
    standing.next !== next ||
    record?.base !== base ||
    record.version !== version + 1
  )
    return watching(client, contradiction, nowMs);
  return settle(client, { kind: "proof", base, next, version: record.version }, undefined);
}

/** Goes on from what is known: the next question, or a verdict. */
function proceed(client: WitnessClient, nowMs: number): Step {
  if (client.wentBack) return settle(client, refused("wentBack"), undefined);
  const { witness, volume } = client;
  const planned = nextMove(client);
  const move =
    planned.kind === "verdict" && !client.fresh ? ask({ kind: "look", witness, volume }) : planned;
  if (move.kind === "verdict")
    return settle(client, move.verdict, nowMs + (move.pauseMs ?? watchPauseMs));
  const id = client.lastAskId + 1;
  return {
    client: {
      ...client,
      asked: { id, request: move.request },
      lastAskId: id,
      wakeAtMs: undefined,
    },
    ask: { id, request: move.request, deadlineMs: askDeadlineMs },
  };
}

function watching(client: WitnessClient, verdict: Verdict, nowMs: number): Step {
  return settle(client, verdict, nowMs + watchPauseMs);
}

function settle(client: WitnessClient, verdict: Verdict, wakeAtMs: number | undefined): Step {
  return { client: { ...client, asked: undefined, verdict, wakeAtMs } };
}

const contradiction: Verdict = { kind: "unknown", reason: "the witness contradicts itself" };
const refused = (why: RefusedWhy): Verdict => ({ kind: "refused", why });

type Move =
  | { readonly kind: "ask"; readonly request: WitnessRequest }
  | { readonly kind: "verdict"; readonly verdict: Verdict; readonly pauseMs?: number };

const ask = (request: WitnessRequest): Move => ({ kind: "ask", request });
const say = (verdict: Verdict): Move => ({ kind: "verdict", verdict });
const awaitPartner = (reason: string): Move => ({
  kind: "verdict",
  verdict: { kind: "unknown", reason },
  pauseMs: turnPauseMs,
});

function nextMove(client: WitnessClient): Move {
  const { want, record, witness, volume } = client;
  if (record === undefined) return ask({ kind: "look", witness, volume });
  switch (want.kind) {
    case "nothing":
      return say({ kind: "idle" });
    case "settled":
      return settledMove(client, want.base, record);
    case "alone":
      return aloneMove(client, want, record);
  }
}

function settledMove(client: WitnessClient, base: string, record: WitnessRecord | null): Move {
  const { me: side, witness, volume } = client;
  const standing = record?.standing;
  if (record === null || standing === undefined || standing.kind === "proposed") {
    if (standing?.kind === "proposed" && standing.by === side && record?.base === base)
      return awaitPartner("the partner has not registered the volume at this witness yet");
    const version = record?.version ?? 0;
    return ask({ kind: "register", witness, volume, side, base, version });
  }
  if (record.base === base)
    return say(standing.kind === "free" ? { kind: "ready" } : { kind: "spent", by: standing.by });
  // Only the holder knows that it has stopped continuing alone.
  if (standing.kind === "held" && standing.by === partnerOf(side))
    return awaitPartner("the partner has not released its grant yet");
  return ask(releaseOf(client, record, base));
}

function aloneMove(
  client: WitnessClient,
  { base, next, epoch }: Extract<Want, { kind: "alone" }>,
  record: WitnessRecord | null,
): Move {
  const { me: side, witness, volume } = client;
  if (record === null || record.standing.kind === "proposed") return say(refused("unregistered"));
  const { standing, version } = record;
  if (standing.kind === "held" && standing.by === partnerOf(side))
    return say(refused("heldByPartner"));
  if (record.base === base)
    return ask({ kind: "claim", witness, volume, side, base, version, next, epoch });
  // In sync again, and lost again before the release came through. That our base is the later one, the register itself shows:
  // it is what we said we would continue as. Of any other base that cannot be told, and an old copy must not lead the register back.
  if (standing.kind === "held" && standing.next === base)
    return ask(releaseOf(client, record, base));
  return say(refused("otherBase"));
}

function releaseOf(client: WitnessClient, record: WitnessRecord, to: string): WitnessRequest {
  const { me: side, witness, volume } = client;
  const { base, version } = record;
  return { kind: "release", witness, volume, side, base, to, version };
}
