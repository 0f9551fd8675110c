/**
 * The controller: composes registration, partner, takeover, virtual servers and planned moves into one pure function.
 * Reading order: this file, core/takeover.ts, then core/vserver.ts; core/modes.ts has the diagram.
 *
 * A tick that changes nothing returns the very same state object and no effects; the journal leaves such ticks out, and a
 * replay of the journal still gives identical decisions.
 */
import type { Config } from "../schema/config.ts";
import { bareAddresses, vlansOf } from "../schema/config.ts";
import type { Definition, VolumeWritten } from "../schema/definition.ts";
import { fingerprintOf } from "../schema/definition-digest.ts";
import { decodeMessage } from "../schema/messages.ts";
import type { Outcome } from "../schema/outcome.ts";
import type { ReservationAnswer } from "../schema/reservation.ts";
import type { Observation, PartnerView } from "./beat-types.ts";
import { changeEnded, changeTick, onChange, partnerChanged, partnerKnows } from "./change.ts";
import { onCommand } from "./command.ts";
import {
  andThen,
  type ControllerState,
  inTurn,
  none,
  nothing,
  onServer,
  type Part,
  replaceServer,
  type Step,
  tell,
} from "./controller-state.ts";
import { agreeTick, contradictions, denseServers, isDeleted } from "./definitions.ts";
import { type Effect, effectRank } from "./effects.ts";
import type { ControllerEvent } from "./events.ts";
import {
  addressLost,
  carrier,
  deviceLost,
  diskFenced,
  diskPath,
  serviceExited,
  serviceHung,
  volumeFailed,
} from "./faults.ts";
import { gateKnown, newGateList } from "./gate-list.ts";
import {
  forgetRegistrations,
  joinAnswer,
  startingTick as joinTick,
  mayRaceAlone,
  registerDue,
} from "./join.ts";
import { makeKey } from "./keys.ts";
import { leavingTick, shutdown } from "./leave.ts";
import { mandateOf, sameMandate } from "./mandate.ts";
import { heedsRefusal } from "./modes.ts";
import { grant, pairUp } from "./pairing.ts";
import { partsDone, partsTick } from "./parts.ts";
import { keepServers } from "./placement.ts";
import { beginStarts } from "./start-window.ts";
import {
  beginRace,
  goOut,
  outTick,
  partnerLost,
  racingTick,
  takeoverReserved,
} from "./takeover.ts";
import type { Timing } from "./timing.ts";
import { evacuate, transferMessage, transferTick } from "./transfer.ts";
import { beginQueued } from "./transfer-window.ts";
import {
  endOfWriting,
  newVolume,
  readBeforeJoining,
  recordEnded,
  recordStart,
  volumeRead,
  volumeTick,
} from "./volume.ts";
import { hasStarted, reopenGate, serverDone, serverReserved, startingTick } from "./vserver.ts";
import { hasLeft, stopDone, stoppingTick, stopReserved } from "./vserver-stop.ts";
import type { VirtualServerState } from "./vserver-types.ts";

export interface ControllerSetup {
  readonly config: Config;
  readonly timing: Timing;
  /** Fingerprint of the part that no command changes (wire/configuration). */
  readonly configuration: number;
  /** As the common volume has them, and else the file; the places of all that are not deleted have been made. */
  readonly definitions: readonly Definition[];
}

/** A controller that has not booted: its first event is `boot` with what it remembers. */
export function newController(setup: ControllerSetup): ControllerState {
  const { config, timing, configuration: staticConfiguration } = setup;
  const key = makeKey({ controller: config.controller.id, pairId: config.pair.id, epoch: 0 });
  const servers = denseServers(setup.definitions);
  const definitions = servers.map((each) => each.definition);
  return forgetRegistrations({
    me: config.controller.id,
    config,
    timing,
    configuration: fingerprintOf(staticConfiguration, definitions),
    staticConfiguration,
    mode: "starting",
    modeSinceMs: 0,
    turn: 1,
    outReason: "",
    epoch: 0,
    epochSeen: 0,
    coordinatorKey: key,
    registrations: {},
    partner: undefined,
    lastSession: 0,
    granted: undefined,
    soloFresh: false,
    loss: undefined,
    colours: { serial: "red", network: "red", disk: "red" },
    diskReadable: false,
    race: undefined,
    openNotBeforeMs: 0,
    quietSinceMs: 0,
    servers,
    blocked: [...contradictions(config, definitions).keys()],
    vlans: [...vlansOf(servers.filter((each) => !isDeleted(each)).map(({ config: of }) => of))],
    unagreed: [],
    volume: newVolume,
    changes: none,
    parts: none,
    gate: newGateList(servers),
    transfers: {},
    queuedMoves: [],
    outbox: [],
    messageId: 1,
    messageAck: 0,
    dataLinkUp: false,
    pathsDown: [],
    pairedSinceMs: 0,
    partnerLinkedSinceMs: 0,
    round: 0,
    said: undefined,
    leaveDeadlineMs: 0,
    farewellMs: undefined,
  });
}

