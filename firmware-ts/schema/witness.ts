/**
 * What a controller and a witness say to each other, and what a witness keeps (docs/design/0040-witness.md). The pair is no part of a
 * request: it is who the connection was authenticated as, or the folder of keys that a client may use.
 *
 * Words. *base*: the generation that both copies of a volume had when they were last in sync. *held*: one side was granted to continue
 * alone from the base. *version*: counts the changes of one volume's record; a request takes effect only at the version it was based on.
 */
import { z } from "zod";
import { controllerIdSchema } from "./ids.ts";

/** Names of volumes and generations, as in the name of a replica's export; none is `__proto__`, which objects do not keep as a key. */
const name = z
  .string()
  .regex(
    /^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$/,
    "expected 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit",
  );
export const volumeIdSchema = name;
export const generationSchema = name;
/** A pair's name at the witness; it becomes the name of a file and a part of a key. */
export const witnessPairSchema = z
  .string()
  .regex(/^[0-9a-z][0-9a-z-]{0,31}$/, "expected 1 to 32 lower-case letters, digits or dashes");
/** Drawn at random when a witness is made; with its state it loses this, too. */
export const witnessIdSchema = z
  .string()
  .regex(/^[0-9a-f]{32}$/, "expected 32 lower-case hexadecimal digits");
/** An administrator's words, kept with the record. Bounded in bytes, as the files and answers are that carry it. */
export const reasonSchema = z
  .string()
  .regex(/^\P{Cc}+$/u, "expected some characters, and no control characters")
  .refine(
    (text) => text.isWellFormed() && new TextEncoder().encode(text).length <= 200,
    "expected at most 200 bytes of UTF-8",
  );

const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

/** Most volumes of one pair, most pairs of one built-in witness, and how many bases that were granted each record remembers. */
export const witnessLimits = { volumesMax: 256, pairsMax: 64, grantedMax: 32 } as const;

/** What a witness keeps of one volume. */
export const witnessRecordSchema = z.strictObject({
  version: counter.min(1),
  base: generationSchema,
  standing: z.discriminatedUnion("kind", [
    /** One side has named the base, the other has not yet said the same: nothing is granted. */
    z.strictObject({ kind: z.literal("proposed"), by: controllerIdSchema }),
    z.strictObject({ kind: z.literal("free") }),
    /** `by` may continue alone from the base; as which generation and in which epoch it said when it asked. */
    z.strictObject({
      kind: z.literal("held"),
      by: controllerIdSchema,
      next: generationSchema,
      epoch: counter,
    }),
  ]),
  /** Of a volume that an administrator registered instead of both controllers: why. */
  imposed: reasonSchema.optional(),
  /** The bases that were granted to somebody, the last ones, oldest first: the record is not led back to them. Absent: none. */
  granted: z.array(generationSchema).max(witnessLimits.grantedMax).optional(),
});
export type WitnessRecord = z.infer<typeof witnessRecordSchema>;

/** Every request names the witness that it is meant for: one that has lost its state is another one, and refuses. */
const addressed = { witness: witnessIdSchema, volume: volumeIdSchema };
/** Of what changes something: who asks, from which base, and the version that this was decided on (0: there is no record). */
const based = {
  ...addressed,
  side: controllerIdSchema,
  base: generationSchema,
  version: counter,
};

export const witnessRequestSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("look"), ...addressed }),
  /** Both copies are in sync at the base: grants may be given for it, once the other side has said so, too. */
  z.strictObject({ kind: z.literal("register"), ...based }),
  /** May I continue alone from the base, as `next`? */
  z.strictObject({
    kind: z.literal("claim"),
    ...based,
    next: generationSchema,
    epoch: counter,
  }),
  /** Both copies are in sync at `to`, and nobody continues alone from the base any more. */
  z.strictObject({ kind: z.literal("release"), ...based, to: generationSchema }),
  /** An administrator's registration, for both sides. */
  z.strictObject({
    kind: z.literal("impose"),
    ...addressed,
    base: generationSchema,
    version: counter,
    reason: reasonSchema,
  }),
]);
export type WitnessRequest = z.infer<typeof witnessRequestSchema>;

const resultSchema = z.enum([
  "done",
  "otherWitness", // the request was meant for another witness, or for this one before it lost its state
  "stale", // the record is not at the version that the request was based on
  "unregistered", // there is no record, or only one side has registered it
  "registered", // there is a registration already
  "held", // the other side holds the grant
  "otherBase", // the record has another base
  "spentBase", // claim and release must name a new generation: not the base, and none that was granted as a base before
  "full", // no room for another volume
]);
export type WitnessResult = z.infer<typeof resultSchema>;

/** `record` is what stands after the request; null: there is none, or this is the wrong witness. */
export const witnessAnswerSchema = z.strictObject({
  witness: witnessIdSchema,
  result: resultSchema,
  record: witnessRecordSchema.nullable(),
});
export type WitnessAnswer = z.infer<typeof witnessAnswerSchema>;

/** All that a witness has of a pair; what it is asked before a pair knows whom it talks to. */
export const witnessListSchema = z.strictObject({
  witness: witnessIdSchema,
  volumes: z
    .array(z.strictObject({ volume: volumeIdSchema, record: witnessRecordSchema }))
    .max(witnessLimits.volumesMax),
});
export type WitnessList = z.infer<typeof witnessListSchema>;

/** The whole state of a built-in witness, as its file holds it. */
export const witnessStateSchema = z
  .strictObject({
    format: z.literal(1),
    witness: witnessIdSchema,
    pairs: z.record(witnessPairSchema, z.record(volumeIdSchema, witnessRecordSchema)),
  })
  .refine(
    ({ pairs }) =>
      Object.keys(pairs).length <= witnessLimits.pairsMax &&
      Object.values(pairs).every((each) => Object.keys(each).length <= witnessLimits.volumesMax),
    `expected at most ${witnessLimits.pairsMax} pairs of at most ${witnessLimits.volumesMax} volumes`,
  );
export type WitnessState = z.infer<typeof witnessStateSchema>;
