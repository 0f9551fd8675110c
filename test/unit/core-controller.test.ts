/** Single steps of the controller that a whole world reaches only by rare chance. */
import { describe, expect, test } from "vitest";
import { controllerStep } from "../../firmware-ts/core/controller.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect, Lifecycle, Work } from "../../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import type { Mode } from "../../firmware-ts/schema/beat.ts";
import { Pair } from "../../hal/sim/pair.ts";

/** A pair that has been whole for two seconds. */
function whole(): Pair {
  const pair = new Pair();
  pair.start("a");
  pair.start("b");
  pair.run(2000);
  return pair;
}

function stateOf(pair: Pair): ControllerState {
  const controller = pair.controllers.a;
  if (!controller) throw new Error("a was not started");
  return controller.state;
}

function feed(state: ControllerState, events: readonly ControllerEvent[]) {
  let next = state;
  const effects: Effect[] = [];
  for (const event of events) {
    const [after, more] = controllerStep(next, event);
    next = after;
    effects.push(...more);
  }
  return { state: next, effects };
}

describe("a race", () => {
  const racing = () => {
    const pair = whole();
    pair.kill("b");
    expect(pair.runUntil(() => stateOf(pair).mode === "racing", 1000)).toBe(true);
    return { state: stateOf(pair), nowMs: pair.timeline.nowMs };
  };

  /** Answers with which a majority would be won at once: our key, and nobody else's. */
  const winning = (state: ControllerState, nowMs: number): ControllerEvent[] =>
    ["c1", "c2", "c3"].map((serial) => ({
      kind: "reserved",
      nowMs,
      token: `race:${state.race?.id}:${serial}`,
      answer: { status: "keys", generation: 1, keys: [state.coordinatorKey] },
    }));

  test("is won by answers in time", () => {
    const { state, nowMs } = racing();
    expect(feed(state, winning(state, nowMs + 10)).state.mode).toBe("alone");
  });

  test("is lost when its answers were looked at too late, before any tick says so", () => {
    const { state, nowMs } = racing();
    const late = nowMs + state.timing.raceTimeoutMs;
    const { state: after, effects } = feed(state, winning(state, late));
    expect(after.mode).toBe("out");
    expect(effects.some(({ kind }) => kind === "persist")).toBe(false);
  });

  test.each([
    ["no beat", undefined, "out"],
    ["a beat of before them", -1, "out"],
    ["a beat of after them", 1, "alone"],
  ] as const)(
    "with young registrations, when the partner has last given a lease on %s",
    (_, after, mode) => {
      const { state, nowMs } = racing();
      const sinceMs = nowMs - 50;
      const registrations = Object.fromEntries(
        Object.keys(state.registrations).map((serial) => [serial, { at: "registered", sinceMs }]),
      ) as ControllerState["registrations"];
      if (!state.loss) throw new Error("no loss");
      const loss = { ...state.loss, leasedAtMs: after === undefined ? undefined : sinceMs + after };
      const young = { ...state, registrations, loss };
      expect(feed(young, winning(young, nowMs + 10)).state.mode).toBe(mode);
    },
  );

  test("of a guest that hears nobody waits as for a partner that was alone, however it lost it once", () => {
    const pair = new Pair();
    pair.start("a");
    expect(pair.runUntil(() => stateOf(pair).mode === "joining", 1000)).toBe(true);
    const goodbye = {
      reason: "goodbye",
      lastGrantedMs: undefined,
      soloBoundMs: 0,
      leasedAtMs: undefined,
    } as const;
    const { timing } = stateOf(pair);
    const nowMs = pair.timeline.nowMs + timing.startupWaitMs + 100;
    const guest = { ...stateOf(pair), loss: goodbye, diskReadable: true };
    const { state } = feed(guest, [{ kind: "tick", nowMs }]);
    expect(state.mode).toBe("racing");
    const won = feed(state, winning(state, nowMs + 10)).state;
    expect(won.openNotBeforeMs).toBe(nowMs + 10 + timing.soloSilentMs);
  });

  // Found by models/arbitration.pml: the partner had won c1 while we were not registered there; then we registered, and slept for long
  // before we noticed the loss. With c1 and a disk that the partner could not reach, both had a majority.
  test.each([
    [-1, "out"],
    [1, "alone"],
  ] as const)("counts a registration %i ms before the partner's last lease: %s", (before, mode) => {
    const state = stateOf(whole());
    const nowMs = 10_000;
    const sinceMs = 2000;
    const late = { ...state.registrations, c1: { at: "registered", sinceMs } as const };
    const observation = {
      kind: "partnerLost",
      reason: "silent",
      lastGrantedMs: 9000,
      soloBoundMs: 0,
      leasedAtMs: sinceMs + before,
    } as const;
    const paired = { ...state, registrations: late };
    const racing = feed(paired, [{ kind: "seen", nowMs, observation }]).state;
    const answers = winning(racing, nowMs + 1).map((each) =>
      each.kind === "reserved" && each.token.endsWith("c2")
        ? { ...each, answer: { status: "failed", reason: "no path" } as const }
        : each,
    );
    expect(feed(racing, answers).state.mode).toBe(mode);
  });

  test("of a guest learns nothing of the partner's gates from a loss during the race", () => {
    const pair = new Pair();
    pair.start("a");
    expect(pair.runUntil(() => stateOf(pair).mode === "racing", 5000)).toBe(true);
    const nowMs = pair.timeline.nowMs;
    const lost = { kind: "partnerLost", reason: "stalled", soloBoundMs: nowMs } as const;
    const observation = { ...lost, lastGrantedMs: undefined, leasedAtMs: undefined };
    const state = feed(stateOf(pair), [{ kind: "seen", nowMs, observation }]).state;
    const won = feed(state, winning(state, nowMs + 10)).state;
    expect(won.openNotBeforeMs).toBe(nowMs + 10 + state.timing.soloSilentMs);
  });

  test("ignores answers to another race", () => {
    const { state, nowMs } = racing();
    const others = winning({ ...state, race: { ...state.race, id: -1 } as never }, nowMs + 10);
    expect(feed(state, others).state).toBe(state);
  });
});

