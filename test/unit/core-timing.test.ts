/** The durations of the pair: what they derive from, and every inequality of the address argument, at its limit and beyond. */
import { describe, expect, test } from "vitest";
import { deriveTiming, type Timing, tickMs, timingFaults } from "../../firmware-ts/core/timing.ts";
import { Pair } from "../../hal/sim/pair.ts";

const defaults = new Pair().config("a").timing;
type Change = Partial<typeof defaults>;
const derived = (change: Change = {}) => deriveTiming({ ...defaults, ...change });

describe("derived durations", () => {
  test("the timeline of a loss, as the module tells it", () => {
    const t = derived();
    expect(t).toMatchObject({
      linkSilenceMs: 60,
      diskSilenceMs: 90,
      lossMs: 100,
      partnerSilentMs: 165,
      soloSilentMs: 415,
      firstLeaseMs: 60,
      stallMs: 20,
      stallGraceMs: 100,
    });
    expect(timingFaults(t)).toEqual([]);
  });

  test("the partner's kernel is silent before we speak", () => {
    const t = derived();
    // The longest that a lease can last on our clock: its owner's slower clock, and the kernel's granularity.
    const longest = (leaseMs: number) => leaseMs * (1 + 500e-6) + 10;
    expect(longest(t.gateTimeoutMs)).toBeLessThan(t.partnerSilentMs);
    expect(longest(t.soloGateTimeoutMs)).toBeLessThan(t.soloSilentMs);
  });

  test("a first lease is a part of a gate's, however short that is", () => {
    expect(derived({ gateTimeoutMs: 61 }).firstLeaseMs).toBe(30);
    expect(derived({ gateTimeoutMs: 20_000 }).firstLeaseMs).toBe(60);
  });

  test("no go reaches a target that has given up waiting for it", () => {
    const t = derived();
    // The source waits for the answer, then stops; a message of it is heard, or the pair is lost, within lossMs.
    const sourceMs = t.transferAnswerMs + t.transferStopMs;
    expect(t.transferReadyMs).toBeGreaterThan(sourceMs + t.lossMs + tickMs);
  });

  test("every step has a limit", () => {
    for (const limitMs of Object.values(derived().stepTimeoutMs))
      expect(limitMs).toBeGreaterThan(0);
  });
});

/** Everything as slow as the slowest beat that works. */
const slowest: Change = {
  beatIntervalMs: 250,
  diskBeatIntervalMs: 250,
  linkSilenceMs: 1000,
  diskSilenceMs: 1000,
  gateTimeoutMs: 2000,
  soloGateTimeoutMs: 2000,
  progressTimeoutMs: 2000,
  startupWaitMs: 10_000,
};

const isAboutStalls = (sentence: string) => sentence.includes("counting as a stall");

/** Which fault, the last values that hold, and the first that do not. */
const limits: readonly (readonly [string, Change, Change])[] = [
  ["link_silence_ms", { linkSilenceMs: 40 }, { linkSilenceMs: 39 }],
  ["disk_silence_ms", { diskBeatIntervalMs: 22 }, { diskBeatIntervalMs: 23 }],
  ["disk_silence_ms", { diskSilenceMs: 80 }, { diskSilenceMs: 79 }],
  ["gate_timeout_ms", { gateTimeoutMs: 150 }, { gateTimeoutMs: 149 }],
  ["gate_timeout_ms", { diskBeatIntervalMs: 20 }, { diskBeatIntervalMs: 21 }],
  ["clock_margin_ms", { clockMarginMs: 11 }, { clockMarginMs: 10 }],
  [
    "clock_margin_ms",
    { soloGateTimeoutMs: 4000, clockMarginMs: 12 },
    { soloGateTimeoutMs: 4000, clockMarginMs: 11 },
  ],
  ["solo_gate_timeout_ms", { soloGateTimeoutMs: 150 }, { soloGateTimeoutMs: 149 }],
  [
    "solo_gate_timeout_ms",
    { soloGateTimeoutMs: 150, diskBeatIntervalMs: 25 },
    { soloGateTimeoutMs: 149, gateTimeoutMs: 145, diskBeatIntervalMs: 25 },
  ],
  ["progress_timeout_ms", { progressTimeoutMs: 5 * tickMs }, { progressTimeoutMs: 5 * tickMs - 1 }],
  ["too old to prove", slowest, { ...slowest, beatIntervalMs: 251, linkSilenceMs: 1004 }],
  ["too old to prove", slowest, { ...slowest, diskBeatIntervalMs: 251, diskSilenceMs: 1004 }],
  ["longer than two races", { startupWaitMs: 1001 }, { startupWaitMs: 1000 }],
  [
    "longer than a loss and a solo gate",
    { soloGateTimeoutMs: 10_000, startupWaitMs: 10_116 },
    { soloGateTimeoutMs: 10_000, startupWaitMs: 10_115 },
  ],
];

describe("inequalities", () => {
  test.each(limits)("%s holds at %j and not at %j", (name, holding, broken) => {
    const said = (change: Change) => timingFaults(derived(change)).filter((s) => s.includes(name));
    expect(said(holding)).toEqual([]);
    expect(said(broken)).toHaveLength(1);
  });

  test("a limit that the operator is told is the largest that is accepted", () => {
    const said = (beatIntervalMs: number) => {
      const linkSilenceMs = 4 * beatIntervalMs;
      const faults = timingFaults(derived({ ...slowest, beatIntervalMs, linkSilenceMs }));
      return faults.find((sentence) => sentence.includes("too old to prove"));
    };
    const named = Number(/at most (\d+),/.exec(said(10_000) ?? "")?.[1]);
    expect(said(named)).toBeUndefined();
    expect(said(named + 1)).toBeDefined();
  });

  test.each([20, 39, 60, 5000])("%i ms of silence are longer than a tick may be late", (ms) => {
    const t = derived({ linkSilenceMs: ms });
    const said = (stallMs: number) => timingFaults({ ...t, stallMs }).filter(isAboutStalls);
    expect(said(t.stallMs)).toEqual([]);
    expect(said(ms - tickMs - 1)).toEqual([]);
    expect(said(ms - tickMs)).toHaveLength(1);
  });

  test("one excuse never needs more time than all together get", () => {
    const t = derived();
    expect(t.stallGraceMs).toBeGreaterThanOrEqual(Math.max(t.linkSilenceMs, t.diskSilenceMs));
  });

  test("a first lease as long as the gate's is refused", () => {
    const t: Timing = derived();
    expect(timingFaults({ ...t, firstLeaseMs: t.gateTimeoutMs })).toHaveLength(1);
    expect(timingFaults({ ...t, firstLeaseMs: t.gateTimeoutMs - 1 })).toEqual([]);
  });
});
