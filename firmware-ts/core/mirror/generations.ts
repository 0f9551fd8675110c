/**
 * How a replica's generations change. Each function returns metadata that is to be written down *before* anything is done under it
 * (docs/design/0038-mirror-generations.md); none of them decides whether the ground that it is given holds (core/mirror/proofs).
 *
 *     sole:     nobody else has `current`; the bitmap counts against `base`      ── finish ──▶ shared ── settled ──▶ in sync
 *     in sync:  the other has `current`, too; no base                            ── continueAlone ──▶ sole, of a new generation
 *     target:   incomplete, being overwritten with `replacedBy`                  ── adopt ──▶ in sync
 *
 * Between `finish` and `settled` the other may have `current` already and cannot have said so: whoever is lost then needs a proof.
 */
import type { ControllerId } from "../../schema/ids.ts";
import {
  type AloneProof,
  type GenerationId,
  historyMax,
  type ReplicaMetadata,
} from "../../schema/mirror.ts";
import { failed, good, type Outcome } from "../../schema/outcome.ts";

/** What a volume is, the same at both replicas. */
export interface ReplicaShape {
  readonly volume: GenerationId;
  readonly controller: ControllerId;
  readonly dataBytes: number;
  readonly granularityBytes: number;
}

/** A replica that was never used: what is on its disk means nothing. */
export function freshReplica(shape: ReplicaShape): ReplicaMetadata {
  return {
    ...shape,
    history: [],
    isComplete: false,
    isOutdated: false,
    isPrimary: false,
    isSole: false,
    epoch: 0,
  };
}

/** The first replica of a new volume: what is on its disk is the volume from now on. Fault `refused`: it has been used. */
export function firstReplica(
  metadata: ReplicaMetadata,
  fresh: GenerationId,
): Outcome<ReplicaMetadata> {
  if (metadata.current !== undefined)
    return refused("first replica", "this replica holds data of the volume already");
  return good({ ...metadata, current: fresh, isComplete: true, isSole: true });
}

/** Everything that these data contain: the own generation, the base, older ones. */
export function ancestry({ current, base, history }: ReplicaMetadata): readonly GenerationId[] {
  return [current, base, ...history].filter((each) => each !== undefined);
}

/** A new generation, and on what ground it begins. */
export interface Continuing {
  /** Never used before. */
  readonly fresh: GenerationId;
  readonly epoch: number;
  readonly proof: AloneProof;
}

/**
 * Goes on without the other: the generation that both have becomes the base, and the new one is nobody else's.
 * Fault `refused`: these data are not for anybody to go on with. An outdated replica goes on by an override only.
 */
export function continueAlone(
  metadata: ReplicaMetadata,
  { fresh, epoch, proof }: Continuing,
): Outcome<ReplicaMetadata> {
  const { current, base } = metadata;
  if (ancestry(metadata).includes(fresh))
    throw new Error(`continueAlone: generation ${fresh} was used before`);
  if (current === undefined || !metadata.isComplete)
    return refused("continue alone", "this copy is not complete");
  if (metadata.isOutdated && proof.kind !== "override")
    return refused("continue alone", "this copy is outdated: the partner may have gone on from it");
  if (epoch < metadata.epoch)
    return refused("continue alone", `epoch ${epoch} is older than ${metadata.epoch}`);
  return good({
    ...metadata,
    current: fresh,
    base: current,
    // A base of a resync that was to be finished is older than what it was finished for.
    history: older(metadata, base === current ? undefined : base),
    isOutdated: false,
    isSole: true,
    epoch,
    continued: { epoch, proof },
  });
}

/** Becomes the one that writes. Alone it has to be `isSole` already, or to continue in the same writing. Fault `refused`: as above. */
export function promote(metadata: ReplicaMetadata, epoch: number): Outcome<ReplicaMetadata> {
  if (metadata.current === undefined || !metadata.isComplete)
    return refused("promote", "this copy is not complete");
  if (metadata.isOutdated) return refused("promote", "this copy is outdated");
  if (epoch < metadata.epoch)
    return refused("promote", `epoch ${epoch} is older than ${metadata.epoch}`);
  return good({ ...metadata, isPrimary: true, epoch });
}

