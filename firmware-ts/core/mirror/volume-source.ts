/**
 * The side of a resync that gives, step by step:
 *
 *     asked      the partner is to write down that it is being overwritten           (until it has, it might be promoted)
 *     ready      it has
 *     opening    the way to its replica
 *     fetching   what it has written that we have not: its active extents, its bits
 *     fetched    we write down the bits, what they count against, and the generation that it is filled with
 *     copying    until no bit is left, then writes are held                          (copied)
 *     finishing  written down that the partner may have all of it                    (from here on both must have each write)
 *     finished   told
 *     settled    the partner has written it down; the bitmap counts against nothing
 *
 * Whatever breaks before `finished` costs nothing: we are sole, and the bits that are left say what is left.
 */
import type { GenerationId, ReplicaMetadata, Verdict } from "../../schema/mirror.ts";
import { continueAlone, countAgainst, demote, finish, reclaim, settled } from "./generations.ts";
import { closeLeg, openLeg, save, theirsOf, verdictOf } from "./volume-state.ts";
import type { Giving, Merge, MirrorState, MirrorStep, Rule } from "./volume-types.ts";

type Resync = Extract<Verdict, { kind: "resync" }>;

/** Begins, if it is on us, and if nobody else can have our generation. Otherwise that has to be proved first (core/mirror/volume-promote). */
export const beginGiving: Rule = (state, fresh) => {
  const { disk, contact, sync } = state;
  const theirs = theirsOf(state);
  if (
    sync ||
    state.legFailure !== undefined ||
    !contact ||
    !disk?.current ||
    !theirs ||
    contact.isDeparting
  )
    return undefined;
  const verdict = verdictOf(state);
  if (verdict?.kind !== "resync" || verdict.source !== "mine") return undefined;
  // Both are written to already, and a primary is always marked as one.
  if (state.role === "primary" && state.leg === "open" && theirs.isComplete) return undefined;
  if (disk.isSole) return ask(state, contact.id, disk.current, verdict, fresh);
  if (isFilledByUs(disk, theirs)) return save(state, reclaim(disk), "nothing");
  if (theirs.current === disk.current) return ask(state, contact.id, fresh, verdict, fresh);
  return undefined;
};

/** The partner's own word, in this contact, that its copy of what we have is incomplete. */
function isFilledByUs(disk: ReplicaMetadata, theirs: ReplicaMetadata): boolean {
  const isOurs = theirs.current === disk.current || theirs.replacedBy === disk.current;
  return !theirs.isComplete && isOurs;
}

function ask(
  state: MirrorState,
  contact: string,
  from: GenerationId,
  { how }: Resync,
  fresh: GenerationId,
): MirrorStep {
  const sync: Giving = { side: "source", from, how, at: "asked" };
  const as = how === "full" ? fresh : undefined;
  return [{ ...state, sync }, [{ kind: "tell", contact, word: { kind: "beTarget", from, as } }]];
}

/** The partner has written it down, and lets us in. */
export const openToTarget: Rule = (state) => {
  const { sync } = state;
  if (sync?.side !== "source" || sync.at !== "ready") return undefined;
  const { from } = sync;
  // What is open still was opened under what the partner had before, and was cut by it.
  const [closed, effects] = closeLeg(state);
  const [next, opening] = openLeg({ ...closed, sync: { ...sync, at: "opening" } }, from);
  return [next, [...effects, ...opening]];
};

/** The way is open. */
export function onWayOpen(state: MirrorState, sync: Giving): MirrorStep {
  const theirs = theirsOf(state);
  const activity = theirs?.isPrimary === true;
  const bitmap = theirs?.base !== undefined;
  if (sync.how === "full" || (!activity && !bitmap))
    return [{ ...state, leg: "open", sync: { ...sync, at: "fetched" } }, []];
  const task = state.tasks + 1;
  return [
    { ...state, leg: "open", tasks: task, sync: { ...sync, at: "fetching", task } },
    [{ kind: "fetchMarks", task, activity, bitmap }],
  ];
}

/** Now we write it down, too. */
export const prepareGiving: Rule = (state) => {
  const { disk, sync } = state;
  const theirs = theirsOf(state);
  if (sync?.side !== "source" || sync.at !== "fetched" || !disk || !theirs?.current)
    return undefined;
  const isReady = !theirs.isComplete && theirs.replacedBy === sync.from;
  const sole = isReady ? soleFor(disk, sync) : undefined;
  if (!sole) return [{ ...state, sync: undefined }, []];
  const counted = countAgainst(sole, theirs.current);
  // What is in flight now is in the bitmap already; what was in flight in an earlier life is in the log only.
  const isRunning = state.role === "primary";
  const metadata = isRunning ? counted : demote(counted);
  const merge: Merge[] = sync.how === "full" ? ["all"] : [];
  if (disk.isPrimary && !isRunning) merge.push("ownActivity");
  return save(state, metadata, "copying", merge);
};

function soleFor(disk: ReplicaMetadata, { from }: Giving): ReplicaMetadata | undefined {
  if (disk.isSole) return disk.current === from ? disk : undefined;
  const proof = { kind: "goodbye", isDurable: true } as const;
  const next = continueAlone(disk, { fresh: from, epoch: disk.epoch, proof });
  return next.ok ? next.value : undefined;
}

/** No bit is left: from this writing on the partner may be promoted as well as we. */
export const finishGiving: Rule = (state) => {
  const { disk, sync } = state;
  if (sync?.side !== "source" || sync.at !== "copied" || !disk) return undefined;
  return save(state, finish(disk), "finished");
};

/** Behind the word that we are not sole any more: the partner lets in only whoever has what it has. */
export const tellFinished: Rule = (state) => {
  const { disk, sync, contact } = state;
  if (sync?.side !== "source" || sync.at !== "finishing" || !disk || !contact) return undefined;
  const { current, history } = settled(disk);
  if (current === undefined) throw new Error("tellFinished: this replica has no generation");
  const word = { kind: "finished", current, history } as const;
  return [
    { ...state, sync: { ...sync, at: "finished" } },
    [{ kind: "tell", contact: contact.id, word }],
  ];
};

/** The partner says that it has our generation. */
export const settleGiving: Rule = (state) => {
  const { disk, sync } = state;
  if (sync?.side !== "source" || sync.at !== "finished" || !disk) return undefined;
  const theirs = theirsOf(state);
  if (!theirs?.isComplete || theirs.current !== disk.current) return undefined;
  return save(state, settled(disk), "settled");
};
