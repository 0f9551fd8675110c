/**
 * What the runs of a simulation reached: modes and the ways between them, phases of virtual servers and theirs, which steps were struck by
 * which kind of mishap, and which kinds met in one plan. What is expected is listed, so that the report can name what is missing.
 */
import type { Effect } from "../../firmware-ts/core/effects.ts";
import { modeTransitions } from "../../firmware-ts/core/modes.ts";
import { type Phase, startSteps, stopSteps } from "../../firmware-ts/core/vserver-types.ts";
import type { Mode } from "../../firmware-ts/schema/beat.ts";
import type { Stepped } from "./controller.ts";
import { ids, type Pair } from "./pair.ts";
import type { Plan } from "./plan.ts";

const waiting = "starting.queued";

/** A phase with its step: what a virtual server is doing. */
function phaseName(phase: Phase): string {
  if (phase.kind === "starting" && phase.waitsForTurn) return waiting;
  return phase.kind === "starting" || phase.kind === "stopping"
    ? `${phase.kind}.${phase.step}`
    : phase.kind;
}

/** Ways between phases that the machine of core/vserver can go, one step of the decisions each. */
function phaseTransitions(): readonly string[] {
  const start = (step: (typeof startSteps)[number]) => `starting.${step}`;
  const stop = (step: (typeof stopSteps)[number]) => `stopping.${step}`;
  const along = (steps: readonly string[]) =>
    steps.slice(1).map((step, index) => `${steps[index]} → ${step}`);
  const last = stop(stopSteps[stopSteps.length - 1] ?? "detach");
  const working = startSteps.filter((step) => step !== "hush");
  return [
    `off → ${start("claim")}`,
    `failed → ${start("claim")}`,
    "failed → off",
    ...along([...working.map(start), "serving"]),
    // Of many some wait for their turn.
    `off → ${waiting}`,
    `${waiting} → ${start("claim")}`,
    `${start("claim")} → ${waiting}`,
    `${waiting} → ${start("attach")}`,
    `${waiting} → ${stop("close")}`,
    // A restart in place, and a gate that closed by itself.
    `serving → ${start("hush")}`,
    `${start("open")} → ${start("hush")}`,
    `${start("verify")} → ${start("hush")}`,
    `${start("hush")} → ${start("address")}`,
    `serving → ${start("open")}`,
    `${start("verify")} → ${start("open")}`,
    // The end: with a flush first where there is time for it.
    `serving → ${stop("flush")}`,
    `serving → ${stop("close")}`,
    ...startSteps.map((step) => `${start(step)} → ${stop("close")}`),
    ...along(stopSteps.map(stop)),
    // By force: torn off before it is released, if there is anything to release.
    `${stop("close")} → ${stop("unexport")}`,
    `${stop("seal")} → ${stop("unexport")}`,
    `${stop("unmount")} → ${stop("release")}`,
    `${stop("release")} → ${stop("detach")}`,
    `${stop("unmount")} → ${stop("unexport")}`,
    `${last} → off`,
    `${last} → failed`,
  ];
}

export interface CoverageTotals {
  readonly reached: number;
  readonly total: number;
  readonly missing: readonly string[];
  /** Seen but not listed: two ways taken in one step of the decisions, or the list is behind the machine. */
  readonly unexpected: readonly string[];
}

export class Coverage {
  /** Everything seen, with how often; keys begin with what they are. */
  readonly counts: Map<string, number>;
  readonly #eventNames = new Map<string, Map<Mode, string>>();

  constructor(counts: Iterable<readonly [string, number]> = []) {
    this.counts = new Map(counts);
  }

  add(other: Iterable<readonly [string, number]>): void {
    for (const [key, count] of other) this.#count(key, count);
  }

  #count(key: string, by = 1): void {
    this.counts.set(key, (this.counts.get(key) ?? 0) + by);
  }

  /** The name of a kind of event in a mode: asked at every step of the decisions, hence made once. */
  #eventName(kind: string, mode: Mode): string {
    const names = this.#eventNames.get(kind);
    const known = names?.get(mode);
    if (known !== undefined) return known;
    const name = `event ${kind} while ${mode}`;
    this.#eventNames.set(kind, (names ?? new Map<Mode, string>()).set(mode, name));
    return name;
  }

  readonly stepped = ({ before, after, event, effects }: Stepped): void => {
    if (before.mode !== after.mode) this.#modes(effects);
    if (event.kind !== "tick") this.#count(this.#eventName(event.kind, before.mode));
    if (before.servers === after.servers) return;
    for (const server of after.servers) {
      const old = before.servers[server.index];
      if (!old || old.phase === server.phase) continue;
      const from = phaseName(old.phase);
      const to = phaseName(server.phase);
      if (from !== to) this.#count(`phase ${from} → ${to}`);
    }
  };

  /** Every change of mode is told to the operator; one step of the decisions can make two. */
  #modes(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind !== "report") continue;
      const { from, to } = effect.report.detail ?? {};
      if (typeof from === "string" && effect.report.code === `controller.${to}`)
        this.#count(`mode ${from} → ${to}`);
    }
  }

  /** A mishap strikes: what everybody was doing at that moment. */
  struck(kind: string, pair: Pair): void {
    for (const who of ids) {
      const state = pair.controllers[who]?.state;
      if (!state) continue;
      this.#count(`struck ${kind} while ${state.mode}`);
      for (const { phase } of state.servers) this.#count(`struck ${kind} in ${phaseName(phase)}`);
    }
  }

  planned(plan: Plan): void {
    const kinds = [...new Set(plan.faults.map(({ mishap }) => mishap.do))].sort();
    for (const [index, one] of kinds.entries())
      for (const other of kinds.slice(index + 1)) this.#count(`pair ${one} + ${other}`);
  }

  totals(): CoverageTotals {
    const modes = modeTransitions.map(([from, to]) => `mode ${from} → ${to}`);
    const phases = phaseTransitions().map((way) => `phase ${way}`);
    const expected = [...modes, ...phases];
    const missing = expected.filter((key) => !this.counts.has(key));
    const known = new Set(expected);
    const unexpected = [...this.counts.keys()].filter(
      (key) => /^(mode|phase) /.test(key) && !known.has(key),
    );
    const reached = expected.length - missing.length;
    return { reached, total: expected.length, missing, unexpected };
  }

  /** How many different things of one sort were seen. */
  distinct(sort: string): number {
    return [...this.counts.keys()].filter((key) => key.startsWith(`${sort} `)).length;
  }
}
