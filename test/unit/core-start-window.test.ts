/** How many virtual servers go from their disk to their export at once, and which is next. */
import { describe, expect, test } from "vitest";
import { controllerStep } from "../../firmware-ts/core/controller.ts";
import {
  andThen,
  type ControllerState,
  type Step,
  waitsForTurn,
} from "../../firmware-ts/core/controller-state.ts";
import { statusOf } from "../../firmware-ts/core/show.ts";
import {
  beginStarts,
  claimsAhead,
  startsAtOnce,
  turnMsMax,
} from "../../firmware-ts/core/start-window.ts";
import { goOut, takeServer } from "../../firmware-ts/core/takeover.ts";
import type { Phase } from "../../firmware-ts/core/vserver-types.ts";
import { failed } from "../../firmware-ts/schema/outcome.ts";
import { claimOf, said } from "../support/one-server.ts";
import { busyPhase, servingPhase, wholeOf, withServer } from "../support/whole-pair.ts";

const nowMs = 10_000;
const count = 8;
const all = Array.from({ length: count }, (_, index) => index);
const idle = all.reduce<ControllerState>(
  (state, index) => withServer(index, { phase: servingPhase }, state),
  { ...wholeOf({ servers: count }), outbox: [] },
);

const starting = (more: object): Phase =>
  busyPhase("starting", { step: "attach", decidedMs: 0, notBeforeMs: 0, inPlace: false, ...more });
const waits = (decidedMs = 0) => starting({ pending: [], waitsForTurn: true, decidedMs });
const inPhases = (phases: readonly Phase[]) =>
  phases.reduce<ControllerState>(
    (state, phase, index) => withServer(index, { key: "0a" as never, phase }, state),
    idle,
  );
const isWaiting = (state: ControllerState, index: number) => {
  const server = state.servers[index];
  return server !== undefined && waitsForTurn(server);
};
/** Those whose turn has come in this step; their disks become devices. */
const begun = (state: ControllerState, atMs = nowMs): number[] => {
  const step = beginStarts(state, atMs);
  if (!step) return [];
  const has = all.filter((index) => isWaiting(state, index) && !isWaiting(step[0], index));
  const disks = has.map((index) => `attach ${state.servers[index]?.config.volumes[0]?.disk}`);
  expect(said(step[1]).toSorted()).toEqual(disks.toSorted());
  return has;
};

