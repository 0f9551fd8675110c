/**
 * The decisions for one mirrored volume on one controller: an event goes in, a new state and effects come out (docs/design/0038-mirror-generations.md).
 *
 *     secondary ── promoteAsked, and: sole │ the partner lets us in │ a proof ──▶ primary
 *         ▲                                                                       │
 *         └── demoteAsked, or overtaken: drained ─────────────────────────────────┘
 *
 *     a primary's writes:   both ──leg lost──▶ held ──proof, persisted──▶ alone ──resync, copied──▶ held ──finish persisted──▶ both
 *
 * What an event says is noted here; what follows from it is in the rules (volume-rules). Events that come late are told by their contact,
 * their question, or by what is under way, and change nothing.
 */
import type { GenerationId } from "../../schema/mirror.ts";
import { detach, yieldTo } from "./generations.ts";
import { proofGap } from "./proofs.ts";
import { stepDown } from "./volume-promote.ts";
import { settle } from "./volume-rules.ts";
import { onWayOpen } from "./volume-source.ts";
import {
  areTwins,
  closeLeg,
  inTurn,
  isBusy,
  save,
  startMirror,
  stopGiving,
  theirsOf,
  verdictOf,
  withConflict,
  withContinuity,
} from "./volume-state.ts";
import { onBeTarget } from "./volume-target.ts";
import type {
  Giving,
  MirrorEffect,
  MirrorEvent,
  MirrorState,
  MirrorStep,
  Resolution,
  Saving,
  Word,
} from "./volume-types.ts";
import { reports } from "./volume-view.ts";

type Of<Kind extends MirrorEvent["kind"]> = Extract<MirrorEvent, { kind: Kind }>;

/** One event. `fresh`: a generation id that was never used; it is used at most once. */
export function mirrorStep(
  state: MirrorState,
  event: MirrorEvent,
  fresh: GenerationId,
): MirrorStep {
  const [noted, first] = onEvent(state, event, fresh);
  const [next, due] = settle(withConflict(noted), fresh);
  return [next, [...first, ...due, ...dropped(state, event, next), ...reports(state, next)]];
}

/** A question that has not been answered, and is not asked any more: the arbiter must not decide it for nobody. */
function dropped({ asking }: MirrorState, event: MirrorEvent, next: MirrorState): MirrorEffect[] {
  if (!asking || next.asking?.ask === asking.ask) return [];
  const isAnswered = event.kind === "proofArrived" && event.ask === asking.ask;
  return isAnswered ? [] : [{ kind: "dropQuestion", ask: asking.ask }];
}

function onEvent(state: MirrorState, event: MirrorEvent, fresh: GenerationId): MirrorStep {
  switch (event.kind) {
    case "booted":
      return [
        {
          ...startMirror(state.me, state.arbiter),
          disk: event.metadata,
          diskFault: event.metadata ? undefined : (event.fault ?? "there is no disk"),
        },
        [],
      ];
    case "met":
      return onMet(state, event.contact);
    case "parted":
      return state.contact?.id === event.contact ? endContact(state) : [state, []];
    case "told":
      return state.contact?.id === event.contact ? onWord(state, event.word) : [state, []];
    case "legOpened":
    case "legRefused":
    case "legLost":
      return onLeg(state, event);
    case "retryDue":
      return [{ ...state, legFailure: undefined }, []];
    case "fenced":
      return [{ ...state, access: state.access === "closing" ? "closed" : state.access }, []];
    case "persisted":
      return onPersisted(state, event);
    case "diskError":
      return loseDisk(state, event.reason);
    case "proofArrived":
    case "proofRefused":
      return onProof(state, event);
    case "drained":
      if (state.draining !== "underWay" || event.task !== state.drainTask) return [state, []];
      return [{ ...state, draining: event.isClean ? "clean" : "unclean" }, []];
    case "marksFetched":
    case "resyncProgress":
    case "resyncCopied":
      return [onResync(state, event), []];
    default:
      return onOrder(state, event, fresh);
  }
}

