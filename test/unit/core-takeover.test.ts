/** What a takeover rests on: when the partner's addresses may be opened, under which epoch, and how a loser starts over. */
import { describe, expect, test } from "vitest";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { makeKey, parseKey } from "../../firmware-ts/core/keys.ts";
import {
  beginRace,
  goOut,
  openNotBefore,
  outTick,
  partnerLost,
  racingTick,
  takeoverReserved,
  takeServer,
} from "../../firmware-ts/core/takeover.ts";
import { said } from "../support/one-server.ts";
import { whole } from "../support/whole-pair.ts";

const nowMs = 10_000;
type Loss = NonNullable<ControllerState["loss"]>;

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
    expect(effects[0]).toMatchObject({ report: { code: "partner.lost", detail: silent } });
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
      const before: Loss = { ...silent, reason: "goodbye" };
      const [next, effects] = lost({ ...whole, mode, loss: before });
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

describe("a race", () => {
  const { raceTimeoutMs } = whole.timing;
  /** Registered since a moment on each coordinator, and racing: for a lost partner, or as a guest that hears nobody. */
  const racing = (sinceMs: number, loss?: Loss, more: ControllerState["registrations"] = {}) => {
    const at = { at: "registered", sinceMs } as const;
    const registrations = { c1: at, c2: at, c3: at, ...more };
    const mode = loss ? "paired" : "joining";
    return beginRace({ ...whole, mode, loss, registrations }, nowMs, "test")[0];
  };
  /** Every disk says that nobody but us is registered there. */
  const answered = (state: ControllerState) =>
    ["c1", "c2", "c3"].reduce(
      (next, serial) =>
        takeoverReserved(
          next,
          `race:${state.race?.id}:${serial}`,
          { status: "keys", generation: 1, keys: [state.coordinatorKey] },
          nowMs + 1,
        )[0],
      state,
    ).mode;

  test("has a number that none before it had, so that no late answer can be meant for it", () => {
    const first = racing(0);
    expect(first).toMatchObject({ round: whole.round + 1, race: { id: whole.round + 1 } });
    const [second] = beginRace({ ...first, mode: "paired" }, nowMs, "test");
    expect(second.race?.id).toBe(whole.round + 2);
    const late = `race:${first.race?.id}:c1`;
    const answer = { status: "failed", reason: "test" } as const;
    expect(takeoverReserved(second, late, answer, nowMs)).toEqual([second, []]);
  });

  test("of a guest counts a disk on which it has been registered for two races, and no younger one", () => {
    expect(answered(racing(nowMs - 2 * raceTimeoutMs))).toBe("alone");
    expect(answered(racing(nowMs - 2 * raceTimeoutMs + 1))).toBe("out");
  });

  test("for a lost partner counts a disk from the beat on that the partner gave a lease for, whatever its age", () => {
    const leasedAtMs = nowMs - 5;
    expect(answered(racing(leasedAtMs, { ...silent, leasedAtMs }))).toBe("alone");
    expect(answered(racing(leasedAtMs + 1, { ...silent, leasedAtMs }))).toBe("out");
    expect(answered(racing(0, silent))).toBe("out");
  });

  test("counts no disk on which we are not registered, whatever keys are read there", () => {
    const none = { at: "none", againAtMs: 0, told: "" } as const;
    const asked = { at: "reserving", round: 1, told: "" } as const;
    expect(answered(racing(0, undefined, { c1: none }))).toBe("alone");
    expect(answered(racing(0, undefined, { c1: none, c2: asked }))).toBe("out");
  });

  test("in which nothing has changed is left as it is, until it ends by its time", () => {
    const state = racing(0);
    expect(racingTick(state, nowMs + raceTimeoutMs - 1)).toBeUndefined();
    const [after] = racingTick(state, nowMs + raceTimeoutMs) ?? [state];
    expect(after).toMatchObject({ mode: "out", race: undefined });
    expect(racingTick(whole, nowMs + raceTimeoutMs)).toBeUndefined();
  });

  test("is over when it is decided: answers that come later are nobody's", () => {
    const state = racing(0);
    const token = `race:${state.race?.id}:c3`;
    const answer = { status: "failed", reason: "test" } as const;
    for (const mode of ["alone", "out", "leaving"] as const) {
      const decided = { ...state, mode, race: undefined };
      expect(takeoverReserved(decided, token, answer, nowMs)).toEqual([decided, []]);
    }
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
