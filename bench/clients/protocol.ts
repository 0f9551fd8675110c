/** What the client's main process and its workers say to each other (over Node's IPC channel, between processes of one program). */
import { z } from "zod";
import type { EngineCounters } from "./engine.ts";
import type { Operation } from "./history.ts";

export const engineNames = ["nfs3", "libnfs", "nfs41"] as const;
export const engineNameSchema = z.enum(engineNames);
export type EngineName = z.infer<typeof engineNameSchema>;

export const workerSettingsSchema = z.strictObject({
  role: z.enum(["writer", "reader"]),
  engine: engineNameSchema,
  target: z.strictObject({
    server: z.union([z.ipv4(), z.ipv6()]),
    exportPath: z.string().startsWith("/").max(255),
    nfsPort: z.number().int().min(1).max(65535),
    mountPort: z.number().int().min(1).max(65535),
  }),
  /** Begins the name of every file, so that several clients may share an export. */
  name: z.string().regex(/^[A-Za-z0-9-]{1,40}$/),
  registers: z.number().int().min(1).max(64),
  recordBytes: z.number().int().min(32).max(1_048_576).multipleOf(8),
  /** Pause after each operation of a register or the log. */
  paceMs: z.number().min(0).max(10_000),
});
export type WorkerSettings = z.infer<typeof workerSettingsSchema>;

/** A log segment: a file to which records were appended. */
export interface LogSegment {
  readonly path: string;
  /** Number of acknowledged records. */
  readonly records: number;
}

export type ToWorker =
  /** The files are there: the reader begins. */
  | { readonly type: "start" }
  | { readonly type: "pause" }
  | { readonly type: "resume" }
  | { readonly type: "verify"; readonly segments: readonly LogSegment[] }
  | { readonly type: "end" };

export type FromWorker =
  | {
      readonly type: "batch";
      readonly operations: readonly (Operation & {
        readonly bytes: number;
        readonly startedAtMs: number;
      })[];
      /** Nothing sent later completed before this. */
      readonly watermarkMs: number;
      readonly counters: EngineCounters;
      readonly tornReads: number;
      readonly corruptReads: number;
      /** Acknowledged log records found missing when a segment was retired. */
      readonly lostRecords: number;
    }
  /** The writer has made its registers; the reader listens. */
  | { readonly type: "ready" }
  /** No operation is in flight; answers `pause`. */
  | { readonly type: "paused"; readonly segments: readonly LogSegment[] }
  /** Answers `verify`: what a fresh mount found. */
  | {
      readonly type: "verified";
      readonly registers: readonly { readonly key: string; readonly seq: number }[];
      readonly lostRecords: number;
      readonly corruptReads: number;
    };

/** CLOCK_MONOTONIC, which all processes of a machine share. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Name of the i-th register, which is also its file and its key in the history. */
export function registerKey(settings: Pick<WorkerSettings, "name" | "engine">, i: number): string {
  return `${settings.name}-${settings.engine}-r${i}`;
}

/** Key of the append-only log in the history; its records number through all segments. */
export function logKey(settings: Pick<WorkerSettings, "name" | "engine">): string {
  return `${settings.name}-${settings.engine}-log`;
}
export const logRecordBytes = 512;
/** A segment is 2 MiB; when it is full it is read back and, one later, removed: hours of work need no more. */
export const logSegmentRecords = 4096;
