/** The fewest mishaps of a plan that still break the same invariant (delta debugging, Zeller and Hildebrandt 2002). */
import type { Fault, Plan } from "./plan.ts";
import { type RunOptions, runPlan } from "./run.ts";

/** Runs that a minimisation may take; a plan has a few dozen mishaps. */
const runsMax = 400;

export interface Minimised {
  readonly plan: Plan;
  /** Positions of what is left in the list of the whole plan: `--only`. */
  readonly kept: readonly number[];
  readonly runs: number;
}

/** `prepare`: what a test broke in the world that it looks at. */
export function minimise(
  plan: Plan,
  invariant: string,
  prepare?: RunOptions["prepare"],
): Minimised {
  let runs = 0;
  const breaks = (kept: readonly number[]): boolean => {
    if (runs >= runsMax) return false;
    runs += 1;
    return runPlan(onlyFaults(plan, kept), { prepare }).invariant === invariant;
  };
  let kept: readonly number[] = plan.faults.map((_, index) => index);
  let parts = 2;
  while (kept.length > 0 && parts <= 2 * kept.length) {
    const size = Math.max(1, Math.ceil(kept.length / parts));
    const smaller = firstSmaller(kept, size, breaks);
    if (smaller) {
      kept = smaller;
      parts = Math.max(2, parts - 1);
    } else if (size === 1) break;
    else parts *= 2;
  }
  return { plan: onlyFaults(plan, kept), kept, runs };
}

/** The list without one stretch of `size`, if it still breaks. Later mishaps are tried first: what comes after the trouble is easily spared. */
function firstSmaller(
  kept: readonly number[],
  size: number,
  breaks: (kept: readonly number[]) => boolean,
): readonly number[] | undefined {
  for (let end = kept.length; end > 0; end -= size) {
    const rest = [...kept.slice(0, Math.max(0, end - size)), ...kept.slice(end)];
    if (rest.length < kept.length && breaks(rest)) return rest;
  }
  return undefined;
}

/** The plan with some of its mishaps. A plain loss has nothing to leave out. */
export function onlyFaults(plan: Plan, kept: readonly number[]): Plan {
  if (plan.loss) return plan;
  const faults = kept.flatMap((index): Fault[] => (plan.faults[index] ? [plan.faults[index]] : []));
  return { ...plan, faults };
}
