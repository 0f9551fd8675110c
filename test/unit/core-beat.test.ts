/** The beat machine: whom it believes, what it grants, and how long a gate may live on which proof. */
import { beforeEach, describe, expect, test } from "vitest";
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { type BeatState, newBeatState } from "../../firmware-ts/core/beat-state.ts";
import type {
  BeatEffect,
  BeatEvent,
  Mandate,
  Observation,
} from "../../firmware-ts/core/beat-types.ts";
import { deriveTiming } from "../../firmware-ts/core/timing.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import type { LinkName } from "../../firmware-ts/schema/ids.ts";
import { Pair } from "../../hal/sim/pair.ts";

const timing = deriveTiming(new Pair().config("a").timing);
const me = 111;
const partner = 222;
const address = "10.0.0.100";

let state: BeatState;
let effects: readonly BeatEffect[];

function step(event: BeatEvent): readonly BeatEffect[] {
  [state, effects] = beatStep(state, event);
  return effects;
}

const seen = (): Observation[] =>
  effects.flatMap((effect) => (effect.kind === "observe" ? [effect.observation] : []));
const sent = (): Beat[] => effects.flatMap((e) => (e.kind === "send" ? [e.beat] : []));
const renewals = () => effects.filter((effect) => effect.kind === "renew");

function say(change: Partial<Mandate>, nowMs: number): Beat {
  step({ kind: "mandate", nowMs, mandate: { ...state.mandate, ...change } });
  const [beat] = sent();
  if (!beat) throw new Error("a mandate is said at once");
  return beat;
}

let sequence: number;

