/** The simulator itself: it repeats itself exactly, it finds what was broken on purpose, and a violation shrinks to what matters. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { addTallies, noTally, runShare } from "../../hal/sim/campaign.ts";
import { minimise, onlyFaults } from "../../hal/sim/minimise.ts";
import { drawPlan, type Plan, planTimingFaults, profiles } from "../../hal/sim/plan.ts";
import { runPlan } from "../../hal/sim/run.ts";

const some = Array.from({ length: 25 }, (_, index) => index + 1);

describe("the simulator", () => {
  test.each(profiles)("finds nothing wrong with some seeds of %s", (profile) => {
    const { violations } = runShare({ profile, firstSeed: 1, seeds: 40 });
    expect(violations).toEqual([]);
  });

  test("gives the same history for the same seed, traced or not, in any order", () => {
    const digests = some.map((seed) => runPlan(drawPlan(seed, "everything")).digest);
    const again = some.toReversed().map((seed) => {
      const { digest, trace } = runPlan(drawPlan(seed, "everything"), { traced: true });
      expect(trace.length).toBeGreaterThan(10);
      return digest;
    });
    expect(again.toReversed()).toEqual(digests);
    expect(new Set(digests).size).toBe(digests.length);
  });

  test("adds up shares to the same sum however they are cut", () => {
    const share = (firstSeed: number, seeds: number) =>
      runShare({ profile: "links", firstSeed, seeds });
    const whole = share(1, 12);
    const parts = [share(7, 6), share(1, 6)].reduce(addTallies, noTally);
    const sorted = (tally: typeof whole) => ({
      ...tally,
      simulatedMs: Math.round(tally.simulatedMs),
      coverage: [...tally.coverage].sort(([one], [other]) => (one < other ? -1 : 1)),
    });
    expect(sorted(parts)).toEqual(sorted(whole));
  });

  test("uses no clock, no randomness and no timers of the machine", () => {
    const folder = join(import.meta.dirname, "../../hal/sim");
    const files = readdirSync(folder).filter((name) => name.endsWith(".ts"));
    expect(files.length).toBeGreaterThan(10);
    const forbidden =
      /Math\.random|\bDate\b|performance\.|setTimeout|setInterval|process\.(hrtime|nextTick|env)|await |Promise/g;
    for (const name of files)
      expect(readFileSync(join(folder, name), "utf8").match(forbidden), name).toBeNull();
  });

  test("draws only times that keep the inequalities", () => expect(planTimingFaults()).toEqual([]));
});

/** The first seed of a profile that breaks an invariant when its set-up is spoiled on purpose. */
function firstBroken(
  spoil: (plan: Plan) => Plan,
  seeds: number,
): { plan: Plan; invariant: string } {
  for (let seed = 1; seed <= seeds; seed += 1) {
    const plan = spoil(drawPlan(seed, "everything"));
    const { invariant } = runPlan(plan);
    if (invariant !== undefined) return { plan, invariant };
  }
  throw new Error(`nothing was found in ${seeds} seeds`);
}

describe("what is broken on purpose is found", () => {
  test("reads without the read barrier, and the plan shrinks to what matters", () => {
    const { plan, invariant } = firstBroken(
      (each) => ({
        ...each,
        setup: { ...each.setup, readBarrier: false, clients: { perServer: 3, thinkMs: 15 } },
      }),
      600,
    );
    expect(invariant).toBe("linearizable");
    const small = minimise(plan, invariant);
    expect(small.kept.length).toBeLessThanOrEqual(Math.max(3, Math.ceil(0.6 * plan.faults.length)));
    expect(runPlan(onlyFaults(plan, small.kept)).invariant).toBe(invariant);
  });

  test("a clock margin that does not cover the drift of two clocks", () => {
    const drift = (ppm: number) => ({ ppm, originMs: 0 });
    const { invariant } = firstBroken(
      (each) => ({
        ...each,
        setup: { ...each.setup, clocks: { a: drift(-60_000), b: drift(60_000) } },
      }),
      600,
    );
    expect(["neverTwoAnswers", "noEndlessDark"]).toContain(invariant);
  });
});
