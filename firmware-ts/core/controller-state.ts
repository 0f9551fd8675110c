/** State of one controller's decisions, and the helpers that every part of them uses. */
import type { Mode } from "../schema/beat.ts";
import type { Config } from "../schema/config.ts";
import type { ControllerId } from "../schema/ids.ts";
import type { Message } from "../schema/messages.ts";
import { shortWhy } from "../schema/messages.ts";
import type { ReservationKey } from "../schema/reservation.ts";
import { setHas } from "../schema/server-set.ts";
import type { Race } from "./arbitration.ts";
import type { LossReason, Mandate, PartnerView } from "./beat-types.ts";
import type { GateList, Parts, UnderWay, VolumeState } from "./definition-types.ts";
import type { Effect, Report } from "./effects.ts";
import { makeKey } from "./keys.ts";
import type { Colours } from "./links.ts";
import { checkTransition } from "./modes.ts";
import type { Timing } from "./timing.ts";
import { disksOf, type VirtualServerContext, type VirtualServerState } from "./vserver-types.ts";

/** Our registration on one coordinator disk. */
export type Registration =
  /** `told`: why the last attempt failed, which is reported once. */
  | { readonly at: "none"; readonly againAtMs: number; readonly told: string }
  | {
      readonly at: "registering" | "reading" | "reserving";
      readonly round: number;
      readonly told: string;
    }
  | { readonly at: "registered"; readonly sinceMs: number };

/** A planned move of one virtual server, seen from one side. */
export type Transfer =
  | {
      readonly role: "source";
      readonly at: "offered" | "stopping" | "released";
      readonly deadlineMs: number;
      readonly urgent: boolean;
      readonly why: string;
      /** Why the target could not start it, while the last of it is still being put away here. */
      readonly failure?: string | undefined;
    }
  | {
      readonly role: "target";
      /** `declined`: it is the source's again, which takes it back; until then nobody starts it here. */
      readonly at: "requested" | "ready" | "starting" | "declined";
      readonly deadlineMs: number;
      readonly why: string;
      /** The partner cannot keep it. */
      readonly urgent?: boolean | undefined;
    };

/** A planned move that waits for its turn (core/transfer-window): nothing of it has begun, and the partner has not heard of it. */
export interface QueuedMove {
  readonly index: number;
  readonly role: Transfer["role"];
  readonly why: string;
}

export interface ControllerState {
  readonly me: ControllerId;
  readonly config: Config;
  readonly timing: Timing;
  /** Fingerprint of what both controllers must agree on, and of the part of it that no command changes. */
  readonly configuration: number;
  readonly staticConfiguration: number;
  readonly mode: Mode;
  readonly modeSinceMs: number;
  /** Counts the changes of the mode. */
  readonly turn: number;
  /** Why the controller is out, for the operator. */
  readonly outReason: string;
  /** Epoch under which we act, and the highest that we know of. */
  readonly epoch: number;
  readonly epochSeen: number;
  /** Key of our registrations on the coordinators; changes only while starting. */
  readonly coordinatorKey: ReservationKey;
  readonly registrations: Readonly<Record<string, Registration>>;
  readonly partner: PartnerView | undefined;
  /** The partner's session heard last: message numbers count within it. */
  readonly lastSession: number;
  /** The contact in which the partner got our lease: our acknowledgements let its gates live. */
  readonly granted: number | undefined;
  /** A majority of coordinators has let a beat through lately: nobody has preempted us there. */
  readonly soloFresh: boolean;
  /** How the partner of the pair was lost; what bounds its gates. Undefined when it was no pair: then nothing is known of them. */
  readonly loss:
    | {
        readonly reason: LossReason;
        readonly lastGrantedMs: number | undefined;
        readonly soloBoundMs: number;
        readonly leasedAtMs: number | undefined;
      }
    | undefined;
  readonly colours: Colours;
  readonly diskReadable: boolean;
  readonly race: Race | undefined;
  /** The partner's addresses stay closed until then, after a takeover. */
  readonly openNotBeforeMs: number;
  /** Since when nobody was heard while joining. */
  readonly quietSinceMs: number;
  /** By number; those that were deleted, or never were, own nothing and start never. */
  readonly servers: readonly VirtualServerState[];
  /** Numbers whose definitions contradict one with a lower number. */
  readonly blocked: readonly number[];
  /** VLANs of the data NIC that were made when this controller started; the gate is on these. */
  readonly vlans: readonly number[];
  /** Numbers whose definitions have changed since the partner's fingerprint was last the same as ours. */
  readonly unagreed: readonly number[];
  readonly volume: VolumeState;
  /** By number, as `parts`: what is being changed, and what is not here yet as it is wanted. */
  readonly changes: Readonly<Record<number, UnderWay>>;
  readonly parts: Readonly<Record<number, Parts>>;
  readonly gate: GateList;
  readonly transfers: Readonly<Record<number, Transfer>>;
  /** In the order in which they were asked for. None of them is in `transfers`: what waits here holds nothing and hinders nothing. */
  readonly queuedMoves: readonly QueuedMove[];
  readonly outbox: readonly Message[];
  /** Id of the message at the head of the outbox. */
  readonly messageId: number;
  readonly messageAck: number;
  readonly dataLinkUp: boolean;
  readonly pathsDown: readonly string[];
  /** Since when the partner has been healthy, for automatic giveback and adoption. */
  readonly pairedSinceMs: number;
  /** When the partner said last that its data link has a carrier again, or that it is there. */
  readonly partnerLinkedSinceMs: number;
  readonly round: number;
  readonly said: Mandate | undefined;
  readonly leaveDeadlineMs: number;
  /** When goodbye was said first: everything here is closed and released. */
  readonly farewellMs: number | undefined;
}

