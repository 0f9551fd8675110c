/**
 * Ownership of one data disk: an Exclusive Access – Registrants Only reservation under our key (SPC-4 5.9.10). Only the
 * owner is registered, so the disk itself refuses the partner's reads and writes alike.
 *
 *     registering ─▶ reading ─┬─ held by us ─────────────────────────────▶ owned
 *     (key of this epoch)     ├─ held by nobody ─▶ reserving ─▶ confirming ─▶ owned
 *                             └─ foreign keys ──▶ preempting ─▶ (reading again)
 *     our own key gone, or a foreign key of a *newer* epoch ──▶ refused
 *     a key of another system ──▶ withdrawing (our key) ──▶ refused
 *
 *     releasing ─▶ unregistering ─▶ free
 *
 * Keys and holder are read with two commands at once: a start waits for each turn, and even one after the other they are no picture of
 * one moment. An answer is believed only when the disk says the same thing twice: a preemption is followed by another reading;
 * whether a reservation stands, attaching asks the disk (one READ FULL STATUS in the nexus of the I/O) before the first block is read, and
 * the virtual server's last step asks again behind the open gate.
 */
import type {
  ReservationAnswer,
  ReservationCommand,
  ReservationKey,
} from "../schema/reservation.ts";
import { parseKey } from "./keys.ts";

const type = "exclusiveAccessRegistrantsOnly";

/** Passes of read and preempt before a claim gives up: each pass removes at least one foreign key. */
const passesMax = 8;

export type Claim =
  | { readonly at: "registering" }
  | {
      readonly at: "reading";
      readonly pass: number;
      /** What has been answered of the two. */
      readonly keys?: KeysRead;
      readonly held?: HolderRead;
    }
  | { readonly at: "preempting"; readonly pass: number }
  | { readonly at: "reserving"; readonly pass: number }
  | { readonly at: "confirming"; readonly pass: number }
  | { readonly at: "owned" }
  /** The disk is another system's: nothing of ours stays there. */
  | { readonly at: "withdrawing"; readonly reason: string }
  | { readonly at: "refused"; readonly reason: string; readonly newerEpoch?: number }
  | { readonly at: "failed"; readonly reason: string };

type KeysRead = Extract<ReservationAnswer, { status: "keys" }>;
type HolderRead = Extract<ReservationAnswer, { status: "reservation" }>;

/** The claim, and the commands to send; none while an answer is still to come, and when it has ended. */
export type ClaimStep = readonly [Claim, readonly ReservationCommand[]];

/** First command of a claim. */
export function startClaim(key: ReservationKey): ClaimStep {
  return [{ at: "registering" }, [{ op: "register", key }]];
}

export function claimEnded(claim: Claim): boolean {
  return claim.at === "owned" || claim.at === "refused" || claim.at === "failed";
}

/** The next commands after an answer. */
export function claimAnswer(
  claim: Claim,
  key: ReservationKey,
  answer: ReservationAnswer,
): ClaimStep {
  if (claimEnded(claim)) return [claim, []];
  // Whatever the disk says to that, there is nothing more that we could do.
  if (claim.at === "withdrawing") return [{ at: "refused", reason: claim.reason }, []];
  if (answer.status === "failed") return [{ at: "failed", reason: answer.reason }, []];
  if (answer.status === "conflict") {
    // SPC-4 5.9.11.4: our registration is gone, or the victim's; or somebody reserved first. The keys tell which.
    if (claim.at === "preempting" || claim.at === "reserving") return nextPass(claim.pass);
    return [{ at: "refused", reason: "the disk answered RESERVATION CONFLICT" }, []];
  }
  switch (claim.at) {
    case "registering":
      return read(1);
    case "reading":
      return afterReading(claim, key, answer);
    case "preempting":
      return nextPass(claim.pass);
    case "reserving":
      return [{ at: "confirming", pass: claim.pass }, [{ op: "readKeys" }]];
    case "confirming":
      return confirmed(claim.pass, key, answer);
    default:
      throw new Error(`claimAnswer: no answer is expected in ${claim.at}`);
  }
}

function read(pass: number): ClaimStep {
  return [{ at: "reading", pass }, [{ op: "readKeys" }, { op: "readReservation" }]];
}

function nextPass(pass: number): ClaimStep {
  if (pass >= passesMax)
    return [{ at: "failed", reason: `still contested after ${pass} passes` }, []];
  return read(pass + 1);
}

/**
 * GOOD to a RESERVE: nobody held it, and now we do (SPC-4 5.9.9). Whoever registered since we looked could still read and write:
 * registrants are let through.
 */
