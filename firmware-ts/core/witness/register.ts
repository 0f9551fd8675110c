/**
 * The register of a witness: one record for each volume of a pair, and what a request makes of it. The same function decides in the
 * built-in witness and in front of etcd.
 *
 *              register by one side        register by the other, same base
 *     (none) ──────────────────▶ proposed ─────────────────────────▶ free ◀──────┐
 *        └──────────────────── impose (administrator) ──────────────▶ │          │ release, to another base
 *                                                               claim │          │ (when held: by the holder)
 *                                                                     ▼          │
 *                                                                   held ────────┘
 *
 * SAFETY: two rules carry everything else.
 * - *At most one side for a base.* A claim is granted only for the record's base, and never while the other side holds it; a base is left
 *   only for one that was not granted before, so a base that was granted is never free again. Generations are drawn at random and do not
 *   come back by themselves; old ones that are put back from a backup are told by the last `grantedMax` bases that were granted.
 * - *Only at the version it was based on.* Every change raises the version, so a request that is late or comes twice changes nothing.
 */
import {
  type WitnessAnswer,
  type WitnessRecord,
  type WitnessRequest,
  type WitnessResult,
  witnessLimits,
} from "../../schema/witness.ts";

export interface Decision {
  readonly answer: WitnessAnswer;
  /** What must be durable before the answer is given. Absent: nothing changes. */
  readonly write?: WitnessRecord;
}

/** `witness`: the identity of the one that decides; `record`: what it has of the request's volume. Total, and pure. */
export function decide(
  witness: string,
  record: WitnessRecord | undefined,
  request: WitnessRequest,
): Decision {
  // Not even the record is told: whoever takes us for another witness would compare it with what that one said.
  if (request.witness !== witness)
    return { answer: { witness, result: "otherWitness", record: null } };
  const refuse = (result: WitnessResult): Decision => ({
    answer: { witness, result, record: record ?? null },
  });
  if (request.kind === "look") return refuse("done");
  const version = record?.version ?? 0;
  if (request.version !== version) return refuse("stale");
  const judged = judge(record, request);
  if (typeof judged === "string") return refuse(judged);
  const write = { ...judged, version: version + 1 };
  return { answer: { witness, result: "done", record: write }, write };
}

type Change = Exclude<WitnessRequest, { kind: "look" }>;
type Unversioned = Omit<WitnessRecord, "version">;

function judge(record: WitnessRecord | undefined, request: Change): Unversioned | WitnessResult {
  switch (request.kind) {
    case "register":
      return registered(record, request);
    case "impose":
      // What both controllers have agreed on, or a grant that was given, is not for an administrator to change here.
      if (record && record.standing.kind !== "proposed") return "registered";
      return { base: request.base, standing: { kind: "free" }, imposed: request.reason };
    case "claim":
      return claimed(record, request);
    case "release":
      return released(record, request);
  }
}

function registered(
  record: WitnessRecord | undefined,
  { side, base }: Extract<Change, { kind: "register" }>,
): Unversioned | WitnessResult {
  const standing = record?.standing;
  if (standing && standing.kind !== "proposed") return "registered";
  const agreed = standing && standing.by !== side && record?.base === base;
  return { base, standing: agreed ? { kind: "free" } : { kind: "proposed", by: side } };
}

function claimed(
  record: WitnessRecord | undefined,
  { side, base, next, epoch }: Extract<Change, { kind: "claim" }>,
): Unversioned | WitnessResult {
  if (!record || record.standing.kind === "proposed") return "unregistered";
  if (record.base !== base) return "otherBase";
  if (record.standing.kind === "held" && record.standing.by !== side) return "held";
  if (isSpent(record, next)) return "spentBase";
  const before = (record.granted ?? []).filter((each) => each !== base);
  const granted = [...before, base].slice(-witnessLimits.grantedMax);
  return { ...record, standing: { kind: "held", by: side, next, epoch }, granted };
}

function released(
  record: WitnessRecord | undefined,
  { side, base, to }: Extract<Change, { kind: "release" }>,
): Unversioned | WitnessResult {
  if (!record || record.standing.kind === "proposed") return "unregistered";
  if (record.base !== base) return "otherBase";
  if (record.standing.kind === "held" && record.standing.by !== side) return "held";
  if (isSpent(record, to)) return "spentBase";
  const { granted } = record;
  return { base: to, standing: { kind: "free" }, ...(granted === undefined ? {} : { granted }) };
}

/** SAFETY: of a base that was granted once, the other side may never be granted anything, by whatever way the record would come back to it. */
function isSpent({ base, granted }: WitnessRecord, next: string): boolean {
  return next === base || granted?.includes(next) === true;
}
