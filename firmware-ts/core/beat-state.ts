/** State of the beat machine and the small functions that every part of it uses. */
import type { ControllerId, LinkName } from "../schema/ids.ts";
import { noServers } from "../schema/server-set.ts";
import type { BeatEffect, Mandate, Observation, PartnerView } from "./beat-types.ts";
import { type Colours, type Links, newLinks } from "./links.ts";
import type { Timing } from "./timing.ts";

export interface PendingOpen {
  readonly token: string;
  readonly addresses: readonly string[];
  readonly notBeforeMs: number;
}

export interface BeatState {
  readonly me: ControllerId;
  readonly session: number;
  readonly timing: Timing;
  readonly links: Links;
  readonly mandate: Mandate;
  /** The first beat that was said in the mandate's turn: whoever answers it, or a later one, knows our mode. */
  readonly turnFirst: number;
  readonly progressAtMs: number;
  /** Of the last tick: one that comes long after it shows that we did not run. */
  readonly tickedAtMs: number | undefined;
  /** Sequence number of the last beat that we sent. */
  readonly sequence: number;
  readonly nextSendMs: { readonly [name in LinkName]: number };
  /** When each recent beat was sent; what is older than freshAckMs is forgotten. */
  readonly sent: readonly { readonly sequence: number; readonly atMs: number }[];
  /** The partner's believed session and its newest beat. */
  readonly heard: { readonly session: number; readonly sequence: number } | undefined;
  readonly heardAtMs: number | undefined;
  /** The newest of our beats that the believed session has acknowledged: whoever answers only older ones is of an earlier time. */
  readonly heardAck: number;
  /** Highest epoch in any authentic beat: also one that a dead partner left on a coordinator. */
  readonly epochHeard: number;
  /** A session that still has to prove itself. */
  readonly candidate: { readonly session: number; readonly sequence: number } | undefined;
  /** Sessions of the partner that have ended, each with the last of our beats that was sent before. */
  readonly retired: readonly { readonly session: number; readonly sequence: number }[];
  /** Defined while the partner counts as alive. */
  readonly partner: PartnerView | undefined;
  /** Since when nobody is heard and the partner is not called lost, because we may be to blame: see core/beat-silence. */
  readonly doubtedSinceMs: number | undefined;
  /** When, in this contact, a beat first showed a mode other than alone. */
  readonly pairedHeardAtMs: number | undefined;
  /** Number of the present contact; rises with every loss. */
  readonly contact: number;
  readonly granting: boolean;
  readonly lastGrantedMs: number | undefined;
  readonly messageSeen: number;
  readonly messageAcked: number;
  /** Our gates may stay open until then, on the partner's acknowledgement, or on our coordinator writes. */
  readonly ackLeaseMs: number;
  readonly soloLeaseMs: number;
  /** Addresses whose gate is renewed, with the end of the last lease. */
  readonly kept: ReadonlyMap<string, number>;
  readonly opens: readonly PendingOpen[];
  /** The main loop is gone: the gates are being closed, then they are, for good, and only then the beats say so. */
  readonly ending: "no" | "closing" | "closed";
  readonly shown: {
    readonly colours: Colours;
    readonly diskReadable: boolean;
    readonly soloFresh: boolean;
  };
}

export type Step = readonly [BeatState, readonly BeatEffect[]];

export interface BeatSetup {
  readonly me: ControllerId;
  /** Random, not 0, new at every start. */
  readonly session: number;
  /** What the first beats say, until the main loop says what it knows. */
  readonly configuration: number;
  readonly timing: Timing;
  readonly links: readonly LinkName[];
  readonly nowMs: number;
}

export function newBeatState(setup: BeatSetup): BeatState {
  if (setup.session === 0) throw new Error("beat: session 0 means none");
  const red: Colours = { serial: "red", network: "red", disk: "red" };
  return {
    me: setup.me,
    session: setup.session,
    timing: setup.timing,
    links: newLinks(setup.links),
    mandate: {
      mode: "starting",
      turn: 0,
      epoch: 0,
      owned: noServers,
      serving: noServers,
      goodbye: false,
      dataLinkDown: false,
      configuration: setup.configuration,
      ground: "none",
      messageAck: 0,
      messageSession: 0,
    },
    turnFirst: 0,
    progressAtMs: setup.nowMs,
    tickedAtMs: undefined,
    sequence: 0,
    nextSendMs: { serial: setup.nowMs, network: setup.nowMs, disk: setup.nowMs },
    sent: [],
    heard: undefined,
    heardAtMs: undefined,
    heardAck: 0,
    epochHeard: 0,
    candidate: undefined,
    retired: [],
    partner: undefined,
    doubtedSinceMs: undefined,
    pairedHeardAtMs: undefined,
    contact: 1,
    granting: false,
    lastGrantedMs: undefined,
    messageSeen: 0,
    messageAcked: 0,
    ackLeaseMs: 0,
    soloLeaseMs: 0,
    kept: new Map(),
    opens: [],
    ending: "no",
    shown: { colours: red, diskReadable: false, soloFresh: false },
  };
}

/** Nothing is asked for: most parts of most steps end so, hence it is one list for all. */
export const nothing: readonly BeatEffect[] = [];

/** What a part of a step came to; undefined when it found nothing to do. */
export type Part = Step | undefined;

/** What `next` was made of is the state that `step` left; their effects are joined. */
export function join(step: Step, next: Part): Step {
  if (!next) return step;
  if (step[1].length === 0) return next;
  return [next[0], next[1].length === 0 ? step[1] : [...step[1], ...next[1]]];
}

/** Runs further parts of a step one after another, each on the state that the one before left. */
export function inTurn(
  step: Step,
  nowMs: number,
  parts: readonly ((state: BeatState, nowMs: number) => Part)[],
): Step {
  let last = step;
  for (const part of parts) last = join(last, part(last[0], nowMs));
  return last;
}

export function observe(observation: Observation): BeatEffect {
  return { kind: "observe", observation };
}

/** Remembers when a beat was sent and forgets those too old to be a fresh acknowledgement. */
export function keepSent(
  sent: BeatState["sent"],
  one: { sequence: number; atMs: number },
  oldestMs: number,
): BeatState["sent"] {
  // In the order of their times: what is too old is at the front.
  const first = sent.findIndex((each) => each.atMs >= oldestMs);
  const kept = first < 0 ? [] : sent.slice(first);
  kept.push(one);
  return kept;
}

/** Send time of a recent beat; undefined when it was never sent or is too old to prove anything. */
export function sentAt(sent: BeatState["sent"], sequence: number): number | undefined {
  // Numbers follow each other without a gap.
  const last = sent.length - 1;
  const found = sent[last - ((sent[last]?.sequence ?? 0) - sequence)];
  return found?.sequence === sequence ? found.atMs : undefined;
}
