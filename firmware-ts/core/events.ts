/** What happens to a controller: the only way in which the world reaches its decisions. Every event carries the local monotonic time. */
import type { VirtualServerConfig } from "../schema/config.ts";
import type { VolumeView, VolumeWritten } from "../schema/definition.ts";
import type { PersistentRecord } from "../schema/journal.ts";
import type { Outcome } from "../schema/outcome.ts";
import type { ReservationAnswer } from "../schema/reservation.ts";
import type { CommandRequest } from "../schema/status.ts";
import type { Observation } from "./beat-types.ts";

/** What is to become of a virtual server. */
export interface Change {
  readonly action: "create" | "modify" | "start" | "stop" | "delete";
  readonly name: string;
  /** Of `create` and `modify`, all of it. */
  readonly server?: VirtualServerConfig | undefined;
  /** Sequence of the definition that the operator had before him: another one now means that somebody else has changed it since. */
  readonly expectedSequence?: number | undefined;
}

/** An operator's wish. `by` tells who, for the audit. */
interface Wish {
  readonly id: number;
  readonly request: CommandRequest;
  readonly by: string;
}

/** A planned move, of one virtual server or of all that are elsewhere. */
export interface MoveCommand extends Wish {
  readonly kind: "takeover" | "giveback" | "transfer";
  readonly virtualServer?: string | undefined;
}

export interface ChangeCommand extends Wish {
  readonly kind: "change";
  readonly change: Change;
}

export type Command = MoveCommand | ChangeCommand;

export type ControllerEvent = { readonly nowMs: number } & (
  | { readonly kind: "boot"; readonly record: PersistentRecord }
  | { readonly kind: "tick" }
  | { readonly kind: "seen"; readonly observation: Observation }
  | { readonly kind: "reserved"; readonly token: string; readonly answer: ReservationAnswer }
  | { readonly kind: "volume"; readonly token: string; readonly outcome: Outcome<VolumeView> }
  | { readonly kind: "volumeWritten"; readonly token: string; readonly written: VolumeWritten }
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
