/** What a controller makes of each thing that it sees: its partner, its links, its proofs, its gates. */
import { describe, expect, test } from "vitest";
import type { Observation, PartnerView } from "../../firmware-ts/core/beat-types.ts";
import { controllerStep, newController } from "../../firmware-ts/core/controller.ts";
import type { ControllerState, Registration } from "../../firmware-ts/core/controller-state.ts";
import { makeKey } from "../../firmware-ts/core/keys.ts";
import type { VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { modes } from "../../firmware-ts/schema/beat.ts";
import { encodeMessage } from "../../firmware-ts/schema/messages.ts";
import type { ReservationAnswer } from "../../firmware-ts/schema/reservation.ts";
import { pendingOf, said } from "../support/one-server.ts";
import {
  busyPhase,
  failedPhase,
  off,
  reportsOf,
  whole,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 10_000;

function see(state: ControllerState, observation: Observation) {
  const [next, effects] = controllerStep(state, { kind: "seen", nowMs, observation });
  const told = reportsOf(effects).map(({ severity, code }) => `${severity} ${code}`);
  const isSame = next === state && effects.length === 0;
  return { next, told, asked: said(effects), alpha: next.servers[0], isSame };
}

describe("a controller that starts", () => {
  const fresh = newController({
    config: whole.config,
    timing: whole.timing,
    configuration: 5,
    definitions: whole.servers.map((each) => each.definition),
  });

  test("has nothing, knows nobody, and takes every light for red before it is told", () => {
    expect(fresh).toMatchObject({
      mode: "starting",
      epoch: 0,
      staticConfiguration: 5,
      soloFresh: false,
      diskReadable: false,
      dataLinkUp: false,
      colours: { serial: "red", network: "red", disk: "red" },
      transfers: {},
      outbox: [],
      pathsDown: [],
    });
    expect(fresh.partner).toBeUndefined();
    expect(fresh.servers).toMatchObject([
      { index: 0, phase: off, claims: {}, failures: 0 },
      { index: 1, phase: off, claims: {}, failures: 0 },
    ]);
    expect(Object.keys(fresh.registrations)).toEqual(["c1", "c2", "c3"]);
    expect(fresh.coordinatorKey).toBe(makeKey({ controller: "a", pairId: 17, epoch: 0 }));
  });

  test("goes on at the epoch that it remembers, which its registrations name", () => {
    const record = { version: 1, epoch: 6 } as const;
    const [booted, effects] = controllerStep(fresh, { kind: "boot", nowMs, record });
    expect(booted).toMatchObject({ mode: "starting", epoch: 6, epochSeen: 6, modeSinceMs: nowMs });
    expect(booted.coordinatorKey).toBe(makeKey({ controller: "a", pairId: 17, epoch: 6 }));
    expect(said(effects)).toEqual(["mandate", "controller.boot", "volumeRead"]);
  });
});

describe("the lights", () => {
  const green = { serial: "green", network: "green", disk: "green" } as const;
  const links = (colours: ControllerState["colours"], diskReadable = true) =>
    ({ kind: "links", colours, diskReadable }) as const;
  const lit = (colours: ControllerState["colours"]): ControllerState => ({ ...whole, colours });

  test.each(["serial", "network", "disk"] as const)(
    "are told when one turns red or ceases to be: %s",
    (name) => {
      const dead = { ...green, [name]: "red" } as const;
      const late = { ...green, [name]: "yellow" } as const;
      expect(see(lit(green), links(dead)).told).toEqual(["warning link.red"]);
      expect(see(lit(late), links(dead)).told).toEqual(["warning link.red"]);
      expect(see(lit(dead), links(green)).told).toEqual(["info link.green"]);
      expect(see(lit(dead), links(late)).told).toEqual(["info link.green"]);
      expect(see(lit(dead), links(dead)).told).toEqual([]);
      expect(see(lit(green), links(late)).told).toEqual([]);
      expect(see(lit(late), links(green)).told).toEqual([]);
      expect(see(lit(green), links(dead)).next.colours).toEqual(dead);
    },
  );

  test("that tell of several links are told one by one, each with its name", () => {
    const [, effects] = controllerStep(lit(green), {
      kind: "seen",
      nowMs,
      observation: links({ serial: "red", network: "green", disk: "red" }),
    });
    expect(reportsOf(effects).map(({ detail }) => detail)).toEqual([
      { link: "serial" },
      { link: "disk" },
    ]);
  });

  test("begin the time of listening anew when the disks can be read again", () => {
    const quiet = { ...whole, quietSinceMs: 5 };
    const since = (before: boolean, after: boolean) =>
      see({ ...quiet, diskReadable: before }, links(green, after)).next.quietSinceMs;
    expect(since(false, true)).toBe(nowMs);
    expect(since(true, true)).toBe(5);
    expect(since(true, false)).toBe(5);
    expect(since(false, false)).toBe(5);
  });
});

describe("the proof by the coordinators", () => {
  const alone = (soloFresh: boolean): ControllerState => ({ ...whole, mode: "alone", soloFresh });

  test("is told to the operator when a controller that is alone loses or gets it", () => {
    const told = (before: boolean, fresh: boolean) =>
      see(alone(before), { kind: "solo", fresh }).told.filter((each) => each.includes("solo."));
    expect(told(true, false)).toEqual(["error solo.lost"]);
    expect(told(false, true)).toEqual(["info solo.proved"]);
    expect(told(true, true)).toEqual([]);
  });

  test("is only noted by any other", () => {
    for (const fresh of [true, false]) {
      const { next, told } = see({ ...whole, soloFresh: !fresh }, { kind: "solo", fresh });
      expect([next.soloFresh, told]).toEqual([fresh, []]);
    }
  });

  const isOut = (state: ControllerState, sentAtMs: number) =>
    see(state, { kind: "soloRefused", sentAtMs }).told.includes("error controller.out");

  test.each(modes)(
    "that is refused by a majority is the end of a controller that counts on it: %s",
    (mode) => {
      const c1: Registration = { at: "registered", sinceMs: 100 };
      const state: ControllerState = { ...whole, mode, registrations: { c1, c2: c1 } };
      expect(isOut(state, 101)).toBe(mode === "paired" || mode === "alone" || mode === "joining");
      // Sent before we were registered there: it was refused rightly.
      expect(isOut(state, 100)).toBe(false);
    },
  );

  test("that was sent before the last of our registrations was made is refused rightly", () => {
    const c3: Registration = { at: "none", againAtMs: 1e9, told: "" };
    const at = (sinceMs: number): Registration => ({ at: "registered", sinceMs });
    const state = { ...whole, registrations: { c1: at(100), c2: at(300), c3 } };
    expect([isOut(state, 200), isOut(state, 301)]).toEqual([false, true]);
  });
});

describe("the partner", () => {
  const { partner } = whole;
  if (!partner) throw new Error("no partner");
  const seen = (change: Partial<PartnerView>, state = whole) =>
    see(state, { kind: "partner", view: { ...partner, ...change } });
  const unheard: ControllerState = { ...whole, mode: "joining", partner: undefined };

  test("teaches its epoch, and none that is lower", () => {
    const [higher, lower] = [whole.epochSeen + 3, whole.epochSeen - 1];
    expect(seen({ epoch: higher }).next.epochSeen).toBe(higher);
    expect(seen({ epoch: lower }).next.epochSeen).toBe(whole.epochSeen);
  });

  test("is told when it is heard first, and its mode", () => {
    expect(seen({ granting: false }, unheard).told).toEqual(["info partner.heard"]);
    expect(seen({ serving: "" }).told).toEqual([]);
  });

  test("begins its messages anew with each session", () => {
    const acked = { ...whole, messageAck: 9, lastSession: partner.session };
    expect(seen({}, acked).next).toMatchObject({ messageAck: 9, lastSession: partner.session });
    const next = partner.session + 1;
    expect(seen({ session: next }, acked).next).toMatchObject({ messageAck: 0, lastSession: next });
  });

  test("has its data link since it said so, or since it is there", () => {
    const linked = { ...whole, partnerLinkedSinceMs: 5 };
    const since = (dataLinkDown: boolean, state: ControllerState) =>
      seen({ dataLinkDown }, state).next.partnerLinkedSinceMs;
    expect(since(false, linked)).toBe(5);
    expect(since(false, withPartner({ dataLinkDown: true }, linked))).toBe(nowMs);
    expect(since(false, { ...unheard, partnerLinkedSinceMs: 5 })).toBe(nowMs);
  });

  test.each(modes)(
    "that has won the coordinators puts out a member of the pair, and no other: %s",
    (mode) => {
      const view = { mode: "alone", granting: false } as const;
      const { told } = seen(view, { ...whole, mode });
      expect(told.includes("error controller.out")).toBe(mode === "paired");
    },
  );

  test("that has won nothing puts nobody out", () => {
    for (const mode of ["joining", "paired", "racing", "leaving"] as const)
      expect(seen({ mode, granting: false }).next.mode).toBe("paired");
  });

  test("that is lost when it was of a pair is raced for", () => {
    const loss = { reason: "silent", lastGrantedMs: 1, soloBoundMs: 2, leasedAtMs: 3 } as const;
    const { next } = see(whole, { kind: "partnerLost", ...loss });
    expect(next).toMatchObject({ mode: "racing", loss });
    expect(next.loss).not.toHaveProperty("kind");
  });
});

test("an epoch is learnt from any beat, and never unlearnt", () => {
  const epoch = whole.epochSeen;
  expect(see(whole, { kind: "epoch", epoch: epoch + 4 }).next.epochSeen).toBe(epoch + 4);
  expect(see(whole, { kind: "epoch", epoch: epoch - 1 }).isSame).toBe(true);
  expect(see(whole, { kind: "frameRefused", reason: "replay" }).isSame).toBe(true);
});

describe("a message", () => {
  const body = encodeMessage({ type: "request", server: 0, why: "test" });
  const message = (id: number) => ({ kind: "message", id, body }) as const;
  const acked: ControllerState = { ...whole, messageAck: 4, outbox: [] };

  test("is heard once, and only while the partner is there", () => {
    expect(see(acked, message(5)).next).toMatchObject({
      messageAck: 5,
      outbox: [{ type: "offer", server: 0 }],
    });
    expect(see(acked, message(4)).isSame).toBe(true);
    const deserted: ControllerState = { ...acked, mode: "leaving", partner: undefined };
    expect(see(deserted, message(5)).next.messageAck).toBe(4);
  });

  test("of ours is said until it is acknowledged, then the next", () => {
    const outbox = [
      { type: "ready", server: 0 },
      { type: "started", server: 0 },
    ] as const;
    const waiting: ControllerState = { ...whole, outbox, messageId: 8 };
    expect(see(waiting, { kind: "messageAcked", id: 7 }).next.outbox).toEqual(outbox);
    const { next } = see(waiting, { kind: "messageAcked", id: 8 });
    expect(next).toMatchObject({ outbox: [outbox[1]], messageId: 9 });
    const empty = { ...whole, outbox: [], messageId: 8 };
    expect(see(empty, { kind: "messageAcked", id: 8 }).next.messageId).toBe(8);
  });
});

describe("a gate", () => {
  const address = "10.0.0.100";
  const asking = (step: "open" | "close"): VirtualServerState => {
    const phase =
      step === "open" ? busyPhase("starting", { step }) : busyPhase("stopping", { step });
    const [server] = withServer(0, {
      phase: { ...phase, pending: ["vs:alpha:1:gate"] } as never,
      round: 1,
    }).servers;
    if (!server) throw new Error("no alpha");
    return server;
  };
  const waiting = (step: "open" | "close") => withServer(0, asking(step));
  const token = "vs:alpha:1:gate";

  test("that is open is verified", () => {
    const { alpha } = see(waiting("open"), { kind: "gateOpened", token, addresses: [address] });
    expect(alpha?.phase).toMatchObject({ kind: "starting", step: "verify" });
  });

  test("that was refused is asked for again, in the same step", () => {
    const { alpha } = see(waiting("open"), { kind: "gateRefused", token, reason: "no proof" });
    expect(alpha?.phase).toMatchObject({ kind: "starting", step: "open", againAtMs: nowMs + 10 });
  });

  test("that is closed lets the stop go on; one that cannot be closed does not", () => {
    const closed = (ok: boolean) =>
      see(waiting("close"), { kind: "gateClosed", token, ok, reason: "test" });
    expect(closed(true).alpha?.phase).toMatchObject({ kind: "stopping", step: "seal" });
    expect(closed(false).alpha?.phase).not.toMatchObject({ step: "seal" });
  });

  test("that cannot be closed ends the controller, which says what the kernel said", () => {
    const [, effects] = controllerStep(waiting("close"), {
      kind: "seen",
      nowMs,
      observation: { kind: "gateClosed", token, ok: false, reason: "no such table" },
    });
    expect(effects.filter(({ kind }) => kind === "exit")).toEqual([
      {
        kind: "exit",
        code: 70,
        reason: expect.stringContaining("close gate: no such table [gateFailed]"),
      },
    ]);
  });

  test("that lapsed is opened again where something is served behind it, and that is told", () => {
    const lapsed = (state: ControllerState, ...addresses: readonly string[]) =>
      see(state, { kind: "gateLapsed", addresses });
    const { told, asked, alpha } = lapsed(whole, address, "10.0.0.101");
    expect(told).toEqual(["warning gate.lapsed"]);
    expect(asked).toEqual(["gateOpen", "mandate", "gate.lapsed"]);
    expect(alpha?.phase).toMatchObject({ kind: "starting", step: "open" });
    expect(lapsed(whole, "10.0.0.101").isSame).toBe(true);
    const [config] = whole.servers.map((each) => each.config);
    const two = { ...config, addresses: [`${address}/24`, "10.0.0.102/24"] } as typeof config;
    const one = lapsed(withServer(0, { config: two } as never), address);
    expect(one.alpha?.phase).toMatchObject({ kind: "starting", step: "open" });
    const stopping = withServer(0, { phase: busyPhase("stopping") });
    expect(lapsed(stopping, address).alpha).toBe(stopping.servers[0]);
  });

  test("of no virtual server of ours is nobody's business", () => {
    for (const other of ["vs:gamma:1:gate", "gate", "join:alpha"])
      expect(see(whole, { kind: "gateOpened", token: other, addresses: [] }).isSame).toBe(true);
  });
});

describe("an answer of a disk", () => {
  /** Alpha starts under the lowest of epochs. */
  const [starting] = controllerStep(
    withPartner(
      { epoch: 0 },
      withServer(
        0,
        { phase: { ...failedPhase, retryAtMs: nowMs } },
        { ...whole, epoch: 1, epochSeen: 1 },
      ),
    ),
    { kind: "tick", nowMs },
  );
  const [server] = starting.servers;
  if (!server?.key) throw new Error("alpha does not start");
  const { key } = server;
  const [token = ""] = pendingOf(server);
  const answered = (...answers: readonly ReservationAnswer[]) =>
    answers.reduce(
      (state, answer) => controllerStep(state, { kind: "reserved", nowMs, token, answer })[0],
      starting,
    );

  test("that refuses us for a newer key teaches its epoch, so that the next attempt is above it", () => {
    const theirs = makeKey({ controller: "b", pairId: 17, epoch: 6 });
    const state = answered(
      { status: "good" },
      { status: "keys", generation: 1, keys: [key, theirs] },
      { status: "reservation", generation: 1 },
    );
    expect(state.servers[0]?.claims).toMatchObject({ d1: { at: "refused" } });
    expect([starting.epochSeen, state.epochSeen]).toEqual([1, 7]);
  });

  test("that refuses us for another reason teaches none", () => {
    const state = answered({ status: "conflict" });
    expect(state.servers[0]?.claims).toMatchObject({ d1: { at: "refused" } });
    expect(state.epochSeen).toBe(1);
  });

  test("for nobody of ours changes nothing", () => {
    const answer: ReservationAnswer = { status: "good" };
    for (const other of ["vs:gamma:1:claim:d1", "other:1:d1"])
      expect(controllerStep(whole, { kind: "reserved", nowMs, token: other, answer })).toEqual([
        whole,
        [],
      ]);
  });
});
