/** Every planted mistake is caught, by the invariant that it breaks, within a stated number of seeds. */
import { expect, test } from "vitest";
import { drawPlan } from "../../hal/sim/plan.ts";
import { runPlan } from "../../hal/sim/run.ts";
import { planted } from "../support/planted.ts";
import type { Planted } from "../support/planting.ts";

/** The first violation, and after how many histories. */
function caught({ profile, seeds, only, spoil, plant }: Planted) {
  let runs = 0;
  for (let seed = 1; runs < seeds; seed += 1) {
    const plan = drawPlan(seed, profile);
    if (only && !only(plan)) continue;
    runs += 1;
    const { invariant, violation } = runPlan(spoil?.(plan) ?? plan, { prepare: plant });
    if (invariant !== undefined) return { invariant, violation, runs };
  }
  return undefined;
}

test.each(Object.entries(planted))("%s", (_name, mistake) => {
  const found = caught(mistake);
  expect(found, mistake.wrong).toBeDefined();
  expect(mistake.breaks, found?.violation).toContain(found?.invariant);
});
