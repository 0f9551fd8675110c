/**
 * Ownership of one data disk: an Exclusive Access – Registrants Only reservation under our key (SPC-4 5.9.10). Only the
 * owner is registered, so the disk itself refuses the partner's reads and writes alike.
 *
 *     registering ─▶ ┬─ held by us, nobody else registered ─▶ owned
 *     (key of this   ├─ held by nobody, nobody registered ─▶ reserving ─▶ (judged again)
 *      epoch)        └─ foreign keys ─▶ preempting ─▶ (judged again)
 *     our own key gone, or a foreign key of a *newer* epoch ─▶ refused
 *     a key of another system ─▶ withdrawing (our key) ─▶ refused
 *
 *     releasing ─▶ unregistering ─▶ free
 *
 * Each command that changes something is sent together with two that read keys and holder behind it, and what was read is judged when all
 * three are answered: an outage waits for each turn. That a controller's commands for one disk are performed in this order is promised by
 * `Disks.reserve` of hal/port. The two readings need not be of one moment: who holds it and is not among the keys came in between, and both are read
 * again. What a reservation or a preemption has brought about is read behind it; whether it stands, attaching asks the disk (one READ FULL
 * STATUS in the nexus of the I/O) before the first block is read, and the virtual server's last step asks again behind the open gate.
 */
import type {
  ReservationAnswer,
  ReservationCommand,
  ReservationKey,
} from "../schema/reservation.ts";
import { parseKey } from "./keys.ts";

const type = "exclusiveAccessRegistrantsOnly";

/** Passes before a claim gives up, of which each reserves, preempts or reads again; each preemption removes at least one foreign key. */
const passesMax = 8;

export type Claim =
  | {
      readonly at: "registering" | "reading" | "preempting" | "reserving";
      /** How many of `passesMax` have begun. */
      readonly pass: number;
      readonly heard: Heard;
    }
  | { readonly at: "owned" }
  /** The disk is another system's: nothing of ours stays there. */
  | { readonly at: "withdrawing"; readonly reason: string }
  | { readonly at: "refused"; readonly reason: string; readonly newerEpoch?: number }
  | { readonly at: "failed"; readonly reason: string };

type Asking = Extract<Claim, { readonly heard: Heard }>;

type Ended = Extract<Claim, { readonly at: "owned" | "refused" | "failed" }>;

/** What has been answered of the commands that were sent together. The answers may come in any order, and tell themselves apart. */
interface Heard {
  /** To the command that changes something; there is none while `reading`. */
  readonly change?: "good" | "conflict";
  readonly keys?: KeysRead;
  readonly held?: HolderRead;
}

type KeysRead = Extract<ReservationAnswer, { status: "keys" }>;
type HolderRead = Extract<ReservationAnswer, { status: "reservation" }>;

/** The claim, and the commands to send; none while an answer is still to come, and when it has ended. */
export type ClaimStep = readonly [Claim, readonly ReservationCommand[]];

/** The first commands of a claim. */
export function startClaim(key: ReservationKey): ClaimStep {
  return ask("registering", 0, { op: "register", key });
}

export function claimEnded(claim: Claim): claim is Ended {
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
  // SPC-4 5.9.11.4: our registration is gone, or the victim's; or somebody reserved first. The keys behind it tell which.
  const mayConflict = claim.at === "preempting" || claim.at === "reserving";
  if (answer.status === "conflict" && !mayConflict)
    return [{ at: "refused", reason: "the disk answered RESERVATION CONFLICT" }, []];
  const heard = withAnswer(claim, answer);
  if (!heard) return [{ at: "failed", reason: `unexpected answer: ${answer.status}` }, []];
  const { keys, held, change } = heard;
  if (!keys || !held || (claim.at !== "reading" && !change)) return [{ ...claim, heard }, []];
  return judge(claim.pass, key, keys, held);
}

/** Undefined for an answer to a command that was not sent, or was answered. */
function withAnswer({ at, heard }: Asking, answer: ReservationAnswer): Heard | undefined {
  switch (answer.status) {
    case "keys":
      return heard.keys ? undefined : { ...heard, keys: answer };
    case "reservation":
      return heard.held ? undefined : { ...heard, held: answer };
    case "good":
    case "conflict":
      if (at === "reading" || heard.change) return undefined;
      return { ...heard, change: answer.status };
    default:
      return undefined;
  }
}

function ask(at: Asking["at"], pass: number, change?: ReservationCommand): ClaimStep {
  const readings = [{ op: "readKeys" }, { op: "readReservation" }] as const;
  return [{ at, pass, heard: {} }, change ? [change, ...readings] : readings];
}

/** One pass more, if there may be one. */
function nextPass(at: Asking["at"], pass: number, change?: ReservationCommand): ClaimStep {
  if (pass < passesMax) return ask(at, pass + 1, change);
  return [{ at: "failed", reason: `still contested after ${pass} passes` }, []];
}

function judge(pass: number, key: ReservationKey, keys: KeysRead, held: HolderRead): ClaimStep {
  const foreign = [...new Set(keys.keys.filter((each) => each !== key))];
  const stranger = strangerAmong(key, foreign);
  if (stranger !== undefined) return withdraw(key, stranger, held);
  const objection = objectionTo(key, keys, foreign);
  return objection ? [objection, []] : decide(pass, key, foreign, held);
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

/**
 * Owned is what is held under our key while nobody else is registered: registrants are let through (SPC-4 5.9.10).
 * Whoever registers later is judged by what his own readings show.
 */
function decide(
  pass: number,
  key: ReservationKey,
  foreign: readonly ReservationKey[],
  { holder }: HolderRead,
): ClaimStep {
  // SAFETY epochsOnlyRise: whoever registered and reserved between the two readings has not been judged yet.
  if (holder && holder.key !== key && !foreign.includes(holder.key))
    return nextPass("reading", pass);
  const [victim] = holder && holder.key !== key ? [holder.key] : foreign;
  if (victim !== undefined)
    return nextPass("preempting", pass, { op: "preempt", key, victim, type });
  if (!holder) return nextPass("reserving", pass, { op: "reserve", key, type });
  if (holder.type !== type) {
    const reason = `held with the wrong type of reservation: ${holder.type}`;
    return [{ at: "failed", reason }, []];
  }
  return [{ at: "owned" }, []];
}

/** Commands that give a disk back, in order. A conflict on the way means that it is no longer ours, which is as good. */
export function releaseCommands(key: ReservationKey): readonly ReservationCommand[] {
  return [{ op: "release", key, type }, { op: "unregister" }];
}

/** True when the disk, asked again, still says that we hold it. */
export function stillOwned(key: ReservationKey, answer: ReservationAnswer): boolean {
  return answer.status === "reservation" && answer.holder?.key === key;
}