/** Nothing is in flight any more, and both have all of it. */
export function demote(metadata: ReplicaMetadata): ReplicaMetadata {
  return { ...metadata, isPrimary: false };
}

/** Says goodbye: the partner may go on alone, and this replica is nobody's to promote before the two have met. */
export function outdate(metadata: ReplicaMetadata): ReplicaMetadata {
  if (metadata.isPrimary) throw new Error("outdate: writes may be in flight");
  return { ...metadata, isOutdated: true };
}

/** Is about to be overwritten with `from`. A full copy gives it an id of its own (`as`), so that no older bitmap can be taken to count against it. */
export function becomeTarget(
  metadata: ReplicaMetadata,
  from: GenerationId,
  as: GenerationId | undefined,
): ReplicaMetadata {
  const next = { ...metadata, isComplete: false, isSole: false, replacedBy: from };
  return as === undefined ? next : { ...withoutBase(next), current: as, history: [] };
}

/** The bitmap counts against this generation of the other from now on. */
export function countAgainst(metadata: ReplicaMetadata, target: GenerationId): ReplicaMetadata {
  const { base } = metadata;
  if (base === target) return metadata;
  return { ...metadata, base: target, history: older(metadata, base) };
}

/** The partner's word that its copy is incomplete: nobody else has this generation, or will have before we say so. */
export function reclaim(metadata: ReplicaMetadata): ReplicaMetadata {
  return { ...metadata, isSole: true };
}

/** Everything is copied, and the partner is about to be told: from here on it may have this generation, too. */
export function finish(metadata: ReplicaMetadata): ReplicaMetadata {
  return { ...metadata, isSole: false };
}

/** The partner has written down that it has this generation: the bitmap counts against nothing any more. */
export function settled(metadata: ReplicaMetadata): ReplicaMetadata {
  const { base } = metadata;
  const history = base === metadata.current ? metadata.history : older(metadata, base);
  return { ...withoutBase(metadata), history, isOutdated: false, isSole: false };
}

/** What the source of a resync says of its generations when it has finished. */
export interface Finished {
  readonly current: GenerationId;
  readonly history: readonly GenerationId[];
}

/** The target has everything: its data are of the source's generation. */
export function adopt(metadata: ReplicaMetadata, { current, history }: Finished): ReplicaMetadata {
  if (metadata.isComplete || metadata.replacedBy !== current)
    throw new Error(`adopt: this replica is not being overwritten with ${current}`);
  const { replacedBy: _, ...rest } = withoutBase(metadata);
  return {
    ...rest,
    current,
    history: history.slice(0, historyMax),
    isComplete: true,
    isOutdated: false,
    isPrimary: false,
    isSole: false,
  };
}

/**
 * Of two that diverged: gives these data up for the partner's. What was written here alone is lost with the resync that follows.
 * The bitmap stays what it is: it says where the partner's copy has to replace ours.
 */
export function yieldTo(metadata: ReplicaMetadata, theirs: GenerationId): ReplicaMetadata {
  return { ...metadata, isComplete: false, isSole: false, replacedBy: theirs };
}

/** Of two that diverged: becomes a volume of its own, with everything that it holds. */
export function detach(
  metadata: ReplicaMetadata,
  volume: GenerationId,
  fresh: GenerationId,
): Outcome<ReplicaMetadata> {
  if (!metadata.isComplete) return refused("detach", "this copy is not complete");
  if (volume === metadata.volume) return refused("detach", "the new volume needs an id of its own");
  return good({
    ...withoutBase(metadata),
    volume,
    current: fresh,
    history: [],
    isOutdated: false,
    isSole: true,
  });
}

/** The history with one more generation in front of it. */
function older({ history }: ReplicaMetadata, one: GenerationId | undefined) {
  if (one === undefined) return history;
  return [one, ...history.filter((each) => each !== one)].slice(0, historyMax);
}

function withoutBase(metadata: ReplicaMetadata): ReplicaMetadata {
  const { base: _, ...rest } = metadata;
  return rest;
}

const refused = (operation: string, message: string) => failed("refused", operation, message);
