/** Everything that the beat process of one controller touches, put together by the wiring of a HAL. */
import type { RecordWritten, VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import type { Gate } from "./gate.ts";
import type { DiskLinkHandlers, Link, LinkHandlers } from "./link.ts";

export interface BeatMachine {
  /** The configured links; a frame sent on one that is down is dropped and counted there. */
  readonly links: readonly Link[];
  readonly gate: Gate;
  /** A reservation command on a coordinator disk, through the nexus that also writes the beats there. */
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
  ): Promise<ReservationAnswer>;
  /**
   * Writes a record of the common volume to a coordinator disk, through the same nexus. Settles when nothing of it can happen any more. `isWanted` is
   * asked before anything is sent that writes, repetitions included; after a no nothing is, and the answer is `failed`.
   */
  writeRecord(
    serial: string,
    record: VolumeRecord,
    isWanted: () => boolean,
  ): Promise<RecordWritten>;
  /** Gives the process real-time priority; children of it stay ordinary. */
  realTime(): Outcome;
  close(): Promise<void>;
}

/** What the links report, each under its own name. */
export interface BeatMachineHandlers {
  readonly serial: LinkHandlers;
  readonly network: LinkHandlers;
  readonly disk: DiskLinkHandlers;
  readonly log: (message: string) => void;
}
