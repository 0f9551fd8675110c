/** Leaving on request: to whom what is served here goes, how long that may take, and when goodbye may be said. */
import { describe, expect, test } from "vitest";
import type { ControllerState, Transfer } from "../../firmware-ts/core/controller-state.ts";
import { leavingTick, shutdown } from "../../firmware-ts/core/leave.ts";
import type { Phase } from "../../firmware-ts/core/vserver-types.ts";
import { said } from "../support/one-server.ts";
import {
  busyPhase,
  failedPhase,
  heldPhase,
  off,
  servingPhase,
  whole,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 10_000;
const handOverMs = 5000;
const goodbyeMs = 100;
const endMs = nowMs + handOverMs;

const leave = (state: ControllerState) => {
  const [next, effects] = shutdown(state, "asked to stop", nowMs);
  return { next, asked: said(effects), offers: next.outbox, phase: next.servers[0]?.phase };
};

const moving = (role: "source" | "target", state: ControllerState): ControllerState => {
  const at = role === "source" ? "released" : "starting";
  const transfer = { role, at, deadlineMs: 1e9, urgent: false, why: "test" } as Transfer;
  return { ...state, transfers: { 0: transfer } };
};

describe("asked to leave, a controller", () => {
  test("of a whole pair offers what it serves, and stops nothing before that is taken", () => {
    const { next, asked, offers, phase } = leave(whole);
    expect(asked).toEqual(["controller.leaving", "transfer.offered"]);
    expect(offers).toMatchObject([{ type: "offer", server: 0, urgent: false }]);
    expect(phase?.kind).toBe("serving");
    expect(next).toMatchObject({ mode: "leaving", leaveDeadlineMs: endMs });
  });

  test.each<[string, ControllerState]>([
    ["that is alone", { ...whole, mode: "alone" }],
    ["that hears nobody", { ...whole, mode: "racing", partner: undefined }],
    ["whose partner leaves too", withPartner({ mode: "leaving" })],
    ["whose server does not serve yet", withServer(0, { phase: busyPhase("starting") })],
  ])("%s stops what it has, in good order", (_, state) => {
    const { offers, phase } = leave(state);
    expect(offers).toEqual([]);
    expect(phase).toMatchObject({ kind: "stopping", reason: "leave", forced: false });
  });

  test("lets a move that is under way go on", () => {
    for (const state of [moving("source", whole), moving("source", { ...whole, mode: "alone" })]) {
      const { next, asked, offers } = leave(state);
      expect(asked).toEqual(["controller.leaving"]);
      expect(offers).toEqual([]);
      expect(next).toMatchObject({ transfers: state.transfers, servers: state.servers });
    }
  });

  test("gives up its race", () => {
    const racing = { ...whole, mode: "racing", race: {} as never } as const;
    expect(leave(racing).next.race).toBeUndefined();
  });

  test("is not asked a second time", () => {
    const { next } = leave(whole);
    expect(shutdown(next, "again", nowMs + 1)).toEqual([next, []]);
  });
});

/** Controller a on its way out, with alpha in a phase. */
const leaving = (phase: Phase, more: Partial<ControllerState> = {}): ControllerState => ({
  ...withServer(0, { phase }),
  mode: "leaving",
  leaveDeadlineMs: endMs,
  ...more,
});

const tick = (state: ControllerState, atMs: number) => {
  const [next, effects] = leavingTick(state, atMs) ?? [state, []];
  const exits = effects.flatMap((each) => (each.kind === "exit" ? [each.code] : []));
  return { next, phase: next.servers[0]?.phase, exits, isSame: next === state };
};

describe("while it leaves", () => {
  test("what is on its way to the partner has time until then, as long as the partner is there", () => {
    const state = moving("source", leaving(servingPhase));
    expect(tick(state, endMs - 1).isSame).toBe(true);
    expect(tick(state, endMs).phase).toMatchObject({ kind: "stopping", reason: "leave" });
    const deserted = { ...state, partner: undefined };
    expect(tick(deserted, nowMs).phase).toMatchObject({ kind: "stopping", reason: "leave" });
  });

  test.each([servingPhase, busyPhase("starting")])(
    "what nobody takes is stopped at once: $kind",
    (phase) => {
      expect(tick(leaving(phase), nowMs).phase).toMatchObject({
        kind: "stopping",
        reason: "leave",
        forced: false,
      });
    },
  );

  test.each(["transfer", "failed"])(
    "a stop that is under way goes on as it began: %s",
    (reason) => {
      const state = leaving(busyPhase("stopping", { reason }));
      expect(tick(state, nowMs).isSame).toBe(true);
      expect(tick(state, endMs).isSame).toBe(true);
    },
  );

  test("nothing of this is done in another mode", () => {
    expect(leavingTick({ ...leaving(off), mode: "paired" }, endMs)).toBeUndefined();
  });
});

describe("goodbye", () => {
  test.each<[string, Phase, boolean]>([
    ["nothing is here", off, true],
    ["what is here has failed", failedPhase, true],
    ["what is left is released, and held by somebody", heldPhase, true],
    ["something is being put away", busyPhase("stopping"), false],
    ["what is released is being put away", busyPhase("stopping", { hasLetGo: true }), false],
  ])("when %s: %s", (_, phase, isSaid) => {
    const state = leaving(phase);
    expect(tick(state, nowMs).next.farewellMs).toBe(isSaid ? nowMs : undefined);
  });

  test("waits until the partner says that it serves what it was given, and not for ever", () => {
    const state = moving("source", leaving(off));
    expect(tick(state, endMs - 1).next.farewellMs).toBeUndefined();
    expect(tick(state, endMs).next.farewellMs).toBe(endMs);
    expect(tick({ ...state, partner: undefined }, nowMs).next.farewellMs).toBe(nowMs);
    // What is to come here does not come any more.
    expect(tick(moving("target", leaving(off)), nowMs).next.farewellMs).toBe(nowMs);
  });

  test("is repeated for as long as every link needs to carry it, and then the process ends as asked", () => {
    const { next: said, exits } = tick(leaving(off), nowMs);
    expect(exits).toEqual([]);
    const before = tick(said, nowMs + goodbyeMs - 1);
    expect([before.isSame, before.exits]).toEqual([true, []]);
    const end = tick(said, nowMs + goodbyeMs);
    expect([end.isSame, end.exits]).toEqual([true, [0]]);
  });
});
