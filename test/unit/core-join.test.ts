/** Registration on the coordinators: when it is asked for, what counts as one, and who may race without a partner. */
import { describe, expect, test } from "vitest";
import type { ControllerState, Registration } from "../../firmware-ts/core/controller-state.ts";
import {
  forgetRegistrations,
  joinAnswer,
  majority,
  mayRaceAlone,
  registerDue,
  registeredCount,
  startingTick,
} from "../../firmware-ts/core/join.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import type { ReservationAnswer, ReservationType } from "../../firmware-ts/schema/reservation.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { said } from "../support/one-server.ts";

const nowMs = 5000;
const retryMs = 500;
const type = "writeExclusiveAllRegistrants";
const good: ReservationAnswer = { status: "good" };
const none: Registration = { at: "none", againAtMs: nowMs, told: "" };

/** A controller that has just started, registered nowhere. */
const fresh: ControllerState = (() => {
  const pair = new Pair();
  pair.start("a");
  const state = pair.controllers.a?.state;
  if (!state) throw new Error("a was not started");
  return forgetRegistrations(state);
})();

const withC1 = (registration: Registration, state = fresh): ControllerState => ({
  ...state,
  registrations: { ...state.registrations, c1: registration },
});
const isAt = (at: "registering" | "reading" | "reserving") => withC1({ at, round: 7, told: "" });
const held = (by: ReservationType | undefined): ReservationAnswer => ({
  status: "reservation",
  generation: 1,
  holder: by && { key: "0000000000000000", type: by },
});
const answered = (state: ControllerState, answer: ReservationAnswer, token = "join:7:c1") => {
  const [next, effects] = joinAnswer(state, token, answer, nowMs);
  return { state: next, c1: next.registrations.c1, asked: said(effects), effects };
};

describe("registration is asked for", () => {
  test.each(modes)("while starting or paired only: %s", (mode) => {
    const [, effects] = registerDue({ ...fresh, mode }, nowMs) ?? [];
    const may = mode === "starting" || mode === "paired";
    expect(effects && said(effects)).toEqual(
      may ? ["register c1", "register c2", "register c3"] : undefined,
    );
  });

  test("with our key, each time under another token", () => {
    const [state, effects] = registerDue(fresh, nowMs) ?? [fresh, []];
    const command = { op: "register", key: fresh.coordinatorKey };
    const deadlineMs = fresh.timing.reserveTimeoutMs;
    expect(effects).toMatchObject([{ command, deadlineMs }, { command }, { command }]);
    const tokens = effects.map((each) => (each.kind === "reserve" ? each.token : ""));
    expect(new Set(tokens).size).toBe(3);
    // They count on with those of the races: none is used twice.
    expect(state.round).toBe(fresh.round + 3);
    const [, again] = registerDue(forgetRegistrations(state), nowMs) ?? [fresh, []];
    for (const each of again) expect(tokens).not.toContain("token" in each && each.token);
  });

  test.each<[string, Registration, boolean]>([
    ["not asked yet", none, true],
    ["to be asked again in 1 ms", { ...none, againAtMs: nowMs + 1 }, false],
    ["being asked", { at: "reading", round: 7, told: "" }, false],
    ["registered", { at: "registered", sinceMs: 1 }, false],
  ])("where it is due: %s", (_, c1, due) => {
    const rest = {
      c2: { at: "registered", sinceMs: 1 },
      c3: { at: "registered", sinceMs: 1 },
    } as const;
    const step = registerDue({ ...fresh, registrations: { ...rest, c1 } }, nowMs);
    expect(step ? said(step[1]) : []).toEqual(due ? ["register c1"] : []);
  });
});

