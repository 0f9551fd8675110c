/** One run of a plan: mishaps at their times, the invariants after every event, and at the end the judgement. */
import { type Timing, tickMs } from "../../firmware-ts/core/timing.ts";
import { partnerOf } from "../../firmware-ts/schema/ids.ts";
import { mendAll, strike, supervise } from "./chaos.ts";
import type { Stepped } from "./controller.ts";
import { pollEveryMs } from "./disk-beats.ts";
import { whyNotLinearizable } from "./history.ts";
import { Violation } from "./invariants.ts";
import { ids, Pair } from "./pair.ts";
import type { PlainLoss, Plan } from "./plan.ts";
import { isWhole, judgeDefinitions, wantedAddresses, whyNotWhole } from "./wholeness.ts";

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
    violation = error instanceof Violation ? error.message : `neverThrows: ${textOf(error)}`;
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

const textOf = (error: unknown) => (error instanceof Error ? (error.stack ?? error.message) : "?");

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
  const why = whyNotLinearizable(pair.history);
  if (why !== undefined) throw new Violation(`linearizable: ${why}`);
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

/** Longer than any limit of a step and any back-off that can be under way when everything is mended. */
export function mendedWithinMs(timing: Timing): number {
  const steps = Object.values(timing.stepTimeoutMs).reduce((sum, ms) => sum + ms, 0);
  const starts = timing.startupWaitMs + timing.lossMs + timing.raceTimeoutMs;
  return 2 * steps + timing.transferStartMs + 2 * starts;
}

function judgeReturn(pair: Pair): void {
  const endMs = pair.timeline.nowMs + mendedWithinMs(pair.timing);
  while (pair.timeline.nowMs < endMs) {
    supervise(pair);
    if (isWhole(pair)) {
      // Not by chance at one instant.
      pair.run(300);
      if (isWhole(pair)) return;
    }
    pair.run(50);
  }
  throw new Violation(
    `noEndlessDark: not whole ${mendedWithinMs(pair.timing)} ms after all was mended; ${whyNotWhole(pair)}`,
  );
}

/** Repeats, a new question for the address, grace and a session: a client is served well within this. */
const clientWithinMs = 3000;

function judgeClients(pair: Pair): void {
  if (pair.clients.length === 0) return;
  // A client of a virtual server that was stopped or deleted waits for better times.
  const wanted = wantedAddresses(pair);
  const clients = pair.clients.filter(({ address }) => wanted.includes(address));
  const before = clients.map(({ done }) => done);
  const served = () => clients.every(({ done }, i) => done >= (before[i] ?? 0) + 2);
  const endMs = pair.timeline.nowMs + clientWithinMs;
  while (!served() && pair.timeline.nowMs < endMs) pair.run(20);
  if (!served()) {
    const stuck = clients.filter(({ done }, i) => done < (before[i] ?? 0) + 2);
    throw new Violation(
      `noEndlessDark: ${stuck.length} clients are not served ${clientWithinMs} ms after service is back`,
    );
  }
}

/** A plain loss of a healthy pair: dark no longer than derived, and the survivor's own address not at all. */
function judgeLoss(pair: Pair, loss: PlainLoss): void {
  const { victim, how } = loss;
  if (!isWhole(pair)) throw new Violation("noEndlessDark: a healthy pair does not serve");
  const lostAtMs = pair.timeline.nowMs;
  pair.say("-", `loss of ${victim}: ${how}`);
  if (how === "hang") pair.freeze(victim, "main");
  else if (how === "isolate") strike(pair, { do: "split", on: true, blind: victim });
  else pair[how](victim);
  pair.run(3000);
  const survivor = partnerOf(victim);
  const [own, taken] = survivor === "a" ? pair.addresses : pair.addresses.toReversed();
  const darkOf = (address: string | undefined) =>
    pair.dark.filter((each) => each.address === address && each.toMs > lostAtMs);
  if (darkOf(own).length > 0) throw new Violation(`noEndlessDark: the survivor's ${own} blinked`);
  if (pair.answers(taken ?? "") !== survivor)
    throw new Violation(`noEndlessDark: ${taken} is not served 3 s after a plain loss`);
  const darkMs = Math.max(...darkOf(taken).map(({ toMs }) => toMs)) - lostAtMs;
  const boundMs = darkBoundMs(pair.timing, how);
  if (darkMs > boundMs)
    throw new Violation(`noEndlessDark: dark for ${darkMs.toFixed(1)} ms, ${boundMs} are derived`);
}

/** Claim, attach, mount, state, address and export of this world at their slowest, with the ticks and commands between them. */
const startMs = 75;

/**
 * How long an address of the lost controller may be dark in a plain loss: until the loss is noticed and the race is over, or until the
 * partner's gates have ended, whichever is later; then what is left of the start. See the timeline in core/timing.
 */
export function darkBoundMs(timing: Timing, how: PlainLoss["how"] | "crash"): number {
  const noticedMs =
    how === "hang" ? timing.progressTimeoutMs + timing.beatIntervalMs : timing.lossMs;
  const silentMs = (how === "hang" ? noticedMs : 0) + timing.partnerSilentMs;
  // The last beat on the disks may be found there a look later than it was written, and everything counts from its hearing.
  return (
    Math.max(noticedMs + timing.raceBudgetMs + startMs, silentMs) + 4 * tickMs + pollEveryMs(timing)
  );
}

function digestOf(pair: Pair): string {
  const modes = ids.map((who) => {
    const state = pair.controllers[who]?.state;
    return state ? `${state.mode}${state.epoch}` : "-";
  });
  const { events, nowMs } = pair.timeline;
  return [events, nowMs, ...modes, pair.history.length, pair.shelf.changes].join(" ");
}
