/** Words of the part of the state that deals with definitions: the common volume, changes under way, and what is being made of them here. */
import type { VirtualServerConfig } from "../schema/config.ts";
import type { Definition, RecordedState, VolumeRecord } from "../schema/definition.ts";
import type { CommandAnswer } from "../schema/status.ts";
import type { Change } from "./events.ts";

/** One writing of a number's record: which it is, and what it said of the state. */
export interface Known extends Pick<VolumeRecord, "epoch" | "generation" | "owner"> {
  readonly state: RecordedState;
}

/** A record that is to be written, or is being written. */
export interface Writing {
  /**
   * `record`: what is known already, because another one serves it or too few disks hold it. `change`, `undo`: see core/change; these say themselves
   * what they write, and what becomes of a failure.
   */
  readonly why: "record" | "change" | "undo";
  /** The reading that has to come before; undefined until `dueMs`, when it is asked for. */
  readonly after: number | undefined;
  /** Defined while the disks have it. */
  readonly token?: string | undefined;
  readonly dueMs: number;
  readonly failures: number;
}

/** What is known of the common volume. Readings are numbered as they begin. */
export interface VolumeState {
  /** The newest record of each number that was read, or was stored from here: what is held is what it says. */
  readonly known: Readonly<Record<number, Known>>;
  /** The last that was tried here. Also one that no majority took may be on a disk: whatever is written next has to be newer. */
  readonly tried: Readonly<Record<number, Known>>;
  /** Numbers of which something is there that cannot be understood. */
  readonly reserved: readonly number[];
  readonly reading: number | undefined;
  /** The last reading that began, the last that ended well, and the one that somebody waits for. */
  readonly begun: number;
  readonly done: number;
  readonly wanted: number;
  /** In the next reading every disk that answers is waited for, not a majority only. */
  readonly isThorough: boolean;
  /** The same of the reading that began last. */
  readonly readsThoroughly: boolean;
  /** A partner, or a life of our own, may have ended in the middle of a writing: what only one disk has is looked for after the next reading. */
  readonly isUnsure: boolean;
  readonly readAtMs: number;
  readonly againAtMs: number;
  readonly failures: number;
  /** A controller that starts does not join before this reading. */
  readonly joinAfter: number;
  /** While the partner's fingerprint differs from ours: when that is the reason for the next reading, and for how many it has been. */
  readonly differsAgainMs: number | undefined;
  readonly differsCount: number;
  readonly writings: Readonly<Record<number, Writing>>;
  /** Sequences that the partner has written, by number: it is told when they are known here. */
  readonly asked: Readonly<Record<number, number>>;
  /** What could not be read as a record, as far as it was told. */
  readonly damaged: readonly string[];
}

/** A change that was asked for here, from its acceptance until both controllers know of it. */
export interface UnderWay {
  /**
   * `reading` → `writing` → `telling`; after a writing that no majority took `undoing`, until a majority has again what held before.
   */
  readonly at: "reading" | "writing" | "telling" | "undoing";
  readonly change: Change;
  /** Of the command, until it is answered. */
  readonly id: number | undefined;
  readonly force: boolean;
  readonly answerByMs: number;
  /** What is to hold; judged anew before it is written. */
  readonly definition: Definition;
  readonly plan: CommandAnswer["plan"];
  /** The reading that has to come before the next writing. */
  readonly after: number;
  readonly againAtMs: number;
  readonly failures: number;
}

/** What is still to be done here so that a virtual server is as its definition wants it (core/parts). */
export interface Parts {
  readonly at: "due" | "defining" | "forgetting" | "clearing";
  readonly token?: string | undefined;
  /** What `defining` makes, and the addresses that go from the interface with it. */
  readonly making?: VirtualServerConfig | undefined;
  readonly drops?: readonly string[] | undefined;
  readonly againAtMs: number;
  readonly failures: number;
  /** It was stopped here for its change, and is started here again. */
  readonly isResumed: boolean;
  readonly told?: string | undefined;
}

/** The addresses that the gate rules over. */
export interface GateList {
  /** As it has confirmed last. */
  readonly known: readonly string[];
  readonly asked?: { readonly token: string; readonly addresses: readonly string[] } | undefined;
  readonly round: number;
  readonly againAtMs: number;
}
