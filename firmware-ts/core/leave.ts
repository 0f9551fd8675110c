/**
 * Leaving on request (SIGTERM): what is served here goes to the partner first, live; then everything is closed, the beats
 * say goodbye, and the process ends. Goodbye means: gates closed, nothing mounted, disks released. Only then is it said. What is left of a
 * released disk because somebody holds it (a sealed mount, an idle device) is not waited for: the next start removes it.
 */
import {
  andThen,
  type ControllerState,
  ownsServer,
  type Part,
  replaceServer,
  type Step,
  serverContext,
  setMode,
} from "./controller-state.ts";
import { offerServer } from "./transfer.ts";
import { isHeld, stopServer } from "./vserver-stop.ts";

/** Time for the transfers before what is left is simply stopped. */
const handOverMs = 5000;

/** How long goodbye is repeated: several beats on every link. */
const goodbyeMs = 100;

export function shutdown(state: ControllerState, reason: string, nowMs: number): Step {
  if (state.mode === "leaving") return [state, []];
  const paired = state.mode === "paired" && state.partner?.mode === "paired";
  const leaving: ControllerState = {
    ...state,
    race: undefined,
    leaveDeadlineMs: nowMs + handOverMs,
  };
  let step = setMode(leaving, "leaving", nowMs, reason);
  for (const { index, phase } of state.servers) {
    if (paired && phase.kind === "serving" && !state.transfers[index])
      step = andThen(step, (next) =>
        offerServer(next, index, false, "the controller leaves", nowMs),
      );
    else if (!state.transfers[index]) step = andThen(step, (next) => stopOne(next, index, nowMs));
  }
  return step;
}

function stopOne(state: ControllerState, index: number, nowMs: number): Step {
  const server = state.servers[index];
  if (!server) throw new Error(`leave: no virtual server ${index}`);
  const [next, effects] = stopServer(server, "leave", false, serverContext(state, nowMs));
  return [replaceServer(state, next), effects];
}

export function leavingTick(state: ControllerState, nowMs: number): Part {
  if (state.mode !== "leaving") return undefined;
  let step: Step = [state, []];
  const late = nowMs >= state.leaveDeadlineMs || !state.partner;
  for (const server of state.servers) {
    const { phase, index } = server;
    const moving = state.transfers[index] !== undefined && !late;
    if (!moving && (phase.kind === "serving" || phase.kind === "starting"))
      step = andThen(step, (next) => stopOne(next, index, nowMs));
  }
  return andThen(step, (next) => end(next, nowMs));
}

function end(state: ControllerState, nowMs: number): Step {
  if (state.servers.some((server) => ownsServer(server) && !isHeld(server))) return [state, []];
  const waiting = Object.values(state.transfers).some((each) => each.role === "source");
  if (waiting && state.partner && nowMs < state.leaveDeadlineMs) return [state, []];
  // The goodbye leaves with this step; the exit waits until it has been repeated.
  if (state.farewellMs === undefined) return [{ ...state, farewellMs: nowMs }, []];
  if (nowMs - state.farewellMs < goodbyeMs) return [state, []];
  return [state, [{ kind: "exit", code: 0, reason: "left as asked" }]];
}