/** One event in, the next state and what is to be done out; effects are in the order in which they must be performed. */
export function controllerStep(state: ControllerState, event: ControllerEvent): Step {
  let step = inTurn(handle(state, event), event.nowMs, settling);
  // Most ticks end here: what the beats say follows from the state, and the state is the same.
  if (step[0] === state && step[1].length === 0 && state.said) return step;
  step = andThen(step, say);
  const effects = [...step[1]].sort((one, other) => effectRank(one) - effectRank(other));
  return [step[0], effects];
}

function handle(state: ControllerState, event: ControllerEvent): Step {
  const { nowMs } = event;
  switch (event.kind) {
    case "boot":
      return boot(state, event.record.epoch, nowMs);
    case "tick":
      return inTurn([state, nothing], nowMs, tickParts);
    case "seen":
      return seen(state, event.observation, nowMs);
    case "reserved":
      return reserved(state, event.token, event.answer, nowMs);
    case "volume":
      return volumeRead(state, event.token, event.outcome, nowMs);
    case "volumeWritten":
      return volumeWritten(state, event.token, event.written, nowMs);
    case "done":
      return done(state, event.token, event.outcome, nowMs);
    case "diskPath":
      return diskPath(state, event.serial, event.up, event.reason, nowMs);
    case "diskFenced":
      return diskFenced(state, event.serial, event.reason, nowMs);
    case "deviceLost":
      return deviceLost(state, event.serial, event.reason, nowMs);
    case "volumeFailed":
      return volumeFailed(state, event.serial, event.reason, nowMs);
    case "serviceExited":
      return serviceExited(state, event.virtualServer, event.reason, nowMs);
    case "serviceHung":
      return serviceHung(state, event.virtualServer, event.reason, nowMs);
    case "addressLost":
      return addressLost(state, event.virtualServer, event.reason, nowMs);
    case "carrier":
      return carrier(state, event.up);
    case "command":
      return event.command.kind === "change"
        ? onChange(state, event.command, nowMs)
        : onCommand(state, event.command, nowMs);
    case "shutdown":
      return shutdown(state, event.reason, nowMs);
    default:
      throw new Error(`controllerStep: unknown event ${JSON.stringify(event)}`);
  }
}

function boot(state: ControllerState, epoch: number, nowMs: number): Step {
  const key = makeKey({ controller: state.me, pairId: state.config.pair.id, epoch });
  const known = { ...state, epoch, epochSeen: epoch, coordinatorKey: key, modeSinceMs: nowMs };
  return [
    readBeforeJoining(known),
    [tell("info", "controller.boot", `controller ${state.me} starts, epoch ${epoch}`)],
  ];
}

/** What a tick looks at, in this order. Most ticks find nothing to do. */
const tickParts = [racingTick, outTick, registerDue, serversTick, loneTick];

function serversTick(state: ControllerState, nowMs: number): Part {
  let step: Step | undefined;
  for (const { index, phase } of state.servers) {
    if (phase.kind !== "starting" && phase.kind !== "stopping") continue;
    step ??= [state, nothing];
    if (isIn(step, index, "starting")) step = onServer(step, index, nowMs, startingTick);
    if (isIn(step, index, "stopping")) step = onServer(step, index, nowMs, stoppingTick);
  }
  return step;
}

function loneTick(state: ControllerState, nowMs: number): Part {
  if (!mayRaceAlone(state, nowMs)) return undefined;
  // What was known of a partner that was lost long ago says nothing of a life that it may have led since, unheard.
  return beginRace({ ...state, loss: undefined }, nowMs, "no partner was heard");
}

function isIn([state]: Step, index: number, kind: VirtualServerState["phase"]["kind"]): boolean {
  return state.servers[index]?.phase.kind === kind;
}

/** What follows from the state alone, whatever the event was: waits for conditions, never for notifications. */
const settling = [
  joinTick,
  grant,
  pairUp,
  volumeTick,
  changeTick,
  agreeTick,
  partsTick,
  transferTick,
  evacuate,
  beginQueued,
  keepServers,
  beginStarts,
  leavingTick,
];

