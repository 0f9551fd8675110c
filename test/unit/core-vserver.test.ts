/** One virtual server starts: step by step, with the time of each, and back when one fails. */
import { describe, expect, test } from "vitest";
import type { Work } from "../../firmware-ts/core/effects.ts";
import { startClaim } from "../../firmware-ts/core/ownership.ts";
import {
  reopenGate,
  restartService,
  serverDone,
  serverReserved,
  startingTick,
  startServer,
} from "../../firmware-ts/core/vserver.ts";
import { awaiting, waitFor } from "../../firmware-ts/core/vserver-parts.ts";
import { stopServer } from "../../firmware-ts/core/vserver-stop.ts";
import type { Phase, VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { done, failed } from "../../firmware-ts/schema/outcome.ts";
import type { ReservationAnswer } from "../../firmware-ts/schema/reservation.ts";
import {
  at,
  broken,
  claimOf,
  failing,
  goOnTo,
  inItsTurn,
  key,
  off,
  pendingOf,
  said,
  serving,
  stepOf,
  succeed,
  timing,
} from "../support/one-server.ts";

const nowMs = 5000;
const now = at(nowMs);
const limits = timing.stepTimeoutMs;
const type = "exclusiveAccessRegistrantsOnly";
const ours: ReservationAnswer = { status: "reservation", generation: 1, holder: { key, type } };
const broke: ReservationAnswer = { status: "failed", reason: "no path" };

function startingOf(state: VirtualServerState): Extract<Phase, { kind: "starting" }> {
  if (state.phase.kind !== "starting") throw new Error(`it is ${state.phase.kind}`);
  return state.phase;
}

/** The answers to a claim of a disk that is ours already. */
function claimed(start: VirtualServerState): readonly [VirtualServerState, readonly string[]] {
  let state = start;
  let asked: string[] = [];
  for (const token of pendingOf(start)) {
    const keys: ReservationAnswer = { status: "keys", generation: 1, keys: [key] };
    for (const answer of [{ status: "good" } as const, keys, ours]) {
      const [next, effects] = serverReserved(state, token, answer, now);
      state = next;
      asked = said(effects);
    }
  }
  const [attaching, effects] = inItsTurn([state, []], now);
  return [attaching, effects.length > 0 ? said(effects) : asked];
}

const begin = (notBeforeMs = nowMs) => startServer(off, key, notBeforeMs, now);

/** In this step, everything before it done. */
function inStep(step: string, notBeforeMs = nowMs): VirtualServerState {
  const [started] = begin(notBeforeMs);
  if (step === "claim") return started;
  return goOnTo([claimed(started)[0], []], step, now, ours).state;
}

describe("a start", () => {
  test("claims, attaches, mounts, exports at the address, opens, verifies: one after the other", () => {
    const [started, effects] = begin();
    expect(said(effects)).toEqual([...claimOf("d1"), ...claimOf("d2")]);
    const [attaching, asked] = claimed(started);
    expect(asked).toEqual(["attach d1", "attach d2"]);
    const { state, asked: more } = goOnTo([attaching, []], "serving", now, ours);
    expect(more.slice(1)).toEqual([
      ["mount d1", "mount d2"],
      ["addAddresses"],
      ["startService"],
      ["gateOpen"],
      ["readReservation d1", "readReservation d2"],
      ["gateKeep", "announce", "vserver.serving"],
    ]);
    expect(state).toMatchObject({ phase: { kind: "serving", sinceMs: nowMs }, key });
  });

  test("forgets what was before: the claims and the fault of an earlier start", () => {
    const failedBefore: VirtualServerState = {
      ...off,
      phase: { kind: "failed", fault: "old", retryAtMs: 0 },
      fault: "old",
      claims: { d1: { at: "failed", reason: "old" } },
    };
    const [state] = startServer(failedBefore, key, nowMs, now);
    expect(state.fault).toBeUndefined();
    expect(state.claims).toEqual({ d1: startClaim(key)[0], d2: startClaim(key)[0] });
  });

  test.each([serving, begin()[0]])("of what is there already is a broken invariant", (state) => {
    expect(() => startServer(state, key, nowMs, now)).toThrow("startServer");
  });

  test.each([
    ["claim", limits.claim],
    ["attach", limits.attach],
    ["mount", limits.mount],
    ["address", limits.address],
    ["export", limits.export],
    ["open", limits.address],
    ["verify", limits.address],
  ] as const)("gives %s its own limit, and fails at its end, not before", (step, limitMs) => {
    const state = inStep(step);
    expect(startingOf(state).deadlineMs).toBe(nowMs + limitMs);
    expect(startingTick(state, at(nowMs + limitMs - 1))).toEqual([state, []]);
    const [after, effects] = startingTick(state, at(nowMs + limitMs));
    expect(said(effects)).toEqual(["vserver.stepFailed", "gateClose"]);
    expect(after).toMatchObject({ phase: { kind: "stopping", reason: "failed" }, failures: 1 });
  });

  test.each<[Work, keyof typeof limits]>([
    [{ op: "attach", disk: "d1" }, "attach"],
    [{ op: "mount", disk: "d1" }, "mount"],
    [{ op: "startService" }, "export"],
    [{ op: "addAddresses" }, "address"],
    [{ op: "announce" }, "address"],
    [{ op: "seal", disk: "d1" }, "stop"],
    [{ op: "killService" }, "stop"],
  ])("gives the work %j its own limit", (work, step) => {
    const names = ["claim", "attach", "mount", "export", "address", "stop"] as const;
    const stepTimeoutMs = Object.fromEntries(names.map((name, i) => [name, 100 + i]));
    const context = at(nowMs, { timing: { ...timing, stepTimeoutMs } as never });
    const limitMs = stepTimeoutMs[step];
    expect(waitFor(off, "step", [work], context)[1]).toMatchObject([{ work, limitMs }]);
  });

  test("is measured from its decision, and says so", () => {
    const late = at(nowMs + 40.4);
    const state = inStep("open");
    const { state: end, asked } = goOnTo([state, []], "verify", late);
    expect(asked.at(-1)).toEqual(["readReservation d1", "readReservation d2"]);
    const [after, effects] = succeed(end, late, ours);
    expect(after.lastStartMs).toBeCloseTo(40.4);
    const detail = { virtualServer: "alpha", startMs: after.lastStartMs };
    expect(effects.at(-1)).toMatchObject({ report: { code: "vserver.serving", detail } });
  });

  test("hands the clients that the last owner named to the announcement, once", () => {
    const state = { ...inStep("verify"), clients: "list" };
    const [after, effects] = succeed(state, now, ours);
    const announce = effects.find((each) => each.kind === "work");
    expect(announce).toMatchObject({ work: { op: "announce", clients: "list" } });
    expect(announce).toMatchObject({ limitMs: limits.address });
    expect(after.clients).toBeUndefined();
  });

  test("takes no answer to an earlier step, and none when it does not start", () => {
    const state = inStep("mount");
    const stale = pendingOf(inStep("attach"))[0] ?? "";
    expect(serverDone(state, stale, broken, now)).toEqual([state, []]);
    expect(serverReserved(state, stale, ours, now)).toEqual([state, []]);
    const [token = ""] = pendingOf(state);
    expect(serverDone(serving, token, done, now)).toEqual([serving, []]);
    expect(startingTick(serving, at(1e9))).toEqual([serving, []]);
    // Nor for a stop, whatever it is called.
    expect(awaiting(state, "starting", token)).toBe(state.phase);
    expect(awaiting(state, "stopping", token)).toBeUndefined();
    expect(awaiting(serving, "starting", token)).toBeUndefined();
  });
});

test("steps are numbered upwards for ever, through starts and stops, so that no token is used twice", () => {
  const rounds: number[] = [];
  const follow = (start: VirtualServerState, end: string): VirtualServerState => {
    let state = start;
    while (stepOf(state) !== end) {
      rounds.push(state.round);
      state = stepOf(state) === "claim" ? claimed(state)[0] : succeed(state, now, ours)[0];
    }
    return state;
  };
  const served = follow(begin()[0], "serving");
  const [stopping] = stopServer(served, "transfer", false, now);
  const [again] = startServer(follow(stopping, "off"), key, nowMs, now);
  follow(again, "serving");
  expect(rounds.length).toBeGreaterThan(20);
  expect(rounds).toEqual([...new Set(rounds)].toSorted((one, other) => one - other));
});

describe("a step that fails", () => {
  test.each(["attach", "mount", "address", "export"])(
    "%s: everything is undone, silence first, and nothing is forced",
    (step) => {
      const [after, effects] = failing(inStep(step), now);
      expect(said(effects)).toEqual(["vserver.stepFailed", "gateClose"]);
      expect(after).toMatchObject({
        failures: 1,
        phase: { kind: "stopping", step: "close", reason: "failed", forced: false },
      });
      expect(after.fault).toContain(step);
      const detail = { virtualServer: "alpha", step };
      expect(effects[0]).toMatchObject({ report: { severity: "error", detail } });
    },
  );

  test("by the disk's refusal: it is not ours, so nothing of it is written any more", () => {
    const refused = failed("fenced", "test", "conflict");
    const [after, effects] = failing(inStep("mount"), now, refused);
    expect(said(effects)).toEqual(["vserver.fenced", "gateClose"]);
    expect(after).toMatchObject({ phase: { forced: true, hasLetGo: false } });
  });

  test.each<[string, ReservationAnswer, string, boolean, string]>([
    ["does not answer", broke, "vserver.stepFailed", false, "claim: d1: no path"],
    ["conflicts", { status: "conflict" }, "vserver.fenced", true, "claim: d1: the disk answered"],
  ])("claim, of a disk that %s: it is told why", (_, answer, code, forced, why) => {
    const state = inStep("claim");
    const [token = ""] = pendingOf(state);
    const [after, effects] = serverReserved(state, token, answer, now);
    expect(said(effects)).toEqual([code, "gateClose"]);
    expect(after).toMatchObject({ phase: { forced }, fault: expect.stringContaining(why) });
  });

  test.each<[string, ReservationAnswer, string, boolean]>([
    ["does not answer", broke, "vserver.stepFailed", false],
    ["is nobody's", { status: "reservation", generation: 2 }, "vserver.fenced", true],
    [
      "is another's",
      { status: "reservation", generation: 2, holder: { key: "d702001100000009", type } },
      "vserver.fenced",
      true,
    ],
  ])("verify, of a disk that %s", (_, answer, code, forced) => {
    const state = inStep("verify");
    const [, token = ""] = pendingOf(state);
    const [after, effects] = serverReserved(state, token, answer, now);
    expect(said(effects)).toEqual([code, "gateClose"]);
    expect(after).toMatchObject({ phase: { forced } });
  });
});

describe("the gate", () => {
  test("is asked to open no earlier than allowed, and that wait is not the step's own time", () => {
    const notBeforeMs = nowMs + 165;
    const [state, effects] = failingExportEnd(notBeforeMs);
    expect(effects).toMatchObject([{ command: { kind: "gateOpen", notBeforeMs } }]);
    expect(startingOf(state).deadlineMs).toBe(notBeforeMs + limits.address);
    expect(startingOf(inStep("open", nowMs - 50)).deadlineMs).toBe(nowMs + limits.address);
    expect(startingOf(inStep("export", notBeforeMs)).deadlineMs).toBe(nowMs + limits.export);
  });

  test("that is refused is asked again after 10 ms, within the time of its first asking", () => {
    const state = inStep("open");
    const [waiting, none] = failing(state, now);
    expect(none).toEqual([]);
    expect(pendingOf(waiting)).toEqual([]);
    expect(startingTick(waiting, at(nowMs + 9))).toEqual([waiting, []]);
    const [again, effects] = startingTick(waiting, at(nowMs + 10));
    expect(said(effects)).toEqual(["gateOpen"]);
    expect(startingOf(again).deadlineMs).toBe(startingOf(state).deadlineMs);
    expect(pendingOf(again)).not.toEqual(pendingOf(state));
  });

  test("that is refused for all its time is a failed step", () => {
    const endMs = nowMs + limits.address;
    const [waiting] = failing(inStep("open"), at(endMs - 5));
    expect(said(startingTick(waiting, at(endMs))[1])).toContain("vserver.stepFailed");
    const [due] = failing(inStep("open"), at(endMs - 10));
    expect(said(startingTick(due, at(endMs))[1])).toContain("vserver.stepFailed");
    const [after, effects] = startingTick(waiting, at(endMs + 5));
    expect(said(effects)).toEqual(["vserver.stepFailed", "gateClose"]);
    expect(after.fault).toContain("not allowed to open");
  });

  test.each([
    [timing.firstLeaseMs - 1, ["gateKeep", "announce", "vserver.serving"]],
    [timing.firstLeaseMs, ["gateClose", "gateOpen"]],
  ])("open for %i ms before the disks said that they are ours: %j", (ms, asked) => {
    const state = inStep("verify");
    expect(startingOf(state).openedMs).toBe(nowMs);
    const [after, effects] = succeed(state, at(nowMs + ms), ours);
    expect(said(effects)).toEqual(asked);
    if (stepOf(after) !== "open") return;
    expect(startingOf(after).decidedMs).toBe(nowMs);
    expect(startingOf(after).openedMs).toBeUndefined();
  });
});

/** The export has just succeeded. */
function failingExportEnd(notBeforeMs: number) {
  return succeed(inStep("export", notBeforeMs), now);
}

describe("in place", () => {
  test("a service that died is silenced, and exported again without letting go of the volume", () => {
    const start = restartService(serving, now);
    expect(start[0]).toMatchObject({ failures: 1, key });
    const { asked } = goOnTo(start, "serving", now, ours);
    expect(asked).toEqual([
      ["gateClose", "stopService"],
      ["addAddresses"],
      ["startService"],
      ["gateOpen"],
      ["readReservation d1", "readReservation d2"],
      ["gateKeep", "announce", "vserver.serving"],
    ]);
    expect(startingOf(start[0]).deadlineMs).toBe(nowMs + limits.stop);
  });

  test("one that dies while it starts is not opened sooner than it was to be", () => {
    const notBeforeMs = nowMs + 400;
    const [again] = restartService(inStep("open", notBeforeMs), now);
    expect(startingOf(again)).toMatchObject({ notBeforeMs, inPlace: true, step: "hush" });
    expect(startingOf(restartService(serving, now)[0]).notBeforeMs).toBe(nowMs);
  });

  test("a gate that lapsed is opened at once, after which the disks are asked", () => {
    const { asked } = goOnTo(reopenGate(serving, now), "serving", now, ours);
    expect(asked).toEqual([
      ["gateOpen"],
      ["readReservation d1", "readReservation d2"],
      ["gateKeep", "announce", "vserver.serving"],
    ]);
  });
});