/** A beat of the partner that answers our newest, unless told otherwise. */
function hear(change: Partial<Beat>, nowMs: number, link: LinkName = "network"): void {
  sequence += 1;
  const beat: Beat = {
    sender: "b",
    session: partner,
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
  step({ kind: "frame", nowMs, link, beat });
}

function grant(nowMs: number, contact = state.contact): void {
  step({ kind: "grant", nowMs, on: true, contact });
}

beforeEach(() => {
  sequence = 0;
  effects = [];
  state = newBeatState({
    me: "a",
    session: me,
    configuration: 7,
    timing,
    links: ["serial", "network", "disk"],
    nowMs: 0,
  });
});

describe("messages across sessions", () => {
  const offer = { id: 3, body: new Uint8Array([1]) };

  test("numbers of the partner's last session are not told to its next", () => {
    say({}, 0);
    hear({}, 1);
    const mandate = { ...state.mandate, messageAck: 9, messageSession: partner, message: offer };
    step({ kind: "mandate", nowMs: 2, mandate });
    expect(sent()[0]).toMatchObject({ messageAck: 9, message: offer });
    // The main loop still speaks to a session that has ended.
    step({ kind: "mandate", nowMs: 3, mandate: { ...mandate, messageSession: partner + 1 } });
    expect(sent()[0]?.messageAck).toBe(0);
    expect(sent()[0]?.message).toBeUndefined();
  });

  test("an acknowledgement that was meant for our last session is none", () => {
    say({}, 0);
    hear({}, 1);
    hear({ ack: { session: me + 1, sequence: 1 }, messageAck: 1 }, 2);
    expect(state.messageAcked).toBe(0);
    hear({ messageAck: 1 }, 3);
    expect(seen()).toContainEqual({ kind: "messageAcked", id: 1 });
  });
});

describe("whom it believes", () => {
  test("a session that has not answered us is answered, and not believed", () => {
    step({ kind: "tick", nowMs: 10 });
    hear({ ack: { session: 0, sequence: 0 } }, 11);
    expect(state.partner).toBeUndefined();
    step({ kind: "tick", nowMs: 20 });
    expect(sent()[0]).toMatchObject({ ack: { session: partner, sequence: 1 }, granting: false });
    hear({}, 21);
    expect(seen()).toContainEqual({
      kind: "partner",
      view: expect.objectContaining({ session: partner }),
    });
  });

  test("an answer to something said too long ago proves nothing", () => {
    const said = say({}, 0);
    step({ kind: "tick", nowMs: timing.freshAckMs + 5 });
    hear({ ack: { session: me, sequence: said.sequence } }, timing.freshAckMs + 6);
    expect(state.partner).toBeUndefined();
  });

  test("an answer to what we never said proves nothing", () => {
    say({}, 0);
    hear({ ack: { session: me, sequence: 999 } }, 1);
    expect(state.partner).toBeUndefined();
  });

  test("a session that is older than 32 bits of beats is believed as ever, and its replays are not", () => {
    say({}, 0);
    sequence = 2 ** 32 - 2;
    state = { ...state, sequence: 2 ** 32 - 1 };
    for (const nowMs of [1, 2, 3]) {
      expect(say({}, nowMs).sequence).toBe(2 ** 32 - 1 + nowMs);
      hear({}, nowMs);
      expect(state.heard?.sequence).toBe(2 ** 32 - 2 + nowMs);
    }
    for (const old of [1, 2 ** 32 - 1, 2 ** 32]) {
      hear({ sequence: old }, 4);
      expect(seen()).toEqual([{ kind: "frameRefused", reason: "replay" }]);
    }
  });

  test("a beat heard before is a replay, and one of an ended session too", () => {
    say({}, 0);
    hear({}, 1);
    hear({ sequence: 1 }, 2);
    expect(seen()).toEqual([{ kind: "frameRefused", reason: "replay" }]);
    say({}, 3);
    hear({ session: 333, sequence: 1 }, 3);
    expect(seen().map(({ kind }) => kind)).toEqual(["partnerLost", "partner"]);
    expect(state.heard?.session).toBe(333);
    hear({ session: partner, sequence: 50 }, 4);
    expect(seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
  });

  test("a late frame of an earlier life does not end the session that has answered what was said later", () => {
    say({}, 0);
    const answered = state.sequence;
    say({}, 10);
    hear({}, 11);
    hear({ session: 333, ack: { session: me, sequence: answered } }, 12);
    expect(seen()).toEqual([{ kind: "frameRefused", reason: "stale" }]);
    hear({}, 13);
    expect(state.heard?.session).toBe(partner);
    // A true restart answers something newer sooner or later.
    say({}, 20);
    hear({ session: 333, sequence: 1 }, 21);
    expect(state.heard?.session).toBe(333);
  });

  test("the disk keeps the last beat for ever: reading it again is no attack, and no sign of life", () => {
    say({}, 0);
    hear({}, 1, "disk");
    sequence = 0;
    hear({}, 50, "disk");
    expect(effects).toEqual([]);
    expect(state.links.disk.lastHeardMs).toBe(1);
  });

  test("a stranger is refused while the known session speaks, and is not taken for it in silence", () => {
    say({}, 0);
    hear({}, 1);
    hear({ session: 333, ack: { session: 0, sequence: 0 } }, 2);
    expect(seen()).toEqual([{ kind: "frameRefused", reason: "stale" }]);
    // All links are silent: the stranger is answered, but the known session may come back at any time.
    hear({ session: 333, ack: { session: 0, sequence: 0 } }, 500);
    expect(say({}, 501)).toMatchObject({ ack: { session: 333 }, granting: false });
    hear({ sequence: 9 }, 502);
    expect(say({}, 503)).toMatchObject({ ack: { session: partner, sequence: 9 } });
  });

  test("beats that answer nothing new show no living link", () => {
    const said = say({}, 0);
    hear({}, 1);
    for (let nowMs = 10; nowMs <= 1500; nowMs += 10) {
      step({ kind: "tick", nowMs });
      if (seen().some(({ kind }) => kind === "partnerLost")) {
        expect(nowMs).toBeGreaterThanOrEqual(timing.freshAckMs);
        return;
      }
      hear({ ack: { session: me, sequence: said.sequence } }, nowMs + 1);
    }
    throw new Error("a partner that hears nothing of us counts as alive");
  });

  test("any authentic beat teaches its epoch, once", () => {
    hear({ ack: { session: 0, sequence: 0 }, epoch: 9 }, 1);
    expect(seen()).toEqual([{ kind: "epoch", epoch: 9 }]);
    hear({ ack: { session: 0, sequence: 0 }, epoch: 9 }, 2);
    expect(seen()).toEqual([]);
  });
});

describe("losses", () => {
  beforeEach(() => {
    say({ mode: "paired", ground: "acknowledged" }, 0);
    hear({ mode: "paired" }, 1);
    grant(2);
    say({}, 3);
  });

  const lost = (reason: string) => expect.objectContaining({ kind: "partnerLost", reason });

  test("silence on all links, from which moment on nothing is granted", () => {
    for (let nowMs = 10; nowMs < 61; nowMs += 10) step({ kind: "tick", nowMs });
    expect(state.partner).toBeDefined();
    step({ kind: "tick", nowMs: 62 });
    expect(seen()).toContainEqual({
      kind: "partnerLost",
      reason: "silent",
      lastGrantedMs: 1,
      soloBoundMs: 1 + timing.soloSilentMs,
    });
    expect(say({}, 63).granting).toBe(false);
    expect(state.lastGrantedMs).toBe(1);
  });

  test("say when the beat left to which the partner granted its last lease", () => {
    hear({ granting: true }, 5);
    say({}, 6);
    hear({ granting: false }, 7);
    hear({ goodbye: true }, 8);
    expect(seen()).toContainEqual(expect.objectContaining({ kind: "partnerLost", leasedAtMs: 3 }));
  });

  test.each([
    [{ goodbye: true }, "goodbye"],
    [{ dyingGasp: true }, "dyingGasp"],
    [{ progressAgeMs: timing.progressTimeoutMs }, "stalled"],
    [{ mode: "out" }, "restarted"],
    [{ mode: "starting" }, "restarted"],
    [{ mode: "joining" }, "restarted"],
  ] as const)("%j is %s at once", (change, reason) => {
    hear(change, 5);
    expect(seen()).toContainEqual(lost(reason));
    expect(say({}, 6).granting).toBe(false);
  });

  test("a slow main loop below the limit is no loss", () => {
    hear({ progressAgeMs: timing.progressTimeoutMs - 1 }, 5);
    expect(seen()).toEqual([]);
  });

  test("a new session of the partner ends the old one first", () => {
    hear({ session: 333, sequence: 1, mode: "joining" }, 5);
    expect(seen().map(({ kind }) => kind)).toEqual(["partnerLost", "partner"]);
    expect(seen()[0]).toEqual(lost("restarted"));
  });

  test("a grant of before the loss is void after it", () => {
    const { contact } = state;
    hear({ dyingGasp: true }, 5);
    hear({}, 6);
    expect(state.partner).toBeDefined();
    grant(7, contact);
    expect(say({}, 8).granting).toBe(false);
    grant(9);
    expect(say({}, 10).granting).toBe(true);
  });

  test("a partner that was alone until now may have gates on its own proof", () => {
    hear({ goodbye: true }, 5);
    hear({ mode: "alone" }, 6);
    hear({ dyingGasp: true }, 7);
    expect(seen()).toContainEqual(
      expect.objectContaining({ soloBoundMs: Number.MAX_SAFE_INTEGER }),
    );
    hear({ mode: "alone" }, 8);
    hear({ mode: "paired" }, 20);
    hear({ dyingGasp: true }, 30);
    expect(seen()).toContainEqual(
      expect.objectContaining({ soloBoundMs: 20 + timing.soloSilentMs }),
    );
  });
});

describe("messages", () => {
  const body = new Uint8Array([1]);

  test("are handed on once, after the partner that says them, and never from a lost one", () => {
    say({}, 0);
    hear({ message: { id: 1, body } }, 1);
    expect(seen().map(({ kind }) => kind)).toEqual(["epoch", "partner", "message"]);
    hear({ message: { id: 1, body } }, 2, "serial");
    expect(seen()).toEqual([]);
    hear({ message: { id: 2, body }, dyingGasp: true }, 3);
    expect(seen().map(({ kind }) => kind)).toEqual(["partnerLost"]);
    hear({ message: { id: 2, body } }, 4);
    expect(seen().map(({ kind }) => kind)).toEqual(["partner", "message"]);
  });

  test("ride on the slow line only when the network is down", () => {
    const mandate = { ...state.mandate, messageSession: partner, message: { id: 1, body } };
    step({ kind: "mandate", nowMs: 1, mandate });
    say({}, 2);
    hear({}, 3);
    step({ kind: "tick", nowMs: 20 });
    const onSerial = () =>
      effects.flatMap((e) => (e.kind === "send" && e.links.includes("serial") ? [e.beat] : []));
    expect(onSerial().map(({ message }) => message)).toEqual([undefined]);
    step({ kind: "tick", nowMs: 200 });
    step({ kind: "tick", nowMs: 220 });
    expect(onSerial().map(({ message }) => message)).toEqual([{ id: 1, body }]);
  });
});

describe("gates on the partner's acknowledgement", () => {
  let saidAtMs: number;

  beforeEach(() => {
    saidAtMs = 4;
    say({ mode: "paired", ground: "acknowledged" }, saidAtMs);
    hear({ granting: true }, 9);
  });

  const open = (nowMs: number, notBeforeMs = 0) =>
    step({ kind: "gateOpen", nowMs, token: "t", addresses: [address], notBeforeMs });
  const keep = (nowMs: number) => step({ kind: "gateKeep", nowMs, addresses: [address] });

  test("live to the sending of the acknowledged beat plus the timeout, never to now plus it", () => {
    keep(10);
    expect(renewals()).toEqual([
      { kind: "renew", token: "", addresses: [address], untilMs: saidAtMs + timing.gateTimeoutMs },
    ]);
    hear({ granting: true }, 90);
    expect(renewals()).toEqual([]);
    say({}, 91);
    hear({ granting: true }, 120);
    expect(renewals()).toEqual([expect.objectContaining({ untilMs: 91 + timing.gateTimeoutMs })]);
  });

  test("are not renewed by a receipt", () => {
    keep(10);
    say({}, 50);
    hear({ granting: false }, 60);
    expect(renewals()).toEqual([]);
  });

  test("are not renewed without a mandate, nor while our own main loop hangs", () => {
    say({ ground: "none" }, 10);
    keep(11);
    expect(renewals()).toEqual([]);
    say({ ground: "acknowledged" }, 12);
    expect(renewals()).toHaveLength(1);
    say({}, timing.progressTimeoutMs);
    hear({ granting: true }, timing.progressTimeoutMs + 1);
    expect(renewals()).toEqual([]);
    step({ kind: "progress", nowMs: timing.progressTimeoutMs + 2 });
    hear({ granting: true }, timing.progressTimeoutMs + 3);
    expect(renewals()).toHaveLength(1);
  });

  test("open with a short first lease, within the proof, and not before their time", () => {
    open(10);
    expect(effects).toEqual([
      { kind: "open", token: "t", addresses: [address], untilMs: 10 + timing.firstLeaseMs },
    ]);
    open(20, 30);
    expect(effects).toEqual([]);
    step({ kind: "tick", nowMs: 29 });
    expect(effects.some(({ kind }) => kind === "open")).toBe(false);
    step({ kind: "tick", nowMs: 30 });
    expect(effects).toContainEqual(expect.objectContaining({ kind: "open", untilMs: 90 }));
    open(saidAtMs + timing.gateTimeoutMs - 20);
    expect(effects).toEqual([
      expect.objectContaining({ untilMs: saidAtMs + timing.gateTimeoutMs }),
    ]);
  });

  test("do not open on a proof that is about to end", () => {
    open(saidAtMs + timing.gateTimeoutMs - 9);
    expect(seen()).toEqual([expect.objectContaining({ kind: "gateRefused", token: "t" })]);
  });

  test("that wait to be opened are forgotten when they are closed", () => {
    open(10, 50);
    step({ kind: "gateClose", nowMs: 20, token: "c", addresses: [address] });
    expect(effects).toEqual([{ kind: "close", token: "c", addresses: [address] }]);
    step({ kind: "tick", nowMs: 60 });
    expect(effects.some(({ kind }) => kind === "open")).toBe(false);
  });

  test("that the kernel closed by itself are told, and not renewed again", () => {
    keep(10);
    const outcome = { token: "", addresses: [address], ok: false, reason: "expired" };
    step({ kind: "gateOutcome", nowMs: 11, action: "renew", ...outcome });
    expect(seen()).toEqual([{ kind: "gateLapsed", addresses: [address] }]);
    say({}, 50);
    hear({ granting: true }, 60);
    expect(renewals()).toEqual([]);
  });
});

describe("gates on the coordinators' word", () => {
  const written = (sentAtMs: number, accepted: number, refused: number, nowMs = sentAtMs + 2) =>
    step({ kind: "written", nowMs, sentAtMs, accepted, refused, total: 3 });

  beforeEach(() => {
    say({ mode: "alone", ground: "solo" }, 0);
    step({ kind: "gateKeep", nowMs: 1, addresses: [address] });
  });

  test("live to the sending of a write that a majority let through, plus the longer timeout", () => {
    written(10, 2, 1);
    expect(renewals()).toEqual([
      expect.objectContaining({ untilMs: 10 + timing.soloGateTimeoutMs }),
    ]);
  });

  test("get nothing from a minority", () => {
    written(10, 1, 1);
    expect(effects).toEqual([]);
  });

  test("a majority that refuses is told, with the time of the write", () => {
    written(10, 1, 2);
    expect(seen()).toEqual([{ kind: "soloRefused", sentAtMs: 10 }]);
    expect(renewals()).toEqual([]);
  });

  test("the beginning and the end of the proof are told", () => {
    written(10, 3, 0);
    step({ kind: "tick", nowMs: 20 });
    expect(seen()).toContainEqual({ kind: "solo", fresh: true });
    step({ kind: "tick", nowMs: 10 + timing.soloGateTimeoutMs - 1 });
    expect(seen()).not.toContainEqual({ kind: "solo", fresh: false });
    step({ kind: "tick", nowMs: 10 + timing.soloGateTimeoutMs });
    expect(seen()).toContainEqual({ kind: "solo", fresh: false });
  });

  test("the two proofs do not lend to each other", () => {
    written(10, 3, 0);
    say({ mode: "paired", ground: "acknowledged" }, 12);
    step({ kind: "gateKeep", nowMs: 13, addresses: ["10.0.0.101"] });
    expect(renewals()).toEqual([]);
  });
});

test("session 0 means none", () => {
  const setup = { me: "a", session: 0, configuration: 7, timing, links: [], nowMs: 0 } as const;
  expect(() => newBeatState(setup)).toThrow("session 0");
});
