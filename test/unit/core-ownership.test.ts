/** Ownership of a data disk, on the SPC-4 model: how a claim takes it, from whom, and from whom it does not. */
import { describe, expect, test } from "vitest";
import { makeKey } from "../../firmware-ts/core/keys.ts";
import {
  type Claim,
  type ClaimStep,
  claimAnswer,
  claimEnded,
  releaseCommands,
  startClaim,
  stillOwned,
} from "../../firmware-ts/core/ownership.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import { NO_RESERVATIONS, type Reservations } from "../../hal/shelf/disk/reservations.ts";
import { performOn } from "../../hal/sim/shelf.ts";

const type = "exclusiveAccessRegistrantsOnly";
const keyOf = (controller: ControllerId, epoch: number, pairId = 17) =>
  makeKey({ controller, pairId, epoch });

/** The disk after commands of one controller. */
function changed(disk: Reservations, who: ControllerId, ...commands: ReservationCommand[]) {
  return commands.reduce((next, command) => performOn(next, who, command).reservations, disk);
}

const register = (key: string): ReservationCommand => ({ op: "register", key });
const reserve = (key: string): ReservationCommand => ({ op: "reserve", key, type });
const held = (who: ControllerId, key: string) =>
  changed(NO_RESERVATIONS, who, register(key), reserve(key));

const bothReadings: readonly ReservationCommand[] = [{ op: "readKeys" }, { op: "readReservation" }];
const keysOf = (list: readonly string[]) =>
  ({ status: "keys", generation: 1, keys: list }) as const;
const heldBy = (key?: string): Extract<ReservationAnswer, { status: "reservation" }> => ({
  status: "reservation",
  generation: 1,
  ...(key === undefined ? {} : { holder: { key, type } }),
});

/** All orders of three. */
function ordersOf<T>([a, b, c]: readonly T[]): readonly T[][] {
  const three = [a, b, c] as T[];
  return three.flatMap((first) => {
    const [second, third] = three.filter((each) => each !== first) as [T, T];
    return [
      [first, second, third],
      [first, third, second],
    ];
  });
}

/** What a claim makes of one answer after the other. */
function answersTo(claim: Claim, key: string, answers: readonly ReservationAnswer[]): ClaimStep {
  return answers.reduce<ClaimStep>(
    ([state], answer) => claimAnswer(state, key, answer),
    [claim, []],
  );
}

type Heard = Extract<Claim, { readonly heard: unknown }>["heard"];

const commandsMax = 64;

interface Ended {
  readonly claim: Claim;
  readonly disk: Reservations;
  readonly asked: readonly string[];
}

/** Runs a claim of `a` to its end; `meddle` may change the disk before each command. */
function claim(
  start: Reservations,
  key: string,
  meddle: (disk: Reservations, command: ReservationCommand, nth: number) => Reservations = (d) => d,
): Ended {
  const [first, commands] = startClaim(key);
  let state = first;
  const waiting = [...commands];
  let disk = start;
  const asked: string[] = [];
  for (let command = waiting.shift(); command; command = waiting.shift()) {
    if (asked.length >= commandsMax) throw new Error(`no end: ${asked.join(" ")}`);
    disk = meddle(disk, command, asked.length);
    asked.push(command.op);
    const done = performOn(disk, "a", command);
    disk = done.reservations;
    const [next, more] = claimAnswer(state, key, done.answer);
    state = next;
    waiting.push(...more);
  }
  return { claim: state, disk, asked };
}

const holder = (disk: Reservations) => performOn(disk, "a", { op: "readReservation" }).answer;
const keys = (disk: Reservations) =>
  [...disk.registrations.values()].map(({ key }) => key.toString(16).padStart(16, "0"));