describe("an opened gate", () => {
  /** Alpha is open on its first lease, and the disk has been asked whether it is still ours. */
  const verifying = () => {
    const pair = new Pair();
    pair.start("a");
    pair.start("b");
    const step = () => {
      const phase = stateOf(pair).servers[0]?.phase;
      return phase?.kind === "starting" ? phase.step : undefined;
    };
    expect(pair.runUntil(() => step() === "verify", 5000)).toBe(true);
    const state = stateOf(pair);
    const [server] = state.servers;
    if (server?.phase.kind !== "starting" || !server.key) throw new Error("alpha does not start");
    const holder = { key: server.key, type: "exclusiveAccessRegistrantsOnly" } as const;
    const answer = { status: "reservation", generation: 1, holder } as const;
    const [token = ""] = server.phase.pending;
    return { state, token, answer, openedMs: server.phase.openedMs ?? 0 };
  };

  const gates = (effects: readonly Effect[]) =>
    effects.flatMap((each) => (each.kind === "gate" ? [each.command.kind] : []));

  test("is kept when the disk says in time that it is ours", () => {
    const { state, token, answer, openedMs } = verifying();
    const nowMs = openedMs + state.timing.firstLeaseMs - 1;
    const { effects } = feed(state, [{ kind: "reserved", nowMs, token, answer }]);
    expect(gates(effects)).toEqual(["gateKeep"]);
  });

  test("is closed and opened anew when time went by unnoticed", () => {
    const { state, token, answer, openedMs } = verifying();
    const nowMs = openedMs + state.timing.firstLeaseMs + 1;
    const { effects } = feed(state, [{ kind: "reserved", nowMs, token, answer }]);
    expect(gates(effects)).toEqual(["gateClose", "gateOpen"]);
  });

  test("is closed when the disk is somebody else's", () => {
    const { state, token, openedMs } = verifying();
    const answer = { status: "reservation", generation: 2 } as const;
    const { effects } = feed(state, [{ kind: "reserved", nowMs: openedMs + 1, token, answer }]);
    expect(gates(effects)).toEqual(["gateClose"]);
  });
});