type Order = Of<"promoteAsked" | "demoteAsked" | "leaveAsked" | "overrideAsked" | "resolveAsked">;

/** What an operator, or the rest of the controller, wants. */
function onOrder(state: MirrorState, order: Order, fresh: GenerationId): MirrorStep {
  switch (order.kind) {
    case "promoteAsked":
      return [
        { ...withoutOverride(state), wanted: "primary", epoch: order.epoch, refusal: undefined },
        [],
      ];
    case "demoteAsked":
      return [
        {
          ...withoutOverride(state),
          wanted: "secondary",
          asking: undefined,
          refusal: undefined,
        },
        [],
      ];
    case "leaveAsked":
      return [
        { ...withoutOverride(state), wanted: "secondary", asking: undefined, isLeaving: true },
        [],
      ];
    case "overrideAsked":
      return onOverride(state, order);
    case "resolveAsked":
      return onResolve(state, order.resolution, fresh);
    default:
      throw new Error(`mirrorStep: unknown event ${JSON.stringify(order)}`);
  }
}

/** What somebody took upon themselves holds for the order that it was given with, and for none after it. */
function withoutOverride(state: MirrorState): MirrorState {
  return state.proof?.proof.kind === "override" ? { ...state, proof: undefined } : state;
}

/** Proofs and questions of before say nothing of a partner that is heard again: it will tell us itself. */
function onMet(state: MirrorState, id: string): MirrorStep {
  const contact = { id, hasLeft: false, isDeparting: false };
  return inTurn(state, endContact, (before) => [
    { ...before, contact, proof: undefined, asking: undefined, legFailure: undefined },
    [],
  ]);
}

/** A leg does not need a contact; a resync does, and so does a promotion that is under way together with the partner. */
function endContact(state: MirrorState): MirrorStep {
  if (!state.contact) return [state, []];
  const isMirroring = state.role === "primary" && !state.sync;
  return inTurn(
    { ...state, contact: undefined },
    stopGiving,
    (given) => [{ ...given, sync: undefined }, []],
    (ended) => (isMirroring ? [ended, []] : closeLeg(ended)),
  );
}

function onWord(state: MirrorState, word: Word): MirrorStep {
  const { contact, sync } = state;
  if (!contact) return [state, []];
  switch (word.kind) {
    case "metadata": {
      const heard = { metadata: word.metadata };
      return [withContinuity({ ...state, contact: { ...contact, heard } }), []];
    }
    case "beTarget":
      return onBeTarget(state, word);
    case "ready":
      if (sync?.side !== "source" || sync.at !== "asked" || sync.from !== word.from)
        return [state, []];
      return [{ ...state, sync: { ...sync, at: "ready" } }, []];
    case "finished": {
      const { current, history } = word;
      if (sync?.side !== "target" || sync.at !== "receiving" || sync.from !== current)
        return [state, []];
      return [{ ...state, sync: { ...sync, finished: { current, history } } }, []];
    }
    case "goodbye":
      return [onGoodbye(state), []];
    case "yield":
      return giveUp(state, word.to, word.who, word.why);
    default:
      throw new Error(`mirrorStep: unknown word ${JSON.stringify(word)}`);
  }
}

/** Worth something only between two that have the same: an older partner's goodbye does not make us newer. */
function onGoodbye(state: MirrorState): MirrorState {
  const { contact, disk } = state;
  if (!contact) return state;
  const next = { ...state, contact: { ...contact, isDeparting: true } };
  if (!areTwins(state) || !disk?.current || theirsOf(state)?.isOutdated !== true) return next;
  return { ...next, proof: { of: disk.current, proof: { kind: "goodbye", isDurable: true } } };
}

function onLeg(state: MirrorState, event: Of<"legOpened" | "legRefused" | "legLost">): MirrorStep {
  const { sync } = state;
  if (event.task !== state.legTask) return [state, []];
  if (event.kind === "legOpened") {
    if (state.leg !== "opening") return [state, []];
    if (sync?.side !== "source" || sync.at !== "opening") return [{ ...state, leg: "open" }, []];
    return onWayOpen(state, sync);
  }
  if (state.leg === "closed") return [state, []];
  return inTurn({ ...state, leg: "closed", legFailure: event.reason }, afterLeg(event), (next) => [
    next,
    [{ kind: "retryLater" }],
  ]);
}

