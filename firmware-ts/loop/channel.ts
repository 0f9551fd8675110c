/**
 * What the main loop and the beat process say to each other over their channel (structured clones, one machine, one
 * monotonic clock). Both ends are ours and of one version: a malformed message is a broken invariant.
 */
import type { GateCommand, Mandate, Observation } from "../core/beat-types.ts";
import type { VolumeRecord, VolumeWritten } from "../schema/definition.ts";
import type { LinkName } from "../schema/ids.ts";
import type { ReservationAnswer, ReservationCommand } from "../schema/reservation.ts";

/** The first word of the main process, which alone reads the common volume: nothing is opened before it. */
export interface BeatOpening {
  readonly kind: "opening";
  /** Every floating address of the pair, without prefix. */
  readonly floating: readonly string[];
  /** VLANs of the data NIC on which the gate is put, too. */
  readonly vlans: readonly number[];
  /** The fingerprint that the beats say. */
  readonly configuration: number;
}

export type ToBeat =
  | { readonly kind: "mandate"; readonly mandate: Mandate }
  /** The main loop has got through everything that waited. */
  | { readonly kind: "progress" }
  | { readonly kind: "grant"; readonly on: boolean; readonly contact: number }
  | { readonly kind: "gate"; readonly command: GateCommand }
  | {
      readonly kind: "reserve";
      readonly token: string;
      readonly serial: string;
      readonly command: ReservationCommand;
      readonly deadlineMs: number;
    }
  /** A record for the common volume, on all coordinator disks. */
  | {
      readonly kind: "volumeWrite";
      readonly token: string;
      readonly record: VolumeRecord;
      /** On the local monotonic clock. Whoever takes this up later has stood still, and what is asked for may be another's to write by now. */
      readonly untilMs: number;
    };

export type FromBeat =
  | { readonly kind: "ready" }
  | { readonly kind: "observation"; readonly observation: Observation }
  | { readonly kind: "reserved"; readonly token: string; readonly answer: ReservationAnswer }
  | { readonly kind: "volumeWritten"; readonly token: string; readonly written: VolumeWritten }
  | { readonly kind: "counters"; readonly counters: BeatCounters }
  | { readonly kind: "log"; readonly message: string };

/** For status and metrics; sent once a second. */
export interface BeatCounters {
  readonly links: Readonly<Partial<Record<LinkName, LinkView>>>;
  /** Frames refused, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  readonly renewals: number;
  /** Longest lateness of the process's own tick since the last report, ms. */
  readonly tickLateMsMax: number;
}

export interface LinkView {
  readonly sent: number;
  readonly received: number;
  readonly dropped: number;
  readonly malformed: number;
  readonly silentMs: number | undefined;
}
