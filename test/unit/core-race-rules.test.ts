/** One racer, disk by disk: what it asks for, in which order, whom it waits for and for how long. */
import { describe, expect, test } from "vitest";
import {
  type Race,
  raceAnswer,
  raceDeadline,
  raceSummary,
  raceTurns,
  raceVerdict,
  startRace,
} from "../../firmware-ts/core/arbitration.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import { makeKey } from "../../firmware-ts/core/keys.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { ReservationAnswer } from "../../firmware-ts/schema/reservation.ts";

const keyOf = (controller: ControllerId, epoch: number, pairId = 17) =>
  makeKey({ controller, pairId, epoch });
const mine = keyOf("a", 3);
const theirs = keyOf("b", 4);
const beganMs = 1000;
const timeoutMs = 500;

const good: ReservationAnswer = { status: "good" };
const conflict: ReservationAnswer = { status: "conflict" };
const broken: ReservationAnswer = { status: "failed", reason: "no path" };
const keys = (...list: string[]): ReservationAnswer => ({
  status: "keys",
  generation: 1,
  keys: list,
});

function begin(coordinators: readonly string[] = ["c1", "c2", "c3"]) {
  return startRace({
    id: 7,
    me: "a",
    pairId: 17,
    key: mine,
    coordinators,
    nowMs: beganMs,
    timeoutMs,
  });
}

/** "c1:preempt", for each command. */
const commands = (effects: readonly Effect[]) =>
  effects.map((each) =>
    each.kind === "reserve" ? `${each.serial}:${each.command.op}` : each.kind,
  );

/** The race after these answers, and the commands that the last of them led to. */
function played(race: Race, nowMs: number, ...answers: readonly [string, ReservationAnswer][]) {
  let next = race;
  let last: readonly Effect[] = [];
  for (const [serial, answer] of answers) [next, last] = raceAnswer(next, serial, answer, nowMs);
  return { race: next, asked: commands(last), effects: last };
}

const both = keys(mine, theirs);

describe("a race begins", () => {
  test("with a reading of every disk, which has as long as the race", () => {
    const [race, effects] = begin();
    expect(commands(effects)).toEqual(["c1:readKeys", "c2:readKeys", "c3:readKeys"]);
    expect(effects[0]).toEqual({
      kind: "reserve",
      token: "race:7:c1",
      serial: "c1",
      command: { op: "readKeys" },
      deadlineMs: timeoutMs,
    });
    expect(raceVerdict(race)).toBe("pending");
    expect(raceSummary(race)).toEqual({ c1: "reading", c2: "reading", c3: "reading" });
    expect(race.epochSeen).toBe(3);
  });

  test("and preempts in an order that does not depend on the configuration's", () => {
    const [race] = begin(["c3", "c1", "c2"]);
    const { asked } = played(race, beganMs + 1, ["c3", both], ["c2", both], ["c1", both]);
    expect(asked).toEqual(["c1:preempt"]);
  });

  test("with an answer of a disk that is in no race: a broken invariant", () => {
    expect(() => raceAnswer(begin()[0], "c9", good, beganMs)).toThrow("c9");
  });
});

