/** One virtual server stops: in which order, by which force, what is released, and what happens when a step fails. */
import { describe, expect, test } from "vitest";
import {
  hasLetGo,
  isHeld,
  stopDone,
  stoppingTick,
  stopReserved,
  stopServer,
} from "../../firmware-ts/core/vserver-stop.ts";
import type {
  Phase,
  StopReason,
  VirtualServerState,
} from "../../firmware-ts/core/vserver-types.ts";
import { good } from "../../firmware-ts/schema/outcome.ts";
import {
  at,
  broken,
  failing,
  goOnTo,
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
const planned = (reason: StopReason = "transfer", context = now) =>
  stopServer(serving, reason, false, context);
const byForce = (reason: StopReason = "fenced", context = now) =>
  stopServer(serving, reason, true, context);

function stoppingOf(state: VirtualServerState): Extract<Phase, { kind: "stopping" }> {
  if (state.phase.kind !== "stopping") throw new Error(`it is ${state.phase.kind}`);
  return state.phase;
}

const release = ["release d1", "unregister d1", "release d2", "unregister d2"];

describe("a stop", () => {
  test("as planned: silent before anything goes, sealed before it is released, tidied after that", () => {
    const { state, asked } = goOnTo(planned(), "off", now);
    expect(asked).toEqual([
      ["flush d1", "flush d2"],
      ["gateClose"],
      ["seal d1", "seal d2"],
      release,
      ["stopService"],
      ["abandon d1", "abandon d2"],
      ["detach d1", "detach d2"],
      ["removeAddresses"],
    ]);
    expect(state).toMatchObject({ phase: { kind: "off" }, claims: {}, key: undefined });
  });

  test("by force: silent at once, nothing is flushed, and released when nothing is mounted", () => {
    expect(goOnTo(byForce(), "off", now).asked).toEqual([
      ["gateClose"],
      ["killService"],
      ["abandon d1", "abandon d2"],
      release,
      ["detach d1", "detach d2"],
      ["removeAddresses"],
    ]);
  });

  test.each<[string, VirtualServerState, StopReason]>([
    ["of one that has failed", serving, "failed"],
    [
      "of one that does not serve yet",
      {
        ...serving,
        phase: {
          kind: "starting",
          step: "mount",
          pending: [],
          deadlineMs: 9000,
          decidedMs: 0,
          notBeforeMs: 0,
          inPlace: false,
        },
      },
      "transfer",
    ],
  ])("%s flushes nothing: its service may not answer", (_, state, reason) => {
    const [next, effects] = stopServer(state, reason, false, now);
    expect(said(effects)).toEqual(["gateClose"]);
    expect(stoppingOf(next)).toMatchObject({ step: "close", reason, forced: false });
  });

  test("of one that is off does nothing, and of one that has failed forgets the failure", () => {
    expect(stopServer(off, "leave", false, now)).toEqual([off, []]);
    const failed: VirtualServerState = {
      ...off,
      phase: { kind: "failed", fault: "test", retryAtMs: 9000 },
    };
    expect(stopServer(failed, "leave", false, now)).toEqual([off, []]);
  });

  test("waits for every part of a step, and for nothing else", () => {
    const [state] = planned();
    const [one, other] = pendingOf(state);
    const [half, none] = stopDone(state, one ?? "", good(undefined), now);
    expect(none).toEqual([]);
    expect(pendingOf(half)).toEqual([other]);
    expect(stopDone(half, one ?? "", broken, now)).toEqual([half, []]);
    expect(stopReserved(half, "vs:alpha:0:close:gate", now)).toEqual([half, []]);
    expect(stopDone(serving, other ?? "", broken, now)).toEqual([serving, []]);
  });

  test("gives every step its time, and judges it at its end, not before", () => {
    const [state] = goOnToStep("seal");
    const endMs = nowMs + timing.stepTimeoutMs.stop;
    expect(stoppingOf(state).deadlineMs).toBe(endMs);
    expect(stoppingTick(state, at(endMs - 1))).toEqual([state, []]);
    expect(said(stoppingTick(state, at(endMs))[1])).toEqual(["vserver.stopForced", "killService"]);
    expect(stoppingTick(serving, at(endMs))).toEqual([serving, []]);
  });

  test("remembers the clients of whom only a kill knows", () => {
    const { state } = goOnTo(byForce(), "unexport", now);
    const [token = ""] = pendingOf(state);
    expect(stopDone(state, token, good("list"), now)[0].clients).toBe("list");
    const known = { ...state, clients: "before" };
    expect(stopDone(known, token, good(undefined), now)[0].clients).toBe("before");
    const flushing = { ...planned()[0], clients: "before" };
    const [flush = ""] = pendingOf(flushing);
    expect(stopDone(flushing, flush, good("list"), now)[0].clients).toBe("before");
  });
});

function goOnToStep(
  step: string,
  force = false,
  reason: StopReason = "transfer",
  context = now,
): readonly [VirtualServerState] {
  const start = force ? byForce(reason, context) : planned(reason, context);
  return [goOnTo(start, step, context).state];
}

describe("a release", () => {
  const asked = (state: VirtualServerState, context = now) =>
    said(succeed(state, context)[1]).filter((each) => / d\d$/.test(each));

  test("is not sent to a partner that is not in step, which preempts instead", () => {
    const context = at(nowMs, { partnerInStep: false });
    const [state] = goOnToStep("seal", false, "transfer", context);
    const [next, effects] = succeed(state, context);
    expect(said(effects)).toEqual(["stopService"]);
    expect(hasLetGo(next)).toBe(true);
  });

  test("is not sent without a key, nor where we have claimed nothing, nor where no path is", () => {
    const [state] = goOnToStep("seal");
    expect(asked(state)).toEqual(release);
    expect(asked({ ...state, key: undefined })).toEqual([]);
    expect(asked({ ...state, claims: { d2: { at: "owned" } } })).toEqual(release.slice(2));
    expect(asked(state, at(nowMs, { pathsDown: ["d2"] }))).toEqual(release.slice(0, 2));
    expect(asked(state, at(nowMs, { pathsDown: ["d1", "d2"] }))).toEqual([]);
  });

  test("is in the partner's hands with its last answer, whatever that is", () => {
    const { state: releasing } = goOnTo(planned(), "release", now);
    const tokens = pendingOf(releasing);
    let state = releasing;
    for (const token of tokens) {
      expect(hasLetGo(state)).toBe(false);
      [state] = stopReserved(state, token, now);
    }
    expect(tokens).toHaveLength(4);
    expect(hasLetGo(state)).toBe(true);
    expect(stepOf(state)).toBe("unexport");
  });

  test("that is not answered in time is no reason to wait", () => {
    const { state } = goOnTo(planned(), "release", now);
    const [next, effects] = stoppingTick(state, at(nowMs + timing.stepTimeoutMs.stop));
    expect(said(effects)).toEqual(["stopService"]);
    expect(hasLetGo(next)).toBe(true);
  });

  test("is sent once: a stop that is forced after it tidies up, and is not sent again", () => {
    const [state] = goOnToStep("unexport");
    const forced = failing(state, now);
    expect(said(forced[1])).toEqual(["vserver.stopForced", "killService"]);
    expect(goOnTo(forced, "off", now).asked.slice(1)).toEqual([
      ["abandon d1", "abandon d2"],
      ["detach d1", "detach d2"],
      ["removeAddresses"],
    ]);
  });
});

describe("a step that fails", () => {
  test("flush: it goes on, what is not flushed is sealed", () => {
    const [, effects] = failing(planned()[0], now);
    expect(said(effects)).toEqual(["gateClose"]);
  });

  test.each([false, true])(
    "close, forced %s: the controller ends, its gates end with it",
    (force) => {
      const [state] = force ? byForce() : goOnToStep("close");
      const [after, effects] = failing(state, now);
      expect(said(effects)).toEqual(["controller.selfFence", "exit"]);
      expect(effects.at(-1)).toMatchObject({ code: 70 });
      expect(after).toBe(state);
    },
  );

  test("seal: it is torn off by force, and released only after that", () => {
    const [state] = goOnToStep("seal");
    const [forced, effects] = failing(state, now);
    expect(said(effects)).toEqual(["vserver.stopForced", "killService"]);
    expect(stoppingOf(forced)).toMatchObject({ forced: true, hasLetGo: false, reason: "transfer" });
  });

  test.each(["unexport", "unmount"])("%s by force, unreleased: the controller ends", (step) => {
    const [state] = goOnToStep(step, true, "transfer");
    expect(said(failing(state, now)[1])).toEqual(["controller.selfFence", "exit"]);
  });

  test.each(["unmount", "detach"] as const)(
    "%s, released: it is tried again every second, and told once",
    (step) => {
      const [planned] = goOnToStep("unexport");
      const start = step === "detach" ? ([planned, []] as const) : failing(planned, now);
      const { state } = goOnTo(start, step, now);
      const [held, told] = failing(state, now);
      expect(said(told)).toEqual(["vserver.deviceHeld"]);
      expect([isHeld(held), isHeld(state), hasLetGo(held)]).toEqual([true, false, true]);
      expect(stoppingTick(held, at(nowMs + 999))).toEqual([held, []]);
      const [again, asked] = stoppingTick(held, at(nowMs + 1000));
      const op = step === "detach" ? "detach" : "abandon";
      expect(said(asked)).toEqual([`${op} d1`, `${op} d2`]);
      expect(isHeld(again)).toBe(true);
      const [stillHeld, more] = failing(again, at(nowMs + 1001));
      expect([stepOf(stillHeld), more]).toEqual([step, []]);
      expect(stoppingOf(stillHeld)).toMatchObject({ pending: [], deadlineMs: nowMs + 2001 });
      const { state: end } = goOnTo([again, []], "off", at(nowMs + 1001));
      expect(isHeld(end)).toBe(false);
    },
  );

  test("one that is tried again and hangs is judged by its limit, and waits again", () => {
    const [state] = goOnToStep("detach");
    const [held] = failing(state, now);
    const [again] = stoppingTick(held, at(nowMs + 1000));
    const endMs = nowMs + 1000 + timing.stepTimeoutMs.stop;
    expect(stoppingTick(again, at(endMs - 1))).toEqual([again, []]);
    const [after, effects] = stoppingTick(again, at(endMs));
    expect([pendingOf(after), effects]).toEqual([[], []]);
    expect(isHeld(after)).toBe(true);
  });

  test.each(["unmount", "detach"])("%s of a fenced one: out serves nothing, so it ends", (step) => {
    const [state] = goOnToStep(step, true, "fenced");
    expect(said(failing(state, now)[1])).toEqual(["controller.selfFence", "exit"]);
  });
});

describe("asked again while it stops", () => {
  const outcomes = (state: VirtualServerState, reason: StopReason, forced: boolean) => {
    const [next, effects] = stopServer(state, reason, forced, now);
    return { asked: said(effects), ...stoppingOf(next) };
  };

  test("by force: it begins anew, with the reason of who asks", () => {
    const [state] = goOnToStep("seal");
    expect(outcomes(state, "fenced", true)).toMatchObject({
      asked: ["gateClose"],
      step: "close",
      reason: "fenced",
      forced: true,
    });
  });

  test("by force, when the disks are released: that stays true", () => {
    const [state] = goOnToStep("detach");
    expect(outcomes(state, "fenced", true)).toMatchObject({ hasLetGo: true, step: "close" });
  });

  test.each<[StopReason, StopReason, StopReason]>([
    ["failed", "transfer", "transfer"],
    ["failed", "failed", "failed"],
    ["transfer", "leave", "transfer"],
    ["transfer", "failed", "transfer"],
    ["transfer", "fenced", "fenced"],
    ["leave", "fenced", "fenced"],
  ])("%s, then %s: it is %s, and goes on where it is", (before, asked, reason) => {
    const [state] = goOnToStep("seal", false, before === "failed" ? "leave" : before);
    const stopping: VirtualServerState = {
      ...state,
      phase: { ...stoppingOf(state), reason: before },
    };
    expect(outcomes(stopping, asked, false)).toMatchObject({ asked: [], step: "seal", reason });
    const forced: VirtualServerState = {
      ...state,
      phase: { ...stoppingOf(stopping), forced: true },
    };
    expect(outcomes(forced, asked, true)).toMatchObject({ asked: [], step: "seal", reason });
  });
});

describe("after a failure", () => {
  test.each([
    [0, 1000],
    [1, 1000],
    [2, 2000],
    [3, 4000],
    [5, 16_000],
    [6, 30_000],
    [40, 30_000],
  ])("%i times it waits %i ms before it starts again", (failures, waitMs) => {
    const start = stopServer({ ...serving, failures }, "failed", false, now, "why");
    expect(goOnTo(start, "failed", now).state).toMatchObject({
      phase: { kind: "failed", fault: "why", retryAtMs: nowMs + waitMs },
      claims: {},
      key: undefined,
    });
  });

  test("a server that is off or has failed is nobody's, one that starts or serves is ours", () => {
    const failed: Phase = { kind: "failed", fault: "why", retryAtMs: 0 };
    expect(hasLetGo(off)).toBe(true);
    expect(hasLetGo({ ...off, phase: failed })).toBe(true);
    expect(hasLetGo(serving)).toBe(false);
    expect(hasLetGo(planned()[0])).toBe(false);
    expect([isHeld(off), isHeld(serving), isHeld(planned()[0])]).toEqual([false, false, false]);
  });
});
