/**
 * One mirrored volume on one controller: what its decisions are made of (core/mirror/volume). Events come in, effects go out as data; the
 * outcome of each effect that has one comes back as an event.
 */
import type { ControllerId } from "../../schema/ids.ts";
import type { AloneProof, Arbiter, GenerationId, ReplicaMetadata } from "../../schema/mirror.ts";
import type { Finished } from "./generations.ts";

/** What two controllers say to each other about a volume. A word counts only in the contact that it was said in, and in its order. */
export type Word =
  /** First of all in each contact, and whenever it has changed on the disk. Without metadata: there is no replica that could be used. */
  | { readonly kind: "metadata"; readonly metadata?: ReplicaMetadata | undefined }
  /** Prepare to be overwritten with `from`; `as`: completely, under this id. */
  | {
      readonly kind: "beTarget";
      readonly from: GenerationId;
      readonly as?: GenerationId | undefined;
    }
  /** Written down that this copy is incomplete, and open to be filled with `from`. */
  | { readonly kind: "ready"; readonly from: GenerationId }
  | ({ readonly kind: "finished" } & Finished)
  /** Written down that this copy is outdated. Whoever says it does nothing more in this life. */
  | { readonly kind: "goodbye" }
  /** Of two that diverged: somebody decided for this generation, which is the speaker's. */
  | {
      readonly kind: "yield";
      readonly to: GenerationId;
      readonly who: string;
      readonly why: string;
    };

export type Role = "primary" | "secondary";

/** The three ways out of a divergence. `detach` takes the id of the new volume. */
export type Resolution =
  | { readonly way: "keepMine"; readonly who: string; readonly why: string }
  | { readonly way: "keepTheirs"; readonly who: string; readonly why: string }
  | {
      readonly way: "detach";
      readonly volume: GenerationId;
      readonly who: string;
      readonly why: string;
    };

export type MirrorEvent =
  /**
   * Without metadata: the disk is missing, or what it says cannot be read. Metadata are in both slots, flushed, before they are reported:
   * a newest slot that a crash left in a disk's cache may be gone after the next one.
   */
  | {
      readonly kind: "booted";
      readonly metadata?: ReplicaMetadata | undefined;
      readonly fault?: string | undefined;
    }
  /** The two hear each other. Each contact has an id that it shares with no other one, the same on both sides. */
  | { readonly kind: "met"; readonly contact: string }
  | { readonly kind: "parted"; readonly contact: string }
  | { readonly kind: "told"; readonly contact: string; readonly word: Word }
  /** The remote leg: the way of our writes to the partner's replica. `task`: of the `openLeg` that it was opened by, here and below. */
  | { readonly kind: "legOpened"; readonly task: number }
  /** The partner's access program does not let us in: its replica is of another generation, or it is primary itself. */
  | { readonly kind: "legRefused"; readonly task: number; readonly reason: string }
  /** It failed: the way, or the partner's disk. What was written by it since the last flush that it confirmed is dirty in the bitmap by now. */
  | { readonly kind: "legLost"; readonly task: number; readonly reason: string }
  /** What `retryLater` asked for. */
  | { readonly kind: "retryDue" }
  /** No connection of the partner's is left, and nothing that came by one is under way. */
  | { readonly kind: "fenced" }
  | { readonly kind: "persisted"; readonly ok: boolean; readonly reason?: string | undefined }
  | { readonly kind: "diskError"; readonly reason: string }
  | { readonly kind: "proofArrived"; readonly ask: number; readonly proof: AloneProof }
  /** It is asked for again, until it arrives or is not needed any more. */
  | { readonly kind: "proofRefused"; readonly ask: number; readonly reason: string }
  | { readonly kind: "promoteAsked"; readonly epoch: number }
  | { readonly kind: "demoteAsked" }
  /** A planned stop: what follows is the end of this life. */
  | { readonly kind: "leaveAsked" }
  | {
      readonly kind: "overrideAsked";
      readonly epoch: number;
      readonly who: string;
      readonly why: string;
    }
  | { readonly kind: "resolveAsked"; readonly resolution: Resolution }
  /** Nothing is in flight. `isClean`: nothing had to be failed, and both copies that count have all of it, durably. */
  | { readonly kind: "drained"; readonly task: number; readonly isClean: boolean }
  | { readonly kind: "marksFetched"; readonly task: number }
  | { readonly kind: "resyncProgress"; readonly task: number; readonly dirtyBits: number }
  /** No bit is set, what was copied is durable at the target, no write is in flight, and from here on writes are held. */
  | { readonly kind: "resyncCopied"; readonly task: number };

/** What is added to the bitmap before it is written: all bits, or the extents that were active at the end of an earlier life. */
export type Merge = "all" | "ownActivity";

