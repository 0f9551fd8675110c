/** What the beat machine is told, what it asks for, and what it tells the main loop. See core/beat.ts. */
import type { Beat, Mode } from "../schema/beat.ts";
import type { LinkName } from "../schema/ids.ts";
import type { ServerSet } from "../schema/server-set.ts";
import type { Colours } from "./links.ts";

/** On which proof the gates may be renewed now. */
export type Ground = "none" | "acknowledged" | "solo";

/** What the main loop wants the beats to say. It changes rarely; the beats repeat it. */
export interface Mandate {
  readonly mode: Mode;
  /** Rises with every change of the mode, so that an answer to what was said in an earlier one is known. */
  readonly turn: number;
  readonly epoch: number;
  readonly owned: ServerSet;
  readonly serving: ServerSet;
  readonly goodbye: boolean;
  readonly dataLinkDown: boolean;
  /** Fingerprint of what both controllers must agree on (schema/definition-digest). */
  readonly configuration: number;
  readonly ground: Ground;
  /** Newest message handled, of the partner's session `messageSession`: numbers begin anew with each session. */
  readonly messageAck: number;
  readonly messageSession: number;
  readonly message?: { readonly id: number; readonly body: Uint8Array } | undefined;
}

/** Commands of the main loop about gates; each is answered by an observation with the same token. */
export type GateCommand =
  | {
      readonly kind: "gateOpen";
      readonly token: string;
      readonly addresses: readonly string[];
      /** Not before this local monotonic time: the partner's kernel may still be answering. */
      readonly notBeforeMs: number;
    }
  | { readonly kind: "gateKeep"; readonly addresses: readonly string[] }
  | { readonly kind: "gateClose"; readonly token: string; readonly addresses: readonly string[] }
  /**
   * All floating addresses from now on. One that is new is closed when it becomes known; one that goes is closed first, and is on no interface any
   * more; others keep their lease.
   */
  | { readonly kind: "gateKnow"; readonly token: string; readonly addresses: readonly string[] };

export type BeatEvent =
  | { readonly kind: "tick"; readonly nowMs: number }
  | {
      readonly kind: "frame";
      readonly nowMs: number;
      readonly link: LinkName;
      readonly beat: Beat;
    }
  /** What a disk held when it was first looked at, or again after an absence: of an unknown time, no word of now. */
  | { readonly kind: "remnant"; readonly nowMs: number; readonly beat: Beat }
  | {
      readonly kind: "carrier";
      readonly nowMs: number;
      readonly link: LinkName;
      readonly up: boolean;
    }
  | {
      readonly kind: "written";
      readonly nowMs: number;
      readonly sentAtMs: number;
      readonly accepted: number;
      readonly refused: number;
      readonly total: number;
    }
  | { readonly kind: "mandate"; readonly nowMs: number; readonly mandate: Mandate }
  | { readonly kind: "progress"; readonly nowMs: number }
  | {
      readonly kind: "grant";
      readonly nowMs: number;
      readonly on: boolean;
      readonly contact: number;
    }
  | (GateCommand & { readonly nowMs: number })
  /** The main loop is gone. */
  | { readonly kind: "lastWords"; readonly nowMs: number }
  | {
      readonly kind: "gateOutcome";
      readonly nowMs: number;
      readonly action: "open" | "renew" | "close" | "know" | "seal";
      readonly token: string;
      readonly addresses: readonly string[];
      readonly ok: boolean;
      readonly reason: string;
    };

export type BeatEffect =
  | { readonly kind: "send"; readonly links: readonly LinkName[]; readonly beat: Beat }
  | {
      readonly kind: "open" | "renew";
      readonly token: string;
      readonly addresses: readonly string[];
      /** The lease ends at this local monotonic time; the performer turns it into a duration at the very last moment. */
      readonly untilMs: number;
    }
  | {
      readonly kind: "close" | "know";
      readonly token: string;
      readonly addresses: readonly string[];
    }
  /** Every floating address is closed, whether this life ever opened it or not. */
  | { readonly kind: "seal"; readonly token: string; readonly addresses: readonly string[] }
  | { readonly kind: "observe"; readonly observation: Observation };

/** The partner as its newest accepted beat shows it. */
export interface PartnerView {
  /** Counts the stretches between losses: what was decided about one must not touch the next. */
  readonly contact: number;
  readonly session: number;
  /** The newest of our turns (see the mandate) in which the partner has answered us: it knows what we were then. */
  readonly answersTurn: number;
  readonly mode: Mode;
  readonly epoch: number;
  readonly configuration: number;
  readonly owned: ServerSet;
  readonly serving: ServerSet;
  readonly granting: boolean;
  readonly dataLinkDown: boolean;
}

export type LossReason = "silent" | "stalled" | "dyingGasp" | "goodbye" | "restarted";

/** What the beat machine tells the main loop; each becomes an event of core/controller. */
export type Observation =
  | { readonly kind: "links"; readonly colours: Colours; readonly diskReadable: boolean }
  | { readonly kind: "partner"; readonly view: PartnerView }
  | {
      readonly kind: "partnerLost";
      readonly reason: LossReason;
      /** When we last received a beat that we acknowledged as a lease; undefined: we never did. */
      readonly lastGrantedMs: number | undefined;
      /** Until then the partner's gates may live on the ground of its own coordinator writes. */
      readonly soloBoundMs: number;
      /** When we sent the newest beat for which the partner gave us a lease: it had not lost us before; undefined: it never did. */
      readonly leasedAtMs: number | undefined;
    }
  | { readonly kind: "message"; readonly id: number; readonly body: Uint8Array }
  | { readonly kind: "messageAcked"; readonly id: number }
  /** An authentic beat, believed or not, knows of a higher epoch than any before. */
  | { readonly kind: "epoch"; readonly epoch: number }
  /** Whether the last beat that a majority of coordinators let through is still young enough to keep a gate open. */
  | { readonly kind: "solo"; readonly fresh: boolean }
  | { readonly kind: "soloRefused"; readonly sentAtMs: number }
  | { readonly kind: "gateOpened"; readonly token: string; readonly addresses: readonly string[] }
  | { readonly kind: "gateRefused"; readonly token: string; readonly reason: string }
  | {
      readonly kind: "gateClosed";
      readonly token: string;
      readonly ok: boolean;
      readonly reason: string;
    }
  | {
      readonly kind: "gateKnown";
      readonly token: string;
      readonly ok: boolean;
      readonly reason: string;
    }
  | { readonly kind: "gateLapsed"; readonly addresses: readonly string[] }
  | { readonly kind: "frameRefused"; readonly reason: "replay" | "session" | "stale" };
