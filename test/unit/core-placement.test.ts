/** Which virtual servers a controller starts, asks for and gives back by itself, and when. */
import { describe, expect, test } from "vitest";
import type { ControllerState, Transfer } from "../../firmware-ts/core/controller-state.ts";
import { keepServers } from "../../firmware-ts/core/placement.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import { said } from "../support/one-server.ts";
import {
  busyPhase,
  off,
  servingPhase,
  whole,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 100_000;
const [alpha, beta] = [0, 1];

const keep = (state: ControllerState, atMs = nowMs) => {
  const [next, effects] = keepServers(state, atMs) ?? [state, []];
  return { next, says: next.outbox, asked: said(effects), isSame: next === state };
};
const starts = (state: ControllerState, atMs = nowMs) =>
  keep(state, atMs).asked.includes("vserver.starting");
const startsAt = (state: ControllerState) => {
  const { phase } = keep(state).next.servers[alpha] ?? {};
  return phase?.kind === "starting" ? phase.notBeforeMs : undefined;
};

const moving = (index: number, state: ControllerState): ControllerState => {
  const transfer = { role: "target", at: "ready", deadlineMs: 1e9, why: "test" } as Transfer;
  return { ...state, transfers: { [index]: transfer } };
};

test("where everything is where it belongs nothing is done", () => {
  expect(keepServers(whole, nowMs)).toBeUndefined();
});

test.each(["starting", "stopping"] as const)("what is %s is left to itself", (kind) => {
  expect(keepServers(withServer(alpha, { phase: busyPhase(kind) }), nowMs)).toBeUndefined();
});

describe("a virtual server that nobody has", () => {
  /** Alpha is at home here; nobody has it. */
  const atHome = withServer(alpha, { phase: off });
  /** Nobody has beta, whose home is the partner. */
  const foreign: ControllerState = { ...withPartner({ owned: "" }), pairedSinceMs: nowMs - 3000 };

  test("is started at its home, at once", () => {
    expect(keep(atHome).asked).toContain("register d1");
    expect(startsAt(atHome)).toBe(nowMs);
  });

  test.each<[string, ControllerState]>([
    ["the partner has it after all", withPartner({ owned: "11" }, atHome)],
    ["the partner has not said yet what it has", withPartner({ mode: "joining" }, atHome)],
    ["nobody is heard", { ...atHome, partner: undefined }],
    ["clients could not reach it", { ...atHome, dataLinkUp: false }],
    ["it is on its way", moving(alpha, atHome)],
  ])("is not started when %s", (_, state) => {
    expect(keep(state).isSame).toBe(true);
  });

  test("is asked for by the other when its home has not come for it in 3 s, and not simply taken", () => {
    expect(keep(foreign, nowMs - 1).isSame).toBe(true);
    const { says, asked } = keep(foreign);
    expect(says).toMatchObject([{ type: "request", server: beta }]);
    expect(asked).not.toContain("vserver.starting");
  });

  test.each<[string, ControllerState]>([
    ["has just been refused", withServer(beta, { moveNotBeforeMs: nowMs + 1 }, foreign)],
    ["could not be reached by clients here", { ...foreign, dataLinkUp: false }],
    ["is on its way", moving(beta, foreign)],
    ["is its home's", withPartner({ owned: "01" }, foreign)],
  ])("is not asked for while it %s", (_, state) => {
    expect(keep(state).isSame).toBe(true);
  });

  test.each([atHome, foreign])("is taken at once from a partner that leaves", (nobodys) => {
    const left = withPartner({ mode: "leaving" }, { ...nobodys, pairedSinceMs: nowMs });
    const { asked, says, next } = keep(left);
    expect(asked).toContain("vserver.starting");
    expect(says).toEqual([]);
    const starting = next.servers.find(({ phase }) => phase.kind === "starting")?.phase;
    expect(starting).toMatchObject({ notBeforeMs: nowMs });
    const resting = left.servers.map((each) => ({ ...each, moveNotBeforeMs: nowMs + 1 }));
    expect(starts({ ...left, servers: resting })).toBe(true);
  });

  test.each<[string, Partial<ControllerState>]>([
    ["what it has not let go", { partner: { ...whole.partner, owned: "11" } as never }],
    ["what is on its way", { transfers: moving(beta, foreign).transfers }],
    ["what clients could not reach", { dataLinkUp: false }],
    ["what we may not take, for we leave too", { mode: "leaving" }],
  ])("but nothing else is taken from it: %s", (_, more) => {
    const state: ControllerState = { ...foreign, ...more };
    expect(keep(withPartner({ mode: "leaving" }, state)).isSame).toBe(true);
  });

  test("is asked for again from the moment on at which it may be", () => {
    expect(keep(withServer(beta, { moveNotBeforeMs: nowMs }, foreign)).says).toHaveLength(1);
  });

  test("is started wherever its home is by a controller that is alone, when the partner is silent", () => {
    const none = withServer(beta, { phase: off }, atHome);
    const alone = { ...none, mode: "alone", soloFresh: true, partner: undefined } as const;
    const { asked } = keep(alone);
    expect(asked.filter((word) => word === "vserver.starting")).toHaveLength(2);
    expect(startsAt({ ...alone, openNotBeforeMs: nowMs + 7 })).toBe(nowMs + 7);
    expect(startsAt({ ...alone, openNotBeforeMs: nowMs - 7 })).toBe(nowMs);
    expect(keep({ ...alone, soloFresh: false }).isSame).toBe(true);
    expect(keep(moving(alpha, alone)).asked).not.toContain("register d1");
  });

  test.each(modes)("is started by a member of a pair, or by one that is alone: %s", (mode) => {
    const state = { ...atHome, mode, soloFresh: true };
    expect(starts(state)).toBe(mode === "paired" || mode === "alone");
  });
});

describe("a virtual server that has failed here", () => {
  const failed = withServer(alpha, {
    phase: { kind: "failed", fault: "test", retryAtMs: nowMs },
    failures: 1,
  });

  test("is tried again after its time, and not sooner", () => {
    expect(keep(failed, nowMs - 1).isSame).toBe(true);
    expect(starts(failed)).toBe(true);
    expect(startsAt(failed)).toBe(nowMs);
  });

  test("is not opened before the partner's leases have ended", () => {
    expect(startsAt({ ...failed, openNotBeforeMs: nowMs + 7 })).toBe(nowMs + 7);
  });

  test.each<[string, ControllerState]>([
    ["clients could not reach it", { ...failed, dataLinkUp: false }],
    ["it is on its way to the partner", moving(alpha, failed)],
    ["the partner has it", withPartner({ owned: "11" }, failed)],
    ["we are alone, and may have been overtaken", { ...failed, mode: "alone", soloFresh: false }],
  ])("is not tried while %s", (_, state) => {
    expect(keep(state).isSame).toBe(true);
  });

  test.each(modes)("is tried by a member of a pair, or by one that is alone: %s", (mode) => {
    const state = { ...failed, mode, soloFresh: true };
    expect(starts(state)).toBe(mode === "paired" || mode === "alone");
  });

  test("is tried by one that is alone whatever its data link says: nobody else is there", () => {
    expect(starts({ ...failed, mode: "alone", soloFresh: true, dataLinkUp: false })).toBe(true);
  });

  test.each([{ failures: 2 }, { movesFailed: 2 }, { evacuated: { times: 1, lastMs: 0 } }])(
    "is forgiven after a minute of service, and not sooner: %j",
    (before) => {
      const state = withServer(alpha, { phase: { kind: "serving", sinceMs: nowMs }, ...before });
      expect(keep(state, nowMs + 59_999).isSame).toBe(true);
      const { next, asked } = keep(state, nowMs + 60_000);
      const { failures, movesFailed, evacuated } = next.servers[alpha] ?? {};
      expect([failures, movesFailed, evacuated]).toEqual([0, 0, undefined]);
      expect(asked).toEqual([]);
    },
  );

  test("is not forgiven what it has not done", () => {
    expect(keep(whole, nowMs + 1e9).isSame).toBe(true);
  });
});

describe("a virtual server away from home", () => {
  const restMs = 10_000;
  /** Beta is served here, and has been for long; everything is whole. */
  const guest: ControllerState = {
    ...withPartner({ owned: "" }, withServer(beta, { phase: servingPhase })),
    config: { ...whole.config, autoGiveback: true },
    pairedSinceMs: 0,
    partnerLinkedSinceMs: 0,
  };
  const offered = (state: ControllerState, atMs = nowMs) =>
    keep(state, atMs).says.flatMap((each) => (each.type === "offer" ? [each.server] : []));

  test("is given back by itself, without haste", () => {
    expect(keep(guest).says).toMatchObject([{ type: "offer", server: beta, urgent: false }]);
  });

  const served = { kind: "serving", sinceMs: nowMs } as const;
  test.each<[string, ControllerState]>([
    ["the server been here", withServer(beta, { phase: served }, guest)],
    ["the pair been whole", { ...guest, pairedSinceMs: nowMs }],
    ["the partner had a carrier", { ...guest, partnerLinkedSinceMs: nowMs }],
  ])("is given back when so long has %s, and not sooner", (_, state) => {
    expect(offered(state, nowMs + restMs - 1)).toEqual([]);
    expect(offered(state, nowMs + restMs)).toEqual([beta]);
  });

  test.each<[string, ControllerState]>([
    ["where that was not wished for", { ...guest, config: whole.config }],
    ["by one that is alone", { ...guest, mode: "alone" }],
    ["while it is on its way already", moving(beta, guest)],
    ["right after a refusal", withServer(beta, { moveNotBeforeMs: nowMs + 1 }, guest)],
    ["to a partner without a carrier", withPartner({ dataLinkDown: true }, guest)],
  ])("is not given back %s", (_, state) => {
    expect(offered(state)).toEqual([]);
  });

  test("is offered again from the moment on at which it may be", () => {
    expect(offered(withServer(beta, { moveNotBeforeMs: nowMs }, guest))).toEqual([beta]);
  });

  test("is kept by its home: what is at home goes nowhere", () => {
    const here = { ...whole, config: { ...whole.config, autoGiveback: true } };
    expect(offered({ ...here, pairedSinceMs: 0, partnerLinkedSinceMs: 0 })).toEqual([]);
  });
});