/** The beats repeat what we say; they are told only when it changes. */
function say(state: ControllerState): Step {
  const mandate = mandateOf(state);
  if (state.said && sameMandate(state.said, mandate)) return [state, []];
  return [{ ...state, said: mandate }, [{ kind: "mandate", mandate }]];
}

function seen(state: ControllerState, observation: Observation, nowMs: number): Step {
  switch (observation.kind) {
    case "links":
      return links(state, observation, nowMs);
    case "partner":
      return partnerSeen(state, observation.view, nowMs);
    case "partnerLost": {
      const { kind: _kind, ...loss } = observation;
      return partnerLost(state, loss, nowMs);
    }
    case "message":
      return message(state, observation.id, observation.body, nowMs);
    case "messageAcked":
      if (observation.id < state.messageId || state.outbox.length === 0) return [state, []];
      return [{ ...state, outbox: state.outbox.slice(1), messageId: state.messageId + 1 }, []];
    case "epoch": {
      const epochSeen = Math.max(state.epochSeen, observation.epoch);
      return [epochSeen === state.epochSeen ? state : { ...state, epochSeen }, []];
    }
    case "solo":
      return solo(state, observation.fresh);
    case "soloRefused":
      return refusedByCoordinators(state, observation.sentAtMs, nowMs);
    case "gateOpened":
      return done(state, observation.token, { ok: true, value: undefined }, nowMs);
    case "gateKnown":
      return gateKnown(state, observation.token, observation.ok, observation.reason, nowMs);
    case "gateRefused":
    case "gateClosed":
      return done(state, observation.token, gateOutcome(observation), nowMs);
    case "gateLapsed":
      return gateLapsed(state, observation.addresses, nowMs);
    case "frameRefused":
      return [state, []];
    default:
      throw new Error(`controller: unknown observation ${JSON.stringify(observation)}`);
  }
}

function gateOutcome(
  observation: Extract<Observation, { kind: "gateRefused" | "gateClosed" }>,
): Outcome<undefined> {
  if (observation.kind === "gateClosed" && observation.ok) return { ok: true, value: undefined };
  const operation = observation.kind === "gateClosed" ? "close gate" : "open gate";
  return { ok: false, fault: { code: "gateFailed", operation, message: observation.reason } };
}

function links(
  state: ControllerState,
  { colours, diskReadable }: Extract<Observation, { kind: "links" }>,
  nowMs: number,
): Step {
  const effects: Effect[] = [];
  for (const name of ["serial", "network", "disk"] as const) {
    const before = state.colours[name];
    const after = colours[name];
    if (before === after || (before !== "red" && after !== "red")) continue;
    const red = after === "red";
    effects.push(
      tell(red ? "warning" : "info", red ? "link.red" : "link.green", `${name} link: ${after}`, {
        link: name,
      }),
    );
  }
  // Listening begins when there is something to listen to.
  const quietSinceMs = diskReadable && !state.diskReadable ? nowMs : state.quietSinceMs;
  return [{ ...state, colours, diskReadable, quietSinceMs }, effects];
}

/** Alone, this proof is what the gates live on: without it they are closed already, and only the operator does not know. */
function solo(state: ControllerState, fresh: boolean): Step {
  const next = { ...state, soloFresh: fresh };
  if (state.mode !== "alone" || fresh === state.soloFresh) return [next, []];
  const said = fresh
    ? tell("info", "solo.proved", "a majority of the coordinator disks lets us write again")
    : tell(
        "error",
        "solo.lost",
        "no majority of the coordinator disks lets us write: the addresses are silent until one does",
      );
  return [next, [said]];
}

function partnerSeen(state: ControllerState, view: PartnerView, nowMs: number): Step {
  const next: ControllerState = {
    ...state,
    partner: view,
    epochSeen: Math.max(state.epochSeen, view.epoch),
    messageAck: state.lastSession === view.session ? state.messageAck : 0,
    lastSession: view.session,
    partnerLinkedSinceMs:
      state.partner && !state.partner.dataLinkDown ? state.partnerLinkedSinceMs : nowMs,
  };
  const met = tell("info", "partner.heard", `the partner is heard, ${view.mode}`);
  const effects = state.partner ? nothing : [met];
  if (view.mode === "alone" && next.mode === "paired")
    return andThen([next, effects], (after) =>
      goOut(after, nowMs, "the partner has won the coordinator disks"),
    );
  return [next, effects];
}