describe("starts in turn", () => {
  test("one alone waits for nobody", () => {
    expect(begun(inPhases([waits()]))).toEqual([0]);
  });

  test("as many as there are places, in the order of the decisions", () => {
    const state = inPhases(all.map((index) => waits(count - index)));
    expect(begun(state)).toEqual([4, 5, 6, 7]);
    expect(said(beginStarts(state, nowMs)?.[1] ?? [])).toEqual(
      [8, 7, 6, 5].map((number) => `attach d${number}`),
    );
    expect(startsAtOnce).toBe(4);
  });

  test.each(["attach", "mount", "address", "export"])(
    "one in the step %s holds a place",
    (step) => {
      const busy = starting({ step, turnMs: nowMs });
      expect(begun(inPhases([busy, busy, busy, waits(), waits()]))).toEqual([3]);
      expect(begun(inPhases([busy, busy, busy, busy, waits()]))).toEqual([]);
    },
  );

  test.each<[string, Phase]>([
    ["whose export is done", starting({ step: "open", turnMs: nowMs })],
    ["that is served", servingPhase],
    ["that has failed", busyPhase("stopping")],
    ["that starts in place", starting({ step: "export", inPlace: true })],
    ["that claims", starting({ step: "claim" })],
    ["that waits", waits(1)],
  ])("one %s holds none", (_, other) => {
    expect(begun(inPhases([other, other, other, other, waits()]))).toContain(4);
  });

  test("one that hangs holds its place for so long, and no longer", () => {
    const hangs = starting({ turnMs: nowMs });
    const state = inPhases([hangs, hangs, hangs, hangs, waits()]);
    expect(begun(state, nowMs + turnMsMax - 1)).toEqual([]);
    expect(begun(state, nowMs + turnMsMax)).toEqual([4]);
  });

  test("one whose disk has no path goes last: it could only wait there", () => {
    const serial = idle.servers[0]?.config.volumes[0]?.disk ?? "";
    const state = { ...inPhases(all.map(() => waits())), pathsDown: [serial] };
    expect(begun(state)).toEqual([1, 2, 3, 4]);
    expect(begun({ ...inPhases([waits()]), pathsDown: [serial] })).toEqual([0]);
  });

  /** Nobody else's turn has ended. */
  const full = inPhases([
    ...all.slice(0, startsAtOnce).map(() => starting({ turnMs: nowMs })),
    waits(),
    waits(),
  ]);

  test("one that is not wanted any more by then stops, and nothing of it is attached", () => {
    const server = full.servers[4];
    if (!server) throw new Error("no virtual server 4");
    const definition = { ...server.definition, wanted: "stopped" as const };
    const due = { at: "due", againAtMs: 0, failures: 0, isResumed: false } as const;
    const state = withServer(4, { definition }, { ...full, parts: { 4: due, 5: due } });
    const [after, effects] = controllerStep(state, { kind: "tick", nowMs });
    expect(after.servers[4]?.phase).toMatchObject({ kind: "stopping", reason: "stopped" });
    expect(after.servers[5]?.phase).toMatchObject({ kind: "starting", waitsForTurn: true });
    expect(said(effects).filter((each) => /^(attach|mount)/.test(each))).toEqual([]);
  });

  test("to the operator it is queued", () => {
    const status = statusOf(full, { uptimeMs: 0, links: {}, refusedFrames: {} });
    const steps = status.virtualServers.map(({ step }) => step);
    const attaching = new Array<string>(startsAtOnce).fill("attach");
    expect(steps.slice(0, 6)).toEqual([...attaching, "queued", "queued"]);
  });

  test("a wait has no limit; the step has its own from the turn on", () => {
    const hangs = starting({ turnMs: nowMs + 1e6, deadlineMs: 1e9 });
    const late = { ...waits(), deadlineMs: nowMs } as Phase;
    const state = inPhases([hangs, hangs, hangs, hangs, late]);
    const [after] = controllerStep(state, { kind: "tick", nowMs: nowMs + 1e6 });
    expect(after.servers[4]?.phase).toMatchObject({ kind: "starting", waitsForTurn: true });
    const [next] = beginStarts(inPhases([late]), nowMs) ?? [];
    const { attach } = idle.timing.stepTimeoutMs;
    const phase = next?.servers[0]?.phase;
    expect(phase).toMatchObject({ step: "attach", deadlineMs: nowMs + attach });
    expect(phase).not.toHaveProperty("waitsForTurn");
  });

  test("in the very step in which one ends, well or not, the next begins", () => {
    const busy = starting({ step: "export", turnMs: nowMs, pending: ["vs:x:1:export:y"] });
    const state = inPhases([busy, busy, busy, busy, waits(), waits()]);
    for (const outcome of [
      { ok: true, value: undefined } as const,
      failed("serviceFailed", "test", "injected"),
    ]) {
      const { config, round } = state.servers[0] ?? {};
      const token = `vs:${config?.name}:${round}:export:startService`;
      const asked = withServer(0, { phase: { ...busy, pending: [token] } as Phase }, state);
      const [after] = controllerStep(asked, { kind: "done", token, outcome, nowMs });
      expect(after.servers[4]?.phase).toMatchObject({ step: "attach", turnMs: nowMs });
      expect(after.servers[5]?.phase).toMatchObject({ waitsForTurn: true });
    }
  });
});

