/**
 * The beat: the one message that two controllers exchange, over every link. It says that the sender lives, how far its
 * main loop has got, what it owns, and which beat of the partner it has heard last. The acknowledgement is a
 * lease: only a beat with `granting` set lets the partner keep its gates open (SAFETY: a lease that the hearer grants).
 */
import type { ControllerId } from "./ids.ts";
import type { ServerSet } from "./server-set.ts";

/** What a controller is doing; see core/controller for the machine. The wire carries the index in this list. */
export const modes = [
  "starting",
  "joining",
  "paired",
  "racing",
  "alone",
  "out",
  "leaving",
] as const;
export type Mode = (typeof modes)[number];

/** Longest body of a message that rides on a beat. */
export const messageBytesMax = 320;

/** Virtual servers are numbered by their position in the configuration. */
export const virtualServersMax = 64;

export interface Beat {
  readonly sender: ControllerId;
  /** Random and never 0; new at every start of the sending process. */
  readonly session: number;
  /** Rises by one with every beat of a session, on all links together. 48 bits: it never wraps. */
  readonly sequence: number;
  /** The newest beat accepted from the partner; session 0 means none yet. */
  readonly ack: { readonly session: number; readonly sequence: number };
  /** The acknowledgement is a lease. Off: it is only a receipt. */
  readonly granting: boolean;
  readonly mode: Mode;
  readonly epoch: number;
  /** CRC-32 of the part of the configuration on which both controllers must agree. */
  readonly configuration: number;
  /** Age of the main loop's last progress, ms, saturating at 65,535. */
  readonly progressAgeMs: number;
  /** Said after the sender's gates are closed and its disks released: nothing has to be waited for. */
  readonly goodbye: boolean;
  /** The sender's last words: its main process is gone, its gates are closed for good, its disks are not released. */
  readonly dyingGasp: boolean;
  /** The sender's data NIC has no carrier: it cannot serve. */
  readonly dataLinkDown: boolean;
  /** What the sender owns: it may hold the disks. */
  readonly owned: ServerSet;
  /** At whose addresses the sender answers. */
  readonly serving: ServerSet;
  /** Newest message of the partner that was handled; 0 means none. */
  readonly messageAck: number;
  /** A message, repeated on every beat until it is acknowledged. Ids rise from 1 within a session. */
  readonly message?: { readonly id: number; readonly body: Uint8Array } | undefined;
}
