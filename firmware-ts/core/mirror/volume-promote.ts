/**
 * Who writes: promotion, going on alone, demotion, goodbye.
 *
 * A controller becomes primary in one of three ways, and always with the partner's access cut first: it is sole; or the partner lets it in,
 * which a primary does not; or a proof says that the partner will not be promoted, and then a new generation begins.
 */
import type { GenerationId } from "../../schema/mirror.ts";
import { continueAlone, demote, outdate, promote } from "./generations.ts";
import {
  areTwins,
  closeLeg,
  fence,
  isPartnerEmpty,
  openLeg,
  save,
  theirsOf,
  verdictOf,
} from "./volume-state.ts";
import type { Merge, MirrorState, MirrorStep, Question, Rule } from "./volume-types.ts";

/** Extents that were active when an earlier life of ours ended: into the bitmap, before the log forgets them. */
const ofEarlierLife = ({ disk, role }: MirrorState): readonly Merge[] =>
  disk?.isPrimary && role === "secondary" ? ["ownActivity"] : [];

const isTaking = ({ sync }: MirrorState) => sync?.side === "target";

/** Goes on without the partner, and becomes primary in the same writing if that is wanted. */
export const useProof: Rule = (state, fresh) => {
  const { disk, proof } = state;
  if (!disk?.current || !proof || proof.of !== disk.current || disk.isSole) return undefined;
  if (!disk.isComplete || state.draining || state.isLeaving || isTaking(state)) return undefined;
  if (state.role !== "primary" && state.wanted !== "primary") return undefined;
  if (disk.isOutdated && proof.proof.kind !== "override") return undefined;
  const closing = fence(state);
  if (closing) return closing;
  // What was granted was granted for one name, in one epoch: another one would be news to the arbiter.
  const { next, epoch } = proof.asked ?? {
    next: fresh,
    epoch: Math.max(state.epoch, disk.epoch),
  };
  const alone = continueAlone(disk, { fresh: next, epoch, proof: proof.proof });
  if (!alone.ok) return [{ ...state, proof: undefined, refusal: alone.fault.message }, []];
  const metadata = { ...alone.value, isPrimary: true };
  return save({ ...state, proof: undefined }, metadata, "promoted", ofEarlierLife(state));
};

/** Becomes primary without a new generation: alone if sole, or with a partner that has the same and lets us in. */
export const becomePrimary: Rule = (state) => {
  const { disk } = state;
  if (state.role === "primary" || state.wanted !== "primary" || !disk || isTaking(state))
    return undefined;
  if (!disk.isComplete || disk.isOutdated || state.isLeaving || state.conflict) return undefined;
  const isTogether = areTwins(state) && !disk.isPrimary && !state.contact?.isDeparting;
  if (!disk.isSole && (!isTogether || theirsOf(state)?.isPrimary)) return undefined;
  const closing = fence(state);
  if (closing) return closing;
  if (!disk.isSole && state.leg !== "open") return reachPartner(state, disk.current);
  const next = promote(disk, Math.max(state.epoch, disk.epoch));
  if (!next.ok) return undefined;
  return save(state, next.value, "promoted", ofEarlierLife(state));
};

function reachPartner(
  state: MirrorState,
  generation: GenerationId | undefined,
): MirrorStep | undefined {
  if (state.leg !== "closed" || state.legFailure !== undefined) return undefined;
  return generation === undefined ? undefined : openLeg(state, generation);
}

/** A primary that is not wanted, or that the partner has overtaken while it was frozen, ends what is in flight. */
export const beginDemotion: Rule = (state) => {
  if (state.role !== "primary" || state.draining) return undefined;
  if (state.wanted === "primary" && !isOvertaken(state)) return undefined;
  const task = state.tasks + 1;
  return [
    { ...state, wanted: "secondary", draining: "underWay", tasks: task, drainTask: task },
    [{ kind: "drainWrites", task }],
  ];
};

function isOvertaken(state: MirrorState): boolean {
  const verdict = verdictOf(state);
  const isTheirs = verdict?.kind === "resync" && verdict.source === "theirs";
  return state.disk === undefined || isTheirs;
}

/** Unclean: the mark of a primary stays on the disk, and with it the word that the extents of its log may differ. */
export const endDemotion: Rule = (state) => {
  const { draining, disk } = state;
  if (draining === "clean" && disk)
    return save({ ...state, draining: "writingDown" }, demote(disk), "demoted");
  return draining === "clean" || draining === "unclean" ? stepDown(state) : undefined;
};

/** Is secondary from here on; a resync that it gives needs its leg. */
export function stepDown(state: MirrorState): MirrorStep {
  const secondary: MirrorState = { ...state, role: "secondary", draining: undefined };
  return state.sync?.side === "source" ? [secondary, []] : closeLeg(secondary);
}

/** Says goodbye where it helps: to a partner that has the same. Outdated first, durably, then the word. */
export const sayGoodbye: Rule = (state) => {
  const { contact, disk } = state;
  if (!state.isLeaving || state.role === "primary" || !contact || !disk || contact.hasLeft)
    return undefined;
  // Whoever leaves last is not outdated: nobody is there to go on.
  if (!areTwins(state) || disk.isPrimary || contact.isDeparting) return undefined;
  const closing = fence(state);
  if (closing) return closing;
  if (!disk.isOutdated) return save(state, outdate(disk), "nothing");
  return [
    { ...state, contact: { ...contact, hasLeft: true } },
    [{ kind: "tell", contact: contact.id, word: { kind: "goodbye" } }],
  ];
};

/** A partner without a copy says that it has none: its word, for as long as it lives (core/mirror/proofs). */
export const takeEmptyForGoodbye: Rule = (state) => {
  const { disk, arbiter, isContinuous, proof } = state;
  if (!disk?.current || disk.isSole || proof || !isPartnerEmpty(state)) return undefined;
  if (arbiter !== "powerOff" || !isContinuous) return undefined;
  const word = { kind: "goodbye", isDurable: false } as const;
  return [{ ...state, proof: { of: disk.current, proof: word } }, []];
};

/** Asks the arbiter, when nothing but its word helps. */
export const askForProof: Rule = (state, fresh) => {
  const { disk } = state;
  if (!disk?.current || state.proof || state.asking || !needsProof(state)) return undefined;
  const ask = state.asks + 1;
  const epoch = Math.max(state.epoch, disk.epoch);
  const asking: Question = { ask, generation: disk.current, next: fresh, epoch };
  return [{ ...state, asks: ask, asking }, [{ kind: "askProof", ...asking }]];
};

/** Whether a controller waits for a proof, and for nothing else. */
export function needsProof(state: MirrorState): boolean {
  const { disk, contact } = state;
  if (!disk?.isComplete || disk.isSole || disk.isOutdated) return false;
  if (state.draining || state.isLeaving || state.sync || state.wanted !== "primary") return false;
  if (state.role === "primary" && state.leg !== "closed") return false;
  if (!contact) return true;
  if (!contact.heard) return false;
  if (isPartnerEmpty(state)) return true;
  const verdict = verdictOf(state);
  const theirs = theirsOf(state);
  const isOurs = verdict?.kind === "resync" && verdict.source === "mine";
  return isOurs && theirs?.isComplete === true && theirs.current !== disk.current;
}
