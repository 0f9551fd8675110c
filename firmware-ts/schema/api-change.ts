/** What crosses the API when virtual servers are created, changed and deleted: whole definitions, with the sequence that the client has seen. */
import { z } from "zod";
import { virtualServerInputSchema } from "./config.ts";
import { definitionSchema, recordedStateSchema } from "./definition.ts";
import { controllerIdSchema } from "./ids.ts";
import { commandRequestSchema } from "./status.ts";

const { number, sequence, wanted } = definitionSchema.shape;

/** A command about one that is there. Without a sequence it holds whatever somebody else has changed in the meantime. */
export const existingRequestSchema = commandRequestSchema.extend({
  expectedSequence: sequence.optional(),
});

export const createRequestSchema = commandRequestSchema.extend({
  server: virtualServerInputSchema,
});

/** All of it, as it is to be. A volume that is without an id keeps the one that its disk has. */
export const modifyRequestSchema = existingRequestSchema.extend({
  server: virtualServerInputSchema,
});

export const definitionViewSchema = z.object({
  number,
  sequence,
  wanted,
  server: virtualServerInputSchema,
  /** What the common volume says of its last start; absent: nothing yet. */
  lastStart: z
    .object({ owner: controllerIdSchema, epoch: z.number().int(), ...recordedStateSchema.shape })
    .optional(),
});
export type DefinitionView = z.infer<typeof definitionViewSchema>;