function message(state: ControllerState, id: number, body: Uint8Array, nowMs: number): Step {
  if (id <= state.messageAck || !state.partner) return [state, []];
  const next = { ...state, messageAck: id };
  const decoded = decodeMessage(body);
  if (!decoded)
    return [next, [tell("warning", "message.malformed", "a message of the partner is malformed")]];
  switch (decoded.type) {
    case "changed":
      return partnerChanged(next, decoded.number, decoded.sequence);
    case "known":
      return partnerKnows(next, decoded.number, decoded.sequence);
    default:
      return transferMessage(next, decoded, nowMs);
  }
}

/** The disks have answered to a record. */
function volumeWritten(
  state: ControllerState,
  token: string,
  written: VolumeWritten,
  nowMs: number,
): Step {
  const ended = endOfWriting(state, token, written);
  if (!ended) return [state, nothing];
  return ended.why === "change" || ended.why === "undo"
    ? changeEnded(state, ended, nowMs)
    : recordEnded(state, ended, nowMs);
}

/** A majority of coordinators refuses our writes: the partner has preempted us there. */
function refusedByCoordinators(state: ControllerState, sentAtMs: number, nowMs: number): Step {
  // A beat of before our registration was refused rightly.
  const registered = Object.values(state.registrations).every(
    (each) => each.at !== "registered" || each.sinceMs < sentAtMs,
  );
  if (!heedsRefusal(state.mode) || !registered) return [state, []];
  return goOut(state, nowMs, "a majority of the coordinator disks refuses this controller");
}

function gateLapsed(state: ControllerState, addresses: readonly string[], nowMs: number): Step {
  let step: Step = [state, []];
  for (const server of state.servers) {
    const lapsed = bareAddresses(server.config).some((address) => addresses.includes(address));
    if (!lapsed || server.phase.kind !== "serving") continue;
    const said = tell("warning", "gate.lapsed", `${server.config.name}: the gate closed by itself`);
    step = andThen(step, (next) => [next, [said]]);
    step = onServer(step, server.index, nowMs, reopenGate);
  }
  return step;
}

function reserved(
  state: ControllerState,
  token: string,
  answer: ReservationAnswer,
  nowMs: number,
): Step {
  if (token.startsWith("join:")) return joinAnswer(state, token, answer, nowMs);
  if (token.startsWith("race:")) return takeoverReserved(state, token, answer, nowMs);
  const index = serverOf(state, token);
  if (index === undefined) return [state, []];
  const step = onServer([state, []], index, nowMs, (server, context) =>
    server.phase.kind === "stopping"
      ? stopReserved(server, token, context)
      : serverReserved(server, token, answer, context),
  );
  return rememberEpochs(recordServing(step, state, index, nowMs), index);
}

/** It answers from this step on: who serves it is written down behind that, where nobody waits for it. */
function recordServing(step: Step, before: ControllerState, index: number, nowMs: number): Step {
  const [old, server] = [before.servers[index], step[0].servers[index]];
  if (!old || !server || !hasStarted(old, server)) return step;
  return [recordStart(step[0], index, nowMs), step[1]];
}

/** A refusal by a newer key teaches us its epoch; the next attempt, if we may still make one, is above it. */
function rememberEpochs([state, effects]: Step, index: number): Step {
  const claims = Object.values(state.servers[index]?.claims ?? {});
  const newer = claims.map((claim) => (claim.at === "refused" ? (claim.newerEpoch ?? -1) + 1 : 0));
  const epochSeen = Math.max(state.epochSeen, ...newer);
  return [epochSeen === state.epochSeen ? state : { ...state, epochSeen }, effects];
}

function done(
  state: ControllerState,
  token: string,
  outcome: Outcome<string | undefined>,
  nowMs: number,
): Step {
  if (token.startsWith("parts:")) return partsDone(state, token, outcome, nowMs);
  const index = serverOf(state, token);
  const known = state.servers[index ?? -1];
  if (index === undefined || !known) return [state, []];
  const gone = hasLeft(known, token, outcome);
  if (gone) return [replaceServer(state, gone), []];
  return onServer([state, []], index, nowMs, (server, context) =>
    server.phase.kind === "stopping"
      ? stopDone(server, token, outcome, context)
      : serverDone(server, token, outcome, context),
  );
}

/** A token names the virtual server and its round; a name may have had another number before. */
function serverOf(state: ControllerState, token: string): number | undefined {
  const [kind, name, round] = token.split(":");
  if (kind !== "vs") return undefined;
  const found = state.servers.find(
    (server) => server.config.name === name && String(server.round) === round,
  );
  return found?.index;
}
