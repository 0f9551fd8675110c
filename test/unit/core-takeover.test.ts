/** What a takeover rests on: when the partner's addresses may be opened, under which epoch, and how a loser starts over. */
import { describe, expect, test } from "vitest";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { makeKey, parseKey } from "../../firmware-ts/core/keys.ts";
import {
  goOut,
  openNotBefore,
  outTick,
  partnerLost,
  takeServer,
} from "../../firmware-ts/core/takeover.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { said } from "../support/one-server.ts";

const nowMs = 10_000;
type Loss = NonNullable<ControllerState["loss"]>;

/** Controller a of a whole pair: it serves alpha (0), the partner serves beta (1). */
const whole: ControllerState = (() => {
  const pair = new Pair();
  pair.start("a");
  pair.start("b");
  pair.run(2000);
  const state = pair.controllers.a?.state;
  if (state?.mode !== "paired") throw new Error("the pair is not whole");
  return state;
})();
const { partnerSilentMs, soloSilentMs } = whole.timing;

const silent: Loss = {
  reason: "silent",
  lastGrantedMs: undefined,
  soloBoundMs: 0,
  leasedAtMs: undefined,
};

describe("the partner's addresses may be opened", () => {
  test.each<[string, Partial<Loss> | undefined, number]>([
    ["at once after its goodbye", { reason: "goodbye", lastGrantedMs: nowMs }, nowMs],
    ["at once after its last words", { reason: "dyingGasp", lastGrantedMs: nowMs }, nowMs],
    [
      "when the lease granted last has ended",
      { lastGrantedMs: nowMs - 100 },
      nowMs - 100 + partnerSilentMs,
    ],
    ["at once when that was long ago", { lastGrantedMs: 0 }, nowMs],
    ["at once when nothing was granted and it was not alone", {}, nowMs],
    ["when its own proof has ended, if it was alone", { soloBoundMs: nowMs + 77 }, nowMs + 77],
    [
      "at the later of the two",
      { lastGrantedMs: nowMs, soloBoundMs: nowMs + 1 },
      nowMs + partnerSilentMs,
    ],
    ["no later than our preempt allows", { soloBoundMs: nowMs + 1e6 }, nowMs + soloSilentMs],
    ["when our preempt allows it, if nothing is known", undefined, nowMs + soloSilentMs],
  ])("%s", (_, loss, atMs) => {
    const state = { ...whole, loss: loss && { ...silent, ...loss } };
    expect(openNotBefore(state, nowMs)).toBe(atMs);
  });
});

describe("a start here", () => {
  const start = (epoch: number, epochSeen: number, theirs?: number) => {
    const partner =
      theirs === undefined || !whole.partner ? undefined : { ...whole.partner, epoch: theirs };
    const state = { ...whole, epoch, epochSeen, partner };
    const [next, effects] = takeServer(state, 1, nowMs + 40.4, nowMs);
    return { next, effects, asked: said(effects) };
  };

  test.each([
    ["nobody knows of a newer one", 5, 5, 4, 5],
    ["nobody else is there", 5, 5, undefined, 5],
    ["the partner has the same", 5, 5, 5, 6],
    ["the partner has a newer one", 5, 5, 8, 9],
    ["a newer one was seen", 5, 7, 2, 8],
    ["a newer one was seen, and the partner's is newer still", 5, 7, 9, 10],
  ])("is under an epoch above all that we know: %s", (_, epoch, seen, theirs, wanted) => {
    const { next, asked } = start(epoch, seen, theirs);
    expect([next.epoch, next.epochSeen]).toEqual([wanted, wanted]);
    expect(parseKey(next.servers[1]?.key ?? "")?.epoch).toBe(wanted);
    // Remembered before anything is done under it, and only when it is new.
    expect(asked[0]).toBe(wanted === epoch ? "vserver.starting" : "persist");
    expect(asked).toContain("register d2");
  });

  test("says how long its address waits", () => {
    expect(start(5, 5).effects[0]).toMatchObject({
      report: { detail: { virtualServer: "beta", epoch: 5, addressWaitMs: 40 } },
    });
  });

  test("of what is not there is a broken invariant", () => {
    expect(() => takeServer(whole, 9, nowMs, nowMs)).toThrow("9");
  });
});