describe("what the keys on a disk say", () => {
  const summary = (answer: ReservationAnswer) =>
    raceSummary(played(begin()[0], beganMs, ["c2", answer]).race).c2;

  test.each([
    ["ours alone: it is won", [mine], "won"],
    ["ours and one of another pair: it is won", [mine, keyOf("b", 9, 18)], "won"],
    ["ours and one of nobody: it is won", [mine, "00000000deadbeef"], "won"],
    ["ours and an older one of ours: it is won", [mine, keyOf("a", 2)], "won"],
    ["ours and the partner's: it is to be won", [mine, theirs], "ready"],
    ["only the partner's: it is lost", [theirs], "lost"],
    ["an older one of ours: it is lost", [keyOf("a", 2)], "lost"],
    ["none: it is lost", [], "lost"],
  ])("%s", (_, list, stage) => expect(summary(keys(...list))).toBe(stage));

  test("an error, or an answer to something else, counts for nobody", () => {
    expect(summary(broken)).toBe("failed: no path");
    expect(summary(good)).toBe("failed: unexpected answer: good");
    expect(summary(conflict)).toBe("failed: unexpected answer: conflict");
  });

  test("epochs are learnt of our pair only, the partner's and our own", () => {
    const seen = (...list: string[]) =>
      played(begin()[0], beganMs, ["c2", keys(...list)]).race.epochSeen;
    expect(seen(mine)).toBe(3);
    expect(seen(mine, theirs)).toBe(4);
    expect(seen(keyOf("a", 8), theirs)).toBe(8);
    expect(seen(mine, keyOf("b", 2))).toBe(3);
    expect(seen(mine, keyOf("b", 99, 18), "00000000deadbeef")).toBe(3);
  });
});

describe("whose turn it is", () => {
  test("the first disk is preempted as soon as it was read, those after it are waited for by nobody", () => {
    const { race, effects } = played(begin()[0], beganMs + 1, ["c1", both]);
    expect(effects).toEqual([
      {
        kind: "reserve",
        token: "race:7:c1",
        serial: "c1",
        command: {
          op: "preempt",
          key: mine,
          victim: theirs,
          type: "writeExclusiveAllRegistrants",
        },
        deadlineMs: timeoutMs,
      },
    ]);
    expect(raceSummary(race).c1).toBe("preempting");
  });

  test.each([
    ["is read", ["c2"]],
    ["is preempted", ["c1", "c2"]],
  ])("a disk waits for an earlier one that %s, for 10 ms at most", (_, read) => {
    const askedMs = read.includes("c1") ? beganMs + 2 : beganMs;
    const answers = read.map((serial): [string, ReservationAnswer] => [serial, both]);
    const waiting = played(begin()[0], beganMs + 2, ...answers);
    expect(raceSummary(waiting.race).c2).toBe("ready");
    expect(raceTurns(waiting.race, askedMs + 9)).toEqual([waiting.race, []]);
    expect(commands(raceTurns(waiting.race, askedMs + 10)[1])).toEqual(["c2:preempt"]);
  });

  test("a later one waits for one that waits itself", () => {
    const { race } = played(begin()[0], beganMs, ["c3", both], ["c2", both]);
    expect(commands(raceTurns(race, beganMs + 10)[1])).toEqual(["c2:preempt"]);
  });

  test("a disk that is won, or does not answer, holds nobody up", () => {
    for (const answer of [keys(mine), broken]) {
      const { asked } = played(begin()[0], beganMs, ["c2", both], ["c1", answer]);
      expect(asked).toEqual(["c2:preempt"]);
    }
  });

  test("whoever has lost one gives the other 30 ms for the next", () => {
    const { race, asked } = played(begin()[0], beganMs, ["c2", both], ["c1", keys(theirs)]);
    expect(asked).toEqual([]);
    expect(raceTurns(race, beganMs + 29)).toEqual([race, []]);
    expect(commands(raceTurns(race, beganMs + 30)[1])).toEqual(["c2:preempt"]);
  });

  test("once a majority is won the rest is taken at once", () => {
    const won = played(begin()[0], beganMs, ["c3", both], ["c1", keys(mine)]);
    expect(won.asked).toEqual([]);
    const last = played(won.race, beganMs, ["c2", keys(mine)]);
    expect(raceVerdict(last.race)).toBe("won");
    expect(last.asked).toEqual(["c3:preempt"]);
  });

  test("the rest is taken past a disk that is still being read", () => {
    const five = begin(["c1", "c2", "c3", "c4", "c5"])[0];
    const most = (["c2", "c3", "c4"] as const).map(
      (serial) => [serial, keys(mine)] as [string, ReservationAnswer],
    );
    expect(played(five, beganMs, ["c5", both], ...most).asked).toEqual(["c5:preempt"]);
  });

  test("once a majority is lost nothing more is taken", () => {
    const { race, asked } = played(
      begin()[0],
      beganMs,
      ["c3", both],
      ["c1", broken],
      ["c2", keys(theirs)],
    );
    expect(raceVerdict(race)).toBe("lost");
    expect(asked).toEqual([]);
    expect(raceTurns(race, beganMs + 100)).toEqual([race, []]);
  });
});

