/**
 * What is known of a virtual server while nobody serves it: its definition, and the record of it on the common volume (US 7,200,622: configuration with
 * resource allocation, and a copy of the service state: mount table, routing table, device file). See docs/design/0027-common-volume.md.
 */
import { z } from "zod";
import { virtualServersMax } from "./beat.ts";
import { virtualServerSchema } from "./config.ts";
import { controllerIdSchema } from "./ids.ts";

/** Numbers of virtual servers never change; beats, file handles and hardware addresses carry them. */
const serverNumberSchema = z
  .number()
  .int()
  .min(0)
  .max(virtualServersMax - 1);

/** What an administrator wants of it; a deleted one keeps its number until the number is given away again. */
const wantedSchema = z.enum(["started", "stopped", "deleted"]);
export type Wanted = z.infer<typeof wantedSchema>;

const counter = z.number().int().min(0).max(0xffff_ffff);

export const definitionSchema = z.strictObject({
  number: serverNumberSchema,
  /** Rises by one with each change; 0 is what the configuration file of a new pair says. */
  sequence: counter,
  wanted: wantedSchema,
  server: virtualServerSchema,
});
export type Definition = z.infer<typeof definitionSchema>;

/** How much of a state is recorded: characters of a line, and lines of each table. */
export const recordedMax = { line: 200, mounts: 32, routes: 64, devices: 32 } as const;

/** One line of a table, as an operator reads it: only shown, never acted upon. */
const line = z.string().max(recordedMax.line);

/** What the last start came to; written by the owner for whoever looks next. */
export const recordedStateSchema = z.strictObject({
  mounts: z.array(line).max(recordedMax.mounts),
  routes: z.array(line).max(recordedMax.routes),
  devices: z.array(line).max(recordedMax.devices),
});
export type RecordedState = z.infer<typeof recordedStateSchema>;

export const volumeRecordSchema = z.strictObject({
  format: z.literal(1),
  /** Rises by one with each writing of this number's record. */
  generation: counter,
  /** Who wrote it, and under which epoch. */
  owner: controllerIdSchema,
  epoch: counter,
  definition: definitionSchema,
  state: recordedStateSchema,
});
export type VolumeRecord = z.infer<typeof volumeRecordSchema>;

/** All that a majority of the coordinator disks says. */
export interface VolumeView {
  /** The newest valid record of each number that has one, by number. */
  readonly records: readonly VolumeRecord[];
  /** Numbers whose newest record fewer than a majority of the disks hold: it may be lost with one of them, and has to be written again. */
  readonly thin: readonly number[];
  /**
   * Numbers of which something is there that this firmware does not understand (a later format), or nothing whole where both slots were
   * used: neither free nor known. Whoever finds one serves it not, writes it not, and gives its number to nobody.
   */
  readonly reserved: readonly number[];
  /** What could not be read as a record, in words for the operator; at most a few. */
  readonly damaged: readonly string[];
}

/**
 * What became of one writing, disk by disk, when a majority had taken it, all had answered, or the time was over. What is missing to the total
 * did not answer, or was not reached.
 */
export interface VolumeWritten {
  /** Disks that hold the record on stable storage. */
  readonly accepted: number;
  /** RESERVATION CONFLICT: we were preempted there. */
  readonly refused: number;
  /** Disks that hold a newer record of this number, or one that is not understood: it was left alone, and has to be read first. */
  readonly overtaken: number;
  readonly total: number;
}

/** What became of one record on one disk; said when nothing of the writing can happen any more. */
export type RecordWritten = "accepted" | "refused" | "overtaken" | "failed";

/** What orders the writings of one record. The owner's letter, or its code on the disk. */
interface Writing<Owner extends string | number> {
  readonly epoch: number;
  readonly generation: number;
  readonly owner: Owner;
}

/** Positive when `one` is newer than `other`, 0 when they are the same writing. */
export function compareWritings<Owner extends string | number>(
  one: Writing<Owner>,
  other: Writing<Owner>,
): number {
  const byOwner = Number(one.owner > other.owner) - Number(one.owner < other.owner);
  return one.epoch - other.epoch || one.generation - other.generation || byOwner;
}