function confirmed(pass: number, key: ReservationKey, answer: ReservationAnswer): ClaimStep {
  if (answer.status !== "keys") return unexpected(answer);
  const isAlone = answer.keys.length > 0 && answer.keys.every((each) => each === key);
  return isAlone ? [{ at: "owned" }, []] : nextPass(pass);
}

/** The answers to the two commands may come in any order, and tell themselves apart. */
function afterReading(
  claim: Extract<Claim, { at: "reading" }>,
  key: ReservationKey,
  answer: ReservationAnswer,
): ClaimStep {
  if (answer.status !== "keys" && answer.status !== "reservation") return unexpected(answer);
  const keys = answer.status === "keys" ? answer : claim.keys;
  const held = answer.status === "reservation" ? answer : claim.held;
  if (!keys || !held) {
    const known = { ...(keys ? { keys } : {}), ...(held ? { held } : {}) };
    return [{ at: "reading", pass: claim.pass, ...known }, []];
  }
  const foreign = [...new Set(keys.keys.filter((each) => each !== key))];
  const stranger = strangerAmong(key, foreign);
  if (stranger !== undefined) return withdraw(key, stranger, held);
  const objection = objectionTo(key, keys, foreign);
  return objection ? [objection, []] : decide(claim.pass, key, foreign, held);
}

function strangerAmong(
  key: ReservationKey,
  foreign: readonly ReservationKey[],
): ReservationKey | undefined {
  const mine = parseKey(key);
  return foreign.find((each) => parseKey(each)?.pairId !== mine?.pairId);
}

/**
 * Who registers is let through by the disk, and is a stranger to its owner in turn: a key of ours that stayed there would keep that system
 * from its own disk. But what we hold ourselves, from an earlier life, stays reserved: the other's key came after ours then.
 */
function withdraw(
  key: ReservationKey,
  stranger: ReservationKey,
  { holder }: HolderRead,
): ClaimStep {
  const reason = `key ${stranger} belongs to another system`;
  if (holder?.key === key) return [{ at: "refused", reason }, []];
  return [{ at: "withdrawing", reason }, [{ op: "unregister" }]];
}

/** Why the disk is not ours to take. */
function objectionTo(
  key: ReservationKey,
  { keys }: KeysRead,
  foreign: readonly ReservationKey[],
): Claim | undefined {
  const mine = parseKey(key);
  if (!mine) throw new Error(`claim: ${key} is not a key of ours`);
  if (!keys.includes(key)) return { at: "refused", reason: "our registration was removed" };
  for (const each of foreign) {
    const owner = parseKey(each);
    if (!owner) throw new Error(`claim: ${each} is not a key of this pair`);
    // SAFETY epochsOnlyRise: an executor with an older epoch is refused wherever it acts.
    // Two controllers at one epoch cannot both be right either: a foreign key of our epoch is the other controller's.
    if (owner.epoch >= mine.epoch)
      return {
        at: "refused",
        reason: `controller ${owner.controller} holds epoch ${owner.epoch}`,
        newerEpoch: owner.epoch,
      };
  }
  return undefined;
}

function decide(
  pass: number,
  key: ReservationKey,
  foreign: readonly ReservationKey[],
  { holder }: HolderRead,
): ClaimStep {
  // SAFETY epochsOnlyRise: whoever registered and reserved between the two readings has not been judged yet.
  if (holder && holder.key !== key && !foreign.includes(holder.key)) return nextPass(pass);
  const [victim] = holder && holder.key !== key ? [holder.key] : foreign;
  if (victim !== undefined)
    return [{ at: "preempting", pass }, [{ op: "preempt", key, victim, type }]];
  if (!holder) return [{ at: "reserving", pass }, [{ op: "reserve", key, type }]];
  if (holder.type !== type) {
    const reason = `held with the wrong type of reservation: ${holder.type}`;
    return [{ at: "failed", reason }, []];
  }
  return [{ at: "owned" }, []];
}

function unexpected(answer: ReservationAnswer): ClaimStep {
  return [{ at: "failed", reason: `unexpected answer: ${answer.status}` }, []];
}

/** Commands that give a disk back, in order. A conflict on the way means that it is no longer ours, which is as good. */
export function releaseCommands(key: ReservationKey): readonly ReservationCommand[] {
  return [{ op: "release", key, type }, { op: "unregister" }];
}

/** True when the disk, asked again, still says that we hold it. */
export function stillOwned(key: ReservationKey, answer: ReservationAnswer): boolean {
  return answer.status === "reservation" && answer.holder?.key === key;
}