/** The leg is closed: what that means for what it was opened for. */
const afterLeg =
  (event: Of<"legRefused" | "legLost">) =>
  (closed: MirrorState): MirrorStep => {
    const { sync } = closed;
    // The partner may have adopted it: only its own word tells, or the end of this contact.
    if (sync?.side === "source") return sync.at === "finished" ? [closed, []] : stopGiving(closed);
    if (event.kind === "legLost" || closed.role === "primary") return [closed, []];
    return [{ ...closed, wanted: "secondary", refusal: event.reason }, []];
  };

function onPersisted(state: MirrorState, { ok, reason }: Of<"persisted">): MirrorStep {
  const { saving } = state;
  if (!saving) return [state, []];
  if (!ok) return loseDisk(state, reason ?? "its metadata could not be written");
  const { metadata, purpose } = saving;
  return afterSaving({ ...state, saving: undefined, disk: metadata }, purpose);
}

/** What a writing was for. Whether it still is, the state says: the contact or the leg may be gone by now. */
function afterSaving(state: MirrorState, purpose: Saving["purpose"]): MirrorStep {
  const { sync, disk } = state;
  switch (purpose) {
    case "promoted": {
      const primary: MirrorState = { ...state, role: "primary", asking: undefined };
      // A resync that was asked for under another generation begins anew.
      return disk?.isSole && sync?.side === "source" && sync.from !== disk.current
        ? stopGiving(primary)
        : [primary, []];
    }
    case "demoted":
      return stepDown(state);
    case "marked":
      if (sync?.side !== "target") return [{ ...state, isContinuous: false }, []];
      return [{ ...state, isContinuous: false, sync: { ...sync, at: "marked" } }, []];
    case "adopted":
      return [{ ...state, isContinuous: true, sync: undefined }, []];
    case "copying":
      if (sync?.side !== "source") return [state, []];
      return startCopying(state, sync);
    case "finished":
      if (sync?.side !== "source") return [state, []];
      return [{ ...state, sync: { ...sync, at: "finishing" } }, []];
    case "settled":
      return [withContinuity({ ...state, sync: undefined }), []];
    case "nothing":
      return [withContinuity(state), []];
    default:
      throw new Error(`mirrorStep: unknown writing ${JSON.stringify(purpose)}`);
  }
}

function startCopying(state: MirrorState, sync: Giving): MirrorStep {
  const task = state.tasks + 1;
  return [
    { ...state, tasks: task, sync: { ...sync, at: "copying", task } },
    [{ kind: "startResync", task, generation: sync.from }],
  ];
}

/** Nothing is decided any more on a disk that cannot be written; the partner is told, and may ask its arbiter. */
function loseDisk(state: MirrorState, reason: string): MirrorStep {
  const lost: MirrorState = {
    ...state,
    disk: undefined,
    diskFault: reason,
    draining: state.draining === "writingDown" ? "unclean" : state.draining,
    saving: undefined,
    proof: undefined,
    asking: undefined,
  };
  const refuse: MirrorEffect = { kind: "refuseAccess" };
  return inTurn(
    lost,
    stopGiving,
    (given) => [{ ...given, sync: undefined }, []],
    (ended) =>
      ended.access === "open"
        ? [{ ...ended, access: "closing", accessFor: undefined }, [refuse]]
        : [ended, []],
  );
}

function onProof(state: MirrorState, event: Of<"proofArrived" | "proofRefused">): MirrorStep {
  const { asking, arbiter, isContinuous } = state;
  if (asking?.ask !== event.ask) return [state, []];
  const { refusal: _, ...asked } = asking;
  const { generation: of, next } = asked;
  const gap =
    event.kind === "proofRefused"
      ? event.reason
      : proofGap(event.proof, { arbiter, current: of, next, isContinuous });
  if (gap !== undefined || event.kind === "proofRefused")
    return [{ ...state, asking: { ...asking, refusal: gap } }, []];
  return [{ ...state, asking: undefined, proof: { of, proof: event.proof, asked } }, []];
}

