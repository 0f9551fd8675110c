/**
 * A heartbeat channel. It carries opaque, already authenticated frames of at most `maxFrameBytes`; it neither
 * retries nor orders them. A frame that cannot be sent now is dropped and counted: the next beat says more.
 */
import type { LinkName } from "../../firmware-ts/schema/ids.ts";

export interface LinkCounters {
  readonly sent: number;
  readonly received: number;
  /** Frames dropped because the channel was full or down. */
  readonly dropped: number;
  /** Bytes or frames from outside that were not a whole, well-formed frame. */
  readonly malformed: number;
}

export interface LinkHandlers {
  readonly frame: (frame: Uint8Array) => void;
  /** The channel itself came up or went down (carrier, port closed, session lost); says nothing about the partner. */
  readonly carrier: (up: boolean, reason: string) => void;
}

export interface Link {
  readonly name: LinkName;
  /** Frames longer than this are a broken invariant. */
  readonly maxFrameBytes: number;
  send(frame: Uint8Array): void;
  counters(): LinkCounters;
  close(): Promise<void>;
}

/**
 * The disk link adds a proof to its beats: a write that a majority of the coordinator disks let through while our
 * registration stood there. SAFETY: the ground on which a controller alone may renew its gate.
 */
export interface DiskLinkHandlers extends LinkHandlers {
  /** What a disk held when it was first looked at, or again after an absence: authentic perhaps, but no word of now. */
  readonly remnant: (frame: Uint8Array) => void;
  /**
   * One beat was offered to every coordinator disk at `sentAtMs`. `accepted` disks took the write, `refused` answered
   * RESERVATION CONFLICT (we were preempted there), the rest failed or were late.
   */
  readonly written: (sentAtMs: number, accepted: number, refused: number, total: number) => void;
}
