/** The gates of a beat machine at the limits of their leases, and how they end with their main loop. */
import { beforeEach, describe, expect, test } from "vitest";
import type { BeatEvent } from "../../firmware-ts/core/beat-types.ts";
import { linkNames } from "../../firmware-ts/schema/ids.ts";
import { BeatBench, timing } from "../support/beat-bench.ts";

const { gateTimeoutMs, progressTimeoutMs, firstLeaseMs } = timing;
const [one, other] = ["10.0.0.100", "10.0.0.101"] as const;

let beat: BeatBench;

beforeEach(() => {
  beat = new BeatBench();
});

/** Says something, and gets a lease for it. */
function lease(nowMs: number): void {
  beat.say({ mode: "paired", ground: "acknowledged" }, nowMs);
  beat.hear({ granting: true }, nowMs);
}

const renewed = () =>
  beat.gates().flatMap((each) => (each.kind === "renew" ? [[each.addresses, each.untilMs]] : []));
const opened = () =>
  beat.gates().flatMap((each) => (each.kind === "open" ? [[each.addresses, each.untilMs]] : []));

describe("a kept gate is renewed", () => {
  test("until the moment at which our main loop counts as hung, and not in that moment", () => {
    lease(progressTimeoutMs - 10);
    beat.keep(progressTimeoutMs - 1, one);
    expect(renewed()).toEqual([[[one], progressTimeoutMs - 10 + gateTimeoutMs]]);
    beat.keep(progressTimeoutMs, other);
    expect(renewed()).toEqual([]);
  });

  test("while its lease runs, and not in the moment in which that ends", () => {
    lease(0);
    beat.keep(gateTimeoutMs - 1, one);
    expect(renewed()).toEqual([[[one], gateTimeoutMs]]);
    beat.keep(gateTimeoutMs, other);
    expect(renewed()).toEqual([]);
  });

  test("when that prolongs it by 4 ms, and for less the kernel is not called", () => {
    lease(0);
    beat.keep(1, one);
    lease(3);
    expect(renewed()).toEqual([]);
    lease(4);
    expect(renewed()).toEqual([[[one], 4 + gateTimeoutMs]]);
  });
});

describe("a gate that waits to be opened", () => {
  test("waits on when another one is due", () => {
    lease(0);
    beat.open(1, 50, one);
    beat.open(2, 0, other);
    expect(opened()).toEqual([[[other], 2 + firstLeaseMs]]);
    beat.tick(49);
    expect(opened()).toEqual([]);
    beat.tick(50);
    expect(opened()).toEqual([[[one], 50 + firstLeaseMs]]);
    expect(beat.state.opens).toEqual([]);
  });

  test("is opened on a proof that lasts 10 ms more, so that it may be used", () => {
    lease(0);
    beat.open(gateTimeoutMs - 10, 0, one);
    expect(opened()).toEqual([[[one], gateTimeoutMs]]);
  });

  test("is forgotten when one of its addresses is closed, and when another is, it is not", () => {
    lease(0);
    beat.open(1, 50, one, other);
    beat.open(1, 50, "10.0.0.102");
    beat.step({ kind: "gateClose", nowMs: 2, token: "c", addresses: [one] });
    beat.tick(50);
    expect(opened()).toEqual([[["10.0.0.102"], 50 + firstLeaseMs]]);
  });
});

describe("an outcome", () => {
  const outcome = (action: "open" | "renew" | "close" | "seal", ok: boolean): BeatEvent => ({
    kind: "gateOutcome",
    nowMs: 10,
    action,
    token: "t",
    addresses: [one],
    ok,
    reason: "refused",
  });

  test("of a renewal is told when it ended a gate that we keep, and only then", () => {
    lease(0);
    beat.keep(1, one);
    beat.step(outcome("renew", true));
    expect(beat.effects).toEqual([]);
    beat.step(outcome("renew", false));
    expect(beat.seen()).toEqual([{ kind: "gateLapsed", addresses: [one] }]);
    beat.step(outcome("renew", false));
    expect(beat.effects).toEqual([]);
  });

  test.each([
    ["open", true, { kind: "gateOpened", token: "t", addresses: [one] }],
    ["open", false, { kind: "gateRefused", token: "t", reason: "refused" }],
    ["close", true, { kind: "gateClosed", token: "t", ok: true, reason: "refused" }],
    ["close", false, { kind: "gateClosed", token: "t", ok: false, reason: "refused" }],
  ] as const)("of %s (%s) is told to the main loop", (action, ok, told) => {
    beat.step(outcome(action, ok));
    expect(beat.effects).toEqual([{ kind: "observe", observation: told }]);
  });
});

describe("when the main loop is gone", () => {
  const sealed = (ok: boolean, nowMs: number): BeatEvent => ({
    kind: "gateOutcome",
    nowMs,
    action: "seal",
    token: "",
    addresses: [],
    ok,
    reason: "",
  });

  beforeEach(() => {
    lease(0);
    beat.keep(1, one);
    beat.open(2, 100, other);
    beat.step({ kind: "lastWords", nowMs: 3 });
  });

  test("every gate is closed at once, and none is renewed or opened any more", () => {
    expect(beat.effects).toEqual([{ kind: "seal", token: "", addresses: [] }]);
    expect(beat.state).toMatchObject({ kept: new Map(), opens: [], ending: "closing" });
    beat.hear({ granting: true }, 30);
    expect(beat.gates()).toEqual([]);
    beat.tick(100);
    expect(beat.gates()).toEqual([]);
    expect(beat.seen().map(({ kind }) => kind)).not.toContain("gateRefused");
  });

  test("no command of it that was still on its way is obeyed", () => {
    const { state } = beat;
    const mandate = { ...state.mandate, ground: "acknowledged" } as const;
    const late: readonly BeatEvent[] = [
      { kind: "mandate", nowMs: 4, mandate },
      { kind: "progress", nowMs: 4 },
      { kind: "grant", nowMs: 4, on: true, contact: state.contact },
      { kind: "gateOpen", nowMs: 4, token: "", addresses: [one], notBeforeMs: 0 },
      { kind: "gateKeep", nowMs: 4, addresses: [one] },
      { kind: "gateClose", nowMs: 4, token: "", addresses: [one] },
    ];
    for (const event of late) {
      beat.step(event);
      expect([beat.state, beat.effects]).toEqual([state, []]);
    }
  });

  test("it is said on every link at once, when the kernel has confirmed that the gates are closed", () => {
    beat.step(sealed(true, 4));
    expect(beat.sent()).toMatchObject([{ links: linkNames, beat: { dyingGasp: true } }]);
    expect(beat.effects).toHaveLength(1);
    beat.tick(200);
    expect(beat.sent()).toMatchObject([{ beat: { dyingGasp: true } }]);
  });

  test("it is said on those links that there are", () => {
    beat = new BeatBench(["network"]);
    beat.step({ kind: "lastWords", nowMs: 3 });
    beat.step(sealed(true, 4));
    expect(beat.sent()).toMatchObject([{ links: ["network"] }]);
  });

  test("it is not said when the kernel has not confirmed it: the leases end by themselves", () => {
    beat.step(sealed(false, 4));
    expect(beat.effects).toEqual([]);
    beat.tick(200);
    expect(beat.sent()).toMatchObject([{ beat: { dyingGasp: false } }]);
  });
});