describe("preempting a disk", () => {
  const preempting = (...list: string[]) => played(begin()[0], beganMs, ["c1", keys(...list)]);

  test("wins it when the partner has no key left, one after the other", () => {
    const older = keyOf("b", 2);
    const first = preempting(mine, theirs, older, theirs);
    const second = played(first.race, beganMs + 1, ["c1", good]);
    expect(second.effects).toMatchObject([{ command: { op: "preempt", victim: older } }]);
    expect(raceSummary(second.race).c1).toBe("preempting");
    const third = played(second.race, beganMs + 2, ["c1", good]);
    expect(third.asked).toEqual([]);
    expect(raceSummary(third.race).c1).toBe("won");
  });

  test("reads it again after a conflict, three times, and those after it wait again", () => {
    let { race, asked } = preempting(mine, theirs);
    race = played(race, beganMs + 5, ["c2", both]).race;
    for (let pass = 1; pass < 4; pass += 1) {
      const nowMs = beganMs + 5 + pass;
      ({ race, asked } = played(race, nowMs, ["c1", conflict]));
      expect(asked).toEqual(["c1:readKeys"]);
      expect(raceTurns(race, nowMs + 9)).toEqual([race, []]);
      ({ race, asked } = played(race, nowMs, ["c1", both]));
      expect(asked).toEqual(["c1:preempt"]);
    }
    ({ race, asked } = played(race, beganMs + 9, ["c1", conflict]));
    expect(raceSummary(race).c1).toBe("failed: its keys keep changing");
    expect(asked).toEqual(["c2:preempt"]);
  });

  test.each([
    [broken, "failed: no path"],
    [keys(mine), "failed: unexpected answer: keys"],
  ])("counts for nobody after %j", (answer, stage) => {
    const { race, asked } = played(preempting(mine, theirs).race, beganMs, ["c1", answer]);
    expect(raceSummary(race).c1).toBe(stage);
    expect(asked).toEqual([]);
  });

  test.each([
    ["won", keys(mine)],
    ["lost", keys(theirs)],
  ])("an answer for a disk that is %s already changes nothing", (_, answer) => {
    const { race } = played(begin()[0], beganMs, ["c1", answer]);
    expect(raceAnswer(race, "c1", good, beganMs)).toEqual([race, []]);
  });
});

describe("the verdict", () => {
  const verdict = (...answers: readonly [string, ReservationAnswer][]) =>
    raceVerdict(played(begin(["c1", "c2", "c3", "c4", "c5"])[0], beganMs, ...answers).race);
  const [won, lost] = [keys(mine), keys(theirs)];

  test("is a majority's, as early as it is certain", () => {
    expect(verdict(["c1", won], ["c2", won])).toBe("pending");
    expect(verdict(["c1", won], ["c2", won], ["c4", won])).toBe("won");
    expect(verdict(["c1", lost], ["c2", lost])).toBe("pending");
    expect(verdict(["c1", lost], ["c2", broken], ["c3", lost])).toBe("lost");
    expect(verdict(["c1", lost], ["c2", lost], ["c3", both], ["c4", both])).toBe("pending");
  });

  test("takes what is won at the deadline, and nothing that is open", () => {
    const { race } = played(begin()[0], beganMs, ["c1", won], ["c2", both]);
    expect(raceDeadline(race, beganMs + timeoutMs - 1)).toBe(race);
    const late = raceDeadline(race, beganMs + timeoutMs);
    expect(raceSummary(late)).toEqual({
      c1: "won",
      c2: "failed: no answer in time",
      c3: "failed: no answer in time",
    });
    expect(raceVerdict(late)).toBe("lost");
  });
});
