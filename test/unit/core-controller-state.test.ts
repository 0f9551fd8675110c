/** What every part of the decisions rests on: what is ours, what the partner is told, and how a mode changes. */
import { describe, expect, test } from "vitest";
import type { Mandate } from "../../firmware-ts/core/beat-types.ts";
import {
  type ControllerState,
  dropOutbox,
  inTurn,
  join,
  joinParts,
  nothing,
  ownsServer,
  partnerOwns,
  replaceServer,
  type Step,
  sendMessage,
  serverContext,
  setMode,
  setTransfer,
  type Transfer,
  tell,
} from "../../firmware-ts/core/controller-state.ts";
import { claimsServer, mandateOf, sameMandate } from "../../firmware-ts/core/mandate.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import { decodeMessage, type Message } from "../../firmware-ts/schema/messages.ts";
import {
  busyPhase,
  failedPhase,
  heldPhase,
  off,
  reportsOf,
  servingPhase,
  whole,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 10_000;
const alphaOf = (state: ControllerState) => {
  const [server] = state.servers;
  if (!server) throw new Error("no alpha");
  return server;
};
const promised = { role: "target", at: "starting", deadlineMs: 0, why: "test" } as Transfer;
const moving = (transfer: Transfer, state = whole) => setTransfer(state, 0, transfer);

describe("the partner is in step with us", () => {
  const inStep = (state: ControllerState) => serverContext(state, nowMs).partnerInStep;

  test.each(modes)("while both are of the pair: one of them %s", (mode) => {
    const isOfPair = mode === "paired" || mode === "leaving";
    expect(inStep({ ...whole, mode })).toBe(isOfPair);
    expect(inStep(withPartner({ mode }))).toBe(isOfPair);
  });

  test("only in a contact in which it has our word", () => {
    expect(inStep({ ...whole, granted: undefined })).toBe(false);
    expect(inStep(withPartner({ contact: (whole.granted ?? 0) + 1 }))).toBe(false);
  });

  test("not when it is lost, whatever it once had", () => {
    expect(inStep({ ...whole, partner: undefined })).toBe(false);
    expect(inStep({ ...whole, partner: undefined, granted: undefined })).toBe(false);
  });

  test("as is told to every virtual server, with the time and the disks that are out of reach", () => {
    expect(serverContext({ ...whole, pathsDown: ["d1"] }, nowMs)).toEqual({
      nowMs,
      timing: whole.timing,
      pathsDown: ["d1"],
      partnerInStep: true,
    });
  });
});

describe("a change of mode", () => {
  test.each([
    ["paired", "out", "error"],
    ["paired", "racing", "warning"],
    ["racing", "alone", "warning"],
    ["joining", "paired", "info"],
    ["paired", "leaving", "info"],
  ] as const)("from %s to %s begins a turn and is told as %s", (from, to, severity) => {
    const [next, effects] = setMode({ ...whole, mode: from }, to, nowMs, "test");
    expect(next).toMatchObject({ mode: to, modeSinceMs: nowMs, turn: whole.turn + 1 });
    const detail = { from, to, epoch: whole.epoch };
    const message = `${from} → ${to}: test`;
    expect(reportsOf(effects)).toEqual([{ severity, code: `controller.${to}`, message, detail }]);
  });

  test("that the diagram does not show is a broken invariant", () => {
    expect(() => setMode({ ...whole, mode: "joining" }, "alone", nowMs, "test")).toThrow(
      "controller a: no transition from joining to alone",
    );
  });
});

describe("a virtual server", () => {
  test.each([
    [off, false, false],
    [failedPhase, false, true],
    [busyPhase("starting"), true, true],
    [servingPhase, true, true],
    [busyPhase("stopping"), true, true],
    [heldPhase, true, true],
  ])(
    "that is here is ours; one that failed is so only to the partner ($kind)",
    (phase, owned, claimed) => {
      const state = withServer(0, { phase });
      expect(ownsServer(alphaOf(state))).toBe(owned);
      expect(claimsServer(state, alphaOf(state))).toBe(claimed);
    },
  );

  test("that we have promised to start is ours to the partner; one that is only promised to us is not", () => {
    const none = withServer(0, { phase: off });
    const claims = (transfer: Transfer) => claimsServer(moving(transfer, none), alphaOf(none));
    expect(claims(promised)).toBe(true);
    expect(claims({ ...promised, at: "ready" } as Transfer)).toBe(false);
    expect(claims({ ...promised, role: "source", at: "released" } as Transfer)).toBe(false);
  });

  test("is the partner's when it says so, as long as it is heard", () => {
    const state = withPartner({ owned: "01" });
    expect([partnerOwns(state, 0), partnerOwns(state, 1)]).toEqual([false, true]);
    expect(partnerOwns({ ...state, partner: undefined }, 1)).toBe(false);
  });

  test("is replaced alone, and where nothing changed the state is the same", () => {
    const changed = { ...alphaOf(whole), failures: 9 };
    const next = replaceServer(whole, changed);
    expect(next.servers).toEqual([changed, whole.servers[1]]);
    expect(replaceServer(whole, alphaOf(whole))).toBe(whole);
  });
});

test("a move is noted and forgotten by itself", () => {
  const both = setTransfer(moving(promised), 1, promised);
  expect(both.transfers).toEqual({ 0: promised, 1: promised });
  expect(setTransfer(both, 0, undefined).transfers).toEqual({ 1: promised });
});

describe("a message", () => {
  const ready: Message = { type: "ready", server: 0 };

  test("is said after those that wait already; to nobody, nothing is said", () => {
    const two = sendMessage(sendMessage(whole, ready), { type: "started", server: 1 });
    expect(two.outbox).toEqual([ready, { type: "started", server: 1 }]);
    const deserted = { ...whole, partner: undefined };
    expect(sendMessage(deserted, ready)).toBe(deserted);
  });

  test("has room for a long reason, cut short", () => {
    const long = sendMessage(whole, { type: "failed", server: 0, why: "x".repeat(1000) });
    const [body] = [mandateOf(long).message?.body ?? new Uint8Array()];
    expect(decodeMessage(body)).toMatchObject({
      type: "failed",
      why: expect.stringMatching(/^x+$/),
    });
  });

  test("that was not heard is forgotten, and its number not used again", () => {
    const waiting = sendMessage(whole, ready);
    expect(dropOutbox(waiting)).toEqual({ ...waiting, outbox: [], messageId: whole.messageId + 1 });
    expect(dropOutbox(whole)).toBe(whole);
  });
});

describe("the beats are told", () => {
  test.each([
    ["starting", "none"],
    ["joining", "none"],
    ["paired", "acknowledged"],
    ["racing", "acknowledged"],
    ["alone", "solo"],
    ["out", "none"],
    ["leaving", "acknowledged"],
  ] as const)("on which ground gates live while %s: %s", (mode, ground) => {
    expect(mandateOf({ ...whole, mode })).toMatchObject({ mode, ground, turn: whole.turn });
  });

  test("what is ours and what is served, one sign for each virtual server", () => {
    const both = (...phases: readonly (typeof off)[]) =>
      phases.reduce((state, phase, i) => withServer(i, { phase }, state), whole);
    expect(mandateOf(both(servingPhase, off))).toMatchObject({ owned: "1", serving: "1" });
    expect(mandateOf(both(off, servingPhase))).toMatchObject({ owned: "01", serving: "01" });
    expect(mandateOf(both(servingPhase, failedPhase))).toMatchObject({
      owned: "11",
      serving: "1",
    });
    expect(mandateOf(both(off, off))).toMatchObject({ owned: "", serving: "" });
    expect(mandateOf(moving(promised, both(off, off)))).toMatchObject({ owned: "1", serving: "" });
  });

  test("that we go, when we do; and that our data link has no carrier, when it has none", () => {
    expect(mandateOf(whole)).toMatchObject({ goodbye: false, dataLinkDown: false });
    expect(mandateOf({ ...whole, farewellMs: 0 }).goodbye).toBe(true);
    expect(mandateOf({ ...whole, dataLinkUp: false }).dataLinkDown).toBe(true);
  });

  test("the first message that waits, and what was heard of the partner's", () => {
    const waiting = sendMessage(
      { ...whole, messageId: 8, messageAck: 6 },
      { type: "ready", server: 1 },
    );
    const mandate = mandateOf({ ...waiting, lastSession: 77 });
    expect(mandate).toMatchObject({ messageAck: 6, messageSession: 77, message: { id: 8 } });
    expect(mandate.message && decodeMessage(mandate.message.body)).toEqual({
      type: "ready",
      server: 1,
    });
    expect(mandateOf(whole)).not.toHaveProperty("message");
  });
});

describe("two mandates", () => {
  const mandate: Mandate = {
    mode: "paired",
    turn: 1,
    epoch: 2,
    owned: "1",
    serving: "1",
    goodbye: false,
    dataLinkDown: false,
    configuration: 7,
    ground: "acknowledged",
    messageAck: 3,
    messageSession: 4,
    message: { id: 5, body: new Uint8Array([1]) },
  };
  const others: { readonly [key in keyof Mandate]-?: Mandate[key] } = {
    mode: "racing",
    turn: 9,
    epoch: 9,
    owned: "01",
    serving: "01",
    goodbye: true,
    dataLinkDown: true,
    configuration: 9,
    ground: "none",
    messageAck: 9,
    messageSession: 9,
    message: { id: 9, body: new Uint8Array([1]) },
  };

  test.each(Object.keys(others) as (keyof Mandate)[])("differ by their %s", (key) => {
    expect(sameMandate(mandate, { ...mandate, [key]: others[key] })).toBe(false);
  });

  test("are the same when they say the same, with a message or without", () => {
    const { message: _message, ...bare } = mandate;
    expect(sameMandate(mandate, { ...mandate })).toBe(true);
    expect(sameMandate(bare, { ...bare })).toBe(true);
    expect([sameMandate(bare, mandate), sameMandate(mandate, bare)]).toEqual([false, false]);
  });
});

describe("parts of a step", () => {
  const [one, two] = ["one", "two"].map((code) => tell("info", code, code));
  const step: Step = [whole, one ? [one] : []];
  const next: Step = [{ ...whole, epoch: 99 }, two ? [two] : []];

  test("join into one: the state of the last, the effects of all in their order", () => {
    expect(join(step, next)).toEqual([next[0], [one, two]]);
    expect(join(step, [next[0], nothing])).toEqual([next[0], [one]]);
    expect(join([whole, nothing], next)).toEqual(next);
    expect(join(step, undefined)).toBe(step);
    expect(joinParts(undefined, next)).toBe(next);
    expect(joinParts(step, next)).toEqual([next[0], [one, two]]);
    expect(joinParts(undefined, undefined)).toBeUndefined();
  });

  test("run one after another, each on what the one before left, at the same time", () => {
    const rise = (state: ControllerState, atMs: number): Step => [
      { ...state, epoch: state.epoch + 1, modeSinceMs: atMs },
      nothing,
    ];
    const [end] = inTurn([whole, nothing], nowMs, [rise, () => undefined, rise]);
    expect(end).toMatchObject({ epoch: whole.epoch + 2, modeSinceMs: nowMs });
  });
});
