/**
 * Leaving on request (SIGTERM): what is served here goes to the partner first, live; then everything is closed, the beats
 * say goodbye, and the process ends. Goodbye means: gates closed, nothing mounted, disks released. Only then is it said. What is left of a
 * released disk because somebody holds it (a sealed mount, an idle device) is not waited for: the next start removes it.
 */
import { dropChanges } from "./change.ts";
import {
  andThen,
  type ControllerState,
  isQueued,
  isWriting,
  ownsServer,
  type Part,
  replaceServer,
  type Step,
  serverContext,
  setMode,
} from "./controller-state.ts";
import { movesAtOnce, offerInTurn } from "./transfer-window.ts";
import { isHeld, stopServer } from "./vserver-stop.ts";

/** Time for the transfers before what is left is simply stopped: for the first turn of as many as may move at once, and for each more. */
const handOverMs = 5000;
const furtherTurnMs = 1000;

/** How long goodbye is repeated: several beats on every link. */
const goodbyeMs = 100;

export function shutdown(state: ControllerState, reason: string, nowMs: number): Step {
  if (state.mode === "leaving") return [state, []];
  const paired = state.mode === "paired" && state.partner?.mode === "paired";
  const turns = Math.ceil(state.servers.filter(ownsServer).length / movesAtOnce);
  const leaving: ControllerState = {
    ...state,
    race: undefined,
    // What was to come here does not come any more, and all that is served here goes.
    queuedMoves: [],
    leaveDeadlineMs: nowMs + handOverMs + furtherTurnMs * Math.max(0, turns - 1),
  };
  let step = andThen(setMode(leaving, "leaving", nowMs, reason), (next) =>
    dropChanges(next, "this controller leaves", true),
  );
  for (const { index, phase } of state.servers) {
    if (isGoing(state, index)) continue;
    step = andThen(step, (next) =>
      paired && phase.kind === "serving"
        ? offerInTurn(next, index, "the controller leaves", nowMs)
        : stopOne(next, index, nowMs),
    );
  }
  return step;
}

/** On its way to the partner. What is on its way here is stopped like anything else: its source takes it back. */
function isGoing(state: ControllerState, index: number): boolean {
  return state.transfers[index]?.role === "source";
}

function stopOne(state: ControllerState, index: number, nowMs: number): Step {
  const server = state.servers[index];
  if (!server) throw new Error(`leave: no virtual server ${index}`);
  const [next, effects] = stopServer(server, "leave", false, serverContext(state, nowMs));
  return [replaceServer(state, next), effects];
}

export function leavingTick(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "leaving") return undefined;
  const late = nowMs >= state.leaveDeadlineMs || !state.partner;
  const tooLate = late && state.queuedMoves.length > 0;
  let step: Step = [tooLate ? { ...state, queuedMoves: [] } : state, []];
  for (const server of state.servers) {
    const { phase, index } = server;
    const moves = isGoing(state, index) || isQueued(state, index);
    if ((late || !moves) && (phase.kind === "serving" || phase.kind === "starting"))
      step = andThen(step, (next) => stopOne(next, index, nowMs));
  }
  return andThen(step, (next) => end(next, nowMs));
}

function end(state: ControllerState, nowMs: number): Step {
  if (state.servers.some((server) => ownsServer(server) && !isHeld(server))) return [state, []];
  // A record that came to a disk after the goodbye could be newer than what the partner writes, which is alone from then on.
  if (state.servers.some(({ index }) => isWriting(state, index))) return [state, []];
  const moving = Object.values(state.transfers).some((each) => each.role === "source");
  const waiting = moving || state.queuedMoves.length > 0;
  if (waiting && state.partner && nowMs < state.leaveDeadlineMs) return [state, []];
  // The goodbye leaves with this step; the exit waits until it has been repeated.
  if (state.farewellMs === undefined) return [{ ...state, farewellMs: nowMs }, []];
  if (nowMs - state.farewellMs < goodbyeMs) return [state, []];
  return [state, [{ kind: "exit", code: 0, reason: "left as asked" }]];
}