describe("a claim", () => {
  const mine = keyOf("a", 5);

  test("takes a free disk", () => {
    const { claim: end, disk, asked } = claim(NO_RESERVATIONS, mine);
    expect(end).toEqual({ at: "owned" });
    const readings = ["readKeys", "readReservation"];
    expect(asked).toEqual(["register", ...readings, "reserve", ...readings]);
    expect(holder(disk)).toMatchObject({ holder: { key: mine, type } });
  });

  test("takes over what it held itself at an older epoch", () => {
    const { claim: end, disk } = claim(held("a", keyOf("a", 3)), mine);
    expect(end.at).toBe("owned");
    expect(keys(disk)).toEqual([mine]);
  });

  test("preempts the partner of an older epoch, so that only we are registered", () => {
    const { claim: end, disk, asked } = claim(held("b", keyOf("b", 4)), mine);
    expect(end.at).toBe("owned");
    expect(asked).toContain("preempt");
    expect(keys(disk)).toEqual([mine]);
  });

  test("removes a partner that is registered and holds nothing", () => {
    const { claim: end, disk } = claim(
      changed(held("a", mine), "b", register(keyOf("b", 2))),
      mine,
    );
    expect(end.at).toBe("owned");
    expect(keys(disk)).toEqual([mine]);
  });

  test.each([
    ["newer", 6],
    ["equal", 5],
  ])("is refused by a partner of a %s epoch, which it leaves in place", (_, epoch) => {
    const start = held("b", keyOf("b", epoch));
    const { claim: end, disk } = claim(start, mine);
    expect(end).toMatchObject({ at: "refused", newerEpoch: epoch });
    expect(holder(disk)).toMatchObject({ holder: { key: keyOf("b", epoch) } });
    // What the refused claimant does then: it takes its registration back, and nothing of it is left.
    const left = changed(disk, "a", ...releaseCommands(mine));
    expect(keys(left)).toEqual([keyOf("b", epoch)]);
  });

  test.each([keyOf("b", 1, 18), "00000000deadbeef"])(
    "leaves a disk of another system (%s), and nothing of ours on it",
    (key) => {
      const { claim: end, disk } = claim(held("b", key), mine);
      expect(end).toMatchObject({ at: "refused", reason: expect.stringContaining(key) });
      expect(holder(disk)).toMatchObject({ holder: { key } });
      expect(keys(disk)).toEqual([key]);
    },
  );

  test("leaves a disk on which another system is only registered, and does not reserve it either", () => {
    const theirs = keyOf("b", 1, 18);
    const { claim: end, disk } = claim(changed(NO_RESERVATIONS, "b", register(theirs)), mine);
    expect(end).toMatchObject({ at: "refused", reason: expect.stringContaining(theirs) });
    expect(disk.reservation).toBeNull();
    expect(keys(disk)).toEqual([theirs]);
  });

  test("withdraws from another system's disk whatever the disk says to that", () => {
    for (const answer of [
      { status: "good" },
      { status: "conflict" },
      { status: "failed", reason: "no path" },
    ] as const) {
      const reason = "key 00000000deadbeef belongs to another system";
      const [end, commands] = claimAnswer({ at: "withdrawing", reason }, mine, answer);
      expect(end).toEqual({ at: "refused", reason });
      expect(commands).toEqual([]);
    }
  });

  test("keeps reserved what it holds when another system registers there", () => {
    const start = changed(held("a", keyOf("a", 3)), "b", register(keyOf("b", 1, 18)));
    const { claim: end, disk } = claim(start, mine);
    expect(end.at).toBe("refused");
    expect(holder(disk)).toMatchObject({ holder: { key: mine } });
  });

  test("is refused when its own registration goes on the way", () => {
    const { claim: end } = claim(held("b", keyOf("b", 4)), mine, (disk, command) =>
      command.op === "preempt"
        ? changed(disk, "b", { op: "preempt", key: keyOf("b", 4), victim: mine, type })
        : disk,
    );
    expect(end).toEqual({ at: "refused", reason: "our registration was removed" });
  });

  test("goes on when the victim lets go by itself between reading and preempting", () => {
    const { claim: end, disk } = claim(held("b", keyOf("b", 4)), mine, (before, command) =>
      command.op === "preempt" ? changed(before, "b", ...releaseCommands(keyOf("b", 4))) : before,
    );
    expect(end.at).toBe("owned");
    expect(keys(disk)).toEqual([mine]);
  });

  test("goes on when somebody older reserves first", () => {
    const theirs = keyOf("b", 4);
    const { claim: end, disk } = claim(NO_RESERVATIONS, mine, (before, command, nth) =>
      command.op === "reserve" && nth < 5
        ? changed(before, "b", register(theirs), reserve(theirs))
        : before,
    );
    expect(end.at).toBe("owned");
    expect(keys(disk)).toEqual([mine]);
  });

  test("never preempts a newer owner, also one that came between the two readings", () => {
    const newer = keyOf("b", 6);
    const { claim: end, disk } = claim(NO_RESERVATIONS, mine, (before, command, nth) =>
      command.op === "readReservation" && nth < 3
        ? changed(before, "b", register(newer), reserve(newer))
        : before,
    );
    expect(end).toMatchObject({ at: "refused", newerEpoch: 6 });
    expect(holder(disk)).toMatchObject({ holder: { key: newer } });
  });

  test("takes its answers in any order, and judges when it has them all", () => {
    const [first, asked] = startClaim(mine);
    expect(asked).toEqual([{ op: "register", key: mine }, ...bothReadings]);
    const disk = changed(held("b", keyOf("b", 4)), "a", register(mine));
    const answers = asked.map((command) => performOn(disk, "a", command).answer);
    for (const order of ordersOf(answers)) {
      let state = first;
      const sent = order.map((answer) => {
        const [next, commands] = claimAnswer(state, mine, answer);
        state = next;
        return commands;
      });
      expect(sent).toEqual([
        [],
        [],
        [{ op: "preempt", key: mine, victim: keyOf("b", 4), type }, ...bothReadings],
      ]);
    }
  });

  test("does not take a reading that was answered before the registration for its own", () => {
    const answers: ReservationAnswer[] = [keysOf([]), heldBy(), { status: "good" }];
    const end = answersTo(startClaim(mine)[0], mine, answers);
    expect(end).toEqual([{ at: "refused", reason: "our registration was removed" }, []]);
  });

  test("gives up on a disk that is contested for ever", () => {
    const theirs = keyOf("b", 4);
    const { claim: end } = claim(NO_RESERVATIONS, mine, (before, command) =>
      command.op === "readKeys" ? changed(before, "b", register(theirs)) : before,
    );
    expect(end).toMatchObject({ at: "failed" });
  });

  test("fails on a reservation of another type under our own key", () => {
    const start = changed(NO_RESERVATIONS, "a", register(mine), {
      op: "reserve",
      key: mine,
      type: "writeExclusive",
    });
    expect(claim(start, mine).claim).toMatchObject({ at: "failed" });
  });

  const asking = ["registering", "reading", "preempting", "reserving"] as const;
  test.each(asking)("fails when the disk fails while %s", (at) => {
    const broken: ReservationAnswer = { status: "failed", reason: "no path" };
    const before: Heard[] = [{}, { keys: keysOf([mine]) }, { held: heldBy(mine) }];
    for (const heard of before)
      expect(claimAnswer({ at, pass: 1, heard }, mine, broken)).toEqual([
        { at: "failed", reason: "no path" },
        [],
      ]);
  });

  const ends: readonly Claim[] = [
    { at: "owned" },
    { at: "refused", reason: "test" },
    { at: "failed", reason: "test" },
  ];
  test.each(ends)("ignores an answer after its end: $at", (end) => {
    expect(claimAnswer(end, mine, { status: "conflict" })).toEqual([end, []]);
    expect(claimAnswer(end, mine, { status: "failed", reason: "late" })).toEqual([end, []]);
    expect(claimEnded(end)).toBe(true);
  });

  const conflict: ReservationAnswer = { status: "conflict" };
  test.each(["preempting", "reserving"] as const)(
    "does not judge a conflict while %s, but what is read behind it",
    (at) => {
      const answers = [conflict, keysOf([mine, keyOf("b", 4)]), heldBy(keyOf("b", 4))];
      expect(answersTo({ at, pass: 1, heard: {} }, mine, answers)).toEqual([
        { at: "preempting", pass: 2, heard: {} },
        [{ op: "preempt", key: mine, victim: keyOf("b", 4), type }, ...bothReadings],
      ]);
    },
  );

  test.each<[string, readonly ReservationAnswer[]]>([
    ["a partner that holds it", [keysOf([mine, keyOf("b", 4)]), heldBy(keyOf("b", 4))]],
    ["nobody", [keysOf([mine]), heldBy()]],
    ["somebody who came between the readings", [keysOf([mine]), heldBy(keyOf("b", 4))]],
  ])("asks eight times, not nine: %s", (_, answers) => {
    const at = "reading";
    expect(answersTo({ at, pass: 7, heard: {} }, mine, answers)[0]).toMatchObject({ pass: 8 });
    expect(answersTo({ at, pass: 8, heard: {} }, mine, answers)).toEqual([
      { at: "failed", reason: "still contested after 8 passes" },
      [],
    ]);
  });

  test("owns also what its last pass has won", () => {
    const answers: ReservationAnswer[] = [{ status: "good" }, keysOf([mine]), heldBy(mine)];
    const [end] = answersTo({ at: "preempting", pass: 8, heard: {} }, mine, answers);
    expect(end).toEqual({ at: "owned" });
  });

  test.each(["registering", "reading"] as const)(
    "is refused by a conflict where nobody can have overtaken it: %s",
    (at) => {
      const state = { at, pass: 1, heard: {} };
      expect(claimAnswer(state, mine, conflict)).toMatchObject([{ at: "refused" }, []]);
    },
  );

  test.each<[string, readonly string[], string | undefined, string]>([
    ["we alone", [mine], mine, "owned"],
    ["we alone, on two paths", [mine, mine], mine, "owned"],
    ["nobody", [], undefined, "refused"],
    ["we and another", [mine, keyOf("b", 4)], mine, "preempting"],
    ["another", [keyOf("b", 4)], undefined, "refused"],
    ["we, but nobody holds it", [mine], undefined, "reserving"],
  ])("owns what it reserved only when nobody else is registered: %s", (_, registered, who, at) => {
    const answers: ReservationAnswer[] = [{ status: "good" }, keysOf(registered), heldBy(who)];
    const [after] = answersTo({ at: "reserving", pass: 2, heard: {} }, mine, answers);
    expect(after.at).toBe(at);
  });

  test.each<[Claim, ReservationAnswer]>([
    [{ at: "reading", pass: 1, heard: {} }, { status: "good" }],
    [{ at: "reserving", pass: 1, heard: { change: "good" } }, { status: "good" }],
    [{ at: "preempting", pass: 1, heard: { change: "good" } }, conflict],
    [{ at: "reading", pass: 1, heard: { keys: keysOf([mine]) } }, keysOf([mine])],
    [{ at: "reading", pass: 1, heard: { held: heldBy() } }, heldBy()],
  ])("fails on an answer to something that it did not ask: %j, %j", (state, answer) => {
    expect(claimAnswer(state, mine, answer)).toMatchObject([{ at: "failed" }, []]);
  });

  test("removes the holder before those who are only registered", () => {
    const other = keyOf("b", 4);
    const answers = [keysOf([keyOf("b", 2), mine, other]), heldBy(other)];
    expect(answersTo({ at: "reading", pass: 1, heard: {} }, mine, answers)).toEqual([
      { at: "preempting", pass: 2, heard: {} },
      [{ op: "preempt", key: mine, victim: other, type }, ...bothReadings],
    ]);
  });

  test("under a key that is not of this system is a broken invariant", () => {
    const state: Claim = { at: "reading", pass: 1, heard: {} };
    expect(() => answersTo(state, "00000000deadbeef", [keysOf([]), heldBy()])).toThrow(
      "00000000deadbeef",
    );
  });
});

describe("afterwards", () => {
  const mine = keyOf("a", 5);

  test("the disk is asked whether it is still ours", () => {
    expect(stillOwned(mine, holder(held("a", mine)))).toBe(true);
    expect(stillOwned(mine, holder(held("b", keyOf("b", 6))))).toBe(false);
    expect(stillOwned(mine, holder(NO_RESERVATIONS))).toBe(false);
    expect(stillOwned(mine, { status: "failed", reason: "no path" })).toBe(false);
  });

  test("a release leaves nothing behind", () => {
    const free = changed(held("a", mine), "a", ...releaseCommands(mine));
    expect(keys(free)).toEqual([]);
    expect(holder(free)).toMatchObject({ status: "reservation", holder: undefined });
  });
});
