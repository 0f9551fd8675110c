/**
 * Mirrored volumes: what a controller knows of a replica, its own or the partner's (docs/design/0038-mirror-generations.md).
 *
 * A *replica* is the copy of a volume on one controller's disk. A *generation* is a stretch of writes that has a name of its own because
 * from its beginning on the two replicas may differ: it begins when one of them goes on without the other. Data of a generation contain
 * those of every generation that it descends from.
 */
import { z } from "zod";
import { controllerIdSchema } from "./ids.ts";

/** 64 bits as 16 lower-case hexadecimal digits, drawn at random, never zero: zero on a disk means "none". */
export const generationIdSchema = z
  .string()
  .regex(/^(?!0{16})[0-9a-f]{16}$/, "expected 16 hexadecimal digits that are not all zero");
export type GenerationId = z.infer<typeof generationIdSchema>;

/** How many older generations a replica remembers. One that has been away for longer cannot prove that it is older. */
export const historyMax = 16;

/** Bytes of UTF-8 that are kept of who overrode a missing proof, and why. */
export const whoBytesMax = 64;
export const whyBytesMax = 256;

/** Who decides which of two controllers may go on when they do not hear each other. Both must have the same, or both may be told yes. */
export const arbiterSchema = z.enum(["witness", "powerOff"]);
export type Arbiter = z.infer<typeof arbiterSchema>;

/** On what ground one replica may go on without the other: the partner will not be promoted in the generation that both have. */
export const aloneProofSchema = z.discriminatedUnion("kind", [
  /**
   * The partner's own word. `isDurable`: it is written on that replica itself that it is outdated or incomplete; otherwise it holds for
   * this life of the partner only.
   */
  z.object({ kind: z.literal("goodbye"), isDurable: z.boolean() }),
  /** The partner was seen without power after it had been lost. */
  z.object({ kind: z.literal("powerOff") }),
  /** The witness gave this generation to us, to go on from as `next`, and gives it to nobody else. */
  z.object({
    kind: z.literal("witness"),
    generation: generationIdSchema,
    next: generationIdSchema,
  }),
  /** No proof: somebody took it upon themselves. Should it be wrong, the two replicas have diverged, and say so when they meet. */
  z.object({ kind: z.literal("override"), who: z.string().min(1), why: z.string().min(1) }),
]);
export type AloneProof = z.infer<typeof aloneProofSchema>;

/** What is kept at the end of a replica's disk (wire/mirror/superblock), and told to the partner when the two meet. */
export const replicaMetadataSchema = z.object({
  /** The volume's id: 16 hexadecimal digits. Both replicas have the same. */
  volume: generationIdSchema,
  controller: controllerIdSchema,
  dataBytes: z.number().int().positive(),
  granularityBytes: z.number().int().positive(),
  /** The generation of the data; absent: never used. */
  current: generationIdSchema.optional(),
  /** The dirty bitmap says where these data differ from a replica whose `current` is this; absent: it says nothing. */
  base: generationIdSchema.optional(),
  /** Older generations that these data contain, the newest first. */
  history: z.array(generationIdSchema).max(historyMax),
  /** False while it is being overwritten from the other: a mixture of two generations, of use to nobody. */
  isComplete: z.boolean(),
  /** It said goodbye: the other may have gone on without it. */
  isOutdated: z.boolean(),
  /** Writes may be in flight: after a crash the extents of its activity log may differ from the other's. */
  isPrimary: z.boolean(),
  /** Nobody else has `current`, and nobody can be promoted in what it descends from: it may go on without asking anybody. */
  isSole: z.boolean(),
  /** Of an incomplete one: the generation that it is being overwritten with. */
  replacedBy: generationIdSchema.optional(),
  /** Of the last promotion of this replica. It only rises. */
  epoch: z.number().int().min(0).max(0xffff_ffff),
  /** When it last went on alone: in which epoch, and on what ground. */
  continued: z
    .object({ epoch: z.number().int().min(0).max(0xffff_ffff), proof: aloneProofSchema })
    .optional(),
});
export type ReplicaMetadata = Readonly<z.infer<typeof replicaMetadataSchema>>;

export type Side = "mine" | "theirs";

/** What two replicas are to each other. `reason` is for an operator. */
export type Verdict =
  | { readonly kind: "same"; readonly reason: string }
  /**
   * The source is provably newer. `bitmap`: what its bitmap says, what the other's says if that has a base, and the active extents of
   * each that was primary; `full`: everything.
   */
  | {
      readonly kind: "resync";
      readonly source: Side;
      readonly how: "bitmap" | "full";
      readonly reason: string;
    }
  /** Each may have what the other lacks. Somebody must say which counts. */
  | { readonly kind: "diverged"; readonly reason: string }
  /** Not two replicas of one volume, as far as can be proved. */
  | { readonly kind: "unrelated"; readonly reason: string }
  /** Nothing that could be copied from: neither is complete, or the newer one is not. */
  | { readonly kind: "neither"; readonly reason: string };

/** Bits in one page of a bitmap on the disk: 4,096 bytes without a head of 16. */
export const pageBits = (4096 - 16) * 8;

/** The piece of a volume that a primary declares before it writes there. */
export const extentBytes = 4 * 1024 * 1024;

/** Extents that an activity log can name at once: what fits one block of 4,096 bytes beside its head. */
export const activeExtentsMax = 1000;

/** Bits of one volume: 16 TiB at the default granularity, and 32 MiB of memory. */
export const bitsMax = 2 ** 28;
