/**
 * Whether a proof holds. It has to say that the partner will never be promoted in the generation that both have, and that it has not been
 * promoted in it already.
 *
 * There is one arbiter, not two: a partner to which the witness gave the generation may be switched off afterwards, and what it has acknowledged in
 * between is lost to whoever then takes "it is off" for a proof. The partner's own durable word stands beside either, because it is
 * kept on the one replica that it is about.
 */
import type { AloneProof, Arbiter, GenerationId } from "../../schema/mirror.ts";

export interface Circumstances {
  readonly arbiter: Arbiter;
  /** The generation of our replica. */
  readonly current: GenerationId;
  /** How the new one was to be called when the arbiter was asked. */
  readonly next: GenerationId;
  /**
   * The last that we heard of the partner, in this life, was that it has our generation. Whoever has slept or restarted since cannot
   * tell whether the partner went on meanwhile.
   */
  readonly isContinuous: boolean;
}

/** Why a proof does not hold; undefined if it does. An override always holds: that it may be wrong is what it says. */
export function proofGap(
  proof: AloneProof,
  { arbiter, current, next, isContinuous }: Circumstances,
): string | undefined {
  switch (proof.kind) {
    case "override":
      return undefined;
    case "witness":
      if (arbiter !== "witness") return "this volume is not decided by a witness";
      return proof.generation === current && proof.next === next
        ? undefined
        : "the witness granted another generation";
    case "goodbye":
      if (proof.isDurable) return undefined;
      if (arbiter !== "powerOff") return "the partner's word holds for its present life only";
      return isContinuous ? undefined : notContinuous;
    case "powerOff":
      if (arbiter !== "powerOff") return "this volume is decided by a witness";
      return isContinuous ? undefined : notContinuous;
    default:
      throw new Error(`proofGap: unknown proof ${JSON.stringify(proof)}`);
  }
}

const notContinuous =
  "this controller was not running, or not in step, when the partner was lost: the partner may have gone on meanwhile";
