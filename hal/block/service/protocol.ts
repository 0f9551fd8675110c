/**
 * What the daemon and its block service say to each other, one JSON object a message over the process's IPC channel.
 * Requests carry an id and are each answered once, in any order; events come unasked.
 */
import { z } from "zod";
import type { Foreseen } from "../../../firmware-ts/schema/range.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../../firmware-ts/schema/reservation.ts";

const text = z.string().min(1).max(256);
const key = z.string().regex(/^[0-9a-f]{16}$/, "expected 16 lower-case hexadecimal digits");
const deadlineMs = z.number().positive().max(600_000);
const timeMs = z.number().int().positive().max(600_000);

const reservationType = z.enum([
  "writeExclusive",
  "exclusiveAccess",
  "writeExclusiveRegistrantsOnly",
  "exclusiveAccessRegistrantsOnly",
  "writeExclusiveAllRegistrants",
  "exclusiveAccessAllRegistrants",
]);

const reservationCommand = z.discriminatedUnion("op", [
  z.strictObject({ op: z.literal("register"), key }),
  z.strictObject({ op: z.literal("unregister") }),
  z.strictObject({ op: z.literal("readKeys") }),
  z.strictObject({ op: z.literal("readReservation") }),
  z.strictObject({ op: z.literal("reserve"), key, type: reservationType }),
  z.strictObject({ op: z.literal("release"), key, type: reservationType }),
  z.strictObject({ op: z.literal("preempt"), key, victim: key, type: reservationType }),
]) satisfies z.ZodType<ReservationCommand>;

const reservationAnswer = z.discriminatedUnion("status", [
  z.strictObject({ status: z.literal("good") }),
  z.strictObject({ status: z.literal("conflict") }),
  z.strictObject({ status: z.literal("failed"), reason: z.string() }),
  z.strictObject({
    status: z.literal("keys"),
    generation: z.number(),
    keys: z.array(key).max(65_536).readonly(),
  }),
  z.strictObject({
    status: z.literal("reservation"),
    generation: z.number(),
    holder: z.strictObject({ key, type: reservationType }).optional(),
  }),
]) satisfies z.ZodType<ReservationAnswer>;

const hold = z.strictObject({ key, type: reservationType });

/** See `foresee.ts`, which keeps within these bounds. */
const foreseen = z.strictObject({
  blockSizeBytes: z.number().int().min(1024).max(65_536),
  ranges: z
    .array(
      z.strictObject({
        fromBytes: z.number().int().nonnegative(),
        lengthBytes: z
          .number()
          .int()
          .positive()
          .max(1 << 20),
      }),
    )
    .max(256)
    .readonly(),
}) satisfies z.ZodType<Foreseen>;

/** A disk to open: where it is reached, as whom, and the serial that says which one it is. */
export const diskSpecSchema = z.strictObject({
  serial: text,
  host: text,
  port: z.number().int().min(1).max(65_535),
  targetName: text,
  initiatorName: text,
  /** Each disk has a session of its own, hence an ISID of its own. */
  isid: z.string().regex(/^[0-9a-f]{12}$/),
  /** Whether it is offered by NBD; a coordinator disk is not. */
  exported: z.boolean(),
  timing: z
    .strictObject({
      commandTimeoutMs: timeMs,
      ioTimeoutMs: timeMs,
      loginTimeoutMs: timeMs,
      keepaliveMs: timeMs,
      keepaliveTimeoutMs: timeMs,
      abortTimeoutMs: timeMs,
      reconnectFirstMs: timeMs,
      reconnectMaxMs: timeMs,
    })
    .partial()
    .optional(),
});
export type DiskSpec = z.infer<typeof diskSpecSchema>;

const id = z.number().int().nonnegative();

export const requestSchema = z.discriminatedUnion("op", [
  z.strictObject({ id, op: z.literal("listen"), path: z.string().min(1).max(107) }),
  z.strictObject({
    id,
    op: z.literal("open"),
    disk: diskSpecSchema,
    waitMs: z.number().min(0).max(600_000),
  }),
  z.strictObject({
    id,
    op: z.literal("reserve"),
    serial: text,
    command: reservationCommand,
    deadlineMs,
  }),
  /** Verifies the hold in the present session (no hold: asks nothing), then lets I/O flow and turns the export on. */
  z.strictObject({ id, op: z.literal("allow"), serial: text, hold: hold.optional(), deadlineMs }),
  /** What a mount and a start will read: looked for as long as I/O is allowed, and not longer than `deadlineMs`. */
  z.strictObject({ id, op: z.literal("foresee"), serial: text, deadlineMs }),
  /** Turns the export off; answered when no operation is left. */
  z.strictObject({ id, op: z.literal("forbid"), serial: text }),
  z.strictObject({ id, op: z.literal("close"), serial: text }),
  z.strictObject({ id, op: z.literal("status") }),
]);
export type ServiceRequest = z.infer<typeof requestSchema>;

export const diskStatusSchema = z.strictObject({
  serial: text,
  up: z.boolean(),
  session: z.number(),
  permission: z.enum(["closed", "granted", "held", "fenced"]),
  lun: z.number().optional(),
  sizeBytes: z.number(),
  blockSizeBytes: z.number(),
  logins: z.number(),
  losses: z.number(),
  timeouts: z.number(),
  retries: z.number(),
  conflicts: z.number(),
  reads: z.number(),
  writes: z.number(),
  readBytes: z.number(),
  writtenBytes: z.number(),
  failed: z.number(),
  refused: z.number(),
});
export type DiskStatus = z.infer<typeof diskStatusSchema>;

export const serviceStatusSchema = z.strictObject({
  disks: z.array(diskStatusSchema),
  nbdConnections: z.number(),
  nbdFaults: z.record(z.string(), z.number()),
});
export type ServiceStatus = z.infer<typeof serviceStatusSchema>;

const faultSchema = z.object({
  code: z.string(),
  operation: z.string(),
  message: z.string(),
  cause: z.unknown().optional(),
});

/** What the service sends. */
export const serviceMessageSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("ready") }),
  z.strictObject({ kind: z.literal("done"), id }),
  z.strictObject({ kind: z.literal("fault"), id, fault: faultSchema }),
  /** I/O flows; `writeCache` as in `IscsiDisk`. */
  z.strictObject({ kind: z.literal("allowed"), id, writeCache: z.boolean() }),
  /** Without `foreseen`: nothing could be told. */
  z.strictObject({ kind: z.literal("foreseen"), id, foreseen: foreseen.optional() }),
  z.strictObject({ kind: z.literal("disk"), id, disk: diskStatusSchema }),
  z.strictObject({ kind: z.literal("answer"), id, answer: reservationAnswer }),
  z.strictObject({ kind: z.literal("status"), id, status: serviceStatusSchema }),
  z.strictObject({
    kind: z.literal("path"),
    serial: text,
    up: z.boolean(),
    session: z.number(),
    reason: z.string(),
  }),
  z.strictObject({ kind: z.literal("fenced"), serial: text, reason: z.string() }),
  z.strictObject({ kind: z.literal("nbdFault"), reason: z.string(), detail: z.string() }),
]);
export type ServiceMessage = z.infer<typeof serviceMessageSchema>;
