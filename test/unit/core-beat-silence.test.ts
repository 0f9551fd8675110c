/** Silence in which we did not run ourselves: what it postpones, for how long, and what it must never touch. */
import { beforeEach, describe, expect, test } from "vitest";
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { judge } from "../../firmware-ts/core/beat-silence.ts";
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type { BeatEffect, BeatEvent, Mandate } from "../../firmware-ts/core/beat-types.ts";
import { deriveTiming, tickMs } from "../../firmware-ts/core/timing.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import type { LinkName } from "../../firmware-ts/schema/ids.ts";
import { Pair } from "../../hal/sim/pair.ts";

const timing = deriveTiming(new Pair().config("a").timing);
const { lossMs, stallMs, stallGraceMs, gateTimeoutMs, linkSilenceMs } = timing;
const me = 111;
const partner = 222;
const address = "10.0.0.100";

let state: BeatState;
let effects: readonly BeatEffect[];
let sequence: number;

function step(event: BeatEvent): void {
  [state, effects] = beatStep(state, event);
}

const losses = () =>
  effects.flatMap((e) =>
    e.kind === "observe" && e.observation.kind === "partnerLost" ? [e.observation] : [],
  );
const sent = (): Beat[] => effects.flatMap((e) => (e.kind === "send" ? [e.beat] : []));
const tick = (nowMs: number) => step({ kind: "tick", nowMs });

/** Ticks as they come while the process runs; ends after the one at which the partner is lost, and says when. */
function runUntilLost(fromMs: number, toMs: number): number | undefined {
  for (let nowMs = fromMs; nowMs <= toMs; nowMs += 5) {
    tick(nowMs);
    if (losses().length > 0) return nowMs;
  }
  return undefined;
}

function say(change: Partial<Mandate>, nowMs: number): Beat {
  step({ kind: "mandate", nowMs, mandate: { ...state.mandate, ...change } });
  const [beat] = sent();
  if (!beat) throw new Error("a mandate is said at once");
  return beat;
}

