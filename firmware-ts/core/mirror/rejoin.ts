/**
 * Two replicas meet: what is to be done, from what each has written down and nothing else. One table, asked on both sides, with answers that
 * are mirror images of each other, whatever the metadata say (docs/design/0038-mirror-generations.md).
 *
 * A row is tried with each of the two as `self`. One that would have both copied from is a contradiction, and nobody is copied from.
 * The order matters: rows above say what rows below may take for granted.
 */
import { type ControllerId, partnerOf } from "../../schema/ids.ts";
import type { ReplicaMetadata, Side, Verdict } from "../../schema/mirror.ts";
import { ancestry } from "./generations.ts";

interface Row {
  readonly name: string;
  readonly when: (self: ReplicaMetadata, other: ReplicaMetadata) => boolean;
  /** `copies`: from `self` to the other. */
  readonly says: Exclude<Verdict["kind"], "resync"> | { readonly copies: "bitmap" | "full" };
  /** For an operator, the same on both sides: names the two controllers, where it is not the same for both. */
  readonly reason: (self: ControllerId, other: ControllerId) => string;
}

const isFresh = ({ current }: ReplicaMetadata) => current === undefined;
const areEqual = (self: ReplicaMetadata, other: ReplicaMetadata) => self.current === other.current;
const areComplete = (self: ReplicaMetadata, other: ReplicaMetadata) =>
  self.isComplete && other.isComplete;
const isGiver = (self: ReplicaMetadata, other: ReplicaMetadata) =>
  self.isComplete && !other.isComplete;
/** Whether what `self` holds contains everything that was ever finished in the other's generation. */
const contains = (self: ReplicaMetadata, other: ReplicaMetadata) =>
  other.current !== undefined && ancestry(self).includes(other.current);
const isPromised = (self: ReplicaMetadata, other: ReplicaMetadata) =>
  other.replacedBy !== undefined && other.replacedBy === self.current;
/** Both bitmaps count from the same split, so that together they name every difference. */
const splitTogether = (self: ReplicaMetadata, other: ReplicaMetadata) =>
  self.base !== undefined && self.base === other.base;

