/** Commands of the operator: what would be done, what speaks against it, and the first move of each part of the plan, or its place in the queue. */
import type { CommandAnswer } from "../schema/status.ts";
import { andThen, type ControllerState, type Step, tell } from "./controller-state.ts";
import type { MoveCommand } from "./events.ts";
import { offerInTurn, requestInTurn } from "./transfer-window.ts";
import { type Move, planMoves, stopped, vetoes } from "./vetoes.ts";

/** Predicted duration of a planned move that was never made here, ms; afterwards the last start counts. */
const movePredictedMs = 60;

export function onCommand(state: ControllerState, command: MoveCommand, nowMs: number): Step {
  const moves = planMoves(state, command);
  const reasons = vetoes(state, moves);
  const { force, dryRun, reason } = command.request;
  const refused = stopped(reasons, force);
  const answer: CommandAnswer = {
    accepted: !refused,
    vetoes: reasons,
    plan: moves.map((move) => describe(state, move)),
  };
  const answered: Step = [state, [{ kind: "answer", id: command.id, answer }]];
  if (dryRun || refused) return answered;
  const overridden = reasons.filter((veto) => veto.severity === "soft").map((veto) => veto.code);
  const audit = tell(
    overridden.length > 0 ? "warning" : "info",
    overridden.length > 0 ? "command.forced" : "command.accepted",
    `${command.kind} by ${command.by}${reason ? `: ${reason}` : ""}`,
    { command: command.kind, by: command.by, reason, overridden },
  );
  return moves.reduce(
    (step: Step, move) => andThen(step, (next) => begin(next, move, command.kind, nowMs)),
    andThen(answered, (next) => [next, [audit]]),
  );
}

function begin(state: ControllerState, move: Move, why: string, nowMs: number): Step {
  return move.to === state.me
    ? requestInTurn(state, move.index, why, nowMs)
    : offerInTurn(state, move.index, why, nowMs);
}

function describe(state: ControllerState, move: Move): CommandAnswer["plan"][number] {
  const server = state.servers[move.index];
  return {
    virtualServer: server?.config.name ?? `#${move.index}`,
    action: `move to controller ${move.to}`,
    predictedMs: Math.round(server?.lastStartMs ?? movePredictedMs),
  };
}
