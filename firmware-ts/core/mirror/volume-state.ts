/** What the rules of a mirrored volume ask of its state, and the changes that several of them make. */
import type { ControllerId } from "../../schema/ids.ts";
import type { Arbiter, GenerationId, ReplicaMetadata, Verdict } from "../../schema/mirror.ts";
import { rejoin } from "./rejoin.ts";
import type { Merge, MirrorEffect, MirrorState, MirrorStep, Saving } from "./volume-types.ts";

/** A controller that knows nothing yet: it waits for `booted`. */
export function startMirror(me: ControllerId, arbiter: Arbiter): MirrorState {
  return {
    me,
    arbiter,
    role: "secondary",
    wanted: "secondary",
    epoch: 0,
    isLeaving: false,
    isContinuous: false,
    tasks: 0,
    leg: "closed",
    access: "closed",
    writes: "none",
    asks: 0,
  };
}

/** Something is under way whose outcome the next decision needs: a writing, or the end of the partner's access. */
export function isBusy({ saving, access }: MirrorState): boolean {
  return saving !== undefined || access === "closing";
}

/** Writes what is to be known before anything is done under it. */
export function save(
  state: MirrorState,
  metadata: ReplicaMetadata,
  purpose: Saving["purpose"],
  merge: readonly Merge[] = [],
): MirrorStep {
  if (isBusy(state)) throw new Error(`save: ${state.me} is busy`);
  return [{ ...state, saving: { metadata, purpose } }, [{ kind: "persist", metadata, merge }]];
}

/** What the partner has told of its replica in this contact. */
export function theirsOf({ contact }: MirrorState): ReplicaMetadata | undefined {
  return contact?.heard?.metadata;
}

/** What the two replicas are to each other; undefined while one of them is unknown. */
export function verdictOf(state: MirrorState): Verdict | undefined {
  const theirs = theirsOf(state);
  return state.disk && theirs && rejoin(state.disk, theirs);
}

/** Both have the same data but for what is in flight, whoever is primary. */
export function areTwins(state: MirrorState): boolean {
  const { disk } = state;
  const theirs = theirsOf(state);
  if (!disk?.isComplete || !theirs?.isComplete || disk.current !== theirs.current) return false;
  const { kind } = rejoin(disk, theirs);
  // Of two in one generation, a resync is due only where one of them crashed as primary.
  return kind === "same" || kind === "resync";
}

/** Whether the partner's replica is one that nobody could be promoted with: there is none, or it was never used. */
export function isPartnerEmpty({ contact }: MirrorState): boolean {
  return contact?.heard !== undefined && contact.heard.metadata?.current === undefined;
}

/** Cuts the partner's access, if it has any: what comes next waits for `fenced`. */
export function fence(state: MirrorState): MirrorStep | undefined {
  if (state.access !== "open") return undefined;
  return [{ ...state, access: "closing", accessFor: undefined }, [{ kind: "refuseAccess" }]];
}

/** The remote leg is wanted, to a replica of this generation. */
export function openLeg(state: MirrorState, generation: GenerationId): MirrorStep {
  const task = state.tasks + 1;
  return [
    { ...state, tasks: task, leg: "opening", legTask: task },
    [{ kind: "openLeg", task, generation }],
  ];
}

/** The remote leg is not wanted any more. */
export function closeLeg(state: MirrorState): MirrorStep {
  if (state.leg === "closed") return [state, []];
  return [{ ...state, leg: "closed" }, [{ kind: "closeLeg" }]];
}

/** Ends a resync that we give, whatever it has come to. */
export function stopGiving(state: MirrorState): MirrorStep {
  if (state.sync?.side !== "source") return [state, []];
  const isCopying = state.sync.at === "copying" || state.sync.at === "copied";
  return [{ ...state, sync: undefined }, isCopying ? [{ kind: "stopResync" }] : []];
}

/** One step after the other. */
export function inTurn(
  state: MirrorState,
  ...steps: readonly ((state: MirrorState) => MirrorStep)[]
): MirrorStep {
  let next = state;
  const effects: MirrorEffect[] = [];
  for (const step of steps) {
    const [after, more] = step(next);
    next = after;
    effects.push(...more);
  }
  return [next, effects];
}

/** Two that are nobody's to merge, and the partner is primary: neither writes on, or begins to, before somebody has decided. */
export function withConflict(state: MirrorState): MirrorState {
  const verdict = verdictOf(state);
  if (!verdict) return state;
  const isApart = verdict.kind === "diverged" || verdict.kind === "unrelated";
  const conflict = isApart && theirsOf(state)?.isPrimary ? verdict.kind : undefined;
  return conflict === state.conflict ? state : { ...state, conflict };
}

/**
 * The partner has our generation, and has just said so: it has not gone on without us. Undefined leaves what was known: a partner that
 * says nothing comparable proves nothing.
 */
export function withContinuity(state: MirrorState): MirrorState {
  const theirs = theirsOf(state);
  if (state.disk?.isComplete !== true) return { ...state, isContinuous: false };
  if (areTwins(state)) return { ...state, isContinuous: true };
  // Known to be behind us, or being filled by us: it cannot have gone on either. Anything else is news that we have to ask about.
  if (theirs?.current !== undefined && !state.disk.isSole) return { ...state, isContinuous: false };
  return state;
}
