/** How a mirrored volume stands, in the words that an operator gets; and what is reported when that changes. */
import type { Verdict } from "../../schema/mirror.ts";
import { needsProof } from "./volume-promote.ts";
import { areTwins, theirsOf, verdictOf } from "./volume-state.ts";
import type { MirrorEffect, MirrorState, Role } from "./volume-types.ts";

export type LocalCopy = "upToDate" | "syncTarget" | "incomplete" | "outdated" | "fresh" | "missing";
export type RemoteCopy =
  | "unknown"
  | "upToDate"
  | "syncTarget"
  | "behind"
  | "newer"
  | "diverged"
  | "unrelated"
  | "unusable"
  | "missing";

export interface MirrorView {
  readonly role: Role;
  readonly local: LocalCopy;
  readonly remote: RemoteCopy;
  readonly writes: MirrorState["writes"];
  /** Why nothing is acknowledged, or why it is not primary although it should be; absent: nothing is wrong. */
  readonly frozen?: string | undefined;
  /** What the two replicas are to each other, if that wants somebody's attention. */
  readonly trouble?: string | undefined;
}

export function mirrorView(state: MirrorState): MirrorView {
  const verdict = verdictOf(state);
  return {
    role: state.role,
    local: localCopy(state),
    remote: remoteCopy(state, verdict),
    writes: state.writes,
    frozen: frozenReason(state),
    trouble: troubleOf(verdict),
  };
}

function localCopy({ disk, sync }: MirrorState): LocalCopy {
  if (!disk) return "missing";
  if (disk.current === undefined) return "fresh";
  if (!disk.isComplete) return sync?.side === "target" ? "syncTarget" : "incomplete";
  return disk.isOutdated ? "outdated" : "upToDate";
}

function remoteCopy(state: MirrorState, verdict: Verdict | undefined): RemoteCopy {
  const { contact, sync } = state;
  if (!contact?.heard || !state.disk) return "unknown";
  if (!theirsOf(state)) return "missing";
  if (sync?.side === "source") return "syncTarget";
  if (areTwins(state)) return "upToDate";
  if (verdict?.kind === "resync") return verdict.source === "mine" ? "behind" : "newer";
  if (verdict?.kind === "diverged" || verdict?.kind === "unrelated") return verdict.kind;
  return "unusable";
}

function troubleOf(verdict: Verdict | undefined): string | undefined {
  if (!verdict || verdict.kind === "same" || verdict.kind === "resync") return undefined;
  return verdict.reason;
}

function frozenReason(state: MirrorState): string | undefined {
  const { disk, wanted, role, writes, asking, refusal } = state;
  if (wanted === "secondary") return role === "secondary" ? refusal : undefined;
  if (writes === "both" || writes === "alone") return undefined;
  if (!disk) return `this controller's copy is lost (${state.diskFault}): promote the partner's`;
  if (!disk.isComplete)
    return disk.current === undefined
      ? "this copy was never used"
      : "this copy is incomplete: it has to be filled from the partner's first";
  if (disk.isOutdated) return "this copy is outdated: the partner may have gone on from it";
  const verdict = verdictOf(state);
  const trouble = troubleOf(verdict);
  if (trouble !== undefined) return trouble;
  if (state.conflict)
    return "the partner was primary with data of its own when it was last heard: one of the two has to be decided for";
  if (needsProof(state))
    return `the partner's copy is not reached, and it is not proved that the partner will not be promoted: ${asking?.refusal ?? "the arbiter has not answered"}`;
  return "the partner's copy is being reached";
}

/** One report for each thing that has changed. */
export function reports(before: MirrorState, after: MirrorState): MirrorEffect[] {
  const was = mirrorView(before);
  const is = mirrorView(after);
  const news: MirrorEffect[] = [];
  const say = (severity: "info" | "warning" | "error", code: string, message: string) =>
    news.push({ kind: "report", severity, code, message });
  if (is.role !== was.role) say("info", "mirrorRole", `now ${is.role}`);
  if (is.trouble !== undefined && is.trouble !== was.trouble)
    say("error", "mirrorTrouble", is.trouble);
  if (is.frozen !== undefined && is.frozen !== was.frozen)
    say("warning", "mirrorFrozen", is.frozen);
  if (is.writes === "alone" && was.writes !== "alone")
    say("warning", "mirrorAlone", aloneMessage(after));
  if (is.writes === "both" && was.writes !== "both")
    say("info", "mirrorBoth", "every write is on both controllers");
  return news;
}

function aloneMessage({ disk }: MirrorState): string {
  const proof = disk?.continued?.proof;
  if (!proof) return "writes are on this controller only";
  const ground = proof.kind === "override" ? `override by ${proof.who}: ${proof.why}` : proof.kind;
  return `writes are on this controller only (${ground})`;
}
