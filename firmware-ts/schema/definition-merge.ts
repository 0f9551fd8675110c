/**
 * What a controller that starts takes for true: the records of the common volume, and of the configuration file what has no record yet
 * (docs/design/0027-common-volume.md). A pure function of the two, so that both controllers come to the same.
 */
import type { VirtualServerConfig } from "./config.ts";
import type { Definition, VolumeView } from "./definition.ts";
import { definitionProblems, type StaticClaims } from "./definition-check.ts";
import { isSame } from "./definition-digest.ts";

export interface Merged {
  /** By number; deleted ones too, which keep their number. Numbers may be missing. */
  readonly definitions: readonly Definition[];
  /** What an operator should know: entries of the file that are not used, and definitions that contradict others. */
  readonly warnings: readonly string[];
}

/**
 * Entry *i* of the file is number *i*, unless that number has a record, or is reserved. What contradicts a definition before it counts as stopped: a
 * record comes before what only a file says, and a lower number before a higher one.
 */
export function mergeDefinitions(
  file: StaticClaims & { readonly virtualServers: readonly VirtualServerConfig[] },
  { records, reserved }: Pick<VolumeView, "records" | "reserved">,
): Merged {
  const warnings: string[] = [];
  const recorded = new Map(records.map(({ definition }) => [definition.number, definition]));
  const fromFile: Definition[] = [];
  for (const [number, server] of file.virtualServers.entries()) {
    const record = recorded.get(number);
    const unused = record ? whyUnused(server, record) : whyReserved(number, reserved);
    if (unused !== undefined)
      warnings.push(
        `entry ${number} of the configuration file, ${server.name}, is not used: ${unused}`,
      );
    if (!record && !reserved.includes(number))
      fromFile.push({ number, sequence: 0, wanted: "started", server });
  }
  const byNumber = (one: Definition, other: Definition) => one.number - other.number;
  const accepted: Definition[] = [];
  const refused: Definition[] = [];
  for (const candidate of [...[...recorded.values()].toSorted(byNumber), ...fromFile]) {
    const problems = definitionProblems(file, accepted, candidate);
    if (problems.length === 0) accepted.push(candidate);
    else {
      refused.push({ ...candidate, wanted: "stopped" });
      const { name } = candidate.server;
      warnings.push(
        `${name} (number ${candidate.number}) counts as stopped: ${problems.join("; ")}`,
      );
    }
  }
  return { definitions: [...accepted, ...refused].toSorted(byNumber), warnings };
}

/** Undefined when the file says what the record says. */
function whyUnused(entry: VirtualServerConfig, record: Definition): string | undefined {
  const { number, wanted, server, sequence } = record;
  if (wanted === "deleted") return `virtual server ${number} was deleted (${server.name})`;
  if (isSame(entry, server)) return undefined;
  return `the common volume has ${server.name} as number ${number}, change ${sequence}, and it differs`;
}

function whyReserved(number: number, reserved: readonly number[]): string | undefined {
  if (!reserved.includes(number)) return undefined;
  return `what the common volume has of number ${number} cannot be understood`;
}
