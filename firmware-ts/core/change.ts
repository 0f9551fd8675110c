/**
 * A change of a virtual server by command, from its vetoes until both controllers know of it (docs/design/0027-common-volume.md):
 *
 *     command ─▶ vetoes ─▶ reading ─▶ vetoes ─▶ writing ─ majority ─▶ adopted, telling ─▶ the partner knows ─▶ answered
 *                                                  └─ no majority ─▶ answered as not known to be stored, undoing ─▶ what held before is stored
 *
 * The answer waits for the partner's word; what is done with the definition does not (core/parts).
 */
import type { Definition } from "../schema/definition.ts";
import type { CommandAnswer, Veto } from "../schema/status.ts";
import { judgeChange } from "./change-vetoes.ts";
import {
  andThen,
  type ControllerState,
  isWriting,
  joinParts,
  none,
  nothing,
  type Part,
  type Step,
  sendMessage,
  tell,
  withEntry,
} from "./controller-state.ts";
import type { UnderWay } from "./definition-types.ts";
import { setDefinition, unused, withNumber } from "./definitions.ts";
import type { Effect } from "./effects.ts";
import type { ChangeCommand } from "./events.ts";
import { hard, stopped } from "./vetoes.ts";
import {
  askReading,
  dropWritings,
  type Ended,
  mayWrite,
  nowKnown,
  setWriting,
  write,
} from "./volume.ts";

/** The API waits for 10 s (daemon/api). Until here it is certain that nothing was written, or that it was. */
const answerMs = 7000;

/** First wait before the former definition is written again; doubles with each further attempt. */
const undoAgainMs = 250;
const undoAgainMsMax = 5000;

function setChange(
  state: ControllerState,
  number: number,
  change: UnderWay | undefined,
): ControllerState {
  return { ...state, changes: withEntry(state.changes, number, change) };
}

function answer(change: UnderWay, accepted: boolean, vetoes: readonly Veto[]): readonly Effect[] {
  if (change.id === undefined) return nothing;
  const { plan } = change;
  return [{ kind: "answer", id: change.id, answer: { accepted, vetoes: [...vetoes], plan } }];
}

/** The operator asks for a change. */
export function onChange(state: ControllerState, command: ChangeCommand, nowMs: number): Step {
  const { change, request, id, by } = command;
  const { vetoes, definition, plan } = judgeChange(state, change);
  const { dryRun, force, reason } = request;
  const refused = !definition || stopped(vetoes, force);
  const answered: CommandAnswer = { accepted: !refused, vetoes, plan };
  const isOver = dryRun || refused || definition === state.servers[definition.number]?.definition;
  if (isOver) return [state, [{ kind: "answer", id, answer: answered }]];
  const overridden = vetoes.map((veto) => veto.code);
  const audit = tell(
    overridden.length > 0 ? "warning" : "info",
    overridden.length > 0 ? "command.forced" : "command.accepted",
    `${change.action} ${change.name} by ${by}${reason ? `: ${reason}` : ""}`,
    { command: change.action, virtualServer: change.name, by, reason, overridden },
  );
  // SAFETY: from here on it is claimed, so nobody else starts it or writes it before both know what became of it.
  const [asked, after] = askReading(withNumber(state, definition.number));
  const begun: UnderWay = {
    at: "reading",
    change,
    id,
    force,
    answerByMs: nowMs + answerMs,
    definition,
    plan,
    after,
    againAtMs: nowMs,
    failures: 0,
  };
  return [setChange(asked, definition.number, begun), [audit]];
}

/** Goes on with what is under way. */
export function changeTick(state: ControllerState, nowMs: number): Part {
  if (state.changes === none && state.volume.asked === none) return undefined;
  let step: Part;
  for (const key in state.changes)
    step = joinParts(step, goOn(step ? step[0] : state, Number(key), nowMs));
  for (const key in state.volume.asked)
    step = joinParts(step, answerPartner(step ? step[0] : state, Number(key)));
  return step;
}

