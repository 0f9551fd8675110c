/** From a journal to the draft of a scenario: what befell one pair befalls the other. */
import { expect, test } from "vitest";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { ids, Pair } from "../../hal/sim/pair.ts";
import { runScript } from "../../hal/sim/script.ts";
import { draftScenario, type JournalOf } from "../../scripts/support/scenario-draft.ts";

function journalOf(pair: Pair, who: ControllerId): JournalOf {
  const lives = pair.lives.filter(({ controller }) => controller.me === who);
  const header = { config: pair.config(who) };
  return { who, entries: lives.flatMap(({ journal }) => [{ header }, ...journal]) };
}

const modesOf = (pair: Pair) => ids.map((who) => pair.controllers[who]?.state.mode);
const ownersOf = (pair: Pair) => pair.dataDisks.map((disk) => pair.shelf.holder(disk)?.by);

/** A pair is served for a while, then something happens to it. */
function lived(befall: (pair: Pair) => void): Pair {
  const pair = new Pair();
  pair.start("a");
  pair.run(5);
  pair.start("b");
  pair.run(2000);
  befall(pair);
  pair.run(3000);
  return pair;
}

const orders = (script: string) =>
  script.split("\n").filter((line) => !/^(#|run |show)/.test(line));

test("both journals give back who was struck down, when, and who came again", () => {
  const pair = lived((each) => {
    each.kill("b");
    each.run(1500);
    each.start("b");
  });
  const script = draftScenario([journalOf(pair, "a"), journalOf(pair, "b")]);
  expect(orders(script)).toEqual(["start a", "start b", "kill b", "start b"]);
  const again = runScript(script).pair;
  expect(modesOf(again)).toEqual(modesOf(pair));
  expect(ownersOf(again)).toEqual(ownersOf(pair));
});

test("what comes from outside is an order of its own", () => {
  const pair = lived((each) => {
    const request = { dryRun: false, force: true, reason: "test" };
    each.controllers.a?.command({ kind: "transfer", virtualServer: "alpha", request });
    each.run(500);
    each.path("b", "d2", false);
    each.run(500);
    each.path("b", "d2", true);
    each.run(50);
    each.dataLink("a", false);
    each.run(50);
    each.dataLink("a", true);
    each.run(50);
    each.controllers.a?.happen({
      kind: "serviceExited",
      virtualServer: "beta",
      reason: "signal 9",
    });
    each.run(500);
    each.controllers.b?.happen({ kind: "shutdown", reason: "test" });
  });
  const script = draftScenario([journalOf(pair, "a"), journalOf(pair, "b")]);
  expect(orders(script)).toEqual([
    "start a",
    "start b",
    "transfer a alpha force",
    "path b down d2",
    "path b up d2",
    "nic a down",
    "nic a up",
    "die a beta",
    "shutdown b",
  ]);
  expect(modesOf(runScript(script).pair)[0]).toBe(modesOf(pair)[0]);
});

test.each([
  ["a kill", (pair: Pair) => pair.kill("b"), ["kill b"]],
  ["a crash", (pair: Pair) => pair.crash("b"), ["crash b"]],
  [
    "a cut that is mended",
    (pair: Pair) => {
      for (const to of ids)
        for (const link of ["serial", "network"] as const) pair.cut(link, to, true);
      for (const disk of pair.coordinators) pair.path("b", disk, false);
      pair.run(1000);
      for (const to of ids)
        for (const link of ["serial", "network"] as const) pair.cut(link, to, false);
      for (const disk of pair.coordinators) pair.path("b", disk, true);
    },
    ["cut links", "mend links"],
  ],
] as const)("one journal alone guesses %s", (_name, befall, expected) => {
  const pair = lived(befall);
  const script = draftScenario([journalOf(pair, "a")]);
  expect(script).toContain("is a guess");
  expect(orders(script)).toEqual(["start a", "start b", ...expected]);
  expect(() => runScript(script)).not.toThrow();
});

test("only the end of a long story can be asked for", () => {
  const pair = lived((each) => {
    each.run(20_000);
    each.kill("b");
  });
  const script = draftScenario([journalOf(pair, "a"), journalOf(pair, "b")], 1000);
  expect(orders(script)).toEqual(["start a", "start b", "kill b"]);
});

test("a journal without a life is refused", () => {
  expect(() => draftScenario([{ who: "a", entries: [] }])).toThrow("no life");
});
