/** What a beat machine begins with, and what it remembers of what it has said. */
import { describe, expect, test } from "vitest";
import { keepSent, sentAt } from "../../firmware-ts/core/beat-state.ts";
import { BeatBench, me } from "../support/beat-bench.ts";

describe("a new beat machine", () => {
  test("says that it is starting, and nothing that its main loop has not told it", () => {
    const beat = new BeatBench();
    beat.tick(0);
    expect(beat.sent()).toMatchObject([
      {
        links: ["serial", "network", "disk"],
        beat: {
          mode: "starting",
          sequence: 1,
          ack: { session: 0, sequence: 0 },
          epoch: 0,
          granting: false,
          goodbye: false,
          dyingGasp: false,
          dataLinkDown: false,
          owned: "",
          serving: "",
        },
      },
    ]);
  });

  test("tells of no light: its main loop takes every link for red, and no disk for readable, before it is told", () => {
    const beat = new BeatBench();
    beat.tick(0);
    expect(beat.seen()).toEqual([]);
    const less = new BeatBench(["network"]);
    less.tick(0);
    const colours = { serial: "absent", network: "red", disk: "absent" };
    expect(less.seen()).toEqual([{ kind: "links", colours, diskReadable: false }]);
  });

  test("grants nothing before its main loop does, to whomever it hears", () => {
    const beat = new BeatBench();
    beat.say({ mode: "joining" }, 0);
    beat.hear({ mode: "joining" }, 1);
    expect(beat.state.partner).toBeDefined();
    expect(beat.say({ mode: "paired" }, 2).granting).toBe(false);
    beat.grant(3);
    expect(beat.say({}, 4).granting).toBe(true);
  });

  test("believes no answer to what it has not said yet", () => {
    const beat = new BeatBench();
    beat.hear({ ack: { session: me, sequence: 1 } }, 0);
    expect(beat.state.partner).toBeUndefined();
  });
});

describe("of what was said", () => {
  const atMs = [10, 20, 30].map((at, i) => ({ sequence: i + 1, atMs: at }));
  const added = { sequence: 4, atMs: 40 };
  const numbers = (oldestMs: number) =>
    keepSent(atMs, added, oldestMs).map(({ sequence }) => sequence);

  test("everything is remembered to which an answer would still be fresh, and the newest in any case", () => {
    expect(numbers(0)).toEqual([1, 2, 3, 4]);
    expect(numbers(20)).toEqual([2, 3, 4]);
    expect(numbers(21)).toEqual([3, 4]);
    expect(numbers(31)).toEqual([4]);
    expect(keepSent([], added, 0)).toEqual([added]);
  });

  test("the time is known by its number, and of no other number", () => {
    expect([1, 2, 3].map((sequence) => sentAt(atMs, sequence))).toEqual([10, 20, 30]);
    expect([0, 4].map((sequence) => sentAt(atMs, sequence))).toEqual([undefined, undefined]);
    expect(sentAt([], 1)).toBeUndefined();
  });
});
