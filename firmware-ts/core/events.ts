/** What happens to a controller: the only way in which the world reaches its decisions. Every event carries the local monotonic time. */
import type { PersistentRecord } from "../schema/journal.ts";
import type { Outcome } from "../schema/outcome.ts";
import type { ReservationAnswer } from "../schema/reservation.ts";
import type { CommandRequest } from "../schema/status.ts";
import type { Observation } from "./beat-types.ts";

/** An operator's wish. `by` tells who, for the audit. */
export interface Command {
  readonly id: number;
  readonly kind: "takeover" | "giveback" | "transfer";
  readonly virtualServer?: string | undefined;
  readonly request: CommandRequest;
  readonly by: string;
}

export type ControllerEvent = { readonly nowMs: number } & (
  | { readonly kind: "boot"; readonly record: PersistentRecord }
  | { readonly kind: "tick" }
  | { readonly kind: "seen"; readonly observation: Observation }
  | { readonly kind: "reserved"; readonly token: string; readonly answer: ReservationAnswer }
  /** The outcome of any other effect that has a token. */
  | { readonly kind: "done"; readonly token: string; readonly outcome: Outcome<string | undefined> }
  | {
      readonly kind: "diskPath";
      readonly serial: string;
      readonly up: boolean;
      readonly reason: string;
    }
  | { readonly kind: "diskFenced"; readonly serial: string; readonly reason: string }
  /** The block device of an attached disk is gone from this controller; the disk is still ours. */
  | { readonly kind: "deviceLost"; readonly serial: string; readonly reason: string }
  /** The file system of a disk of ours does not take writes any more, or is not mounted any more. */
  | { readonly kind: "volumeFailed"; readonly serial: string; readonly reason: string }
  | { readonly kind: "serviceExited"; readonly virtualServer: string; readonly reason: string }
  /** It lives and does not answer; told again and again as long as that is so. */
  | { readonly kind: "serviceHung"; readonly virtualServer: string; readonly reason: string }
  /** An address, or what it is on, is gone from where it was put; told again and again as long as that is so. */
  | { readonly kind: "addressLost"; readonly virtualServer: string; readonly reason: string }
  | { readonly kind: "carrier"; readonly up: boolean }
  | { readonly kind: "command"; readonly command: Command }
  | { readonly kind: "shutdown"; readonly reason: string }
);
