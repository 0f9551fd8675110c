/** The beat machine speaks: at its turns on each link, and between them when the main loop has news. */
import { describe, expect, test } from "vitest";
import { BeatBench, timing } from "../support/beat-bench.ts";

const { beatIntervalMs, linkSilenceMs } = timing;

describe("a link", () => {
  test("keeps its turns, however much is said between them", () => {
    const bench = new BeatBench();
    bench.step({ kind: "tick", nowMs: 0 });
    // A move of many virtual servers: each message, and each acknowledgement of one, is said at once.
    const words = Math.ceil(linkSilenceMs / beatIntervalMs) + 10;
    for (let i = 1; i <= words; i += 1) bench.say({ owned: "1".repeat(i) }, 1 + i * 0.1);
    const spoke: number[] = [];
    for (let nowMs = 5; nowMs <= linkSilenceMs + 20; nowMs += 5) {
      bench.step({ kind: "tick", nowMs });
      const links = bench.effects.flatMap((each) => (each.kind === "send" ? each.links : []));
      if (links.includes("network")) spoke.push(nowMs);
    }
    const turns = spoke.map((_, i) => (i + 1) * beatIntervalMs);
    expect(spoke.length).toBeGreaterThanOrEqual(linkSilenceMs / beatIntervalMs);
    expect(spoke).toEqual(turns);
  });

  test("that missed its turns speaks once, and goes on from there", () => {
    const bench = new BeatBench();
    bench.step({ kind: "tick", nowMs: 0 });
    const late = 5 * beatIntervalMs + 3;
    bench.step({ kind: "tick", nowMs: late });
    expect(bench.effects.filter(({ kind }) => kind === "send")).toHaveLength(1);
    bench.step({ kind: "tick", nowMs: late + beatIntervalMs - 1 });
    expect(bench.effects.filter(({ kind }) => kind === "send")).toHaveLength(0);
    bench.step({ kind: "tick", nowMs: late + beatIntervalMs });
    expect(bench.effects.filter(({ kind }) => kind === "send")).toHaveLength(1);
  });
});
