/** Moves that come to nothing: when the next is begun by itself. */
import { describe, expect, test } from "vitest";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { keepServers } from "../../firmware-ts/core/placement.ts";
import {
  evacuate,
  failuresBeforeMove,
  failuresToMove,
  type TransferMessage,
  transferMessage,
} from "../../firmware-ts/core/transfer.ts";
import type { VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { strike } from "../../hal/sim/chaos.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { off, whole, withServer } from "../support/whole-pair.ts";

const nowMs = 10_000;
const alpha = 0;

/** Controller a of a whole pair, which has handed alpha to its partner. */
const handedOver: ControllerState = { ...whole, outbox: [] };

const released = {
  role: "source",
  at: "released",
  deadlineMs: nowMs,
  urgent: true,
  why: "",
} as const;

const change = (more: Partial<VirtualServerState>, moving = true): ControllerState => ({
  ...withServer(alpha, more, handedOver),
  transfers: moving ? { [alpha]: released } : {},
});

const failure: TransferMessage = { type: "failed", server: alpha, why: "no" };
const told = (state: ControllerState, message: TransferMessage) =>
  transferMessage(state, message, nowMs)[0].servers[alpha];

describe("what neither controller can start", () => {
  test.each([
    [0, 1000],
    [1, 2000],
    [2, 4000],
    [5, 32_000],
    [6, 60_000],
    [40, 60_000],
  ])(
    "after %i moves that failed rests for %i ms after the next, a minute at most",
    (count, restMs) => {
      const server = told(change({ phase: off, movesFailed: count }), failure);
      expect(server).toMatchObject({ movesFailed: count + 1, moveNotBeforeMs: nowMs + restMs });
    },
  );

  test("rests alone: others are moved", () => {
    const servers = change({ phase: off }).servers.map((each) => ({ ...each, movesFailed: 3 }));
    const [next] = transferMessage({ ...change({ phase: off }), servers }, failure, nowMs);
    expect(next.servers[1]).toMatchObject({ movesFailed: 3, moveNotBeforeMs: 0 });
  });

  test("begins anew when the partner serves it, and when it was served here for a minute", () => {
    const started: TransferMessage = { type: "started", server: alpha };
    expect(told(change({ phase: off, movesFailed: 5 }), started)?.movesFailed).toBe(0);
    const serving = change({ phase: { kind: "serving", sinceMs: 0 }, movesFailed: 5 }, false);
    const forgiven = (atMs: number) => keepServers(serving, atMs)?.[0].servers[alpha]?.movesFailed;
    expect([forgiven(59_999), forgiven(60_000)]).toEqual([undefined, 0]);
  });

  test("is not offered while it rests, and is from then on", () => {
    const phase = { kind: "failed", fault: "no", retryAtMs: 1e9 } as const;
    const resting = change({ phase, failures: 2, moveNotBeforeMs: nowMs }, false);
    expect(evacuate(resting, nowMs - 1)).toBeUndefined();
    expect(evacuate(resting, nowMs)?.[0].transfers[alpha]).toMatchObject({ at: "offered" });
  });
});

describe("what the partner refuses", () => {
  const offered = { ...released, at: "offered" } as const;
  const refusal: TransferMessage = { type: "refuse", server: alpha, why: "no path" };
  const refused = (more: Partial<VirtualServerState>) =>
    told({ ...change(more), transfers: { [alpha]: offered } }, refusal);

  test("is offered again after a second however often: what it lacks may be mended at any time", () => {
    const server = refused({ movesFailed: 6 });
    expect(server).toMatchObject({ movesFailed: 6, moveNotBeforeMs: nowMs + 1000 });
  });

  test("rests no shorter than it would have without having been asked", () => {
    const server = refused({ moveNotBeforeMs: nowMs + 30_000 });
    expect(server).toMatchObject({ moveNotBeforeMs: nowMs + 30_000 });
  });

  test("is served a second or two after the partner's path is mended, however long that took", () => {
    const pair = new Pair();
    pair.start("a");
    pair.start("b");
    pair.run(3000);
    pair.path("b", "d1", false);
    pair.controllers.a?.works.trouble.set("startService", { kind: "fail", left: 1000 });
    pair.controllers.a?.happenLater({
      kind: "serviceExited",
      virtualServer: "alpha",
      reason: "killed",
    });
    pair.run(70_000);
    expect(pair.answers("10.0.0.100")).toBeUndefined();
    pair.path("b", "d1", true);
    expect(pair.runUntil(() => pair.answers("10.0.0.100") === "b", 2000)).toBe(true);
  });
});

describe("what the partner could not keep", () => {
  const arrives = (urgent: boolean, before: VirtualServerState["evacuated"], atMs = nowMs) => {
    const state = { ...withServer(alpha, { phase: off, evacuated: before }, whole), outbox: [] };
    const say = (from: ControllerState, message: TransferMessage) =>
      transferMessage(from, message, atMs)[0];
    const offered = say(state, { type: "offer", server: alpha, urgent, why: "it failed" });
    return say(offered, { type: "go", server: alpha }).servers[alpha]?.evacuated;
  };

  test("is remembered where it arrives, and how often in a row", () => {
    expect(arrives(true, undefined)).toEqual({ times: 1, lastMs: nowMs });
    expect(arrives(true, { times: 1, lastMs: nowMs - 1 })).toEqual({ times: 2, lastMs: nowMs });
  });

  test("is in a row for half an hour", () => {
    const halfHourMs = 30 * 60_000;
    const atMs = 1e9;
    expect(arrives(true, { times: 3, lastMs: atMs - halfHourMs + 1 }, atMs)?.times).toBe(4);
    expect(arrives(true, { times: 3, lastMs: atMs - halfHourMs }, atMs)?.times).toBe(1);
  });

  test("has a clean record when somebody sends it", () => {
    expect(arrives(false, { times: 3, lastMs: nowMs - 1 })).toBeUndefined();
  });

  test.each([
    [undefined, failuresBeforeMove],
    [{ times: 1, lastMs: 0 }, 8],
    [{ times: 2, lastMs: 0 }, 32],
    [{ times: 9, lastMs: 0 }, 32],
  ])("must fail more often before it is offered again: %j", (evacuated, failures) => {
    expect(failuresToMove({ evacuated })).toBe(failures);
    const phase = { kind: "failed", fault: "no", retryAtMs: 1e9 } as const;
    const offered = (count: number) =>
      evacuate(change({ phase, failures: count, evacuated }, false), nowMs)?.[0].transfers[alpha];
    expect(offered(failures - 1)).toBeUndefined();
    expect(offered(failures)).toMatchObject({ at: "offered" });
  });
});

describe("a file service that dies two seconds after each start, whoever serves", () => {
  /** What becomes of it in that time: moves, and how long each attempt to serve was waited for. */
  function suffer(pair: Pair, forMs: number) {
    const endMs = pair.timeline.nowMs + forMs;
    const movedAtMs: number[] = [];
    let last = pair.answers("10.0.0.100");
    let servedAtMs = pair.timeline.nowMs;
    let longestWaitMs = 0;
    while (pair.timeline.nowMs < endMs) {
      pair.run(50);
      const who = pair.answers("10.0.0.100");
      if (who === undefined) continue;
      longestWaitMs = Math.max(longestWaitMs, pair.timeline.nowMs - servedAtMs);
      if (who !== last) movedAtMs.push(pair.timeline.nowMs);
      last = who;
      pair.run(2000);
      strike(pair, { do: "die", who, server: "alpha" });
      servedAtMs = pair.timeline.nowMs;
    }
    return { movedAtMs, longestWaitMs };
  }

  test("moves ever more seldom, is waited for ever longer but no longer than half a minute, and comes back", () => {
    const pair = new Pair();
    pair.start("a");
    pair.start("b");
    pair.run(3000);
    const { movedAtMs, longestWaitMs } = suffer(pair, 30 * 60_000);
    // To the partner at once; from there after more attempts; then more seldom still.
    const restsMs = movedAtMs.slice(1).map((atMs, i) => atMs - (movedAtMs[i] ?? 0));
    expect(movedAtMs[0]).toBeLessThan(20_000);
    expect(movedAtMs.length).toBeLessThanOrEqual(5);
    expect(Math.min(...restsMs)).toBeGreaterThan(60_000);
    expect(longestWaitMs).toBeGreaterThan(15_000);
    expect(longestWaitMs).toBeLessThan(32_000);
    // Its neighbour was never silent.
    const other = pair.dark.filter(({ address, toMs }) => address === "10.0.0.101" && toMs > 3000);
    expect(other).toEqual([]);
    const back = () => pair.answers("10.0.0.100") !== undefined;
    expect(pair.runUntil(back, 31_000)).toBe(true);
    pair.run(61_000);
    expect(back()).toBe(true);
    const states = [pair.controllers.a, pair.controllers.b].map(
      (each) => each?.state.servers[alpha],
    );
    expect(states.find((each) => each?.phase.kind === "serving")).toMatchObject({ failures: 0 });
  });
});