export type Step = readonly [ControllerState, readonly Effect[]];

/** Runs a further part of a step on the state that the first part left, and joins their effects. */
export function andThen(step: Step, more: (state: ControllerState) => Step): Step {
  return join(step, more(step[0]));
}

/** Nothing is asked for: most parts of most steps end so, hence it is one list for all. */
export const nothing: readonly Effect[] = [];

/** Nothing is under way: one map for all of that kind, so that a step need not look into it. */
export const none: Readonly<Record<number, never>> = {};

/** A map by number, with one entry more, or fewer. */
export function withEntry<T>(
  map: Readonly<Record<number, T>>,
  number: number,
  entry: T | undefined,
): Readonly<Record<number, T>> {
  const next = { ...map };
  if (entry !== undefined) next[number] = entry;
  else delete next[number];
  return Object.keys(next).length === 0 ? none : next;
}

/** Its disks are claimed, and it goes on when there is room (core/start-window). */
export function waitsForTurn({ phase }: VirtualServerState): boolean {
  return phase.kind === "starting" && phase.waitsForTurn === true;
}

/** What a part of a step came to; undefined when it found nothing to do. */
export type Part = Step | undefined;

/** What `next` was made of is the state that `step` left; their effects are joined. */
export function join(step: Step, next: Part): Step {
  if (!next) return step;
  if (step[1].length === 0) return next;
  return [next[0], next[1].length === 0 ? step[1] : [...step[1], ...next[1]]];
}

/** The same where it may be that nothing was found yet. */
export function joinParts(step: Part, next: Part): Part {
  return step ? join(step, next) : next;
}

/** Runs further parts of a step one after another, each on the state that the one before left. */
export function inTurn(
  step: Step,
  nowMs: number,
  parts: readonly ((state: ControllerState, nowMs: number) => Part)[],
): Step {
  let last = step;
  for (const part of parts) last = join(last, part(last[0], nowMs));
  return last;
}

export function tell(
  severity: Report["severity"],
  code: string,
  message: string,
  detail?: Readonly<Record<string, unknown>>,
): Effect {
  return { kind: "report", report: { severity, code, message, ...(detail ? { detail } : {}) } };
}

