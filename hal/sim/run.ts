/** One run of a plan: mishaps at their times, the invariants after every event, and at the end the judgement. */
import { mendAll, strike } from "./chaos.ts";
import type { Stepped } from "./controller.ts";
import { judgeClients, judgeHistory, judgeLoss, judgeReturn, violationOf } from "./judge.ts";
import { ids, Pair } from "./pair.ts";
import type { Plan } from "./plan.ts";
import { judgeDefinitions } from "./wholeness.ts";

export interface RunOptions {
  readonly traced?: boolean;
  readonly stepped?: (step: Stepped) => void;
  /** Called with the new world before anybody starts in it: a test breaks something on purpose. */
  readonly prepare?: ((pair: Pair) => void) | undefined;
  /** Called when a mishap strikes, with what is under way. */
  readonly struck?: (index: number, pair: Pair) => void;
}

export interface RunResult {
  readonly seed: number;
  readonly violation: string | undefined;
  /** Name of the invariant that is broken. */
  readonly invariant: string | undefined;
  readonly events: number;
  readonly simulatedMs: number;
  readonly operations: number;
  /** Equal for equal histories. */
  readonly digest: string;
  readonly trace: readonly string[];
}

/** Runs a plan from the start to the judgement. Never throws: what the world throws is a violation. */
export function runPlan(plan: Plan, options: RunOptions = {}): RunResult {
  let pair: Pair | undefined;
  let violation: string | undefined;
  try {
    pair = new Pair({
      ...plan.setup,
      silent: !options.traced,
      ...(options.stepped ? { stepped: options.stepped } : {}),
    });
    options.prepare?.(pair);
    play(pair, plan, options);
  } catch (error) {
    violation = violationOf(error);
  }
  return {
    seed: plan.seed,
    violation,
    invariant: violation?.split(":")[0],
    events: pair?.timeline.events ?? 0,
    simulatedMs: pair?.timeline.nowMs ?? 0,
    operations: pair?.clients.reduce((sum, { done }) => sum + done, 0) ?? 0,
    digest: pair ? digestOf(pair) : "",
    trace: pair?.trace ?? [],
  };
}

function play(pair: Pair, plan: Plan, options: RunOptions): void {
  for (const who of ids) pair.start(who);
  plan.faults.forEach((fault, index) => {
    advance(pair, fault.atMs, plan.restartMs);
    pair.runEvents(fault.events);
    options.struck?.(index, pair);
    pair.ledger.check();
    if (!plan.loss) {
      pair.say("-", `mishap: ${JSON.stringify(fault.mishap)}`);
      strike(pair, fault.mishap);
    }
  });
  if (plan.loss) judgeLoss(pair, plan.loss);
  pair.run(plan.restMs);
  pair.say("-", "everything is mended");
  mendAll(pair);
  judgeReturn(pair);
  judgeDefinitions(pair);
  judgeClients(pair);
  judgeHistory(pair);
}

/** Time goes on to a moment; whoever has ended by itself is started again after a while, as a supervisor does. */
function advance(pair: Pair, toMs: number, restartMs: number): void {
  while (pair.timeline.nowMs < toMs) {
    const ended = ids.filter((who) => pair.endedMs(who) !== undefined);
    for (const who of ended)
      if (pair.timeline.nowMs - (pair.endedMs(who) ?? 0) >= restartMs) pair.start(who);
    const sliceMs = ended.length > 0 ? 20 : 200;
    pair.run(Math.min(sliceMs, toMs - pair.timeline.nowMs));
  }
}

function digestOf(pair: Pair): string {
  const modes = ids.map((who) => {
    const state = pair.controllers[who]?.state;
    return state ? `${state.mode}${state.epoch}` : "-";
  });
  const { events, nowMs } = pair.timeline;
  return [events, nowMs, ...modes, pair.history.length, pair.shelf.changes].join(" ");
}