describe("claims in turn", () => {
  const claiming = (more: object = {}) =>
    starting({ step: "claim", pending: ["token"], turnMs: nowMs, ...more });
  const claimWaits = (decidedMs = 0) =>
    starting({ step: "claim", pending: [], waitsForTurn: true, decidedMs });
  /** Those whose claim begins in this step: their disks are asked. */
  const claimed = (state: ControllerState, atMs = nowMs): number[] => {
    const step = beginStarts(state, atMs);
    if (!step) return [];
    const has = all.filter((index) => isWaiting(state, index) && !isWaiting(step[0], index));
    expect(said(step[1])).toEqual(
      has.flatMap((index) => claimOf(state.servers[index]?.config.volumes[0]?.disk ?? "")),
    );
    return has;
  };

  test("a loss of many: so many claim in the very step, the others have asked no disk", () => {
    const state = inPhases(all.map(() => ({ kind: "off" })));
    let step: Step = [{ ...state, mode: "alone" }, []];
    for (const index of all)
      step = andThen(step, (next) => takeServer(next, index, nowMs + 5, nowMs));
    const [after, effects] = step;
    const waiting = all.filter((index) => isWaiting(after, index));
    expect(waiting).toEqual(all.slice(claimsAhead));
    const asked = effects.flatMap((each) => (each.kind === "reserve" ? [each.serial] : []));
    expect([...new Set(asked)]).toEqual(
      all.slice(0, claimsAhead).map((index) => after.servers[index]?.config.volumes[0]?.disk),
    );
    // Each keeps what was decided for it, whenever its turn comes.
    for (const index of waiting)
      expect(after.servers[index]?.phase).toMatchObject({ step: "claim", notBeforeMs: nowMs + 5 });
    expect(beginStarts(after, nowMs)).toBeUndefined();
  });

  test("whose claim has ended, well or not, makes room: the longest decided is next", () => {
    const state = inPhases([
      ...[claiming(), claiming(), claiming(), servingPhase],
      ...[claimWaits(3), claimWaits(2), claimWaits(1)],
    ]);
    expect(claimed(state)).toEqual([6]);
  });

  test("who has claimed, and waits to attach, is ahead as well", () => {
    const busy = starting({ step: "mount", turnMs: nowMs });
    const full = [busy, busy, busy, busy];
    expect(claimed(inPhases([...full, waits(), waits(), claiming(), claimWaits()]))).toEqual([7]);
    const two = [claiming(), claiming()];
    expect(claimed(inPhases([busy, busy, busy, busy, waits(), waits(), ...two]))).toEqual([]);
  });

  test("who begins to attach makes room for a claim in the same step", () => {
    const state = inPhases([...[waits(), waits(), waits(), waits()], claimWaits(), claimWaits()]);
    const [after] = beginStarts(state, nowMs) ?? [];
    expect(all.map((index) => after?.servers[index]?.phase)).toMatchObject([
      ...all.slice(0, startsAtOnce).map(() => ({ step: "attach", turnMs: nowMs })),
      ...[4, 5].map(() => ({ step: "claim", turnMs: nowMs })),
      ...[6, 7].map(() => servingPhase),
    ]);
  });

  test("a disk that does not answer holds the place of its claim for so long, and no longer", () => {
    const state = inPhases([claiming(), claiming(), claiming(), claiming(), claimWaits()]);
    expect(claimed(state, nowMs + turnMsMax - 1)).toEqual([]);
    expect(claimed(state, nowMs + turnMsMax)).toEqual([4]);
  });

  test("its limit counts from its turn", () => {
    const late = { ...claimWaits(), deadlineMs: nowMs - 1e6 } as Phase;
    const [after] = controllerStep(inPhases([late]), { kind: "tick", nowMs });
    const { claim } = idle.timing.stepTimeoutMs;
    expect(after.servers[0]?.phase).toMatchObject({ step: "claim", deadlineMs: nowMs + claim });
  });

  test("who falls out of the pair lets the waiting go, and touches no disk of theirs", () => {
    const state = inPhases([claiming(), claiming(), claiming(), claiming(), claimWaits()]);
    const [after, effects] = goOut(state, nowMs, "test");
    expect(after.servers[4]?.phase).toMatchObject({ kind: "stopping", forced: true });
    const disk = state.servers[4]?.config.volumes[0]?.disk;
    expect(effects.filter((each) => each.kind === "reserve" && each.serial === disk)).toEqual([]);
  });
});