describe("a loss", () => {
  const lost = (state: ControllerState) => partnerLost(state, silent, nowMs);

  test("of a pair begins a race, ends every move, and says what bounds the partner's gates", () => {
    const transfer = { role: "target", at: "ready", deadlineMs: nowMs, why: "test" } as const;
    const [next, effects] = lost({ ...whole, transfers: { 1: transfer } });
    expect(next).toMatchObject({
      mode: "racing",
      loss: silent,
      transfers: {},
      quietSinceMs: nowMs,
    });
    expect(next.partner).toBeUndefined();
    expect(said(effects)).toEqual([
      "partner.lost",
      "controller.racing",
      "readKeys c1",
      "readKeys c2",
      "readKeys c3",
    ]);
  });

  test.each(["joining", "alone", "out", "leaving"] as const)(
    "of a partner heard while %s begins no race, and bounds nothing",
    (mode) => {
      const [next, effects] = lost({ ...whole, mode });
      expect(next.mode).toBe(mode);
      expect(next.loss).toBeUndefined();
      expect(said(effects)).toEqual(["partner.lost"]);
    },
  );

  test.each([
    ["of a pair", silent, silent],
    ["of a guest", undefined, undefined],
  ])("during the race %s: what it is known to be bounded by stays", (_, loss, after) => {
    expect(lost({ ...whole, mode: "racing", loss })[0].loss).toEqual(after);
  });
});

describe("a loser", () => {
  test("falls silent first, abandons, and releases nothing", () => {
    const [next, effects] = goOut(whole, nowMs, "test");
    expect(next).toMatchObject({ mode: "out", outReason: "test", transfers: {}, outbox: [] });
    expect(said(effects)).toEqual(["controller.out", "gateClose"]);
    expect(next.servers[0]?.phase).toMatchObject({
      kind: "stopping",
      reason: "fenced",
      forced: true,
    });
  });

  test("tells its detail, if there is one", () => {
    const [, effects] = goOut(whole, nowMs, "test", { disks: {} });
    expect(said(effects)).toContain("controller.fenced");
  });

  test.each(["out", "leaving"] as const)("is one already: %s", (mode) => {
    const state = { ...whole, mode };
    expect(goOut(state, nowMs, "test")).toEqual([state, []]);
  });

  test("starts over when nothing is left here, registered nowhere, at the highest epoch it knows", () => {
    const [out] = goOut({ ...whole, epoch: 5, epochSeen: 9 }, nowMs, "test");
    expect(outTick(out, nowMs)).toBeUndefined();
    const gone = {
      ...out,
      loss: silent,
      servers: out.servers.map((each) => ({ ...each, phase: { kind: "off" } as const })),
    };
    const [guest] = outTick(gone, nowMs) ?? [gone];
    expect(guest).toMatchObject({ mode: "starting", epoch: 9, loss: undefined });
    expect(guest.coordinatorKey).toBe(makeKey({ controller: "a", pairId: 17, epoch: 9 }));
    expect(Object.values(guest.registrations).map(({ at }) => at)).toEqual([
      "none",
      "none",
      "none",
    ]);
    expect(outTick({ ...gone, mode: "paired" }, nowMs)).toBeUndefined();
  });

  test("starts over without what had failed", () => {
    const failed = { kind: "failed", fault: "test", retryAtMs: 1e9 } as const;
    const out = {
      ...whole,
      mode: "out",
      servers: whole.servers.map((each) => ({ ...each, phase: failed })),
    } as const;
    const [guest] = outTick(out, nowMs) ?? [out];
    expect(guest.servers.map(({ phase }) => phase.kind)).toEqual(["off", "off"]);
  });
});