describe("the coordinators' word", () => {
  test("refusing a beat of before our registration is no news, refusing a later one is the end", () => {
    const pair = new Pair();
    pair.start("a");
    expect(pair.runUntil(() => stateOf(pair).mode === "joining", 1000)).toBe(true);
    pair.run(5);
    const { nowMs } = pair.timeline;
    const refused = (sentAtMs: number): ControllerEvent => ({
      kind: "seen",
      nowMs,
      observation: { kind: "soloRefused", sentAtMs },
    });
    expect(feed(stateOf(pair), [refused(1)]).state.mode).toBe("joining");
    expect(feed(stateOf(pair), [refused(nowMs)]).state.mode).toBe("out");
  });

  test("is needed, and fresh, for every start of a controller that is alone", () => {
    const pair = new Pair();
    pair.start("a");
    expect(pair.runUntil(() => stateOf(pair).mode === "alone", 5000)).toBe(true);
    pair.run(1000);
    const { nowMs } = pair.timeline;
    const alone = stateOf(pair);
    const phases = [{ kind: "off" }, { kind: "failed", fault: "test", retryAtMs: 0 }] as const;
    for (const phase of phases) {
      const servers = alone.servers.map((server) => ({ ...server, phase }));
      const tick = { kind: "tick", nowMs } as const;
      const starts = (soloFresh: boolean) =>
        feed({ ...alone, servers, soloFresh }, [tick]).effects.filter(
          (each) => each.kind === "reserve" && each.command.op === "register",
        );
      expect(starts(false)).toEqual([]);
      expect(starts(true)).toHaveLength(2);
    }
  });
});

describe("a step", () => {
  test("of time that changes nothing gives the very same state and no effects", () => {
    const pair = whole();
    const state = stateOf(pair);
    const [after, effects] = controllerStep(state, { kind: "tick", nowMs: pair.timeline.nowMs });
    expect(after).toBe(state);
    expect(effects).toEqual([]);
  });

  test("gives its effects in the order in which they are safe", () => {
    const pair = whole();
    const rank = (effect: Effect) =>
      ["persist", "close", "grant", "reserve", "gate", "work", "mandate"].indexOf(
        effect.kind === "gate" && effect.command.kind === "gateClose" ? "close" : effect.kind,
      );
    for (const { controller } of pair.lives)
      for (const { effects } of controller.journal) {
        const ranks = effects.map(rank).filter((each) => each >= 0);
        expect(ranks).toEqual(ranks.toSorted((one, other) => one - other));
      }
  });

  test("knows no transition that the table of modes does not have", () => {
    const pair = whole();
    const broken = { ...stateOf(pair), mode: "joining" } as const;
    const view = { ...stateOf(pair).partner, mode: "starting", granting: true } as never;
    const event = { kind: "seen", nowMs: 1, observation: { kind: "partner", view } } as const;
    expect(feed(broken, [event]).state.mode).toBe("joining");
  });
});

describe("a pair", () => {
  /** A controller in a mode, with a partner that is as it should be but for what it has heard of us. */
  const meeting = (mode: "joining" | "alone", partnerMode: Mode, turnsAgo: number) => {
    const state = stateOf(whole());
    if (!state.partner) throw new Error("a has no partner");
    const answersTurn = state.turn - turnsAgo;
    const partner = { ...state.partner, mode: partnerMode, granting: true, answersTurn };
    return { ...state, mode, granted: undefined, partner };
  };
  const meet = (mode: "joining" | "alone", partnerMode: Mode, turnsAgo: number) =>
    feed(meeting(mode, partnerMode, turnsAgo), [{ kind: "tick", nowMs: 3000 }]);
  const granted = (effects: readonly Effect[]) => effects.some(({ kind }) => kind === "grant");

  test.each([
    ["joining", "paired"],
    ["joining", "joining"],
    ["alone", "joining"],
  ] as const)(
    "of one that is %s and one that is %s needs no news but that it is known",
    (mode, partner) => {
      expect(meet(mode, partner, 1).state.mode).toBe(mode);
      expect(meet(mode, partner, 0).state.mode).toBe("paired");
    },
  );

  test.each(["paired", "alone", "racing"] as const)(
    "is not made by one that is alone with one that is %s",
    (partner) => {
      const { state, effects } = meet("alone", partner, 0);
      expect(state.mode).toBe("alone");
      expect(granted(effects)).toBe(false);
    },
  );

  test.each(["joining", "alone"] as const)(
    "does not forget a newer epoch that was learnt before, from a disk or a beat: %s",
    (mode) => {
      const before = meeting(mode, "joining", 0);
      const learnt = { ...before, epochSeen: before.epoch + 20 };
      const { state } = feed(learnt, [{ kind: "tick", nowMs: 3000 }]);
      expect(state.mode).toBe("paired");
      expect(state.epochSeen).toBeGreaterThanOrEqual(learnt.epochSeen);
    },
  );

  test("is not promised by one that is alone to a guest of before it won", () => {
    expect(granted(meet("alone", "joining", 1).effects)).toBe(false);
    expect(granted(meet("alone", "joining", 0).effects)).toBe(true);
  });
});

