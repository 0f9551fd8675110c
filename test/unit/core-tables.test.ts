/** The small tables of the decisions: modes, the order of effects, lights of links, reservation keys. */
import { describe, expect, test } from "vitest";
import { tell } from "../../firmware-ts/core/controller-state.ts";
import { type Effect, effectRank } from "../../firmware-ts/core/effects.ts";
import { epochMax, makeKey, parseKey } from "../../firmware-ts/core/keys.ts";
import {
  excuseStall,
  linkColour,
  linkColours,
  newLinks,
  nobodyHeard,
} from "../../firmware-ts/core/links.ts";
import { checkTransition, modeTransitions } from "../../firmware-ts/core/modes.ts";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import { Pair } from "../../hal/sim/pair.ts";

const timing = deriveTiming(new Pair().config("a").timing);

describe("modes", () => {
  /** The arrows of the diagram in core/modes, written down a second time. */
  const arrows = [
    "starting joining",
    "joining paired",
    "joining racing",
    "joining out",
    "paired racing",
    "paired out",
    "racing alone",
    "racing out",
    "alone paired",
    "alone out",
    "out starting",
    ...modes.filter((mode) => mode !== "leaving").map((mode) => `${mode} leaving`),
  ];

  test("every arrow is allowed, and nothing else is", () => {
    const all = modes.flatMap((from) => modes.map((to) => [from, to] as const));
    const allowed = all.filter(([from, to]) => {
      try {
        checkTransition(from, to, "a");
        return true;
      } catch {
        return false;
      }
    });
    expect(allowed.map(([from, to]) => `${from} ${to}`).toSorted()).toEqual(arrows.toSorted());
    expect(modeTransitions.map(([from, to]) => `${from} ${to}`).toSorted()).toEqual(
      arrows.toSorted(),
    );
  });

  test("a broken invariant names both modes and the controller", () => {
    expect(() => checkTransition("joining", "alone", "b")).toThrow(
      "controller b: no transition from joining to alone",
    );
  });
});

describe("the effects of one step", () => {
  const name = { token: "t", virtualServer: "alpha", serial: "c1" };
  const gate = (command: object) => ({ kind: "gate", command }) as Effect;
  /** What must be done before what. */
  const inOrder = [
    ["an epoch is remembered", { kind: "persist", record: { version: 1, epoch: 1 } }],
    ["a gate is closed", gate({ kind: "gateClose" })],
    ["our word is given", { kind: "grant", on: true, contact: 1 }],
    ["a disk is asked", { kind: "reserve", ...name, command: { op: "readKeys" }, deadlineMs: 1 }],
    ["a gate is opened", gate({ kind: "gateOpen" })],
    ["work is done", { kind: "work", ...name, work: { op: "startService" }, limitMs: 1 }],
    ["the partner is told", { kind: "mandate", mandate: {} }],
    ["the operator is told", tell("info", "test", "test")],
    ["the process ends", { kind: "exit", code: 0, reason: "test" }],
  ] as const satisfies readonly (readonly [string, unknown])[];
  const rank = ([, effect]: (typeof inOrder)[number]) => effectRank(effect as Effect);

  test.each(inOrder.slice(1).map((after, i) => [inOrder[i]?.[0], after[0], i] as const))(
    "%s before %s",
    (_before, _after, i) => {
      const [before, after] = inOrder.slice(i, i + 2);
      if (!before || !after) throw new Error("two are needed");
      expect(rank(before)).toBeLessThan(rank(after));
    },
  );

  test("have a place in it, or are a broken invariant: they would be done in any order", () => {
    expect(() => effectRank({ kind: "format" } as never)).toThrow("unknown effect");
  });

  test("that are alike stay in the order in which they were decided", () => {
    const answer: Effect = {
      kind: "answer",
      id: 1,
      answer: { accepted: true, vetoes: [], plan: [] },
    };
    expect(effectRank(answer)).toBe(effectRank(tell("info", "test", "test")));
    expect(effectRank(gate({ kind: "gateKeep" }))).toBe(effectRank(gate({ kind: "gateOpen" })));
  });
});

describe("links", () => {
  const heard = { present: true, carrier: true, lastHeardMs: 1000, stalledMs: 0, sequence: 1 };

  test.each([
    ["serial", 29, "green"],
    ["serial", 30, "yellow"],
    ["serial", 59, "yellow"],
    ["serial", 60, "red"],
    ["network", 60, "red"],
    ["disk", 60, "yellow"],
    ["disk", 89, "yellow"],
    ["disk", 90, "red"],
  ] as const)("%s after %i ms of silence is %s", (name, silentMs, colour) => {
    expect(linkColour(name, heard, timing, 1000 + silentMs)).toBe(colour);
  });

  test("never heard is red, not configured is absent", () => {
    const links = newLinks(["network"]);
    expect(linkColours(links, timing, 0)).toEqual({
      serial: "absent",
      network: "red",
      disk: "absent",
    });
  });

  test("a link begins silent, without a carrier, and no stall excuses what was never heard", () => {
    const links = newLinks(["serial"]);
    expect(links.serial).toMatchObject({ present: true, carrier: false, lastHeardMs: undefined });
    expect(excuseStall(links, 50, 1000)).toEqual(links);
  });

  test("silence counts only on all present links", () => {
    const links = newLinks(["serial", "network"]);
    expect(nobodyHeard(links, timing, 1000)).toBe(true);
    for (const name of ["serial", "network"] as const) {
      const heard = { ...links, [name]: { ...links[name], lastHeardMs: 1000 } };
      expect(nobodyHeard(heard, timing, 1000)).toBe(false);
      expect(nobodyHeard(heard, timing, 1000 + timing.linkSilenceMs - 1)).toBe(false);
      expect(nobodyHeard(heard, timing, 1000 + timing.linkSilenceMs)).toBe(true);
    }
  });
});

describe("keys", () => {
  test.each([
    [{ controller: "a", pairId: 1, epoch: 0 }, "d701000100000000"],
    [{ controller: "b", pairId: 0xffff, epoch: epochMax }, "d702ffffffffffff"],
    [{ controller: "a", pairId: 17, epoch: 258 }, "d701001100000102"],
  ] as const)("%j is %s, and back", (owner, key) => {
    expect(makeKey(owner)).toBe(key);
    expect(parseKey(key)).toEqual(owner);
  });

  test.each([
    "0000000000000000",
    "d703000100000000",
    "d6010001000000ff",
    "d7010001",
    "",
    "zz",
    "00d701000100000000",
    "d70100010000000000",
  ])("%j is foreign", (key) => expect(parseKey(key)).toBeUndefined());

  test.each([
    { controller: "a", pairId: 0, epoch: 0 },
    { controller: "a", pairId: 0x10000, epoch: 0 },
    { controller: "a", pairId: 1, epoch: -1 },
    { controller: "a", pairId: 1, epoch: epochMax + 1 },
    { controller: "a", pairId: 1, epoch: 0.5 },
  ] as const)("%j is a broken invariant", (owner) => expect(() => makeKey(owner)).toThrow("range"));
});
