/** Metadata of replicas, as they come and as they should never be. */
import fc from "fast-check";
import {
  type AloneProof,
  type GenerationId,
  historyMax,
  type ReplicaMetadata,
} from "../../firmware-ts/schema/mirror.ts";

/** Few generations, so that two replicas have some in common. */
export const someGeneration: fc.Arbitrary<GenerationId> = fc
  .integer({ min: 1, max: 5 })
  .map((number) => number.toString(16).padStart(16, "0"));

const anyProof: fc.Arbitrary<AloneProof> = fc.oneof(
  fc.record({ kind: fc.constant("goodbye" as const), isDurable: fc.boolean() }),
  fc.constant({ kind: "powerOff" as const }),
  fc.record({
    kind: fc.constant("witness" as const),
    generation: someGeneration,
    next: someGeneration,
  }),
  fc.record({
    kind: fc.constant("override" as const),
    who: fc.string({ minLength: 1, maxLength: 16 }),
    why: fc.string({ minLength: 1, maxLength: 64 }),
  }),
);

const epoch = fc.integer({ min: 0, max: 0xffff_ffff });

/** Whatever the schema allows, also what no replica should ever say. */
export const anyReplica: fc.Arbitrary<ReplicaMetadata> = fc.record(
  {
    volume: fc.constantFrom("00000000000000aa", "00000000000000aa", "00000000000000bb"),
    controller: fc.constantFrom("a" as const, "b" as const),
    dataBytes: fc.constantFrom(2 ** 30, 2 ** 30, 2 ** 31),
    granularityBytes: fc.constantFrom(65_536, 65_536, 4096),
    current: someGeneration,
    base: someGeneration,
    history: fc.array(someGeneration, { maxLength: historyMax }),
    isComplete: fc.boolean(),
    isOutdated: fc.boolean(),
    isPrimary: fc.boolean(),
    isSole: fc.boolean(),
    replacedBy: someGeneration,
    epoch,
    continued: fc.record({ epoch, proof: anyProof }),
  },
  {
    requiredKeys: [
      "volume",
      "controller",
      "dataBytes",
      "granularityBytes",
      "history",
      "isComplete",
      "isOutdated",
      "isPrimary",
      "isSole",
      "epoch",
    ],
  },
);

/** A complete replica that is in sync at a generation. */
export function replicaAt(current: number, change: Partial<ReplicaMetadata> = {}): ReplicaMetadata {
  return {
    volume: "00000000000000aa",
    controller: "a",
    dataBytes: 2 ** 30,
    granularityBytes: 65_536,
    current: generation(current),
    history: [],
    isComplete: true,
    isOutdated: false,
    isPrimary: false,
    isSole: false,
    epoch: 1,
    ...change,
  };
}

export const generation = (number: number): GenerationId => number.toString(16).padStart(16, "0");
