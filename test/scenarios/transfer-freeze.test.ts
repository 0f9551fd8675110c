/**
 * A planned move, and a freeze at every point of it: after each number of events the source or the target stops, for good, or until it
 * comes to its senses again. Whoever is left must serve both addresses, and nobody may answer or write twice on the way. Crashes at every
 * step: test/property/every-step.test.ts.
 */
import { describe, expect, test } from "vitest";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { Pair } from "../../hal/sim/pair.ts";

/** More events than a move takes; the last points hit the moved server after the move. */
const pointsMax = 420;
const stride = 5;

/** Loss, race, and every step of a start, with the source's leases running out first. */
const servedWithinMs = 1500;

/** The state just before the command is the same each time: only the point differs. */
function moving(points: number): Pair {
  const pair = new Pair({ seed: 7 });
  for (const who of ["a", "b"] as const) pair.start(who);
  pair.run(1000);
  const request = { dryRun: false, force: false, reason: "" };
  pair.controllers.a?.command({ kind: "transfer", virtualServer: "alpha", request });
  pair.runEvents(points);
  return pair;
}

function survives(pair: Pair, survivor: ControllerId): boolean {
  const all = () => pair.addresses.every((address) => pair.answers(address) === survivor);
  return pair.runUntil(all, servedWithinMs);
}

const points = Array.from({ length: pointsMax / stride }, (_, i) => i * stride);

describe.each(["a", "b"] as const)("a move from a to b, and %s is lost", (victim) => {
  const survivor = victim === "a" ? "b" : "a";

  test("by a freeze, at every point", () => {
    for (const point of points) {
      const pair = moving(point);
      pair.freeze(victim);
      expect(survives(pair, survivor), `at ${point}\n${pair.trace.join("\n")}`).toBe(true);
    }
  });

  test("by a freeze that ends, at every point", () => {
    for (const point of points) {
      const pair = moving(point);
      pair.freeze(victim);
      pair.run(400 + point);
      pair.thaw(victim);
      pair.run(200);
      const served = () => pair.addresses.every((each) => pair.answers(each) !== undefined);
      expect(pair.runUntil(served, servedWithinMs), `at ${point}\n${pair.trace.join("\n")}`).toBe(
        true,
      );
    }
  });
});
