/**
 * What is due, from what is known: rules in the order in which they are tried, again and again until none has anything to do. None is tried
 * while a writing or the end of the partner's access is under way, so that nothing is done under what is not on the disk yet.
 */
import type { GenerationId } from "../../schema/mirror.ts";
import { settled } from "./generations.ts";
import {
  askForProof,
  becomePrimary,
  beginDemotion,
  endDemotion,
  sayGoodbye,
  takeEmptyForGoodbye,
  useProof,
} from "./volume-promote.ts";
import {
  beginGiving,
  finishGiving,
  openToTarget,
  prepareGiving,
  settleGiving,
  tellFinished,
} from "./volume-source.ts";
import { areTwins, closeLeg, fence, isBusy, save, theirsOf, verdictOf } from "./volume-state.ts";
import { adoptSource, letIn, markTarget } from "./volume-target.ts";
import type { MirrorEffect, MirrorState, MirrorStep, Rule } from "./volume-types.ts";

/** More rules in a row than one event can make due: beyond it two of them undo each other. */
const turnsMax = 32;

/** The partner learns of our replica first of all, and never of one that is about to change: it would build on that. */
const tellMetadata: Rule = (state) => {
  const { contact, disk } = state;
  if (!contact || (contact.told && contact.told.metadata === disk)) return undefined;
  const word = { kind: "metadata", metadata: disk } as const;
  return [
    { ...state, contact: { ...contact, told: { metadata: disk } } },
    [{ kind: "tell", contact: contact.id, word }],
  ];
};

/** Both have the same: what was written down for the case that they have not is taken back. */
const clearMarks: Rule = (state) => {
  const { disk, sync } = state;
  if (!disk || sync || state.isLeaving || state.contact?.isDeparting) return undefined;
  if (verdictOf(state)?.kind !== "same") return undefined;
  if (!disk.isOutdated && disk.base === undefined) return undefined;
  return save(state, settled(disk), "nothing");
};

/** A secondary that has what the partner has lets it in, under their generation; nobody else does. */
const giveAccess: Rule = (state) => {
  const { disk, contact, sync } = state;
  // Without a contact nothing is changed: a leg does not need one.
  if (!contact || sync?.side === "target" || !contact.heard) return undefined;
  // Who wants to be primary itself cuts the partner's access first, but not while the partner is primary: it would only be cut in turn.
  const isHost =
    state.role === "secondary" &&
    !state.isLeaving &&
    (state.wanted === "secondary" || theirsOf(state)?.isPrimary === true);
  const generation = isHost && areTwins(state) && !sync ? disk?.current : undefined;
  if (state.accessFor === generation) return undefined;
  if (state.access === "open") return fence(state);
  if (generation === undefined) return undefined;
  return [
    { ...state, access: "open", accessFor: generation },
    [{ kind: "allowAccess", generation }],
  ];
};

const dropLeg: Rule = (state) => {
  if (state.leg === "closed" || state.role === "primary" || state.sync?.side === "source")
    return undefined;
  if (state.wanted === "primary" && areTwins(state) && theirsOf(state)?.isPrimary !== true)
    return undefined;
  return closeLeg(state);
};

const rules: readonly Rule[] = [
  tellMetadata,
  endDemotion,
  beginDemotion,
  sayGoodbye,
  takeEmptyForGoodbye,
  useProof,
  markTarget,
  letIn,
  adoptSource,
  becomePrimary,
  openToTarget,
  prepareGiving,
  finishGiving,
  tellFinished,
  settleGiving,
  beginGiving,
  clearMarks,
  giveAccess,
  dropLeg,
  askForProof,
];

/** Everything that is due. `fresh`: a generation id that was never used, for the one new generation that may begin. */
export function settle(state: MirrorState, fresh: GenerationId): MirrorStep {
  let next = state;
  const effects: MirrorEffect[] = [];
  for (let turn = 0; turn < turnsMax; turn++) {
    const due = gateWrites(next) ?? (isBusy(next) ? undefined : firstDue(next, fresh));
    if (!due) return [next, effects];
    next = due[0];
    effects.push(...due[1]);
  }
  throw new Error(`mirror ${state.me}: the rules come to no end at ${JSON.stringify(next)}`);
}

function firstDue(state: MirrorState, fresh: GenerationId): MirrorStep | undefined {
  for (const rule of rules) {
    const due = rule(state, fresh);
    if (due) return due;
  }
  return undefined;
}

/** Whether writes may be acknowledged, and when: always from what is on the disk, never from what is about to be. */
function gateWrites(state: MirrorState): MirrorStep | undefined {
  const writes = writesNow(state);
  if (writes === state.writes) return undefined;
  const effect: MirrorEffect =
    writes === "both" || writes === "alone"
      ? { kind: "resumeWrites", mode: writes }
      : { kind: "holdWrites" };
  return [{ ...state, writes }, [effect]];
}

function writesNow(state: MirrorState): MirrorState["writes"] {
  const { role, disk, leg, sync, draining } = state;
  if (role === "secondary") return "none";
  // Two primaries that have diverged: each write more is one that somebody will have to give up.
  if (!disk || draining || state.conflict === "diverged") return "held";
  if (sync?.side === "source" && sync.at === "copied") return "held";
  if (disk.isSole) return "alone";
  if (sync?.side === "source" && sync.at !== "finished") return "held";
  return leg === "open" ? "both" : "held";
}
