/** Ownership of a data disk, on the SPC-4 model: how a claim takes it, from whom, and from whom it does not. */
import { describe, expect, test } from "vitest";
import { makeKey } from "../../firmware-ts/core/keys.ts";
import {
  type Claim,
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
    expect(asked).toEqual(["register", "readKeys", "readReservation", "reserve", "readKeys"]);
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

  test("takes the answers to its two readings in any order", () => {
    const [, asked] = claimAnswer(startClaim(mine)[0], mine, { status: "good" });
    expect(asked).toEqual([{ op: "readKeys" }, { op: "readReservation" }]);
    const disk = changed(held("b", keyOf("b", 4)), "a", register(mine));
    const answers = asked.map((command) => performOn(disk, "a", command).answer);
    for (const order of [answers, answers.toReversed()]) {
      let [state] = claimAnswer(startClaim(mine)[0], mine, { status: "good" });
      const sent = order.flatMap((answer) => {
        const [next, commands] = claimAnswer(state, mine, answer);
        state = next;
        return commands;
      });
      expect(sent).toEqual([{ op: "preempt", key: mine, victim: keyOf("b", 4), type }]);
    }
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

  test("fails when the disk fails, at any command", () => {
    const broken: ReservationAnswer = { status: "failed", reason: "no path" };
    const [first] = startClaim(mine);
    expect(claimAnswer(first, mine, broken)).toEqual([{ at: "failed", reason: "no path" }, []]);
    expect(claimAnswer({ at: "reserving", pass: 1 }, mine, broken)[0]).toMatchObject({
      at: "failed",
    });
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

  const bothReadings = [{ op: "readKeys" }, { op: "readReservation" }];
  const conflict: ReservationAnswer = { status: "conflict" };
  test.each(["preempting", "reserving"] as const)(
    "does not judge a conflict while %s: it reads again, up to eight times",
    (at) => {
      expect(claimAnswer({ at, pass: 1 }, mine, conflict)).toEqual([
        { at: "reading", pass: 2 },
        bothReadings,
      ]);
      expect(claimAnswer({ at, pass: 7 }, mine, conflict)[0]).toMatchObject({ pass: 8 });
      expect(claimAnswer({ at, pass: 8 }, mine, conflict)).toMatchObject([{ at: "failed" }, []]);
    },
  );

  test.each<Claim>([
    { at: "registering" },
    { at: "reading", pass: 1 },
    { at: "confirming", pass: 1 },
  ])("is refused by a conflict where nobody can have overtaken it: $at", (state) => {
    expect(claimAnswer(state, mine, conflict)).toMatchObject([{ at: "refused" }, []]);
  });

  test.each<[string, readonly string[], Claim]>([
    ["we alone", [mine], { at: "owned" }],
    ["we alone, on two paths", [mine, mine], { at: "owned" }],
    ["nobody", [], { at: "reading", pass: 3 }],
    ["we and another", [mine, keyOf("b", 4)], { at: "reading", pass: 3 }],
    ["another", [keyOf("b", 4)], { at: "reading", pass: 3 }],
  ])("owns what it reserved only when nobody else is registered: %s", (_, registered, next) => {
    const answer: ReservationAnswer = { status: "keys", generation: 1, keys: registered };
    const [after, commands] = claimAnswer({ at: "confirming", pass: 2 }, mine, answer);
    expect(after).toEqual(next);
    expect(commands).toEqual(next.at === "owned" ? [] : bothReadings);
  });

  test.each<[Claim, ReservationAnswer]>([
    [{ at: "reading", pass: 1 }, { status: "good" }],
    [{ at: "confirming", pass: 1 }, { status: "good" }],
    [
      { at: "confirming", pass: 1 },
      { status: "reservation", generation: 1 },
    ],
  ])("fails on an answer to something else: %j, %j", (state, answer) => {
    expect(claimAnswer(state, mine, answer)).toMatchObject([{ at: "failed" }, []]);
  });

  test("removes the holder before those who are only registered", () => {
    const holder = keyOf("b", 4);
    const keysRead = {
      status: "keys",
      generation: 1,
      keys: [keyOf("b", 2), mine, holder],
    } as const;
    const held = { status: "reservation", generation: 1, holder: { key: holder, type } } as const;
    const [state] = claimAnswer({ at: "reading", pass: 1 }, mine, keysRead);
    expect(claimAnswer(state, mine, held)).toEqual([
      { at: "preempting", pass: 1 },
      [{ op: "preempt", key: mine, victim: holder, type }],
    ]);
  });

  test("under a key that is not of this system is a broken invariant", () => {
    const keysRead = { status: "keys", generation: 1, keys: [] } as const;
    const held = { status: "reservation", generation: 1 } as const;
    const [state] = claimAnswer({ at: "reading", pass: 1 }, "00000000deadbeef", keysRead);
    expect(() => claimAnswer(state, "00000000deadbeef", held)).toThrow("00000000deadbeef");
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