export function serverContext(state: ControllerState, nowMs: number): VirtualServerContext {
  const partnerMode = state.partner?.mode;
  // Alone, we may still hear a loser whose main loop has not noticed: its beats say "paired" and mean an earlier time.
  const isOurs = state.mode === "paired" || state.mode === "leaving";
  const partnerInStep =
    isOurs &&
    state.granted === state.partner?.contact &&
    (partnerMode === "paired" || partnerMode === "leaving");
  return { nowMs, timing: state.timing, pathsDown: state.pathsDown, partnerInStep };
}

/** The one place where a mode changes: checked against the table, told to the operator. */
export function setMode(state: ControllerState, mode: Mode, nowMs: number, why: string): Step {
  checkTransition(state.mode, mode, state.me);
  const severity =
    mode === "out" ? "error" : mode === "racing" || mode === "alone" ? "warning" : "info";
  return [
    { ...state, mode, modeSinceMs: nowMs, turn: state.turn + 1 },
    [
      tell(severity, `controller.${mode}`, `${state.mode} → ${mode}: ${why}`, {
        from: state.mode,
        to: mode,
        epoch: state.epoch,
      }),
    ],
  ];
}

export function dataKey(state: ControllerState): ReservationKey {
  return makeKey({ controller: state.me, pairId: state.config.pair.id, epoch: state.epoch });
}

/** A server is ours from the decision to start until nothing of it is left here. */
export function ownsServer(server: VirtualServerState): boolean {
  return server.phase.kind !== "off" && server.phase.kind !== "failed";
}

/** The disks have a record of it that was not answered yet: until then nobody else may write one. */
export function isWriting({ volume }: ControllerState, index: number): boolean {
  return volume.writings[index]?.token !== undefined;
}

/** Disks of it to which there is no path here. */
export function pathlessOf(
  { pathsDown }: Pick<ControllerState, "pathsDown">,
  config: VirtualServerState["config"],
): readonly string[] {
  return pathsDown.length === 0 ? [] : disksOf(config).filter((disk) => pathsDown.includes(disk));
}

export function partnerOwns(state: ControllerState, index: number): boolean {
  return state.partner !== undefined && setHas(state.partner.owned, index);
}

export function replaceServer(state: ControllerState, server: VirtualServerState): ControllerState {
  if (state.servers[server.index] === server) return state;
  const servers = state.servers.map((each) => (each.index === server.index ? server : each));
  return { ...state, servers };
}

/** A move that is under way, whoever began it, waits for its turn no longer. */
export function setTransfer(
  state: ControllerState,
  index: number,
  transfer: Transfer | undefined,
): ControllerState {
  const transfers = { ...state.transfers };
  if (!transfer) {
    delete transfers[index];
    return { ...state, transfers };
  }
  transfers[index] = transfer;
  return dropQueued({ ...state, transfers }, index);
}

export function isQueued(state: ControllerState, index: number): boolean {
  return state.queuedMoves.some((move) => move.index === index);
}

export function dropQueued(state: ControllerState, index: number): ControllerState {
  if (!isQueued(state, index)) return state;
  return { ...state, queuedMoves: state.queuedMoves.filter((move) => move.index !== index) };
}

/** Queues a message for the partner; the beats carry it until it is acknowledged. */
export function sendMessage(state: ControllerState, message: Message): ControllerState {
  if (!state.partner) return state;
  const fitting = "why" in message ? { ...message, why: shortWhy(message.why) } : message;
  return { ...state, outbox: [...state.outbox, fitting] };
}

/** Forgets what was still to be said. The number of a message that may have been heard is not used again. */
export function dropOutbox(state: ControllerState): ControllerState {
  if (state.outbox.length === 0) return state;
  return { ...state, outbox: [], messageId: state.messageId + 1 };
}

type ServerFunction = (
  server: VirtualServerState,
  context: ReturnType<typeof serverContext>,
) => readonly [VirtualServerState, readonly Effect[]];

/** Goes on with one virtual server. */
export function onServer(step: Step, index: number, nowMs: number, run: ServerFunction): Step {
  return andThen(step, (state) => {
    const server = state.servers[index];
    if (!server) throw new Error(`onServer: no virtual server ${index}`);
    const [next, effects] = run(server, serverContext(state, nowMs));
    return [replaceServer(state, next), effects];
  });
}
