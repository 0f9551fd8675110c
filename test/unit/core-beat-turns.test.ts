/** The beat machine: what the partner has heard of our mode, and to whom it grants what. */
import { beforeEach, describe, expect, test } from "vitest";
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type {
  BeatEffect,
  BeatEvent,
  Mandate,
  Observation,
} from "../../firmware-ts/core/beat-types.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { Pair } from "../../hal/sim/pair.ts";

const { timing } = new Pair();
const me = 111;

let state: BeatState;
let effects: readonly BeatEffect[];
let sequence: number;

beforeEach(() => {
  const links = ["network"] as const;
  state = newBeatState({ me: "a", session: me, configuration: 7, timing, links, nowMs: 0 });
  effects = [];
  sequence = 0;
});

function step(event: BeatEvent): void {
  [state, effects] = beatStep(state, event);
}

const seen = (): Observation[] =>
  effects.flatMap((effect) => (effect.kind === "observe" ? [effect.observation] : []));

/** The beat in which a mandate is said. */
function say(change: Partial<Mandate>, nowMs: number): Beat {
  step({ kind: "mandate", nowMs, mandate: { ...state.mandate, ...change } });
  const beat = effects.flatMap((effect) => (effect.kind === "send" ? [effect.beat] : []))[0];
  if (!beat) throw new Error("a mandate is said at once");
  return beat;
}

/** A beat of the partner that answers our newest, unless told otherwise. */
function hear(change: Partial<Beat>, nowMs: number): void {
  sequence += 1;
  const beat: Beat = {
    sender: "b",
    session: 222,
    sequence,
    ack: { session: me, sequence: state.sequence },
    granting: false,
    mode: "paired",
    epoch: 1,
    configuration: 7,
    progressAgeMs: 0,
    goodbye: false,
    dyingGasp: false,
    dataLinkDown: false,
    owned: "",
    serving: "",
    messageAck: 0,
    ...change,
  };
  step({ kind: "frame", nowMs, link: "network", beat });
}

const grant = (nowMs: number) => step({ kind: "grant", nowMs, on: true, contact: state.contact });

describe("what the partner knows of us", () => {
  const turns = () =>
    seen().flatMap((each) => (each.kind === "partner" ? [each.view.answersTurn] : []));

  test("is the turn in which we said what it has answered, and each is told once", () => {
    say({ mode: "joining", turn: 2 }, 0);
    hear({}, 1);
    expect(turns()).toEqual([2]);
    const { sequence: before } = state;
    say({ mode: "paired", turn: 3 }, 2);
    hear({ ack: { session: me, sequence: before } }, 3);
    expect(turns()).toEqual([]);
    hear({}, 4);
    expect(turns()).toEqual([3]);
    hear({}, 5);
    expect(turns()).toEqual([]);
    // Both modes between two answers: it has heard nothing of the first.
    say({ mode: "out", turn: 4 }, 6);
    say({ mode: "paired", turn: 5 }, 7);
    hear({}, 8);
    expect(turns()).toEqual([5]);
  });

  test("is nothing for a new life of it", () => {
    say({ mode: "joining", turn: 2 }, 0);
    hear({}, 1);
    say({}, 2);
    const { sequence: heard } = state;
    say({ mode: "paired", turn: 3 }, 3);
    hear({ session: 333, sequence: 1, ack: { session: me, sequence: heard } }, 4);
    expect(turns()).toEqual([0]);
    hear({ session: 333 }, 5);
    expect(turns()).toEqual([3]);
  });
});

describe("a controller that is alone", () => {
  const granting = (nowMs: number) => say({}, nowMs).granting;

  test("grants to a guest only, and only to one that has heard that it is alone", () => {
    say({ mode: "racing", turn: 4 }, 0);
    hear({ mode: "joining" }, 1);
    const { sequence: racing } = state;
    // The main loop has won, and has seen the guest.
    grant(2);
    expect(granting(3)).toBe(false);
    say({ mode: "alone", turn: 5, ground: "solo" }, 4);
    hear({ mode: "joining", ack: { session: me, sequence: racing } }, 5);
    expect(granting(6)).toBe(false);
    hear({ mode: "joining" }, 7);
    expect(granting(8)).toBe(true);
    expect(state.lastGrantedMs).toBe(7);
  });

  test("stops in the step in which the partner says that it is no guest any more, whatever the main loop has seen", () => {
    say({ mode: "alone", turn: 5, ground: "solo" }, 0);
    hear({ mode: "joining" }, 1);
    grant(2);
    expect(granting(3)).toBe(true);
    hear({ mode: "paired" }, 4);
    expect(granting(5)).toBe(false);
    expect(state.lastGrantedMs).toBe(1);
    // As a member of the pair it has our word again.
    say({ mode: "paired", turn: 6, ground: "acknowledged" }, 6);
    expect(granting(7)).toBe(true);
  });

  test.each(["starting", "racing", "out"] as const)("grants nothing while %s", (mode) => {
    say({ mode: "paired", turn: 2 }, 0);
    hear({}, 1);
    grant(2);
    expect(granting(3)).toBe(true);
    expect(say({ mode, turn: 3 }, 4).granting).toBe(false);
  });

  test("counts a lease that it gave to a guest like any other, when that is lost as a member", () => {
    say({ mode: "alone", turn: 5, ground: "solo" }, 0);
    hear({ mode: "joining" }, 1);
    grant(2);
    say({}, 3);
    hear({ mode: "joining" }, 40);
    say({ mode: "paired", turn: 6, ground: "acknowledged" }, 50);
    step({ kind: "tick", nowMs: 500 });
    expect(seen()).toContainEqual(
      expect.objectContaining({ kind: "partnerLost", lastGrantedMs: 40 }),
    );
  });
});
