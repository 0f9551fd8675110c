/** When a beat machine speaks, on which links, and what each beat says of its own life. */
import { describe, expect, test } from "vitest";
import { type LinkName, linkNames } from "../../firmware-ts/schema/ids.ts";
import { BeatBench, partner, timing } from "../support/beat-bench.ts";

const { beatIntervalMs, diskBeatIntervalMs } = timing;

/** On which links something is said at a tick. */
function saidAt(beat: BeatBench, nowMs: number): readonly LinkName[] {
  beat.tick(nowMs);
  return beat.sent().flatMap(({ links }) => links);
}

describe("each link", () => {
  test("is spoken on in its own rhythm, and one beat serves all that are due", () => {
    const beat = new BeatBench();
    expect(saidAt(beat, 0)).toEqual(linkNames);
    expect(beat.sent()).toHaveLength(1);
    expect(saidAt(beat, beatIntervalMs - 1)).toEqual([]);
    expect(saidAt(beat, beatIntervalMs)).toEqual(["serial", "network"]);
    for (let nowMs = 2 * beatIntervalMs; nowMs < diskBeatIntervalMs; nowMs += beatIntervalMs)
      expect(saidAt(beat, nowMs)).toEqual(["serial", "network"]);
    expect(saidAt(beat, diskBeatIntervalMs)).toContain("disk");
  });

  test.each(linkNames)("is the only one that is spoken on where there is no other: %s", (name) => {
    const beat = new BeatBench([name]);
    expect(saidAt(beat, 0)).toEqual([name]);
    expect(saidAt(beat, 1)).toEqual([]);
    expect(saidAt(beat, 1000)).toEqual([name]);
  });

  test("keeps its rhythm when a beat is a little late, and makes up for none that it has missed", () => {
    const beat = new BeatBench(["network"]);
    saidAt(beat, 0);
    expect(saidAt(beat, beatIntervalMs + 2)).toEqual(["network"]);
    expect(saidAt(beat, 2 * beatIntervalMs)).toEqual(["network"]);
    // The beat of 3 intervals is missed; when that of 4 is due, one is said, and the next an interval later.
    expect(saidAt(beat, 4 * beatIntervalMs)).toEqual(["network"]);
    expect(saidAt(beat, 5 * beatIntervalMs - 1)).toEqual([]);
    expect(saidAt(beat, 5 * beatIntervalMs)).toEqual(["network"]);
  });

  test("carries numbers that rise by one", () => {
    const beat = new BeatBench(["network", "disk"]);
    const numbers = [0, 100, 200].flatMap((nowMs) => {
      beat.tick(nowMs);
      return beat.sent().map((each) => each.beat.sequence);
    });
    expect(numbers).toEqual([1, 2, 3]);
  });
});

describe("a mandate", () => {
  test.each<[readonly LinkName[], readonly LinkName[]]>([
    [["serial", "network", "disk"], ["network"]],
    [["serial", "disk"], ["serial"]],
    [["disk"], []],
  ])("is said at once on the fastest of %j: %j", (links, urgent) => {
    const beat = new BeatBench(links);
    beat.step({ kind: "mandate", nowMs: 3, mandate: { ...beat.state.mandate, epoch: 9 } });
    expect(beat.sent().flatMap((each) => each.links)).toEqual(urgent);
    expect(saidAt(beat, 4)).not.toEqual([]);
    expect(beat.sent()[0]?.beat.epoch).toBe(9);
  });

  test("that gives the gates another ground renews them at once, if that has a proof", () => {
    const beat = new BeatBench(["network", "disk"]);
    beat.step({ kind: "written", nowMs: 5, sentAtMs: 4, accepted: 2, refused: 0, total: 3 });
    beat.keep(6, "10.0.0.100");
    expect(beat.gates()).toEqual([]);
    beat.say({ mode: "alone", ground: "solo" }, 7);
    expect(beat.gates()).toMatchObject([{ kind: "renew", untilMs: 4 + timing.soloGateTimeoutMs }]);
  });

  test("begins a turn only where it names another one", () => {
    const beat = new BeatBench();
    beat.say({ mode: "joining", turn: 2 }, 0);
    const first = beat.state.turnFirst;
    expect(first).toBe(beat.state.sequence);
    beat.say({ epoch: 5 }, 1);
    expect(beat.state.turnFirst).toBe(first);
    beat.say({ mode: "paired", turn: 3 }, 2);
    expect(beat.state.turnFirst).toBe(beat.state.sequence);
  });
});

describe("a message", () => {
  const message = { id: 1, body: new Uint8Array([1]) };
  const told = (beat: BeatBench, nowMs: number) => {
    beat.tick(nowMs);
    return beat.sent().map((each) => [each.links, each.beat.message !== undefined] as const);
  };
  const talking = (links: readonly LinkName[]) => {
    const beat = new BeatBench(links);
    beat.say({}, 0);
    for (const name of links) beat.hear({}, 1, name);
    beat.say({ messageSession: partner, message }, 2);
    return beat;
  };

  test("is left out on the slow line while the network carries it", () => {
    const beat = talking(["serial", "network", "disk"]);
    expect(told(beat, diskBeatIntervalMs)).toEqual([
      [["serial"], false],
      [["network", "disk"], true],
    ]);
  });

  test("is left out there too when nothing else is due", () => {
    const beat = talking(["serial", "network"]);
    // The mandate has just been said on the network, and not on the line.
    const { serial } = beat.state.nextSendMs;
    expect(beat.state.nextSendMs.network).toBeGreaterThan(serial);
    expect(told(beat, serial)).toEqual([[["serial"], false]]);
  });

  test.each<[string, readonly LinkName[]]>([
    ["there is no network", ["serial", "disk"]],
    ["the network is dead", ["serial", "network", "disk"]],
  ])("rides on the slow line when %s", (_, links) => {
    const beat = talking(links);
    beat.hear({}, 150, "serial");
    expect(told(beat, 200)).toEqual([[links, true]]);
  });
});

describe("the age of our own progress", () => {
  const ageAt = (progressMs: number, nowMs: number) => {
    const beat = new BeatBench(["network"]);
    beat.step({ kind: "progress", nowMs: progressMs });
    beat.tick(nowMs);
    return beat.sent()[0]?.beat.progressAgeMs;
  };

  test("is told in whole milliseconds, never negative, and has an end where the beat has no more room", () => {
    expect(ageAt(10.4, 20)).toBe(10);
    expect(ageAt(30, 20)).toBe(0);
    expect(ageAt(0, 65_535)).toBe(65_535);
    expect(ageAt(0, 70_000)).toBe(65_535);
  });
});

describe("the carrier of a link", () => {
  test("of the disks is told at once: they can be read, or not", () => {
    const beat = new BeatBench();
    const carrier = (link: LinkName, up: boolean) => {
      beat.step({ kind: "carrier", nowMs: 5, link, up });
      return beat.seen().map((each) => (each.kind === "links" ? each.diskReadable : each.kind));
    };
    expect(carrier("disk", true)).toEqual([true]);
    expect(carrier("disk", true)).toEqual([]);
    expect(carrier("disk", false)).toEqual([false]);
    expect(carrier("network", true)).toEqual([]);
    expect(beat.state.links.network.carrier).toBe(true);
  });

  test("of disks that are no link of ours makes nothing readable", () => {
    const beat = new BeatBench(["network"]);
    beat.tick(0);
    beat.step({ kind: "carrier", nowMs: 5, link: "disk", up: true });
    expect(beat.seen()).toEqual([]);
  });
});
