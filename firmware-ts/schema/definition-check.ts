/** Whether a virtual server can be what somebody wants it to be, beside all others: asked before a change is written, and again by whoever reads one. */
import { type Contradiction, contradictions } from "./contradictions.ts";
import type { Definition } from "./definition.ts";

/** What of the configuration a definition can contradict: the part that is the same on both controllers and never changes while they run. */
export interface StaticClaims {
  readonly shelf: { readonly coordinators: readonly string[] };
}

/**
 * Everything that the candidate contradicts in the configuration and in the other definitions, each in words for the operator that begin with the key, as
 * in `addresses[0]: address 10.0.0.1 is already used by alpha`. The candidate's own former definition may be among the others: what has its number is
 * replaced by it. Deleted ones, the candidate included, need nothing; stopped ones keep what is theirs.
 */
export function definitionProblems(
  configuration: StaticClaims,
  others: readonly Definition[],
  candidate: Definition,
): readonly string[] {
  if (candidate.wanted === "deleted") return [];
  const before = others.filter(
    ({ number, wanted }) => number !== candidate.number && wanted !== "deleted",
  );
  const servers = [...before.map((each) => each.server), candidate.server];
  return contradictions(configuration.shelf.coordinators, servers, before.length)
    .filter(({ server }) => server === -1 || server === before.length)
    .map(inWords);
}

function inWords({ path, message }: Contradiction): string {
  const key = path
    .map((part) => (typeof part === "number" ? `[${part}]` : `.${part}`))
    .join("")
    .replace(/^\./, "");
  return key === "" ? message : `${key}: ${message}`;
}
