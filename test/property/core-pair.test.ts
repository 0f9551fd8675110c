/**
 * Two production controllers under everything that can befall them, in any order and between any two effects: the invariants hold
 * after each event, service comes back when everything is mended, and a journal fed again gives the same effects.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { controllerStep } from "../../firmware-ts/core/controller.ts";
import { darkBoundMs } from "../../hal/sim/bounds.ts";
import { type Mishap, mendAll, strike, supervise, workNames } from "../../hal/sim/chaos.ts";
import { ids, Pair, type PairSetup } from "../../hal/sim/pair.ts";

/** Slower beats than the default: fewer events for the same interleavings. */
const timing = {
  beatIntervalMs: 25,
  diskBeatIntervalMs: 50,
  linkSilenceMs: 110,
  diskSilenceMs: 200,
  gateTimeoutMs: 310,
  soloGateTimeoutMs: 620,
  clockMarginMs: 15,
  progressTimeoutMs: 300,
  startupWaitMs: 1500,
};

const who = fc.constantFrom("a" as const, "b" as const);
const server = fc.constantFrom("alpha" as const, "beta" as const);
const link = fc.constantFrom("serial" as const, "network" as const);
const disk = fc.constantFrom("c1", "c2", "c3", "d1", "d2");
const op = fc.constantFrom(...workNames);
const what = fc.constantFrom("all" as const, "all" as const, "main" as const, "beat" as const);
const kind = <K extends string>(...kinds: K[]) => fc.constantFrom(...kinds);

const mishap: fc.Arbitrary<Mishap> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: kind("wait"), ms: fc.integer({ min: 1, max: 1200 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: kind("events"), count: fc.integer({ min: 1, max: 120 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: kind("wait"), ms: fc.integer({ min: 1200, max: 5000 }) }),
  },
  { weight: 4, arbitrary: fc.record({ do: kind("freeze", "thaw"), who, what }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: kind("split"),
      on: fc.boolean(),
      blind: fc.constantFrom("a" as const, "b" as const, "nobody" as const),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: kind("kill", "crash", "power", "start", "start", "forget"), who }),
  },
  { weight: 1, arbitrary: fc.record({ do: kind("shutdown"), who }) },
  { weight: 3, arbitrary: fc.record({ do: kind("cut"), link, to: who, cut: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: kind("loss"), link, part: fc.constantFrom(0, 0.3, 0.9) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: kind("path"),
      who,
      disk: fc.oneof(disk, fc.constant("all")),
      up: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: kind("disk"), disk, alive: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: kind("nic"), who, up: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ do: kind("die"), who, server }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: kind("fail"), who, op, count: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: kind("hang"), who, op }) },
  { weight: 1, arbitrary: fc.record({ do: kind("release"), who, op }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: kind("command"), who, kind: kind("takeover", "giveback") }),
  },
  { weight: 1, arbitrary: fc.record({ do: kind("transfer"), who, server }) },
);

/** A start, then mishaps close enough to each other to interfere. */
const history = fc.record({
  seed: fc.integer({ min: 1, max: 1_000_000 }),
  settleMs: fc.constantFrom(10, 300, 1200, 3000),
  mishaps: fc.array(mishap, { minLength: 1, maxLength: 24 }),
});

/** Longer than any limit of a step and any back-off that can be under way when everything is mended. */
const mendedWithinMs = 120_000;

function play(
  { seed, settleMs, mishaps }: { seed: number; settleMs: number; mishaps: readonly Mishap[] },
  setup: PairSetup = {},
): Pair {
  const pair = new Pair({ seed, jitter: true, timing, ...setup });
  for (const each of ids) pair.start(each);
  pair.run(settleMs);
  for (const each of mishaps) strike(pair, each);
  return pair;
}

/** Both addresses answered, and again a while later: not by chance at one instant. */
function isWhole(pair: Pair): boolean {
  const served = () => pair.addresses.every((address) => pair.answers(address) !== undefined);
  return ids.every((each) => pair.controllers[each]?.state.mode === "paired") && served();
}

function settles(pair: Pair): boolean {
  const endMs = pair.timeline.nowMs + mendedWithinMs;
  while (pair.timeline.nowMs < endMs) {
    supervise(pair);
    if (pair.runUntil(() => isWhole(pair), 1000)) {
      pair.run(700);
      if (isWhole(pair)) return true;
    }
  }
  return false;
}

type Loss = "kill" | "crash" | "power" | "freeze" | "hang" | "isolate";

function lose(pair: Pair, victim: "a" | "b", how: Loss): void {
  if (how === "hang") pair.freeze(victim, "main");
  else if (how === "isolate") strike(pair, { do: "split", on: true, blind: victim });
  else pair[how](victim);
}

const runs = Number(process.env.CHAOS_RUNS ?? 150);

describe("a pair in trouble", () => {
  test("keeps the invariants, and serves again when everything is mended", () => {
    fc.assert(
      fc.property(history, (drawn) => {
        const pair = play(drawn);
        mendAll(pair);
        expect(settles(pair), pair.trace.slice(-60).join("\n")).toBe(true);
      }),
      { numRuns: runs },
    );
  }, 600_000);

  test("is dark no longer than derived in a plain loss, and the survivor does not blink", () => {
    const loss = fc.record({
      seed: fc.integer({ min: 1, max: 1_000_000 }),
      atMs: fc.integer({ min: 1500, max: 1700 }),
      events: fc.integer({ min: 0, max: 30 }),
      victim: who,
      how: kind<Loss>("kill", "crash", "power", "freeze", "hang", "isolate"),
      ours: fc.boolean(),
    });
    fc.assert(
      fc.property(loss, ({ seed, atMs, events, victim, how, ours }) => {
        const pair = new Pair({ seed, jitter: true, ...(ours ? {} : { timing }) });
        for (const each of ids) pair.start(each);
        pair.run(atMs);
        pair.runEvents(events);
        expect(isWhole(pair)).toBe(true);
        const lostAtMs = pair.timeline.nowMs;
        lose(pair, victim, how);
        pair.run(3000);
        const survivor = victim === "a" ? "b" : "a";
        const [own, taken] = survivor === "a" ? pair.addresses : pair.addresses.toReversed();
        const darkOf = (address: string | undefined) =>
          pair.dark.filter((each) => each.address === address && each.toMs > lostAtMs);
        const story = pair.trace.slice(-40).join("\n");
        expect(darkOf(own), story).toEqual([]);
        expect(pair.answers(taken ?? ""), story).toBe(survivor);
        const lastMs = Math.max(...darkOf(taken).map(({ toMs }) => toMs));
        expect(lastMs - lostAtMs, story).toBeLessThanOrEqual(darkBoundMs(pair.timing, how));
      }),
      { numRuns: runs },
    );
  });

  test("leaves a journal that gives the same effects again", () => {
    fc.assert(
      fc.property(history, (drawn) => {
        for (const { controller, journal } of play(drawn).lives) {
          let state = controller.initial;
          for (const { event, effects } of journal) {
            const [next, again] = controllerStep(state, event);
            expect(again).toEqual(effects);
            state = next;
          }
          expect(state).toEqual(controller.state);
        }
      }),
      { numRuns: Math.max(20, runs / 5) },
    );
  });
});
