/** The beat machine across lives of the partner and of its own: which session is the living one, and which messages still mean anything. */
import { beforeEach, describe, expect, test } from "vitest";
import { BeatBench, me, partner, timing } from "../support/beat-bench.ts";

const next = 333;
let bench: BeatBench;

beforeEach(() => {
  bench = new BeatBench();
});

describe("which life of the partner lives", () => {
  test("is not decided by a late frame that answers no more than the one we hear has answered", () => {
    bench.say({}, 0);
    bench.hear({}, 1);
    bench.hear({ session: next }, 2);
    expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "stale" }]);
    expect(bench.state.heard?.session).toBe(partner);
  });

  /** A late frame of the life before is met when the living one has not answered as much yet, and passes for a newer life. */
  const mistaken = () => {
    const early = bench.say({}, 0).sequence;
    bench.say({}, 2);
    bench.hear({ ack: { session: me, sequence: early } }, 3);
    expect(bench.state.heard?.session).toBe(partner);
    bench.hear({ session: next, sequence: 9000 }, 4);
    expect(bench.state.heard?.session).toBe(next);
  };

  test("a life that was taken for ended is heard again when it answers what was said since", () => {
    mistaken();
    bench.hear({}, 5);
    expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
    bench.say({}, 6);
    bench.hear({}, 7);
    expect(bench.kinds()).toEqual(["partnerLost", "partner"]);
    expect(bench.state.heard?.session).toBe(partner);
    bench.hear({ owned: "1" }, 7);
    expect(bench.kinds()).toEqual(["partner"]);
    // And the one that took its place has ended now.
    bench.hear({ session: next, sequence: 9001 }, 8);
    expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
  });

  test.each([{ dyingGasp: true }, { goodbye: true }])("%o brings no ended life back", (words) => {
    mistaken();
    bench.say({}, 6);
    bench.hear(words, 7);
    expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
    expect(bench.state.heard?.session).toBe(next);
  });

  describe("a life that was left over beside the next one", () => {
    /** The next one has answered what was said since: there was no mistake. */
    const leftOver = () => {
      mistaken();
      bench.say({}, 6);
      bench.hear({ session: next, sequence: 9001 }, 7);
      bench.step({ kind: "grant", nowMs: 7, on: true, contact: bench.state.contact });
      bench.say({ mode: "paired", ground: "acknowledged" }, 8);
    };

    test("stays ended, whatever it answers, and gives no lease", () => {
      leftOver();
      const before = bench.state;
      bench.hear({ granting: true }, 9);
      expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
      expect(bench.state).toEqual(before);
    });

    test("stays ended also when the next one is lost, and its last words end nothing", () => {
      leftOver();
      const lostMs = 9 + timing.diskSilenceMs;
      for (let nowMs = 9; nowMs <= lostMs; nowMs += timing.beatTickMs)
        bench.step({ kind: "tick", nowMs });
      bench.say({ mode: "racing" }, lostMs);
      for (const words of [{ granting: true }, { dyingGasp: true }]) {
        bench.hear(words, lostMs + 1);
        expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
      }
      expect(bench.state.partner).toBeUndefined();
    });
  });

  test("an ended life that answers an earlier life of ours stays ended", () => {
    mistaken();
    bench.say({}, 6);
    bench.hear({ ack: { session: me + 1, sequence: 9000 } }, 7);
    expect(bench.seen()).toEqual([{ kind: "frameRefused", reason: "session" }]);
  });

  test("sixteen ended lives are remembered, the oldest is forgotten first", () => {
    for (let life = 1; life <= 18; life += 1) {
      bench.say({}, life);
      bench.hear({ session: 1000 + life, sequence: 1 }, life);
    }
    const ended = bench.state.retired.map(({ session }) => session);
    expect(ended).toEqual(Array.from({ length: 16 }, (_, i) => 1002 + i));
  });
});

describe("a message", () => {
  const message = { id: 1, body: new Uint8Array([1]) };

  beforeEach(() => {
    bench.say({}, 0);
    bench.hear({}, 1);
    expect(bench.kinds()).toContain("partner");
  });

  test("that was said to our last life is not taken by this one", () => {
    bench.hear({ ack: { session: me + 1, sequence: 1 }, message }, 2);
    expect(bench.kinds()).not.toContain("message");
    bench.hear({ message }, 3);
    expect(bench.seen()).toEqual([{ kind: "message", ...message }]);
  });

  test("that answers what we said long ago is not taken: its sender repeats it if it still holds", () => {
    const early = bench.say({}, 2).sequence;
    const lateMs = 3 + timing.freshAckMs;
    bench.say({}, lateMs);
    bench.hear({ ack: { session: me, sequence: early }, message }, lateMs + 1);
    expect(bench.kinds()).not.toContain("message");
    bench.hear({ message }, lateMs + 2);
    expect(bench.kinds()).toContain("message");
  });

  test("is acknowledged to us only by a beat that answers us", () => {
    bench.hear({ ack: { session: me + 1, sequence: 1 }, messageAck: 5 }, 2);
    expect(bench.kinds()).not.toContain("messageAcked");
    bench.hear({ messageAck: 5 }, 3);
    expect(bench.seen()).toEqual([{ kind: "messageAcked", id: 5 }]);
  });
});

test("what lay on a disk teaches an epoch, and is otherwise no word of anybody", () => {
  bench.say({}, 0);
  bench.hear({}, 1);
  const heard = bench.state;
  const beat = {
    sender: "b",
    session: next,
    sequence: 50,
    ack: { session: me, sequence: heard.sequence },
    granting: true,
    mode: "alone",
    epoch: 9,
    configuration: 7,
    progressAgeMs: 0,
    goodbye: true,
    dyingGasp: false,
    dataLinkDown: false,
    owned: "11",
    serving: "11",
    messageAck: 0,
  } as const;
  bench.step({ kind: "remnant", nowMs: 2, beat });
  expect(bench.seen()).toEqual([{ kind: "epoch", epoch: 9 }]);
  expect(bench.state).toEqual({ ...heard, epochHeard: 9 });
  bench.step({ kind: "remnant", nowMs: 3, beat });
  expect(bench.effects).toEqual([]);
});