function onResync(
  state: MirrorState,
  event: Of<"marksFetched" | "resyncProgress" | "resyncCopied">,
): MirrorState {
  const { sync } = state;
  if (sync?.side !== "source" || sync.task !== event.task) return state;
  if (event.kind === "marksFetched")
    return sync.at === "fetching" ? { ...state, sync: { ...sync, at: "fetched" } } : state;
  if (sync.at !== "copying") return state;
  if (event.kind === "resyncCopied") return { ...state, sync: { ...sync, at: "copied" } };
  return { ...state, sync: { ...sync, dirtyBits: event.dirtyBits } };
}

/** A partner that is heard is no guess: nobody goes on from an older copy beside it, or beside another primary. */
function onOverride(state: MirrorState, { who, why, epoch }: Of<"overrideAsked">): MirrorStep {
  const { disk } = state;
  const verdict = verdictOf(state);
  if (verdict?.kind === "resync" && verdict.source === "theirs")
    return refuse(state, `the partner is reached, and its copy is newer: ${verdict.reason}`);
  if (verdict && state.conflict)
    return refuse(state, `the partner is reached, and is primary: ${verdict.reason}`);
  const next: MirrorState = {
    ...state,
    wanted: "primary",
    epoch,
    refusal: undefined,
    conflict: undefined,
  };
  if (!disk?.current || disk.isSole) return [next, []];
  return [{ ...next, proof: { of: disk.current, proof: { kind: "override", who, why } } }, []];
}

function onResolve(state: MirrorState, resolution: Resolution, fresh: GenerationId): MirrorStep {
  const { disk, contact } = state;
  const { who, why } = resolution;
  const theirs = theirsOf(state)?.current;
  if (
    !disk?.current ||
    isBusy(state) ||
    verdictOf(state)?.kind !== "diverged" ||
    !contact ||
    !theirs
  )
    return refuse(state, "there is no divergence to be resolved now");
  if (resolution.way === "keepMine") {
    if (!disk.isComplete) return refuse(state, "this copy is not complete: nothing could be kept");
    const word = { kind: "yield", to: disk.current, who, why } as const;
    return [state, [{ kind: "tell", contact: contact.id, word }]];
  }
  if (resolution.way === "keepTheirs") return giveUp(state, theirs, who, why);
  if (state.role === "primary")
    return refuse(state, "this controller is primary: demote it before its copy is detached");
  const detached = detach(disk, resolution.volume, fresh);
  return detached.ok
    ? save(state, detached.value, "nothing")
    : refuse(state, detached.fault.message);
}

/** What was written here alone is given up: only while nobody writes here, and only for a whole copy that the partner has now. */
function giveUp(state: MirrorState, to: GenerationId, who: string, why: string): MirrorStep {
  const { disk } = state;
  if (!disk || isBusy(state) || verdictOf(state)?.kind !== "diverged")
    return refuse(state, "there is no divergence to be resolved now");
  const theirs = theirsOf(state);
  if (theirs?.current !== to)
    return refuse(state, "the partner's copy is of another generation by now");
  if (!theirs.isComplete)
    return refuse(state, "the partner's copy is not complete: this one may be the last that is");
  if (state.role === "primary")
    return refuse(state, "this controller is primary: demote it before its copy is given up");
  const message = `this copy (generation ${disk.current}) is given up for the partner's (${to}) by ${who}: ${why}`;
  const [next, effects] = save(state, yieldTo(disk, to), "nothing");
  return [
    next,
    [...effects, { kind: "report", severity: "warning", code: "mirrorYielded", message }],
  ];
}

function refuse(state: MirrorState, message: string): MirrorStep {
  return [state, [{ kind: "report", severity: "error", code: "mirrorRefused", message }]];
}
