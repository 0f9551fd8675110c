/**
 * The side of a resync that is overwritten: cut what the partner has open, write down that this copy is incomplete, say so and let it in
 * again under the new generation (ready); and when it has finished, write down that this copy is complete.
 */
import { adopt, becomeTarget } from "./generations.ts";
import { fence, save, verdictOf } from "./volume-state.ts";
import type { MirrorState, MirrorStep, Rule, Taking, Word } from "./volume-types.ts";

/** The partner asks. Whether that is right is judged when it is done, by our own table. */
export function onBeTarget(
  state: MirrorState,
  { from, as }: Extract<Word, { kind: "beTarget" }>,
): MirrorStep {
  if (state.sync?.side === "source" || state.isLeaving) return [state, []];
  const sync: Taking = { side: "target", from, as, at: "marking" };
  return [{ ...state, sync }, []];
}

export const markTarget: Rule = (state) => {
  const { sync, disk } = state;
  if (sync?.side !== "target" || sync.at !== "marking" || state.role === "primary" || !disk)
    return undefined;
  const verdict = verdictOf(state);
  if (verdict?.kind !== "resync" || verdict.source !== "theirs")
    return [{ ...state, sync: undefined }, []];
  return fence(state) ?? save(state, becomeTarget(disk, sync.from, sync.as), "marked");
};

/** Behind the word that our metadata have changed. */
export const letIn: Rule = (state) => {
  const { sync, contact } = state;
  if (sync?.side !== "target" || sync.at !== "marked" || !contact) return undefined;
  const { from } = sync;
  return [
    { ...state, access: "open", accessFor: from, sync: { ...sync, at: "receiving" } },
    [
      { kind: "allowAccess", generation: from },
      { kind: "tell", contact: contact.id, word: { kind: "ready", from } },
    ],
  ];
};

export const adoptSource: Rule = (state) => {
  const { sync, disk } = state;
  if (sync?.side !== "target" || !sync.finished || !disk) return undefined;
  return save(state, adopt(disk, sync.finished), "adopted");
};