describe("messages", () => {
  const message = (pair: Pair, id: number, body: Uint8Array): ControllerEvent => ({
    kind: "seen",
    nowMs: pair.timeline.nowMs,
    observation: { kind: "message", id, body },
  });

  test("that are malformed are told, acknowledged, and do nothing else", () => {
    const pair = whole();
    const text = new TextEncoder();
    const id = stateOf(pair).messageAck;
    for (const [i, body] of [
      "",
      "{",
      '{"type":"go"}',
      '{"type":"go","server":99}',
      "\u0000",
    ].entries()) {
      const before = stateOf(pair);
      const event = message(pair, id + 1 + i, text.encode(body));
      const { state, effects } = feed(before, [event]);
      expect(state).toMatchObject({
        servers: before.servers,
        transfers: {},
        messageAck: id + 1 + i,
      });
      expect(effects).toContainEqual(
        expect.objectContaining({ report: expect.objectContaining({ code: "message.malformed" }) }),
      );
    }
  });

  test("of a virtual server that is not there are told", () => {
    const pair = whole();
    const body = new TextEncoder().encode('{"type":"go","server":15}');
    const { effects } = feed(stateOf(pair), [message(pair, 1000, body)]);
    expect(effects).toContainEqual(
      expect.objectContaining({ report: expect.objectContaining({ code: "transfer.unknown" }) }),
    );
  });

  test("numbers are not used again after a loss, whatever was still to be said", () => {
    const pair = whole();
    const request = { dryRun: false, force: false, reason: "" };
    const nowMs = pair.timeline.nowMs;
    const command = {
      id: 1,
      by: "operator",
      kind: "transfer",
      virtualServer: "alpha",
      request,
    } as const;
    const said = feed(stateOf(pair), [{ kind: "command", nowMs, command }]).state;
    expect(said.outbox).toHaveLength(1);
    const fenced = { kind: "diskFenced", nowMs, serial: "d1", reason: "test" } as const;
    const out = feed(said, [fenced]).state;
    expect(out).toMatchObject({ mode: "out", outbox: [], messageId: said.messageId + 1 });
  });
});

describe("clients that the volume does not know", () => {
  /** Works that a controller is asked for from now on. */
  const watch = (pair: Pair, id: "a" | "b") => {
    const { works } = pair.controllers[id] ?? {};
    if (!works) throw new Error(`${id} was not started`);
    const asked: (Work | Lifecycle)[] = [];
    const perform = works.perform.bind(works);
    works.perform = (server, work, limitMs, settle) => {
      asked.push(work);
      perform(server, work, limitMs, settle);
    };
    return { works, announced: () => asked.filter((work) => work.op === "announce") };
  };

  test("are told to the partner by whoever can write there no more, and to nobody again", () => {
    const pair = whole();
    const [a, b] = [watch(pair, "a"), watch(pair, "b")];
    a.works.unsavedClients = "AAAA";
    pair.path("a", "d1", false);
    expect(pair.runUntil(() => b.announced().length === 1, 3000)).toBe(true);
    expect(b.announced()).toEqual([{ op: "announce", clients: "AAAA" }]);
    pair.run(100);
    expect(stateOf(pair).servers[0]?.clients).toBeUndefined();
    expect(pair.controllers.b?.state.servers[0]?.clients).toBeUndefined();
  });

  test("are remembered for the case that the partner cannot take it", () => {
    const pair = whole();
    const [a, b] = [watch(pair, "a"), watch(pair, "b")];
    a.works.unsavedClients = "AAAA";
    b.works.trouble.set("mount", { kind: "fail", left: 1 });
    pair.path("a", "d1", false);
    expect(pair.runUntil(() => stateOf(pair).servers[0]?.phase.kind === "off", 3000)).toBe(true);
    pair.path("a", "d1", true);
    expect(pair.runUntil(() => a.announced().length === 1, 5000)).toBe(true);
    expect(a.announced()).toEqual([{ op: "announce", clients: "AAAA" }]);
  });
});
