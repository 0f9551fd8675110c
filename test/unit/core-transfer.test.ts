/** Planned moves, message by message: what each side does with one that it expects, and with one that it does not. */
import { describe, expect, test } from "vitest";
import type { ControllerState, Transfer } from "../../firmware-ts/core/controller-state.ts";
import { mandateOf } from "../../firmware-ts/core/mandate.ts";
import {
  evacuate,
  offerServer,
  requestServer,
  type TransferMessage,
  transferMessage,
  transferTick,
} from "../../firmware-ts/core/transfer.ts";
import type { Phase, VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import type { ServerSet } from "../../firmware-ts/schema/server-set.ts";
import { claimOf, said } from "../support/one-server.ts";
import {
  busyPhase as busy,
  failedPhase,
  heldPhase as held,
  off,
  whole as pair,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 10_000;
const whole: ControllerState = { ...pair, outbox: [] };
const { timing } = whole;

const [alpha, beta] = [0, 1];
const change = (index: number, more: Partial<VirtualServerState>, state = whole) =>
  withServer(index, more, state);
const inPhase = (index: number, phase: Phase, state = whole) => change(index, { phase }, state);
const partnerOwning = (owned: ServerSet, state = whole) => withPartner({ owned }, state);

function moving(index: number, transfer: Partial<Transfer>, state = whole): ControllerState {
  const rest = { deadlineMs: nowMs + 100, urgent: false, why: "test" };
  return { ...state, transfers: { [index]: { ...rest, ...transfer } as Transfer } };
}
const source = (at: string, index = alpha, state = whole) =>
  moving(index, { role: "source", at } as Partial<Transfer>, state);
const target = (at: string, index = beta, state = whole) =>
  moving(index, { role: "target", at } as Partial<Transfer>, state);

/** How many moves of alpha have failed in a row, and until when none is begun by itself. */
const waitOf = ({ servers }: ControllerState) => [
  servers[alpha]?.movesFailed,
  servers[alpha]?.moveNotBeforeMs,
];

const hear = (state: ControllerState, message: TransferMessage) => {
  const [next, effects] = transferMessage(state, message, nowMs);
  return { next, effects, asked: said(effects), says: next.outbox };
};
const offerOf = (server: number): TransferMessage => ({
  type: "offer",
  server,
  urgent: false,
  why: "test",
});
const requestOf = (server: number): TransferMessage => ({ type: "request", server, why: "test" });

describe("a request", () => {
  test("for what is served here is answered by an offer", () => {
    const { next, says } = hear(whole, requestOf(alpha));
    expect(says).toEqual([offerOf(alpha)]);
    expect(next.transfers[alpha]).toEqual({
      role: "source",
      at: "offered",
      deadlineMs: nowMs + timing.transferAnswerMs,
      urgent: false,
      why: "test",
    });
  });

  test.each([off, failedPhase])("for what nobody serves is granted at once ($kind)", (phase) => {
    const { next, says } = hear(inPhase(alpha, phase), requestOf(alpha));
    expect(says).toMatchObject([{ type: "go", server: alpha }]);
    expect(next.servers[alpha]?.phase).toEqual(off);
    expect(next.transfers[alpha]).toMatchObject({
      role: "source",
      at: "released",
      deadlineMs: nowMs + timing.transferStartMs,
    });
  });

  test.each(["joining", "alone", "racing", "leaving"] as const)(
    "to one that is %s is refused: only members know what is whose",
    (mode) => {
      const { next, says } = hear({ ...inPhase(alpha, off), mode }, requestOf(alpha));
      expect(says).toMatchObject([{ type: "refuse", server: alpha }]);
      expect(next.transfers).toEqual({});
    },
  );

  test.each(["starting", "stopping"] as const)("for what is %s is refused", (kind) => {
    const { next, says } = hear(inPhase(alpha, busy(kind)), requestOf(alpha));
    expect(says).toMatchObject([{ type: "refuse", server: alpha }]);
    expect(next.transfers).toEqual({});
  });

  test("for what is being moved already is refused, and the move goes on", () => {
    const state = source("stopping");
    const { next, says } = hear(state, requestOf(alpha));
    expect(says).toMatchObject([{ type: "refuse", server: alpha }]);
    expect(next.transfers).toEqual(state.transfers);
  });

  test("of ours waits for an offer, and for the answer to ours", () => {
    const [next] = requestServer(whole, beta, "test", nowMs);
    expect(next.outbox).toEqual([requestOf(beta)]);
    expect(next.transfers[beta]).toMatchObject({
      role: "target",
      at: "requested",
      deadlineMs: nowMs + 2 * timing.transferAnswerMs,
    });
  });
});

describe("an offer", () => {
  test.each<[string, ControllerState]>([
    ["not paired", { ...whole, mode: "joining" }],
    ["without a data link", { ...whole, dataLinkUp: false }],
    ["without a path to its disk", { ...whole, pathsDown: ["d1", "d2"] }],
    ["that serves it", inPhase(beta, { kind: "serving", sinceMs: 0 })],
    ["that is starting it", inPhase(beta, busy("starting"))],
    ["that is stopping it", inPhase(beta, busy("stopping"))],
  ])("is refused by a controller %s", (_, state) => {
    const { next, says } = hear(state, offerOf(beta));
    expect(says).toMatchObject([{ type: "refuse", server: beta }]);
    expect(next.transfers).toEqual({});
  });

  test.each<[string, ControllerState]>([
    ["that has none of it", whole],
    ["where it failed before", inPhase(beta, failedPhase)],
    ["without a path to another disk", { ...whole, pathsDown: ["d1"] }],
  ])("is taken by a controller %s", (_, state) => {
    const { next, says } = hear(state, offerOf(beta));
    expect(says).toEqual([{ type: "ready", server: beta }]);
    expect(next.servers[beta]?.phase).toEqual(off);
    expect(next.transfers[beta]).toMatchObject({
      role: "target",
      at: "ready",
      deadlineMs: nowMs + timing.transferReadyMs,
    });
  });
});

describe("a ready target", () => {
  test("makes the source stop, as planned", () => {
    const { next, asked } = hear(source("offered"), { type: "ready", server: alpha });
    expect(asked).toEqual(["flush d1"]);
    expect(next.transfers[alpha]).toMatchObject({
      role: "source",
      at: "stopping",
      deadlineMs: nowMs + timing.transferStopMs,
    });
    expect(next.servers[alpha]?.phase).toMatchObject({ kind: "stopping", reason: "transfer" });
  });

  test("makes it stop by force where there is no path to the disk", () => {
    const pathless = source("offered", alpha, { ...whole, pathsDown: ["d1"] });
    expect(hear(pathless, { type: "ready", server: alpha }).asked).toEqual(["gateClose"]);
    const elsewhere = source("offered", alpha, { ...whole, pathsDown: ["d2"] });
    expect(hear(elsewhere, { type: "ready", server: alpha }).asked).toEqual(["flush d1"]);
    const [server] = whole.servers;
    if (!server) throw new Error("no alpha");
    const volumes = ["d1", "d3"].flatMap((disk) =>
      server.config.volumes.map((each) => ({ ...each, disk })),
    );
    const two = change(alpha, { config: { ...server.config, volumes } }, pathless);
    expect(hear(two, { type: "ready", server: alpha }).asked).toEqual(["gateClose"]);
  });

  test.each([off, failedPhase])("gets at once what is not there any more ($kind)", (phase) => {
    const { next, says } = hear(source("offered", alpha, inPhase(alpha, phase)), {
      type: "ready",
      server: alpha,
    });
    expect(says).toMatchObject([{ type: "go", server: alpha }]);
    expect(next.servers[alpha]?.phase).toEqual(off);
  });

  test.each([
    ["whose offer is none", whole],
    ["that is stopping it already", source("stopping")],
    ["that is a target itself", target("requested", alpha)],
  ])("is not heard by a source %s", (_, state) => {
    expect(transferMessage(state, { type: "ready", server: alpha }, nowMs)).toEqual([state, []]);
  });
});

describe("a refusal", () => {
  const refusal: TransferMessage = { type: "refuse", server: alpha, why: "busy" };

  test.each([source("offered"), target("requested", alpha)])(
    "ends what waits for an answer, and the next move of it waits a second",
    (state) => {
      const { next, asked } = hear(state, refusal);
      expect(next.transfers).toEqual({});
      expect(waitOf(next)).toEqual([0, nowMs + 1000]);
      expect(asked).toEqual(["transfer.refused"]);
    },
  );

  test.each([source("stopping"), source("released"), target("ready", alpha), whole])(
    "touches no move that is under way",
    (state) => {
      expect(transferMessage(state, refusal, nowMs)).toEqual([state, []]);
    },
  );
});

describe("a go", () => {
  const go: TransferMessage = { type: "go", server: beta, clients: "list" };

  test.each(["ready", "requested"])("starts it, at the address at once: %s", (at) => {
    const state = change(beta, { failures: 3 }, target(at));
    const { next, asked } = hear(state, go);
    expect(asked).toContain("register d2");
    expect(next.transfers[beta]).toMatchObject({
      role: "target",
      at: "starting",
      deadlineMs: nowMs + timing.transferStartMs,
    });
    expect(next.servers[beta]).toMatchObject({
      failures: 0,
      clients: "list",
      phase: { kind: "starting", notBeforeMs: nowMs },
    });
  });

  test("again, while it starts, is no news", () => {
    const state = target("starting");
    expect(transferMessage(state, go, nowMs)).toEqual([state, []]);
  });

  test.each<[string, ControllerState]>([
    ["expects nothing", whole],
    ["has declined it", target("declined")],
    ["is the source of it", source("offered", beta)],
    ["has something of it", target("ready", beta, inPhase(beta, failedPhase))],
    ["is not paired", { ...target("ready"), mode: "racing" }],
  ])("is declined by a controller that %s, which leaves it alone for a while", (_, state) => {
    const { next, says, asked } = hear(state, go);
    expect(says).toMatchObject([{ type: "failed", server: beta }]);
    expect(asked).toEqual([]);
    expect(next.servers).toEqual(state.servers);
    expect(next.transfers[beta]).toMatchObject({
      role: "target",
      at: "declined",
      deadlineMs: nowMs + timing.transferAnswerMs,
    });
  });
});

describe("the end of a move", () => {
  const gone = inPhase(alpha, off);

  test("at the source: what failed here before, and what it was told for it, is forgotten", () => {
    const before = change(alpha, { phase: failedPhase, clients: "list" });
    const { next, asked } = hear(source("released", alpha, before), {
      type: "started",
      server: alpha,
    });
    expect(asked).toEqual(["transfer.done"]);
    expect(next.transfers).toEqual({});
    expect(next.servers[alpha]?.phase).toEqual(off);
    expect(next.servers[alpha]?.clients).toBeUndefined();
    const tidying = source("released", alpha, inPhase(alpha, held));
    const after = hear(tidying, { type: "started", server: alpha }).next;
    expect(after.servers[alpha]?.phase).toEqual(held);
  });

  test.each([whole, target("ready", alpha)])("is not heard by who is no source", (state) => {
    for (const message of [
      { type: "started", server: alpha },
      { type: "failed", server: alpha, why: "x" },
    ] as const)
      expect(transferMessage(state, message, nowMs)).toEqual([state, []]);
  });

  const failure: TransferMessage = { type: "failed", server: alpha, why: "no" };
  test("the target failed: the source takes it back", () => {
    const { next, asked } = hear(source("released", alpha, gone), failure);
    expect(asked).toEqual(["transfer.failed", "persist", "vserver.starting", ...claimOf("d1")]);
    expect(next.transfers).toEqual({});
    expect(waitOf(next)).toEqual([1, nowMs + 1000]);
  });

  test("the target failed: a source that leaves does not take it back", () => {
    const leaving = { ...source("released", alpha, gone), mode: "leaving" } as const;
    const { next, asked } = hear(leaving, failure);
    expect(asked).toEqual(["transfer.failed"]);
    expect(next.servers[alpha]?.phase).toEqual(off);
    expect(next.transfers).toEqual({});
  });

  test("the target had given up and has started it by itself: nothing is taken from it", () => {
    const theirs = partnerOwning("11", source("released", alpha, gone));
    const { next, asked } = hear(theirs, failure);
    expect(asked).toEqual(["transfer.failed"]);
    expect(next.servers[alpha]?.phase).toEqual(off);
    expect(next.transfers).toEqual({});
  });

  test.each(["offered", "stopping"])("a failure before it was handed over is none: %s", (at) => {
    const state = source(at);
    expect(transferMessage(state, failure, nowMs)).toEqual([state, []]);
  });

  test("the target failed while the last of it is put away here: it is taken back after that", () => {
    const tidying = source("released", alpha, inPhase(alpha, busy("stopping", { hasLetGo: true })));
    const { next, asked } = hear(tidying, failure);
    expect(asked).toEqual([]);
    expect(next.transfers[alpha]).toMatchObject({ at: "released", failure: "no" });
    expect(transferTick(next, nowMs)).toEqual([next, []]);
    const [back, effects] = transferTick(inPhase(alpha, off, next), nowMs) ?? [next, []];
    expect(said(effects)).toContain("register d1");
    expect(back.transfers).toEqual({});
  });

  test("the target failed, and what is left here is held: it is offered again later", () => {
    const failed = moving(
      alpha,
      { role: "source", at: "released", failure: "no" } as Partial<Transfer>,
      inPhase(alpha, held),
    );
    const [next, effects] = transferTick(failed, nowMs) ?? [failed, []];
    expect(said(effects)).toEqual(["transfer.failed"]);
    expect(next.transfers).toEqual({});
    expect(waitOf(next)).toEqual([1, nowMs + 1000]);
  });
});

describe("with time", () => {
  const endMs = nowMs + 100;
  const tick = (state: ControllerState, atMs: number) => {
    const [next, effects] = transferTick(state, atMs) ?? [state, []];
    const isSame = next === state && effects.length === 0;
    return { next, asked: said(effects), says: next.outbox, isSame };
  };

  test("nothing is under way, and nothing is found", () => {
    expect(transferTick(whole, endMs)).toBeUndefined();
  });

  test("the source hands over as soon as its disks are released", () => {
    const state = source("stopping", alpha, inPhase(alpha, busy("stopping")));
    expect(tick(state, endMs - 1).isSame).toBe(true);
    const free = source("stopping", alpha, inPhase(alpha, busy("stopping", { hasLetGo: true })));
    const { next, says, asked } = tick(free, nowMs);
    expect(says).toMatchObject([{ type: "go", server: alpha }]);
    expect(asked).toEqual(["transfer.released"]);
    expect(next.transfers[alpha]).toMatchObject({ at: "released" });
  });

  test("an offer without an answer, and a stop without an end, are off", () => {
    for (const state of [
      source("offered"),
      source("stopping", alpha, inPhase(alpha, busy("stopping"))),
    ]) {
      expect(tick(state, endMs - 1).isSame).toBe(true);
      const { next, asked } = tick(state, endMs);
      expect(asked).toEqual(["transfer.timeout"]);
      expect(next.transfers).toEqual({});
      expect(waitOf(next)).toEqual([1, endMs + 1000]);
    }
  });

  test("a target that says nothing loses it again, unless it has it or we are no pair", () => {
    const released = (more: ControllerState) => source("released", alpha, more);
    const back = tick(released(inPhase(alpha, off)), endMs);
    expect(back.asked).toEqual([
      "transfer.timeout",
      "persist",
      "vserver.starting",
      ...claimOf("d1"),
    ]);
    const theirs = tick(released(partnerOwning("11", inPhase(alpha, off))), endMs);
    expect(theirs.asked).toEqual(["transfer.timeout"]);
    const alone = { ...inPhase(alpha, off), mode: "leaving" } as const;
    expect(tick(released(alone), endMs).asked).toEqual(["transfer.timeout"]);
    const tidying = released(inPhase(alpha, busy("stopping", { hasLetGo: true })));
    expect(tick(tidying, endMs).isSame).toBe(true);
  });

  test("the target says how its start ended", () => {
    const starting = (phase: Phase) => target("starting", beta, inPhase(beta, phase));
    expect(tick(starting(busy("starting")), 1e8).isSame).toBe(true);
    const served = tick(starting({ kind: "serving", sinceMs: 0 }), nowMs);
    expect(served.says).toEqual([{ type: "started", server: beta }]);
    expect(served.asked).toEqual([]);
    expect(served.next.transfers).toEqual({});
    const broken = tick(starting(failedPhase), nowMs);
    expect(broken.says).toEqual([{ type: "failed", server: beta, why: "broken here" }]);
    expect(broken.next.servers[beta]?.phase).toEqual(off);
    expect(broken.next.transfers[beta]).toMatchObject({ at: "declined" });
    const stopped = tick(starting(off), nowMs);
    expect(stopped.says).toMatchObject([{ type: "failed", server: beta }]);
  });

  describe("a target whose start failed, and where somebody holds what is left of it,", () => {
    const heldHere = { ...held, reason: "failed" } as Phase;
    const state = target("starting", beta, change(beta, { phase: heldHere, fault: "mount: no" }));
    const { next, says, asked } = tick(state, nowMs);

    test("declines at once, and claims it no more", () => {
      expect(says).toEqual([{ type: "failed", server: beta, why: "mount: no" }]);
      expect(asked).toEqual([]);
      expect(next.transfers[beta]).toMatchObject({ role: "target", at: "declined" });
      expect([mandateOf(state).owned, mandateOf(next).owned]).toEqual(["11", "1"]);
    });

    test("does not try it again by itself: it ends as off", () => {
      expect(next.servers[beta]?.phase).toEqual({ ...heldHere, reason: "transfer" });
    });

    test("keeps to that for as long as it is held", () => {
      const later = tick({ ...next, outbox: [] }, nowMs + 1e6);
      expect(later.isSame).toBe(true);
      const free = inPhase(beta, off, next);
      expect(tick(free, nowMs + timing.transferAnswerMs - 1).isSame).toBe(true);
      expect(tick(free, nowMs + timing.transferAnswerMs).next.transfers).toEqual({});
    });

    test("gives it to whoever asks for it", () => {
      const asking = hear({ ...next, outbox: [] }, requestOf(beta));
      expect(asking.says).toMatchObject([{ type: "go", server: beta }]);
      expect(asking.next.transfers[beta]).toMatchObject({ role: "source", at: "released" });
    });

    test.each<[string, Phase]>([
      ["is being put away", busy("stopping", { hasLetGo: true, reason: "failed" })],
      ["is not released", busy("stopping", { reason: "failed" })],
    ])("waits while it %s", (_, phase) => {
      expect(tick(target("starting", beta, inPhase(beta, phase)), nowMs).isSame).toBe(true);
    });

    test("claims what is held for any other reason", () => {
      for (const other of [inPhase(beta, held), source("released", beta, inPhase(beta, held))])
        expect(mandateOf(other).owned).toBe("11");
      const declined = target("declined", beta, inPhase(beta, busy("starting")));
      expect(mandateOf(declined).owned).toBe("11");
      expect(hear(declined, requestOf(beta)).says).toMatchObject([{ type: "refuse" }]);
      expect(hear(target("declined"), requestOf(beta)).says).toMatchObject([{ type: "refuse" }]);
    });
  });

  test.each([
    ["requested", ["transfer.timeout"]],
    ["ready", ["transfer.timeout"]],
    ["declined", []],
  ])("a target that has %s gives up in the end: %j", (at, asked) => {
    const state = target(at);
    expect(tick(state, endMs - 1).isSame).toBe(true);
    const after = tick(state, endMs);
    expect(after.next.transfers).toEqual({});
    expect(after.asked).toEqual(asked);
  });
});

describe("an urgent move", () => {
  const offers = (state: ControllerState) => {
    const [next, effects] = evacuate(state, nowMs) ?? [state, []];
    expect(said(effects)).toEqual(next.outbox.map(() => "transfer.offered"));
    return next.outbox.map((each) => (each.type === "offer" ? [each.server, each.urgent] : each));
  };
  const linkless: ControllerState = { ...whole, dataLinkUp: false };

  test("is offered for what cannot be served here", () => {
    expect(offers(whole)).toEqual([]);
    expect(offers(linkless)).toEqual([[alpha, true]]);
    expect(offers({ ...whole, pathsDown: ["d1"] })).toEqual([[alpha, true]]);
    expect(offers({ ...whole, pathsDown: ["d2"] })).toEqual([]);
    expect(offers(inPhase(beta, { kind: "serving", sinceMs: 0 }, linkless))).toEqual([
      [alpha, true],
      [beta, true],
    ]);
  });

  test.each([busy("starting"), busy("stopping"), off])("not for what is $kind", (phase) => {
    expect(offers(inPhase(alpha, phase, linkless))).toEqual([]);
  });

  test("is offered for what has failed here twice", () => {
    const failures = (count: number) => change(alpha, { phase: failedPhase, failures: count });
    expect([1, 2, 3].map((count) => offers(failures(count)))).toEqual([
      [],
      [[alpha, true]],
      [[alpha, true]],
    ]);
    expect(offers(change(alpha, { failures: 9 }))).toEqual([]);
  });

  test("is offered for what is held here, unless the partner has it", () => {
    const state = inPhase(alpha, held);
    expect(offers(partnerOwning("01", state))).toEqual([[alpha, true]]);
    expect(offers(partnerOwning("1", state))).toEqual([]);
  });

  test.each<[string, ControllerState]>([
    ["that is no partner", { ...linkless, mode: "alone" }],
    ["that is not heard", { ...linkless, partner: undefined }],
    [
      "whose link is down too",
      { ...linkless, partner: { ...whole.partner, dataLinkDown: true } as never },
    ],
    ["that is being asked already", source("offered", alpha, linkless)],
    ["that has just refused", change(alpha, { moveNotBeforeMs: nowMs + 1 }, linkless)],
  ])("is not offered to a partner %s", (_, state) => {
    expect(evacuate(state, nowMs)).toBeUndefined();
  });

  test("is offered again from the moment on at which it may be", () => {
    expect(offers(change(alpha, { moveNotBeforeMs: nowMs }, linkless))).toEqual([[alpha, true]]);
  });

  test("says that it is urgent, also to who keeps it in mind", () => {
    const [next] = offerServer(whole, alpha, true, "test", nowMs);
    expect(next.transfers[alpha]).toMatchObject({ urgent: true });
    const [after] = transferMessage(next, { type: "ready", server: alpha }, nowMs);
    expect(after.transfers[alpha]).toMatchObject({ at: "stopping", urgent: true });
  });
});