/** A beat of the partner that answers our newest, unless told otherwise. */
function hear(change: Partial<Beat>, nowMs: number, link: LinkName = "network"): void {
  sequence += 1;
  const beat: Beat = {
    sender: "b",
    session: partner,
    sequence,
    ack: { session: me, sequence: state.sequence },
    granting: true,
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
  step({ kind: "frame", nowMs, link, beat });
}

/** When the partner was heard last, on every link. */
const heardMs = 1000;

beforeEach(() => {
  sequence = 0;
  effects = [];
  const links = ["serial", "network", "disk"] as const;
  state = newBeatState({ me: "a", session: me, configuration: 7, timing, links, nowMs: 0 });
  for (let nowMs = 5; nowMs < heardMs; nowMs += 5) tick(nowMs);
  say({ mode: "paired", ground: "acknowledged" }, heardMs - 1);
  for (const link of links) hear({}, heardMs, link);
  step({ kind: "grant", nowMs: heardMs, on: true, contact: state.contact });
  step({ kind: "progress", nowMs: heardMs });
  tick(heardMs);
});

describe("a stall", () => {
  test("is a tick that comes later than any may, and not one a moment sooner", () => {
    tick(heardMs + tickMs + stallMs);
    expect(state.links.serial.stalledMs).toBe(0);
    tick(heardMs + 2 * (tickMs + stallMs) + 1);
    expect(state.links.serial.stalledMs).toBe(stallMs + 1);
  });

  test("is taken off the silence: the partner is lost when it has been silent for as long while we ran", () => {
    expect(runUntilLost(heardMs + 5, heardMs + 20)).toBeUndefined();
    tick(heardMs + 520);
    expect(losses()).toEqual([]);
    // 20 ms before it, an ordinary period of it, and the rest of the longest limit after it.
    expect(runUntilLost(heardMs + 525, heardMs + 2000)).toBe(
      heardMs + 520 + timing.diskSilenceMs - 20 - tickMs,
    );
  });

  test("changes nothing for a partner that speaks again", () => {
    const { contact } = state;
    tick(heardMs + 500);
    hear({}, heardMs + 502);
    expect(runUntilLost(heardMs + 505, heardMs + 502 + linkSilenceMs - 5)).toBeUndefined();
    expect(state.contact).toBe(contact);
    expect(state.links.network.stalledMs).toBe(0);
  });

  test("is no excuse for a link that was heard since", () => {
    hear({}, heardMs + 495);
    tick(heardMs + 500);
    expect(state.links.network.stalledMs).toBe(5);
    expect(state.links.disk.stalledMs).toBe(500 - tickMs);
  });

  test("judges nothing itself: what came in meanwhile may not have been read", () => {
    const lastMs = timing.diskSilenceMs - 5;
    expect(runUntilLost(heardMs + 5, heardMs + lastMs)).toBeUndefined();
    const lateMs = lastMs + tickMs + stallMs + 1;
    tick(heardMs + lateMs);
    expect(losses()).toEqual([]);
    expect(runUntilLost(heardMs + lateMs + 4, heardMs + lateMs + 14)).toBe(heardMs + lateMs + 4);
  });

  test("excuses no partner that says itself that it is gone", () => {
    tick(heardMs + 500);
    hear({ goodbye: true }, heardMs + 501);
    expect(losses()).toMatchObject([{ reason: "goodbye" }]);
    expect(state.doubtedSinceMs).toBeUndefined();
  });

  test("does not keep a partner away that has restarted meanwhile", () => {
    tick(heardMs + 500);
    hear({ session: 333, sequence: 1, ack: { session: 0, sequence: 0 } }, heardMs + 501);
    expect(state.candidate).toEqual({ session: 333, sequence: 1 });
  });
});

test("without a stall a loss comes when it always came", () => {
  expect(runUntilLost(heardMs + 5, heardMs + 200)).toBe(heardMs + timing.diskSilenceMs);
});

test.each([35, 50, 80, 109])(
  "stalls of %i ms, one after the other, postpone a loss by one detection time and the stall under way",
  (gapMs) => {
    let nowMs = heardMs;
    let firstMs: number | undefined;
    while (losses().length === 0 && nowMs < heardMs + 5000) {
      nowMs += gapMs;
      tick(nowMs);
      if (nowMs - heardMs >= timing.diskSilenceMs) firstMs ??= nowMs;
    }
    if (firstMs === undefined) throw new Error("never silent");
    expect(nowMs).toBeGreaterThanOrEqual(firstMs + stallGraceMs);
    expect(nowMs).toBeLessThan(firstMs + stallGraceMs + gapMs);
  },
);

test("a doubt becomes a loss in the moment in which its grace ends, even in a stall, and not sooner", () => {
  tick(heardMs + 500);
  const endMs = heardMs + 500 + stallGraceMs;
  expect(judge(state, stallGraceMs, endMs - 1)).toBe("doubted");
  expect(judge(state, stallGraceMs, endMs)).toBe("lost");
});

describe("what is not excused", () => {
  test("while the partner is doubted nothing is granted to it, in the same step and after", () => {
    tick(heardMs + lossMs);
    expect(state.doubtedSinceMs).toBe(heardMs + lossMs);
    expect(sent().map(({ granting }) => granting)).toEqual([false]);
    expect(say({}, heardMs + lossMs + 1).granting).toBe(false);
    hear({}, heardMs + lossMs + 2);
    expect(say({}, heardMs + lossMs + 3).granting).toBe(true);
  });

  test("a doubt is not ended by a beat that answers nothing: it may be an old one", () => {
    tick(heardMs + lossMs);
    const { doubtedSinceMs } = state;
    hear({ ack: { session: me + 1, sequence: state.sequence } }, heardMs + lossMs + 1);
    expect(state.doubtedSinceMs).toBe(doubtedSinceMs);
    expect(say({}, heardMs + lossMs + 2).granting).toBe(false);
  });

  test("the loss names the last lease that was granted, and the last that was got, as they were", () => {
    const { lastGrantedMs, ackLeaseMs } = state;
    expect(lastGrantedMs).toBe(heardMs);
    tick(heardMs + 500);
    expect(runUntilLost(heardMs + 505, heardMs + 700)).toBeDefined();
    expect(losses()).toMatchObject([
      { reason: "silent", lastGrantedMs, leasedAtMs: ackLeaseMs - gateTimeoutMs },
    ]);
  });

  test("our own gates end when they end", () => {
    step({ kind: "gateKeep", nowMs: heardMs + 1, addresses: [address] });
    const endMs = heardMs - 1 + gateTimeoutMs;
    expect(effects).toMatchObject([{ kind: "renew", untilMs: endMs }]);
    tick(heardMs + 500);
    expect(state.ackLeaseMs).toBe(endMs);
    expect(effects.filter(({ kind }) => kind === "renew" || kind === "open")).toEqual([]);
    const open = { kind: "gateOpen", token: "t", addresses: [address], notBeforeMs: 0 } as const;
    step({ ...open, nowMs: heardMs + 501 });
    expect(effects).toMatchObject([{ kind: "observe", observation: { kind: "gateRefused" } }]);
  });

  test("our own progress is as old as it is", () => {
    tick(heardMs + 500);
    expect(sent()[0]?.progressAgeMs).toBe(500);
  });

  test("the lights show what was heard, and when", () => {
    tick(heardMs + 500);
    expect(state.links.network.lastHeardMs).toBe(heardMs);
    expect(state.shown.colours).toEqual({ serial: "red", network: "red", disk: "red" });
  });

  test("what waited in a socket for longer than an answer is fresh is no sign of life", () => {
    hear({}, heardMs + timing.freshAckMs + 2);
    expect(state.links.network.lastHeardMs).toBe(heardMs);
    tick(heardMs + timing.freshAckMs + 3);
    expect(state.doubtedSinceMs).toBeDefined();
  });
});