describe("a registration", () => {
  test("is made, and reserved for all registrants, in three steps", () => {
    const reading = answered(isAt("registering"), good);
    expect(reading.asked).toEqual(["readReservation c1"]);
    const reserving = answered(reading.state, held(undefined));
    expect(reserving.effects).toMatchObject([
      { token: "join:7:c1", command: { op: "reserve", key: fresh.coordinatorKey, type } },
    ]);
    const end = answered(reserving.state, good);
    expect(end.c1).toEqual({ at: "registered", sinceMs: nowMs });
    expect(end.asked).toEqual(["coordinator.registered"]);
  });

  test("is made when the disk is reserved so already, and not when it is reserved otherwise", () => {
    expect(answered(isAt("reading"), held(type)).c1).toEqual({ at: "registered", sinceMs: nowMs });
    const other = answered(isAt("reading"), held("writeExclusive"));
    expect(other.c1).toMatchObject({ at: "none", againAtMs: nowMs + retryMs });
    expect(other.asked).toEqual(["coordinator.failed"]);
  });

  test("is followed by a reading of all disks, unless one is to come anyway", () => {
    const knowing = { ...fresh.volume, isUnsure: false, wanted: 4, begun: 4, done: 4 };
    const paired: ControllerState = { ...isAt("reading"), mode: "paired", volume: knowing };
    expect(answered(paired, held(type)).state.volume).toMatchObject({
      wanted: 5,
      isThorough: true,
    });
    const unsure: ControllerState = { ...paired, volume: { ...knowing, isUnsure: true } };
    expect(answered(unsure, held(type)).state.volume).toBe(unsure.volume);
    const broken: ReservationAnswer = { status: "failed", reason: "no path" };
    expect(answered(paired, broken).state.volume).toBe(knowing);
  });

  const keys: ReservationAnswer = { status: "keys", generation: 1, keys: [] };
  test.each<["registering" | "reading" | "reserving", ReservationAnswer]>([
    ["registering", { status: "conflict" }],
    ["registering", keys],
    ["reading", { status: "conflict" }],
    ["reading", good],
    ["reading", keys],
    ["reserving", { status: "conflict" }],
    ["reserving", held(type)],
    ["registering", { status: "failed", reason: "no path" }],
    ["reading", { status: "failed", reason: "no path" }],
    ["reserving", { status: "failed", reason: "no path" }],
  ])("is none when the disk answers otherwise: %s, %j", (at, answer) => {
    const { c1, asked } = answered(isAt(at), answer);
    expect(c1).toMatchObject({ at: "none", againAtMs: nowMs + retryMs });
    expect(asked).toEqual(["coordinator.failed"]);
  });

  test("that fails again for the same reason is not told again; for another one it is", () => {
    const broken: ReservationAnswer = { status: "failed", reason: "no path" };
    const again = (told: string) =>
      answered(withC1({ at: "registering", round: 7, told }), broken).asked;
    expect(again("no path")).toEqual([]);
    expect(again("other")).toEqual(["coordinator.failed"]);
    const through = answered(withC1({ at: "registering", round: 7, told: "no path" }), good).state;
    expect(answered(through, broken).asked).toEqual([]);
    const further = answered(through, held(undefined)).state;
    expect(answered(further, broken).asked).toEqual([]);
  });

  test.each<[string, ControllerState, string]>([
    ["of another round", isAt("registering"), "join:6:c1"],
    ["of no disk of ours", isAt("registering"), "join:7:c9"],
    ["when nothing is asked", withC1(none), "join:7:c1"],
    ["when it is registered", withC1({ at: "registered", sinceMs: 1 }), "join:7:c1"],
  ])("is not touched by an answer %s", (_, state, token) => {
    expect(joinAnswer(state, token, good, nowMs)).toEqual([state, []]);
  });

  test("is forgotten everywhere at once, and asked for at once", () => {
    const forgotten = forgetRegistrations(withC1({ at: "registered", sinceMs: 1 }));
    const asNew = { at: "none", againAtMs: 0, told: "" };
    expect(forgotten.registrations).toEqual({ c1: asNew, c2: asNew, c3: asNew });
  });
});

describe("starting", () => {
  const registered = (count: number): ControllerState => {
    const entries = fresh.config.shelf.coordinators.map(
      (serial, i) =>
        [serial, i < count ? ({ at: "registered", sinceMs: 1 } as const) : none] as const,
    );
    return { ...fresh, mode: "starting", registrations: Object.fromEntries(entries) };
  };

  test("ends with a majority, and from then on silence counts", () => {
    expect(majority(fresh)).toBe(2);
    expect([0, 1, 2, 3].map((count) => registeredCount(registered(count)))).toEqual([0, 1, 2, 3]);
    expect(startingTick(registered(1), nowMs)).toBeUndefined();
    expect(startingTick(registered(2), nowMs)?.[0]).toMatchObject({
      mode: "joining",
      quietSinceMs: nowMs,
    });
    expect(startingTick({ ...registered(2), mode: "paired" }, nowMs)).toBeUndefined();
  });
});

describe("a race without a partner", () => {
  const waitMs = fresh.timing.startupWaitMs;
  const guest: ControllerState = {
    ...fresh,
    mode: "joining",
    partner: undefined,
    diskReadable: true,
    quietSinceMs: nowMs,
  };

  test("is for a guest that has heard nobody for long enough where it could be heard", () => {
    expect(mayRaceAlone(guest, nowMs + waitMs)).toBe(true);
    expect(mayRaceAlone(guest, nowMs + waitMs - 1)).toBe(false);
    expect(mayRaceAlone({ ...guest, diskReadable: false }, nowMs + waitMs)).toBe(false);
    expect(mayRaceAlone({ ...guest, partner: {} as never }, nowMs + waitMs)).toBe(false);
  });

  test.each(modes)("is for a guest: %s", (mode) => {
    expect(mayRaceAlone({ ...guest, mode }, nowMs + waitMs)).toBe(mode === "joining");
  });
});
