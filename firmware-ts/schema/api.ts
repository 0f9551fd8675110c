/**
 * What crosses the HTTP API beside the shapes of schema/status: errors, lists, queries. Daemon, CLI and the OpenAPI document
 * share them.
 */
import { z } from "zod";
import {
  diskStatusSchema,
  eventSchema,
  panelButtonSchema,
  vetoSchema,
  virtualServerStatusSchema,
} from "./status.ts";

/** Largest request body that is read. A virtual server with as much of everything as it may have is about 5 KiB. */
export const apiBodyBytesMax = 16 * 1024;

/** Most events in one answer. */
export const apiEventsMax = 1000;

/** Stable words for what went wrong; the message beside a code is for people. */
export const apiErrorCodeSchema = z.enum([
  "badRequest",
  "notFound",
  "methodNotAllowed",
  "tooLarge",
  "unsupportedMediaType",
  "notPossible", // vetoes stand against the command; they are listed
  "notReady",
  "busy", // too many streams, or a command that did not answer in time: try again
  "internal",
]);
export type ApiErrorCode = z.infer<typeof apiErrorCodeSchema>;

export const apiErrorSchema = z.object({
  error: z.object({
    code: apiErrorCodeSchema,
    message: z.string(),
    /** Only with `notPossible`: every reason against the command. */
    vetoes: z.array(vetoSchema).optional(),
  }),
});

export const eventListSchema = z.object({ events: z.array(eventSchema) });
export const virtualServerListSchema = z.object({
  virtualServers: z.array(virtualServerStatusSchema),
});
export const diskListSchema = z.object({ disks: z.array(diskStatusSchema) });
export const pressRequestSchema = z.strictObject({ button: panelButtonSchema });
export const readinessSchema = z.object({ ready: z.boolean(), mode: z.string() });

/** A whole number in a query string or in `Last-Event-ID`. */
export const sequenceTextSchema = z
  .string()
  .regex(/^\d{1,15}$/, "expected a whole number")
  .transform(Number);

export const eventQuerySchema = z.strictObject({
  /** Only events with a higher sequence number. */
  after: sequenceTextSchema.optional(),
  /** At most this many, the newest ones. */
  limit: sequenceTextSchema.pipe(z.number().int().min(1).max(apiEventsMax)).optional(),
});
