/** How many planned moves are under way at once, which one is next, and what a queued one is until then: nothing. */
import { describe, expect, test } from "vitest";
import { controllerStep } from "../../firmware-ts/core/controller.ts";
import type { ControllerState, Transfer } from "../../firmware-ts/core/controller-state.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import { statusOf } from "../../firmware-ts/core/show.ts";
import { goOut, partnerLost } from "../../firmware-ts/core/takeover.ts";
import { type TransferMessage, transferMessage } from "../../firmware-ts/core/transfer.ts";
import {
  beginQueued,
  movesAtOnce,
  offerInTurn,
  requestInTurn,
} from "../../firmware-ts/core/transfer-window.ts";
import { planMoves, vetoes } from "../../firmware-ts/core/vetoes.ts";
import type { Phase, VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { encodeMessage } from "../../firmware-ts/schema/messages.ts";
import { said } from "../support/one-server.ts";
import {
  busyPhase as busy,
  failedPhase,
  heldPhase as held,
  off,
  servingPhase,
  wholeOf,
  withPartner,
  withServer,
} from "../support/whole-pair.ts";

const nowMs = 10_000;
const count = 8;
const all = Array.from({ length: count }, (_, index) => index);
const [first, waiting] = [all.slice(0, movesAtOnce), all.slice(movesAtOnce)];
/** The first of those that wait. */
const next = movesAtOnce;

const pair = wholeOf({ servers: count });
const { timing } = pair;
const settled: ControllerState = { ...pair, outbox: [], pairedSinceMs: nowMs };
const change = (index: number, more: Partial<VirtualServerState>, state: ControllerState) =>
  withServer(index, more, state);
const inPhase = (index: number, phase: Phase, state: ControllerState) =>
  change(index, { phase }, state);
const everywhere = (phase: Phase, state: ControllerState) =>
  all.reduce((before, index) => inPhase(index, phase, before), state);

/** All is served here, and nothing there; and the other way round. */
const here = withPartner({ owned: "0".repeat(count) }, everywhere(servingPhase, settled));
const there = withPartner({ owned: "1".repeat(count) }, everywhere(off, settled));

type Ask = typeof offerInTurn;
const askFor = (indexes: readonly number[], ask: Ask, state: ControllerState) =>
  indexes.reduce((before, index) => ask(before, index, "test", nowMs)[0], state);

/** All are asked for; what was said about the first of them was heard. */
const offering: ControllerState = { ...askFor(all, offerInTurn, here), outbox: [] };
const requesting: ControllerState = { ...askFor(all, requestInTurn, there), outbox: [] };
const request = { dryRun: false, force: false, reason: "" };
const command = { id: 1, kind: "giveback", by: "operator", request } as const;
const sides = [
  ["offers", offering, offerInTurn],
  ["requests", requesting, requestInTurn],
] as const;

const queue = ({ queuedMoves }: ControllerState) => queuedMoves.map(({ index }) => index);
const underWay = ({ transfers }: ControllerState) => Object.keys(transfers).map(Number);
const begun = ({ outbox }: ControllerState) =>
  outbox.flatMap((each) => (each.type === "offer" || each.type === "request" ? [each.server] : []));

function moving(index: number, more: Partial<Transfer>, state: ControllerState): ControllerState {
  const transfer = { ...state.transfers[index], ...more } as Transfer;
  return { ...state, transfers: { ...state.transfers, [index]: transfer } };
}

function happen(state: ControllerState, event: ControllerEvent) {
  const [after, effects] = controllerStep(state, event);
  return { after, told: said(effects) };
}
const tick = (state: ControllerState, atMs = nowMs) => happen(state, { kind: "tick", nowMs: atMs });
const hear = (state: ControllerState, message: TransferMessage) =>
  happen(state, {
    kind: "seen",
    nowMs,
    observation: { kind: "message", id: state.messageAck + 1, body: encodeMessage(message) },
  });

describe("of many moves that are asked for", () => {
  test.each(sides)(
    "only a few begin at once, the others are not even told: %s",
    (_, state, ask) => {
      expect(underWay(state)).toEqual(first);
      expect(queue(state)).toEqual(waiting);
      expect(begun(askFor(all, ask, { ...(ask === offerInTurn ? here : there) }))).toEqual(first);
    },
  );

  test("those that wait are served as before: nothing is asked of anybody", () => {
    const [after, effects] = offerInTurn(askFor(first, offerInTurn, here), next, "test", nowMs);
    expect(effects).toEqual([]);
    expect(after.servers).toBe(here.servers);
  });

  test.each(sides)("each waits in the order in which it was asked for: %s", (_, state, ask) => {
    const empty = { ...state, transfers: {}, queuedMoves: [] };
    const backwards = askFor(all.toReversed(), ask, empty);
    const inOrder = all.toReversed().slice(movesAtOnce);
    expect(queue(backwards)).toEqual(inOrder);
    const { after } = tick({ ...backwards, transfers: {}, outbox: [] });
    expect(begun(after)).toEqual(inOrder.slice(0, movesAtOnce));
  });

  test.each(sides)("one that is asked for again keeps its place: %s", (_, state, ask) => {
    expect(askFor(waiting.toReversed(), ask, state)).toBe(state);
  });

  test("one that has declined counts no more, for nothing is done about it", () => {
    const free = moving(0, { role: "target", at: "declined", deadlineMs: 1e9 }, offering);
    expect(begun(tick(free).after)).toEqual([next]);
  });

  test("what the partner asks for begins at once, and counts", () => {
    const served = first.slice(1).reduce((state, index) => {
      return hear(state, { type: "request", server: index, why: "test" }).after;
    }, here);
    const two = askFor([0, next], offerInTurn, served);
    expect([underWay(two), queue(two)]).toEqual([first, [next]]);
    const more = hear(two, { type: "request", server: next, why: "test" }).after;
    expect(underWay(more)).toEqual([...first, next]);
    expect(queue(more)).toEqual([]);
  });
});

describe("the next one begins in the very step in which another move ends", () => {
  const released = (state: ControllerState) =>
    inPhase(0, off, moving(0, { at: "released", deadlineMs: nowMs + 1000 }, state));

  test.each<[string, ControllerState, TransferMessage]>([
    ["well", released(offering), { type: "started", server: 0 }],
    ["by a failure", released(offering), { type: "failed", server: 0, why: "no" }],
    ["by a refusal of an offer", offering, { type: "refuse", server: 0, why: "no" }],
    ["by a refusal of a request", requesting, { type: "refuse", server: 0, why: "no" }],
  ])("%s", (_, state, message) => {
    const { after } = hear(state, message);
    expect(begun(after)).toEqual([next]);
    expect(queue(after)).toEqual(waiting.slice(1));
    expect(Object.keys(after.transfers)).toHaveLength(movesAtOnce);
  });

  test("because it is served here now", () => {
    const arrived = inPhase(0, servingPhase, moving(0, { at: "starting" }, requesting));
    const { after } = tick(arrived);
    expect(after.outbox).toMatchObject([
      { type: "started", server: 0 },
      { type: "request", server: next },
    ]);
  });

  test.each(sides)("by their time, all at once: %s", (_, state) => {
    const endMs = nowMs + 2 * timing.transferAnswerMs;
    expect(underWay(tick(state, nowMs + timing.transferAnswerMs - 1).after)).toEqual(first);
    const { after } = tick(state, endMs);
    expect(underWay(after)).toEqual(waiting.slice(0, movesAtOnce));
    expect(queue(after)).toEqual(waiting.slice(movesAtOnce));
  });

  test("and not before there is room", () => {
    expect(beginQueued(offering, nowMs)).toBeUndefined();
    expect(beginQueued(here, nowMs)).toBeUndefined();
  });
});

/** There is room for one more. */
const room = (state: ControllerState): ControllerState => {
  const { 0: _, ...transfers } = state.transfers;
  return { ...state, transfers };
};

describe("a move whose turn it is", () => {
  test.each([servingPhase, failedPhase])("begins if it is here: $kind", (phase) => {
    expect(begun(tick(inPhase(next, phase, room(offering))).after)).toEqual([next]);
  });

  test.each([
    busy("starting"),
    busy("stopping", { reason: "failed" }),
    busy("stopping", { reason: "failed", hasLetGo: true }),
  ])("waits for what its virtual server is about to be ($kind), and others go first", (phase) => {
    const [after] = beginQueued(inPhase(next, phase, room(offering)), nowMs) ?? [offering];
    expect(begun(after)).toEqual([next + 1]);
    expect(queue(after)).toEqual([next, ...waiting.slice(2)]);
    // Nor does one that is asked for now go first.
    const one = { ...room(offering), queuedMoves: offering.queuedMoves.slice(0, 1) };
    expect(queue(askFor([next + 1], offerInTurn, one))).toEqual([next, next + 1]);
  });

  type Case = [string, ControllerState];
  const away = (more: Parameters<typeof withPartner>[0], state: ControllerState) =>
    withPartner(more, room(state));
  const others = (partner: string) => Object.assign([...partner], { [next]: "0" }).join("");
  test.each<Case>([
    ["it is served here no more", inPhase(next, off, room(offering))],
    ["it is being stopped here", inPhase(next, busy("stopping"), room(offering))],
    [
      "what is left of it is held here",
      inPhase(next, { ...held, reason: "failed" } as Phase, room(offering)),
    ],
    ["it is here already", inPhase(next, servingPhase, room(requesting))],
    ["it is starting here already", inPhase(next, busy("starting"), room(requesting))],
    ["the partner has it no more", away({ owned: others("1".repeat(count)) }, requesting)],
  ])("ends, and is told: %s", (_, state) => {
    const [after, effects] = beginQueued(state, nowMs) ?? [state, []];
    expect(said(effects)).toContain("transfer.dropped");
    expect(begun(after)).toEqual([next + 1]);
    expect(queue(after)).toEqual(waiting.slice(2));
    // That is not left until there is room.
    const [full] = beginQueued({ ...state, transfers: offering.transfers }, nowMs) ?? [state];
    expect(queue(full)).toEqual(waiting.slice(1));
  });

  test.each<Case>([
    ["we are no pair", { ...room(offering), mode: "racing" }],
    ["who leaves takes nothing", { ...room(requesting), mode: "leaving", leaveDeadlineMs: 1e9 }],
    ["the partner leaves", away({ mode: "leaving" }, offering)],
    ["the partner leaves, and is asked", away({ mode: "leaving" }, requesting)],
    ["nobody is heard", { ...room(offering), partner: undefined }],
    ["the partner's data link has no carrier", away({ dataLinkDown: true }, offering)],
    ["ours has none", { ...room(requesting), dataLinkUp: false }],
  ])("and so do all that wait, none is begun in vain: %s", (_, state) => {
    const [after, effects] = beginQueued(state, nowMs) ?? [state, []];
    expect(said(effects)).toEqual(waiting.map(() => "transfer.dropped"));
    expect([begun(after), queue(after)]).toEqual([[], []]);
    expect(beginQueued({ ...state, transfers: offering.transfers }, nowMs)).toBeUndefined();
  });

  test("ends where there is no path to its disk, which nobody else's is", () => {
    const pathless = { ...room(requesting), pathsDown: [`d${next + 1}`] };
    const [after, effects] = beginQueued(pathless, nowMs) ?? [pathless, []];
    expect(said(effects)).toEqual(["transfer.dropped"]);
    expect(begun(after)).toEqual([next + 1]);
  });

  test("does not mind what only matters to the other side", () => {
    expect(begun(tick(away({ dataLinkDown: true }, requesting)).after)).toEqual([next]);
  });
});

describe("an urgent move", () => {
  test("does not wait behind others, nor do those that were queued and cannot stay", () => {
    const { after } = happen(offering, { kind: "carrier", up: false, nowMs });
    expect(after.outbox).toMatchObject(
      waiting.map((server) => ({ type: "offer", server, urgent: true })),
    );
    expect(queue(after)).toEqual([]);
  });

  test("leaves the others where they are", () => {
    const last = count - 1;
    const serial = `d${last + 1}`;
    const { after } = happen(offering, { kind: "diskPath", serial, up: false, reason: "x", nowMs });
    expect(after.outbox).toMatchObject([{ type: "offer", server: last, urgent: true }]);
    expect(queue(after)).toEqual(waiting.slice(0, -1));
  });

  test("takes the place of those that wait", () => {
    const serial = `d${count}`;
    const event = { kind: "diskPath", serial, up: false, reason: "x", nowMs } as const;
    const { after } = happen(room(offering), event);
    expect([begun(after), queue(after)]).toEqual([[count - 1], waiting.slice(0, -1)]);
  });

  test("that came to nothing is not begun again sooner for being queued", () => {
    const resting = change(
      next,
      { moveNotBeforeMs: nowMs + 1 },
      { ...offering, dataLinkUp: false },
    );
    const { after } = tick(resting);
    expect([begun(after), queue(after)]).toEqual([waiting.slice(1), [next]]);
    expect(begun(tick(after, nowMs + 1).after)).toContain(next);
  });

  const leaving: ControllerState = { ...offering, mode: "leaving", leaveDeadlineMs: nowMs + 1 };

  test("is not held up by who leaves", () => {
    const { after } = happen(leaving, { kind: "carrier", up: false, nowMs });
    expect(after.outbox).toMatchObject(
      waiting.map((server) => ({ type: "offer", server, urgent: true })),
    );
  });

  test("is that of what has failed, at once, if we leave: it is not tried again here", () => {
    const { after } = tick(inPhase(next, failedPhase, leaving));
    expect(after.outbox).toMatchObject([{ type: "offer", server: next, urgent: true }]);
    expect(queue(after)).toEqual(waiting.slice(1));
    expect(begun(tick(inPhase(next, failedPhase, offering)).after)).toEqual([]);
  });
});

describe("what is said about a queued move is answered as if it had not been asked for", () => {
  const untouched = (state: ControllerState): ControllerState => ({ ...state, queuedMoves: [] });
  const messages: TransferMessage[] = [
    { type: "request", server: next, why: "test" },
    { type: "offer", server: next, urgent: false, why: "test" },
    { type: "go", server: next },
    { type: "ready", server: next },
    { type: "refuse", server: next, why: "test" },
    { type: "started", server: next },
    { type: "failed", server: next, why: "test" },
  ];

  test.each(
    messages.flatMap((message) => sides.map((side) => [message.type, message, side] as const)),
  )("%s", (_, message, [, state]) => {
    const [after, effects] = transferMessage(state, message, nowMs);
    const [plain, same] = transferMessage(untouched(state), message, nowMs);
    expect([untouched(after), effects]).toEqual([plain, same]);
    // It is under way now, or waits still; never both.
    expect(queue(after)).toEqual(plain.transfers[next] ? waiting.slice(1) : waiting);
  });

  test("a go that comes for it nevertheless is declined: nobody waits for that", () => {
    const [after] = transferMessage(requesting, { type: "go", server: next }, nowMs);
    expect(after.outbox).toMatchObject([{ type: "failed", server: next }]);
    expect(after.servers).toBe(requesting.servers);
  });
});

describe("nothing is queued any more", () => {
  const loss = { reason: "silent", lastGrantedMs: nowMs, soloBoundMs: 0, leasedAtMs: 0 } as const;

  test.each(sides)("when the partner is lost: %s", (_, state) => {
    expect(partnerLost(state, loss, nowMs)[0]).toMatchObject({ mode: "racing", queuedMoves: [] });
  });

  test.each(sides)("when this controller falls out: %s", (_, state) => {
    expect(goOut(state, nowMs, "test")[0]).toMatchObject({ mode: "out", queuedMoves: [] });
  });
});

describe("a controller that leaves", () => {
  const leave = (state: ControllerState) =>
    happen(state, { kind: "shutdown", reason: "asked to stop", nowMs });
  const { after: leaving } = leave(here);
  const timeOf = (turns: number) => 5000 + 1000 * (turns - 1);
  const endMs = nowMs + timeOf(count / movesAtOnce);
  const kinds = ({ servers }: ControllerState) => servers.map(({ phase }) => phase.kind);

  test("offers what it serves in turn, and serves the rest", () => {
    expect([begun(leaving), queue(leaving)]).toEqual([first, waiting]);
    expect(new Set(kinds(leaving))).toEqual(new Set(["serving"]));
  });

  test.each([
    [1, 1],
    [movesAtOnce, 1],
    [movesAtOnce + 1, 2],
    [count, count / movesAtOnce],
  ])("has time for each turn: %i take %i", (served, turns) => {
    const some = all.slice(served).reduce((state, index) => inPhase(index, off, state), here);
    expect(leave(some).after.leaveDeadlineMs).toBe(nowMs + timeOf(turns));
  });

  test("has time for what is on its way, too", () => {
    const gone = moving(
      0,
      { at: "released", deadlineMs: 1e9 },
      { ...everywhere(off, here), transfers: offering.transfers },
    );
    expect(leave(gone).after).toMatchObject({
      leaveDeadlineMs: nowMs + timeOf(1),
      farewellMs: undefined,
    });
  });

  test("does not say goodbye before the last had its turn", () => {
    const gone = { ...everywhere(off, leaving), transfers: {}, outbox: [] };
    const last = inPhase(next, servingPhase, gone);
    const { after } = tick({ ...last, queuedMoves: leaving.queuedMoves.slice(0, 1) });
    expect(begun(after)).toEqual([next]);
    expect(after.farewellMs).toBeUndefined();
    // It has failed while others were moved: the partner shall try.
    const failed = inPhase(next, failedPhase, gone);
    const waits = { ...failed, queuedMoves: leaving.queuedMoves.slice(0, 1) };
    expect(begun(tick(waits).after)).toEqual([next]);
    expect(tick(waits).after.farewellMs).toBeUndefined();
  });

  test("waits for nothing that was to come here: neither for a turn, nor for its start", () => {
    const gone = { ...everywhere(off, leaving), outbox: [], transfers: requesting.transfers };
    const last = inPhase(next, servingPhase, gone);
    expect(begun(tick({ ...last, queuedMoves: leaving.queuedMoves.slice(0, 1) }).after)).toEqual([
      next,
    ]);
    const starting = inPhase(0, busy("starting"), moving(0, { at: "starting" }, requesting));
    const { after } = leave({ ...starting, queuedMoves: [] });
    expect(after.servers[0]?.phase).toMatchObject({ kind: "stopping", reason: "leave" });
    // That is begun before we are asked to leave, or heard of a moment later.
    const late = tick({ ...starting, queuedMoves: [], mode: "leaving", leaveDeadlineMs: endMs });
    expect(late.after.servers[0]?.phase).toMatchObject({ kind: "stopping", reason: "leave" });
    const stopped = tick(inPhase(0, off, { ...after, outbox: [] })).after;
    expect(stopped.outbox).toMatchObject([{ type: "failed", server: 0 }]);
    expect(stopped.farewellMs).toBe(nowMs);
  });

  test("stops what did not come to its turn in time, and begins nothing then", () => {
    const slow = first.reduce((state, index) => moving(index, { deadlineMs: 1e9 }, state), leaving);
    expect(new Set(kinds(tick(slow, endMs - 1).after))).toEqual(new Set(["serving"]));
    for (const state of [slow, leaving]) {
      const { after } = tick({ ...state, outbox: [] }, endMs);
      expect(new Set(kinds(after))).toEqual(new Set(["stopping"]));
      expect([begun(after), queue(after)]).toEqual([[], []]);
    }
  });

  test("stops what waits at once when the partner is lost", () => {
    const observation = {
      kind: "partnerLost",
      reason: "silent",
      lastGrantedMs: nowMs,
      soloBoundMs: 0,
      leasedAtMs: 0,
    } as const;
    const { after } = happen(leaving, { kind: "seen", observation, nowMs });
    expect(new Set(kinds(after))).toEqual(new Set(["stopping"]));
    expect(queue(after)).toEqual([]);
  });

  test("lets what waits for its turn start again, which its file service may have made it do", () => {
    const again = inPhase(next, busy("starting"), leaving);
    expect(kinds(tick(again).after)[next]).toBe("starting");
    const { after } = tick(room({ ...inPhase(next, servingPhase, again), outbox: [] }));
    expect(begun(after)).toEqual([next]);
  });

  test("takes nothing more, and moves everything, whatever was asked for before", () => {
    const mixed = inPhase(0, servingPhase, requesting);
    const { after } = leave({ ...mixed, transfers: {} });
    expect([begun(after), queue(after)]).toEqual([[0], []]);
    const some = { ...offering, queuedMoves: offering.queuedMoves.slice(2) };
    expect(queue(leave(some).after)).toEqual(waiting);
  });
});

describe("the operator", () => {
  const step = (state: ControllerState, index: number) =>
    statusOf(state, { uptimeMs: 0, links: {}, refusedFrames: {} }).virtualServers[index];

  test("is told what waits for its turn, and that it is served until then", () => {
    expect(step(offering, next)).toMatchObject({ state: "serving", owner: "a", step: "queued" });
    expect(step(requesting, next)).toMatchObject({
      state: "elsewhere",
      owner: "b",
      step: "queued",
    });
    expect(step(offering, 0)).not.toHaveProperty("step");
    expect(step(inPhase(next, busy("starting"), offering), next)).toMatchObject({ step: "mount" });
  });

  test("cannot ask for it a second time, and for others he can", () => {
    const codes = (state: ControllerState, index: number) =>
      vetoes(state, [{ index, to: "b" }]).map(({ code, severity }) => `${severity} ${code}`);
    expect(codes(offering, next)).toEqual(["hard transferUnderWay"]);
    expect(codes({ ...offering, queuedMoves: [] }, next)).toEqual([]);
  });

  test("gives a command once for all, and every move of its plan begins or waits", () => {
    const calm = {
      ...here,
      colours: { serial: "green", network: "green", disk: "green" },
    } as const;
    const { after } = happen(calm, { kind: "command", command, nowMs });
    const planned = planMoves(calm, command).map(({ index }) => index);
    expect([...begun(after), ...queue(after)]).toEqual(planned);
    expect(begun(after)).toEqual(planned.slice(0, movesAtOnce));
  });
});

describe("what begins by itself", () => {
  const restless: ControllerState = {
    ...here,
    config: { ...here.config, autoGiveback: true },
    pairedSinceMs: 0,
    partnerLinkedSinceMs: 0,
  };
  const atMs = 60_000 - 1;

  test("goes home in turn, and waits for it once", () => {
    const home = planMoves(here, command).map(({ index }) => index);
    const some = all.filter((index) => !home.includes(index)).slice(0, movesAtOnce - 1);
    const busy = { ...askFor(some, offerInTurn, restless), outbox: [] };
    const { after } = tick(busy, nowMs + 100);
    expect([begun(after), queue(after)]).toEqual([home.slice(0, 1), home.slice(1)]);
    expect(queue(tick(after, nowMs + 200).after)).toEqual(home.slice(1));
  });

  test("is not kept waiting where nobody serves it", () => {
    const orphan = inPhase(1, off, { ...offering, pairedSinceMs: 0, transfers: {} });
    const full = {
      ...askFor([0, 2, 4, 6].slice(0, movesAtOnce), offerInTurn, { ...orphan, queuedMoves: [] }),
      outbox: [],
    };
    expect(begun(tick(full, atMs).after)).toContain(1);
  });
});
