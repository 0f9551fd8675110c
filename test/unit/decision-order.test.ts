/** Which orders of decisions are the same: what matters is not normalised away, and chance is. */
import { describe, expect, test } from "vitest";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { inOrder } from "../support/decision-order.ts";
import { type Decision, decisionsOf } from "../support/decisions.ts";
import { livesOfJournal, readGolden } from "../support/golden.ts";

function decided(fault: string, who: ControllerId, life = 0): Decision[] {
  const lives = livesOfJournal(readGolden(fault, who));
  const chosen = lives[life];
  if (!chosen) throw new Error(`${fault}: no life ${life} of ${who}`);
  return decisionsOf(chosen);
}

/** The last decision that begins with `later` is moved before the last one that begins with `earlier`. */
function swapped(decisions: readonly Decision[], earlier: string, later: string): Decision[] {
  const find = (what: string) => {
    const index = decisions.findLastIndex((each) => wordsOf(each).startsWith(what));
    if (index < 0) throw new Error(`nobody decided: ${what}`);
    return index;
  };
  const [to, from] = [find(earlier), find(later)];
  expect(from, `${later} comes after ${earlier}`).toBeGreaterThan(to);
  const moved = [...decisions];
  moved.splice(to, 0, ...moved.splice(from, 1));
  return moved;
}

const wordsOf = ({ subject, name, what }: Decision) =>
  `${subject}${name === "" ? "" : ` ${name}`}: ${what}`;

describe("the order means something", () => {
  test.each([
    ["a gate is closed before the volume is sealed", "gateClose", "seal"],
    ["it is sealed before its disk is released", "seal", "release"],
    ["it is released before the partner is told to go", "release", "message go"],
    ["it is handed over before goodbye is said", "message go", "controller: say goodbye"],
    ["goodbye comes before the end", "controller: say goodbye", "controller: exit"],
  ])("%s", (_rule, earlier, later) => {
    const decisions = decided("term", "a");
    const about = (what: string) => (what.includes(": ") ? what : `server server of a: ${what}`);
    const other = swapped(decisions, about(earlier), about(later));
    expect(inOrder(other)).not.toEqual(inOrder(decisions));
  });

  test.each([
    ["coordinators are preempted in one order", "coordinator 1: preempt", "coordinator 2: preempt"],
    ["a majority before the epoch", "coordinator 2: preempt", "controller: keep an epoch 2"],
    [
      "the epoch before a disk is asked",
      "controller: keep an epoch 2",
      "server server of a: register",
    ],
    ["the disk before the volume", "server server of a: preempt", "server server of a: mount"],
    [
      "the service before the gate",
      "server server of a: startService",
      "server server of a: gateOpen",
    ],
    ["the gate before it is kept", "server server of a: gateOpen", "server server of a: gateKeep"],
  ])("%s", (_rule, earlier, later) => {
    const all = decided("kill9", "b");
    // The takeover, without the giveback after it.
    const decisions = all.slice(
      0,
      all.findLastIndex(({ what }) => what === "message offer"),
    );
    expect(inOrder(swapped(decisions, earlier, later))).not.toEqual(inOrder(decisions));
  });
});

describe("the order is chance", () => {
  test("the light of a link comes when it comes", () => {
    const decisions = decided("kill9", "b");
    const light = decisions.findIndex(
      (each) => each.subject === "light" && each.what === "report link.red",
    );
    const moved = [...decisions];
    moved.push(...moved.splice(light, 1));
    const name = decisions[light]?.name;
    const others = (list: Decision[]) => list.filter((each) => each.name !== name);
    expect(inOrder(others(moved))).toEqual(inOrder(others(decisions)));
  });

  test("the coordinator beyond the majority registers before or after the guest joins", () => {
    const decisions = decided("kill9", "a", 1);
    const last = "coordinator 3: report coordinator.registered";
    const other = swapped(decisions, "controller: say joining", last);
    expect(inOrder(other)).toEqual(inOrder(decisions));
  });

  test("two virtual servers do not wait for each other", () => {
    const one = { subject: "server", name: "server of a", what: "mount", atMs: 1 } as const;
    const two = { subject: "server", name: "server of b", what: "attach", atMs: 2 } as const;
    expect(inOrder([one, two])).toEqual(inOrder([two, one]));
  });

  test("a light that is back at once was a late beat", () => {
    const red = {
      subject: "light",
      name: "serial link",
      what: "report link.red",
      atMs: 1,
    } as const;
    const green = { ...red, what: "report link.green", atMs: 100 };
    expect(inOrder([red, green])).toEqual([]);
    expect(inOrder([red, { ...green, atMs: 1000 }])).toHaveLength(2);
  });
});