function goOn(state: ControllerState, number: number, nowMs: number): Part {
  const change = state.changes[number];
  if (!change) return undefined;
  switch (change.at) {
    case "reading":
      return nowMs >= change.answerByMs
        ? unread(state, number, change)
        : mayWriteNow(state, number, change, nowMs)
          ? commit(state, number, change)
          : undefined;
    case "writing":
      return undefined;
    case "telling":
      return state.mode === "alone"
        ? finished(state, number, change)
        : unheard(state, number, change, nowMs);
    case "undoing":
      return mayWriteNow(state, number, change, nowMs) ? undo(state, number, change) : undefined;
    default:
      throw new Error(`change: unknown stage ${JSON.stringify(change)}`);
  }
}

function mayWriteNow(
  state: ControllerState,
  number: number,
  { after, againAtMs }: UnderWay,
  nowMs: number,
): boolean {
  const isRead = state.volume.done >= after && nowMs >= againAtMs;
  return isRead && !isWriting(state, number) && mayWrite(state, number);
}

/** What was read may speak against it: somebody else may have changed this one, or another that it would contradict. */
function commit(state: ControllerState, number: number, change: UnderWay): Step {
  const { vetoes, definition, plan } = judgeChange(state, change.change, number);
  if (!definition || stopped(vetoes, change.force))
    return [setChange(state, number, undefined), answer({ ...change, plan }, false, vetoes)];
  if (definition === state.servers[number]?.definition)
    return [setChange(state, number, undefined), answer({ ...change, plan }, true, vetoes)];
  const next = setChange(state, number, { ...change, at: "writing", definition, plan });
  return write(next, definition, "change");
}

function unread(state: ControllerState, number: number, change: UnderWay): Step {
  const veto = hard(
    "volumeUnwritable",
    "the common volume could not be read, or not be written by this controller, for too long: nothing was written",
  );
  return [setChange(state, number, undefined), answer(change, false, [veto])];
}

/** A writing of a change, or of what held before it, has ended. */
export function changeEnded(before: ControllerState, ended: Ended, nowMs: number): Step {
  const { number, why, isStored, how } = ended;
  const written = setWriting(before, number, undefined);
  const state = isStored ? nowKnown(written, number) : written;
  const change = state.changes[number];
  if (!change) return [state, nothing];
  if (why === "undo")
    return isStored ? undone(state, number, change) : undoLater(state, number, change, nowMs);
  if (!isStored) return unstored(state, number, change, how, nowMs);
  return andThen(setDefinition(state, change.definition), (next) => {
    const told = tellPartner(next, change.definition);
    return next.mode === "leaving"
      ? finished(told, number, change)
      : [setChange(told, number, { ...change, at: "telling" }), nothing];
  });
}

function tellPartner(state: ControllerState, { number, sequence }: Definition): ControllerState {
  return sendMessage(state, { type: "changed", number, sequence });
}

/** Both know of it, or there is nobody else who would have to. */
function finished(state: ControllerState, number: number, change: UnderWay): Step {
  const { action, name } = change.change;
  const said = tell("info", "definition.changed", `${action} ${name}: stored, and known to all`);
  return [setChange(state, number, undefined), [...answer(change, true, []), said]];
}

/** It is stored, and holds; only the partner does not say that it has read it. */
function unheard(state: ControllerState, number: number, change: UnderWay, nowMs: number): Part {
  if (change.id === undefined || nowMs < change.answerByMs) return undefined;
  const said = tell(
    "warning",
    "definition.unheard",
    `${change.change.name}: its change is stored, and the partner does not say that it knows of it; what is new is not used before it does`,
  );
  const next = setChange(state, number, { ...change, id: undefined });
  return [next, [...answer(change, true, []), said]];
}

