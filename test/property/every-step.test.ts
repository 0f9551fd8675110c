/**
 * A crash before and after every step of every story. `make sim` makes all of them; here each step of the stories with two virtual servers is
 * struck at once, with the blows and moments in turn. And the campaign notices when it does not do what it says.
 */
import { describe, expect, test } from "vitest";
import { workNames } from "../../hal/sim/chaos.ts";
import { type Injection, injectionsOf, stepsOf, tellStruck } from "../../hal/sim/every-step.ts";
import { atOf, StepRunner, tellingOf, tellings } from "../../hal/sim/step-campaign.ts";
import { stories } from "../../hal/sim/stories.ts";
import { plantedSteps } from "../support/planted-steps.ts";

const seed = 1;
const servers = 2;
const named = (story: string) => ({ story, servers, seed });

/** One injection of each step: each step has another one than the step before it. */
function inTurn(injections: readonly Injection[]): readonly Injection[] {
  const ofSteps = Map.groupBy(injections, ({ step }) => step);
  return [...ofSteps.values()].flatMap((list, i) => list.slice(i % list.length).slice(0, 1));
}

describe.each(tellings(seed, undefined, servers))("$story", (telling) => {
  test("survives a crash at each step, and is served within the bound", () => {
    const runner = new StepRunner();
    const each = inTurn(runner.injections(telling));
    const { steps, runs, violations, worst } = runner.some(telling, each);
    expect(violations).toEqual([]);
    expect(steps).toBeGreaterThan(50);
    expect(runs).toBe(steps);
    for (const { servedMs, boundMs } of Object.values(worst))
      expect(servedMs).toBeLessThanOrEqual(boundMs);
  });
});

describe("the steps", () => {
  const all = stories.flatMap(({ name }) => stepsOf(tellingOf(named(name))).steps);

  test("are those that the code takes, all of them: works, commands to disks, gates, records, messages", () => {
    const found = (pattern: RegExp) =>
      [...new Set(all.flatMap(({ what }) => pattern.exec(what)?.[1] ?? []))].sort();
    for (const part of ["main.work", "hands"])
      expect(found(new RegExp(`^${part} .*"op":"(\\w+)"`))).toEqual(
        [...workNames, "announce"].sort(),
      );
    for (const part of ["main.reserve", "disk"])
      expect(found(new RegExp(`^${part} .*"op":"(\\w+)"`))).toEqual(
        expect.arrayContaining(["readKeys", "readReservation", "register", "release", "reserve"]),
      );
    expect(found(/^disk .*"op":"(writeRecord)"/)).toEqual(["writeRecord"]);
    expect(found(/^(beat\.\S+) /)).toEqual([
      "beat.gate.close",
      "beat.gate.know",
      "beat.gate.open",
      "beat.gate.renew",
      "beat.gate.seal",
      "beat.reserve",
      "beat.send",
      "beat.tell",
      "beat.writeRecord",
    ]);
    expect(found(/^main\.beat \[\{"kind":"(\w+)"/)).toEqual([
      "gate",
      "grant",
      "mandate",
      "progress",
      "reserve",
    ]);
    expect(found(/^(main\.\w+) /)).toEqual(
      [
        "answer",
        "beat",
        "exit",
        "persist",
        "readVolume",
        "report",
        "reserve",
        "work",
        "writeVolume",
      ].map((each) => `main.${each}`),
    );
  });

  test("are the same each time, and numbered from 0 on each side", () => {
    const { steps } = stepsOf(tellingOf(named("leave-a")));
    expect(steps).toEqual(stepsOf(tellingOf(named("leave-a"))).steps);
    for (const who of ["a", "b"]) {
      const mine = steps.filter((step) => step.who === who);
      expect(mine.map(({ ordinal }) => ordinal)).toEqual(mine.map((_, i) => i));
    }
  });

  test("are struck at before and after, with each blow, as far as there is somebody to hit", () => {
    const [step] = all;
    if (!step) throw new Error("no step");
    const up = { a: "all", b: "all" } as const;
    const both = injectionsOf([{ ...step, who: "a", up: { before: up, after: up } }]);
    expect(both.map(({ when, blow }) => `${when} ${blow}`)).toHaveLength(2 * 6);
    const ended = { a: "beat", b: "nothing" } as const;
    const last = injectionsOf([{ ...step, who: "a", up: { before: up, after: ended } }]);
    expect(last.filter(({ when }) => when === "after").map(({ blow }) => blow)).toEqual([
      "kill",
      "power",
      "both",
      "bothKilled",
    ]);
    const dead = { a: "nothing", b: "nothing" } as const;
    expect(injectionsOf([{ ...step, up: { before: dead, after: dead } }])).toEqual([]);
  });
});

describe("what the campaign does not let pass", () => {
  const telling = tellingOf(named("kill-a"));
  const [injection] = injectionsOf(stepsOf(telling).steps);
  if (!injection) throw new Error("nothing to strike at");
  const { step } = injection;

  test("a crash that did not happen", () => {
    const late = { ...injection, step: { ...step, ordinal: 100_000 } };
    expect(tellStruck(telling, late).invariant).toBe("notStruck");
  });

  test("another step than the one that was seen", () => {
    const other = { ...injection, step: { ...step, what: "something else" } };
    expect(tellStruck(telling, other).violation).toContain("instead of something else");
  });

  test("a story in which nothing is done", () => {
    const nothing = { ...telling, story: { name: "nothing", before: [], acts: [] } };
    expect(stepsOf(nothing)).toEqual({
      steps: [],
      violation: "noSteps: there is nothing to strike at",
    });
  });

  test("a story that does not end well by itself", () => {
    const early = { ...telling, story: { ...telling.story, acts: [["kill a", 50]] } } as const;
    expect(stepsOf(early).violation).toMatch(/^noEndlessDark: not all is served 50 ms after/);
  });

  test("a mistake that breaks the story without a crash: it is told once, with the first part", () => {
    const runner = new StepRunner({
      prepare: ({ shelf }) => {
        shelf.mayWrite = () => true;
      },
    });
    const found = (first: number) =>
      runner.run({ ...named("freeze-b"), first, count: 0 }).violations.map(({ what }) => what);
    expect([found(0), found(1)]).toEqual([["the story itself"], []]);
  });
});

/** What is found, by crashes at every seventh place until then. */
function caught(story: string, prepare: (typeof plantedSteps)[string]["plant"]) {
  const runner = new StepRunner({ prepare });
  for (const each of runner.injections(named(story)).filter((_, i) => i % 7 === 0)) {
    const [found] = runner.some(named(story), [each]).violations;
    if (found) return `${found.violation} at ${atOf(each)}`;
  }
  return undefined;
}

test.each(Object.entries(plantedSteps))("%s is caught", (_, { wrong, story, breaks, plant }) => {
  const found = caught(story, plant);
  expect(found, wrong).toBeDefined();
  expect(breaks, found).toContain(found?.split(":")[0]);
});