export const rejoinTable: readonly Row[] = [
  {
    name: "another volume",
    when: (self, other) => self.volume !== other.volume,
    says: "unrelated",
    reason: () => "the two copies are of different volumes",
  },
  {
    name: "same controller",
    when: (self, other) => self.controller === other.controller,
    says: "unrelated",
    reason: (self) =>
      `both copies say that they are those of ${self}: a disk was put into the wrong one`,
  },
  {
    name: "another shape",
    when: (self, other) =>
      self.dataBytes !== other.dataBytes || self.granularityBytes !== other.granularityBytes,
    says: "unrelated",
    reason: () => "the two copies differ in size or granularity",
  },
  {
    name: "nothing written yet",
    when: (self, other) => isFresh(self) && isFresh(other),
    says: "neither",
    reason: () => "neither copy was ever used: say which of the two the volume begins with",
  },
  {
    name: "none complete",
    when: (self, other) => !self.isComplete && !other.isComplete,
    says: "neither",
    reason: () => "neither copy is complete: bring back the disk that they were being filled from",
  },
  {
    name: "outdated beside fresh",
    when: (self, other) => isFresh(other) && self.isOutdated,
    says: "neither",
    reason: (self, other) =>
      `the copy of ${other} is new, and that of ${self} may lack what the last one of ${other} had: promote ${self} by an override if that one is lost`,
  },
  {
    name: "fresh",
    when: (self, other) => self.isComplete && isFresh(other),
    says: { copies: "full" },
    reason: (_, other) => `the copy of ${other} was never used`,
  },
  {
    name: "sole, and yet not alone",
    when: (self, other) => areComplete(self, other) && other.isSole && contains(self, other),
    says: "diverged",
    reason: (self, other) =>
      `the copy of ${other} was written alone in a generation that ${self} holds already: one of them is not what it was`,
  },
  {
    name: "both primary at once",
    when: (self, other) =>
      areComplete(self, other) && areEqual(self, other) && self.isPrimary && other.isPrimary,
    says: "diverged",
    reason: () => "both were primary at once in one generation, which must not be",
  },
  {
    name: "crashed primary",
    when: (self, other) => areComplete(self, other) && areEqual(self, other) && self.isPrimary,
    says: { copies: "bitmap" },
    reason: (self) => `writes may have been in flight at ${self}: the extents of its activity log`,
  },
  {
    name: "nothing to do",
    when: (self, other) => areComplete(self, other) && areEqual(self, other),
    says: "same",
    reason: () => "both copies are of the same generation",
  },
  {
    name: "resync goes on",
    when: (self, other) =>
      isGiver(self, other) && self.base !== undefined && other.current === self.base,
    says: { copies: "bitmap" },
    reason: (self, other) =>
      `the copy of ${other} was being filled from ${self}: what is left of it`,
  },
  {
    name: "yielded",
    when: (self, other) =>
      isGiver(self, other) && isPromised(self, other) && splitTogether(self, other),
    says: { copies: "bitmap" },
    reason: (self, other) =>
      `the copy of ${other} was given up for that of ${self}: what either has written since they parted`,
  },
  {
    name: "resync begins anew",
    when: (self, other) => isGiver(self, other) && isPromised(self, other),
    says: { copies: "full" },
    reason: (self, other) =>
      `the copy of ${other} was to be filled from ${self}, and no bitmap counts against it`,
  },
  {
    name: "the newer one is incomplete",
    when: (self, other) => isGiver(self, other) && !areEqual(self, other) && contains(other, self),
    says: "neither",
    reason: (self, other) =>
      `the copy of ${other} is newer and incomplete, and that of ${self} lacks what it had: bring back the disk that it was being filled from, or promote ${self} by an override`,
  },
  {
    name: "incomplete, of a generation that we have",
    when: (self, other) =>
      isGiver(self, other) && (contains(self, other) || filledFromOurs(self, other)),
    says: { copies: "full" },
    reason: (_, other) => `the copy of ${other} is incomplete, and older`,
  },
  {
    name: "went on alone",
    when: (self, other) =>
      areComplete(self, other) && self.base !== undefined && other.current === self.base,
    says: { copies: "bitmap" },
    reason: (self, other) => `${self} went on while ${other} was away: what was written since`,
  },
  {
    name: "away for more than one generation",
    when: (self, other) => areComplete(self, other) && contains(self, other),
    says: { copies: "full" },
    reason: (self, other) =>
      `the copy of ${self} contains the generation of ${other}, but its bitmap does not reach back to it`,
  },
  {
    name: "diverged",
    when: (self, other) => ancestry(self).some((each) => ancestry(other).includes(each)),
    says: "diverged",
    reason: () =>
      "each copy was written without the other since they parted: say which of them counts, or keep both as volumes of their own",
  },
  {
    name: "history too short",
    when: () => true,
    says: "unrelated",
    reason: () =>
      "the two copies have no generation in common: another volume's, or one was away for longer than is remembered",
  },
];

function filledFromOurs(self: ReplicaMetadata, other: ReplicaMetadata): boolean {
  return other.replacedBy !== undefined && ancestry(self).includes(other.replacedBy);
}

/** What two replicas are to each other. Total: there is an answer for whatever may be written down. */
export function rejoin(mine: ReplicaMetadata, theirs: ReplicaMetadata): Verdict {
  return rejoinBy(rejoinTable, mine, theirs);
}

/** The same by another table: the tests alter rows, and see that it is noticed. */
export function rejoinBy(
  table: readonly Row[],
  mine: ReplicaMetadata,
  theirs: ReplicaMetadata,
): Verdict {
  for (const { when, says, reason: reasonOf } of table) {
    const isMine = when(mine, theirs);
    const isTheirs = when(theirs, mine);
    if (!isMine && !isTheirs) continue;
    // Where a row holds both ways, it is told as of the first controller: on both sides the same.
    const isOfMine = isMine && (!isTheirs || mine.controller === "a");
    const self = isOfMine ? mine.controller : theirs.controller;
    const reason = reasonOf(self, partnerOf(self));
    if (typeof says === "string") return { kind: says, reason };
    if (isMine && isTheirs)
      return { kind: "diverged", reason: "each copy says that it is the newer one" };
    const source: Side = isMine ? "mine" : "theirs";
    return { kind: "resync", source, how: says.copies, reason };
  }
  throw new Error("rejoin: the last row is for everything");
}

/** The same seen from the other side. */
export function mirrored(verdict: Verdict): Verdict {
  if (verdict.kind !== "resync") return verdict;
  return { ...verdict, source: verdict.source === "mine" ? "theirs" : "mine" };
}