function unstored(
  state: ControllerState,
  number: number,
  change: UnderWay,
  how: string,
  nowMs: number,
): Step {
  const { action, name } = change.change;
  const veto = hard(
    "volumeUnwritable",
    `not known to be stored: ${how}; what held before is written again until a majority has it`,
  );
  const said = tell("error", "definition.unstored", `${action} ${name} has failed: ${how}`);
  const told: Step = [state, [...answer(change, false, [veto]), said]];
  return andThen(told, (next) =>
    undoLater(next, number, { ...change, at: "undoing", id: undefined }, nowMs),
  );
}

function undoLater(before: ControllerState, number: number, change: UnderWay, nowMs: number): Step {
  // A controller that leaves writes nothing more: whoever is left finds what there is, and makes a majority have it.
  if (before.mode === "leaving") return [setChange(before, number, undefined), nothing];
  const [state, after] = askReading(before);
  const waitMs = Math.min(undoAgainMsMax, undoAgainMs * 2 ** change.failures);
  const failures = change.failures + 1;
  const againAtMs = nowMs + waitMs;
  return [setChange(state, number, { ...change, after, againAtMs, failures }), nothing];
}

/** What holds here, as a definition that is newer than the one that failed: that one may be on a disk, and must not be taken for the last word. */
function restored(state: ControllerState, { definition }: UnderWay): Definition {
  const { number, server } = definition;
  const held = state.servers[number]?.definition ?? unused(number);
  const sequence = Math.max(held.sequence, definition.sequence) + 1;
  return held.server.name === "" ? { ...held, server, sequence } : { ...held, sequence };
}

function undo(state: ControllerState, number: number, change: UnderWay): Step {
  const definition = restored(state, change);
  return write(setChange(state, number, { ...change, definition }), definition, "undo");
}

function undone(state: ControllerState, number: number, change: UnderWay): Step {
  const { action, name } = change.change;
  const said = tell(
    "info",
    "definition.undone",
    `${action} ${name} has failed, and what held before it is stored again`,
  );
  return andThen(setDefinition(state, change.definition), (next) => [
    setChange(tellPartner(next, change.definition), number, undefined),
    [said],
  ]);
}

/**
 * The controller falls out, or leaves: what is under way here ends. What was stored is stored; of what the disks still have nobody knows, and a
 * controller that leaves waits for their answer.
 */
export function dropChanges(state: ControllerState, why: string, isLeaving: boolean): Step {
  let next = isLeaving ? state : dropWritings(state);
  const effects: Effect[] = [];
  for (const [key, change] of Object.entries(state.changes)) {
    const number = Number(key);
    if (isLeaving && isWriting(state, number)) continue;
    const isStored = change.at === "telling";
    const known =
      change.at === "writing" ? "it is not known whether it is stored" : "nothing was written";
    const veto = hard("volumeUnwritable", `${why}, and ${known}`);
    effects.push(...answer(change, isStored, isStored ? [] : [veto]));
    next = setChange(next, number, undefined);
  }
  return [next, effects];
}

/** The partner has written a definition, and waits for our word. */
export function partnerChanged(state: ControllerState, number: number, sequence: number): Step {
  const [next] = askReading(state);
  const asked = { ...next.volume.asked, [number]: sequence };
  return [{ ...next, volume: { ...next.volume, asked } }, nothing];
}

/** Said when the definition, or a later one, holds here. */
function answerPartner(state: ControllerState, number: number): Part {
  const sequence = state.volume.asked[number];
  const server = state.servers[number];
  if (sequence === undefined || !server || server.definition.sequence < sequence) return undefined;
  const asked = withEntry(state.volume.asked, number, undefined);
  const next = { ...state, volume: { ...state.volume, asked } };
  return [sendMessage(next, { type: "known", number, sequence }), nothing];
}

export function partnerKnows(state: ControllerState, number: number, sequence: number): Step {
  const change = state.changes[number];
  if (change?.at !== "telling" || sequence < change.definition.sequence) return [state, nothing];
  return finished(state, number, change);
}