/** An effect with a `task` is answered with the same number: what an earlier one still says is told by it, and changes nothing. */
export type MirrorEffect =
  /**
   * First the bitmap, with `merge`, durably; then the metadata, into both slots, one after the other with a flush behind each; then
   * `persisted`, and not before both have it: the loss of one slot must not bring back what was true before. Nothing else is persisted meanwhile.
   * The replica's activity log counts until then, and is emptied behind it if the metadata are not `isPrimary`.
   */
  | {
      readonly kind: "persist";
      readonly metadata: ReplicaMetadata;
      readonly merge: readonly Merge[];
    }
  /** Cuts what the partner has open to our replica, and lets in nobody: answered by `fenced`. */
  | { readonly kind: "refuseAccess" }
  /** Lets the partner in under this generation, and under no other. */
  | { readonly kind: "allowAccess"; readonly generation: GenerationId }
  | { readonly kind: "openLeg"; readonly task: number; readonly generation: GenerationId }
  | { readonly kind: "closeLeg" }
  /** After a while, `retryDue`. */
  | { readonly kind: "retryLater" }
  /** Nothing is acknowledged from here on. */
  | { readonly kind: "holdWrites" }
  /**
   * `both`: acknowledged when both legs have it, and never otherwise; what was held goes to both. `alone`: when the local leg has it, and the
   * bit is set or the remote leg has it too; the remote leg gets it as well while it is open.
   */
  | { readonly kind: "resumeWrites"; readonly mode: "both" | "alone" }
  /** Ends what is in flight, as the last mode demands; what cannot be ended so is failed. Answered by `drained`. */
  | { readonly kind: "drainWrites"; readonly task: number }
  /**
   * Adds to our bitmap what the target's disk says of its own writes, by the leg: the active extents, and the bits. Answered by
   * `marksFetched`, or by `legLost`.
   */
  | {
      readonly kind: "fetchMarks";
      readonly task: number;
      readonly activity: boolean;
      readonly bitmap: boolean;
    }
  | { readonly kind: "startResync"; readonly task: number; readonly generation: GenerationId }
  | { readonly kind: "stopResync" }
  /** Asks the arbiter, as often as it takes, until a proof arrives or the question is dropped: may `generation` go on here, as `next`? */
  | ({ readonly kind: "askProof" } & Question)
  /** Nobody wants to know any more. What was granted meanwhile is not used. */
  | { readonly kind: "dropQuestion"; readonly ask: number }
  | { readonly kind: "tell"; readonly contact: string; readonly word: Word }
  | {
      readonly kind: "report";
      readonly severity: "info" | "warning" | "error";
      readonly code: string;
      readonly message: string;
    };

/** What the arbiter is asked, and what it grants. */
export interface Question {
  readonly ask: number;
  /** Ours, which the partner may have as well. */
  readonly generation: GenerationId;
  /** How the new generation will be called: never used before. */
  readonly next: GenerationId;
  /** Of the promotion that it is for. */
  readonly epoch: number;
}

/** A resync, from the side that gives. */
export interface Giving {
  readonly side: "source";
  /** Our generation while it lasts; not yet ours before `copying` if the two had the same. */
  readonly from: GenerationId;
  readonly how: "bitmap" | "full";
  readonly at:
    | "asked"
    | "ready"
    | "opening"
    | "fetching"
    | "fetched"
    | "copying"
    | "copied"
    | "finishing"
    | "finished";
  /** Of the fetching, then of the copying. */
  readonly task?: number | undefined;
  readonly dirtyBits?: number | undefined;
}

/** A resync, from the side that is overwritten. */
export interface Taking {
  readonly side: "target";
  readonly from: GenerationId;
  readonly as?: GenerationId | undefined;
  readonly at: "marking" | "marked" | "receiving";
  readonly finished?: Finished | undefined;
}

/** A writing that is under way. */
export interface Saving {
  readonly metadata: ReplicaMetadata;
  readonly purpose:
    | "nothing"
    | "promoted"
    | "demoted"
    | "marked"
    | "adopted"
    | "copying"
    | "finished"
    | "settled";
}

export interface Contact {
  readonly id: string;
  /** What we have told of our replica; `undefined` inside: that there is none. */
  readonly told?: { readonly metadata: ReplicaMetadata | undefined } | undefined;
  readonly heard?: { readonly metadata: ReplicaMetadata | undefined } | undefined;
  /** We said goodbye in it. */
  readonly hasLeft: boolean;
  /** The partner did. */
  readonly isDeparting: boolean;
}

export interface MirrorState {
  readonly me: ControllerId;
  readonly arbiter: Arbiter;
  /** What is on the disk; absent: no replica that could be used. */
  readonly disk?: ReplicaMetadata | undefined;
  readonly diskFault?: string | undefined;
  readonly saving?: Saving | undefined;
  readonly contact?: Contact | undefined;
  readonly role: Role;
  readonly wanted: Role;
  /** Of the promotion that is wanted. */
  readonly epoch: number;
  readonly isLeaving: boolean;
  /** See `Circumstances`. */
  readonly isContinuous: boolean;
  /** How many effects were answerable so far: the number of the last one. */
  readonly tasks: number;
  readonly leg: "closed" | "opening" | "open";
  readonly legTask?: number | undefined;
  /** Why it failed last; it is not tried again before `retryDue`. */
  readonly legFailure?: string | undefined;
  /** What the partner may do with our replica. */
  readonly access: "closed" | "closing" | "open";
  readonly accessFor?: GenerationId | undefined;
  readonly writes: "none" | "held" | "both" | "alone";
  /** A demotion: writes are being ended, or have been. `unclean`: some were failed, or one copy lacks them. */
  readonly draining?: "underWay" | "clean" | "unclean" | "writingDown" | undefined;
  readonly drainTask?: number | undefined;
  readonly asks: number;
  /** A question is under way, with what was last answered to it. */
  readonly asking?:
    | (Question & {
        readonly refusal?: string | undefined;
      })
    | undefined;
  /** `asked`: what it was granted for; without it, nobody was asked. */
  readonly proof?:
    | {
        readonly of: GenerationId;
        readonly proof: AloneProof;
        readonly asked?: Question | undefined;
      }
    | undefined;
  readonly sync?: Giving | Taking | undefined;
  /**
   * What the two were to each other when the partner was last heard, if that was a partner that is marked as primary. It outlasts the
   * contact: a partner that is not heard any more has not stopped.
   */
  readonly conflict?: "diverged" | "unrelated" | undefined;
  /** Why the last promotion was given up. */
  readonly refusal?: string | undefined;
}

export type MirrorStep = readonly [MirrorState, readonly MirrorEffect[]];

/** One thing that is due, if it is. */
export type Rule = (state: MirrorState, fresh: GenerationId) => MirrorStep | undefined;
