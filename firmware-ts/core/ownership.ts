/**
 * Ownership of one data disk: an Exclusive Access – Registrants Only reservation under our key (SPC-4 5.9.10). Only the
 * owner is registered, so the disk itself refuses the partner's reads and writes alike.
 *
 *     registering ─▶ reading ─┬─ held by us ─────────────────────────────▶ owned
 *     (key of this epoch)     ├─ held by nobody ─▶ reserving ─▶ confirming ─▶ owned
 *                             └─ foreign keys ──▶ preempting ─▶ (reading again)
 *     our own key gone, or a foreign key of a *newer* epoch ──▶ refused
 *
 *     releasing ─▶ unregistering ─▶ free
 *
 * An answer is believed only when the disk says the same thing twice: a preemption is followed by another reading; whether a
 * reservation stands, attaching asks the disk (one READ FULL STATUS in the nexus of the I/O) before the first block is read, and
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
  | { readonly at: "readingKeys"; readonly pass: number }
  | {
      readonly at: "readingHolder";
      readonly pass: number;
      readonly foreign: readonly ReservationKey[];
    }
  | { readonly at: "preempting"; readonly pass: number }
  | { readonly at: "reserving"; readonly pass: number }
  | { readonly at: "confirming"; readonly pass: number }
  | { readonly at: "owned" }
  | { readonly at: "refused"; readonly reason: string; readonly newerEpoch?: number }
  | { readonly at: "failed"; readonly reason: string };

export type ClaimStep = readonly [Claim, ReservationCommand | undefined];

/** First command of a claim. */
export function startClaim(key: ReservationKey): ClaimStep {
  return [{ at: "registering" }, { op: "register", key }];
}

export function claimEnded(claim: Claim): boolean {
  return claim.at === "owned" || claim.at === "refused" || claim.at === "failed";
}

/** The next command after an answer; undefined when the claim has ended. */
export function claimAnswer(
  claim: Claim,
  key: ReservationKey,
  answer: ReservationAnswer,
): ClaimStep {
  if (claimEnded(claim)) return [claim, undefined];
  if (answer.status === "failed") return [{ at: "failed", reason: answer.reason }, undefined];
  if (answer.status === "conflict") {
    // SPC-4 5.9.11.4: our registration is gone, or the victim's; or somebody reserved first. The keys tell which.
    if (claim.at === "preempting" || claim.at === "reserving") return nextPass(claim.pass);
    return [{ at: "refused", reason: "the disk answered RESERVATION CONFLICT" }, undefined];
  }
  switch (claim.at) {
    case "registering":
      return [{ at: "readingKeys", pass: 1 }, { op: "readKeys" }];
    case "readingKeys":
      return afterKeys(claim.pass, key, answer);
    case "readingHolder":
      return afterHolder(claim.pass, claim.foreign, key, answer);
    case "preempting":
      return nextPass(claim.pass);
    case "reserving":
      return [{ at: "confirming", pass: claim.pass }, { op: "readKeys" }];
    case "confirming":
      return confirmed(claim.pass, key, answer);
    default:
      throw new Error(`claimAnswer: no answer is expected in ${claim.at}`);
  }
}

function nextPass(pass: number): ClaimStep {
  if (pass >= passesMax)
    return [{ at: "failed", reason: `still contested after ${pass} passes` }, undefined];
  return [{ at: "readingKeys", pass: pass + 1 }, { op: "readKeys" }];
}

/**
 * GOOD to a RESERVE: nobody held it, and now we do (SPC-4 5.9.9). Whoever registered since we looked could still read and write:
 * registrants are let through.
 */
function confirmed(pass: number, key: ReservationKey, answer: ReservationAnswer): ClaimStep {
  const isAlone = answer.status === "keys" && answer.keys.every((each) => each === key);
  if (isAlone && answer.keys.length > 0) return [{ at: "owned" }, undefined];
  return afterKeys(pass, key, answer);
}

function afterKeys(pass: number, key: ReservationKey, answer: ReservationAnswer): ClaimStep {
  if (answer.status !== "keys") return unexpected(answer);
  const mine = parseKey(key);
  if (!mine) throw new Error(`claim: ${key} is not a key of ours`);
  if (!answer.keys.includes(key))
    return [{ at: "refused", reason: "our registration was removed" }, undefined];
  const foreign = [...new Set(answer.keys.filter((each) => each !== key))];
  for (const each of foreign) {
    const owner = parseKey(each);
    if (!owner || owner.pairId !== mine.pairId)
      return [{ at: "refused", reason: `key ${each} belongs to another system` }, undefined];
    // SAFETY epochsOnlyRise: an executor with an older epoch is refused wherever it acts.
    // Two controllers at one epoch cannot both be right either.
    if (
      owner.epoch > mine.epoch ||
      (owner.epoch === mine.epoch && owner.controller !== mine.controller)
    )
      return [
        {
          at: "refused",
          reason: `controller ${owner.controller} holds epoch ${owner.epoch}`,
          newerEpoch: owner.epoch,
        },
        undefined,
      ];
  }
  return [{ at: "readingHolder", pass, foreign }, { op: "readReservation" }];
}

function afterHolder(
  pass: number,
  foreign: readonly ReservationKey[],
  key: ReservationKey,
  answer: ReservationAnswer,
): ClaimStep {
  if (answer.status !== "reservation") return unexpected(answer);
  const holder = answer.holder;
  const [victim] = holder && holder.key !== key ? [holder.key] : foreign;
  if (victim !== undefined)
    return [
      { at: "preempting", pass },
      { op: "preempt", key, victim, type },
    ];
  if (!holder)
    return [
      { at: "reserving", pass },
      { op: "reserve", key, type },
    ];
  if (holder.type !== type)
    return [
      { at: "failed", reason: `held with the wrong type of reservation: ${holder.type}` },
      undefined,
    ];
  return [{ at: "owned" }, undefined];
}

function unexpected(answer: ReservationAnswer): ClaimStep {
  return [{ at: "failed", reason: `unexpected answer: ${answer.status}` }, undefined];
}

/** Commands that give a disk back, in order. A conflict on the way means that it is no longer ours, which is as good. */
export function releaseCommands(key: ReservationKey): readonly ReservationCommand[] {
  return [{ op: "release", key, type }, { op: "unregister" }];
}

/** True when the disk, asked again, still says that we hold it. */
export function stillOwned(key: ReservationKey, answer: ReservationAnswer): boolean {
  return answer.status === "reservation" && answer.holder?.key === key;
}
