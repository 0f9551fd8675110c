/** Many runs, one after another: what a worker does, and what its results come to. Pure: the same in any worker, in any order. */
import { Coverage } from "./coverage.ts";
import { drawPlan, type Plan, type Profile } from "./plan.ts";
import { runPlan } from "./run.ts";

export interface Share {
  readonly kind: "seeds";
  readonly profile: Profile;
  readonly firstSeed: number;
  readonly seeds: number;
}

export interface Found {
  readonly seed: number;
  readonly invariant: string;
  readonly violation: string;
}

/** Numbers of a share, or of all shares together; can be sent between threads. */
export interface Tally {
  readonly seeds: number;
  readonly events: number;
  readonly simulatedMs: number;
  readonly operations: number;
  readonly violations: readonly Found[];
  readonly coverage: readonly (readonly [string, number])[];
}

export const noTally: Tally = {
  seeds: 0,
  events: 0,
  simulatedMs: 0,
  operations: 0,
  violations: [],
  coverage: [],
};

export function runShare({ profile, firstSeed, seeds }: Omit<Share, "kind">): Tally {
  const coverage = new Coverage();
  const violations: Found[] = [];
  let events = 0;
  let simulatedMs = 0;
  let operations = 0;
  for (let seed = firstSeed; seed < firstSeed + seeds; seed += 1) {
    const result = runCovered(drawPlan(seed, profile), coverage);
    events += result.events;
    simulatedMs += result.simulatedMs;
    operations += result.operations;
    const { invariant, violation } = result;
    if (invariant !== undefined && violation !== undefined)
      violations.push({ seed, invariant, violation });
  }
  return { seeds, events, simulatedMs, operations, violations, coverage: [...coverage.counts] };
}

function runCovered(plan: Plan, coverage: Coverage) {
  coverage.planned(plan);
  return runPlan(plan, {
    stepped: coverage.stepped,
    struck: (index, pair) => {
      const kind = plan.loss?.how ?? plan.faults[index]?.mishap.do;
      if (kind !== undefined) coverage.struck(kind, pair);
    },
  });
}

export function addTallies(one: Tally, other: Tally): Tally {
  const coverage = new Coverage(one.coverage);
  coverage.add(other.coverage);
  return {
    seeds: one.seeds + other.seeds,
    events: one.events + other.events,
    simulatedMs: one.simulatedMs + other.simulatedMs,
    operations: one.operations + other.operations,
    violations: [...one.violations, ...other.violations].sort((x, y) => x.seed - y.seed),
    coverage: [...coverage.counts],
  };
}
