/**
 * Two production controllers with eight virtual servers that are moved about, many at once, under faults: no controller ever has more
 * moves under way that it began in turn than it may, what waits loses its place only to what cannot stay, and whoever is asked to leave ends
 * with everything served by the other.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { movesAtOnce } from "../../firmware-ts/core/transfer-window.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { decodeMessage } from "../../firmware-ts/schema/messages.ts";
import { mendedWithinMs } from "../../hal/sim/bounds.ts";
import { mendAll, strike, supervise } from "../../hal/sim/chaos.ts";
import type { Stepped } from "../../hal/sim/controller.ts";
import { ids, Pair } from "../../hal/sim/pair.ts";
import { isWhole } from "../../hal/sim/wholeness.ts";

const servers = 8;
const names = new Pair({ servers }).config("a").virtualServers.map(({ name }) => name);

/** Which move the partner asks for in this event, if it does. */
function askedByPartner({ event }: Stepped): number | undefined {
  if (event.kind !== "seen" || event.observation.kind !== "message") return undefined;
  const message = decodeMessage(event.observation.body);
  return message?.type === "request" ? message.server : undefined;
}

/** Watches the moves that each controller begins in its turns. */
class Watch {
  readonly #begun: Record<ControllerId, Set<number>> = { a: new Set(), b: new Set() };
  /** The most that one had under way, and the most that waited. */
  underWayMax = 0;
  queuedMax = 0;

  readonly stepped = (step: Stepped): void => {
    const { who, before, after } = step;
    if (before.transfers !== after.transfers) this.#count(step);
    if (before.queuedMoves === after.queuedMoves) return;
    const queue = after.queuedMoves.map(({ index }) => index);
    expect(new Set(queue).size).toBe(queue.length);
    for (const index of queue) expect(after.transfers, `of ${who}`).not.toHaveProperty(`${index}`);
    // Whoever was there before keeps its order, and is there before those that came now.
    const stayed = before.queuedMoves
      .map(({ index }) => index)
      .filter((each) => queue.includes(each));
    if (after.mode === before.mode) expect(queue.slice(0, stayed.length)).toEqual(stayed);
    this.queuedMax = Math.max(this.queuedMax, queue.length);
  };

  #count(step: Stepped): void {
    const { who, before, after } = step;
    const begun = this.#begun[who];
    const asked = askedByPartner(step);
    for (const { index } of after.servers) {
      const transfer = after.transfers[index];
      if (!transfer || transfer.at === "declined") begun.delete(index);
      if (!transfer || transfer === before.transfers[index] || index === asked) continue;
      const isFirst = transfer.at === "offered" || transfer.at === "requested";
      const inTurn =
        !(transfer.role === "source" && transfer.urgent) && transfer.why !== "nobody serves it";
      if (isFirst && inTurn) begun.add(index);
      else if (isFirst) begun.delete(index);
    }
    expect(begun.size).toBeLessThanOrEqual(movesAtOnce);
    this.underWayMax = Math.max(this.underWayMax, begun.size);
  }
}

function watched(seed: number): { readonly pair: Pair; readonly watch: Watch } {
  const watch = new Watch();
  const pair = new Pair({ seed, jitter: true, servers, stepped: watch.stepped });
  for (const who of ids) pair.start(who);
  pair.run(1500);
  expect(isWhole(pair)).toBe(true);
  return { pair, watch };
}

const request = { dryRun: false, force: false, reason: "" };
const seed = fc.integer({ min: 1, max: 1_000_000 });
const who = fc.constantFrom(...ids);
const seldom = fc.constantFrom(0, 0, 0, 30, 80, 300, 1500);

const order = fc.oneof(
  fc.record({ kind: fc.constantFrom("takeover" as const, "giveback" as const), who }),
  fc.record({
    kind: fc.constant("transfer" as const),
    who,
    virtualServer: fc.constantFrom(...names),
  }),
);

const trouble = fc.oneof(
  fc.record({
    do: fc.constantFrom("freeze" as const, "thaw" as const),
    who,
    what: fc.constant("all" as const),
  }),
  fc.record({ do: fc.constantFrom("kill" as const, "start" as const, "shutdown" as const), who }),
  fc.record({ do: fc.constant("nic" as const), who, up: fc.boolean() }),
  fc.record({
    do: fc.constant("path" as const),
    who,
    disk: fc.constantFrom("all", "d1", "d4", "d8"),
    up: fc.boolean(),
  }),
  fc.record({
    do: fc.constant("fail" as const),
    who,
    op: fc.constantFrom("mount" as const, "seal" as const, "startService" as const),
    count: fc.integer({ min: 1, max: 6 }),
  }),
);

/** What is done, and how long until the next. */
const act = fc.tuple(
  fc.oneof({ weight: 3, arbitrary: order }, { weight: 1, arbitrary: trouble }),
  seldom,
);

function settles(pair: Pair): boolean {
  const endMs = pair.timeline.nowMs + mendedWithinMs(pair.timing);
  while (pair.timeline.nowMs < endMs) {
    supervise(pair);
    if (pair.runUntil(() => isWhole(pair), 1000)) {
      pair.run(300);
      if (isWhole(pair)) return true;
    }
  }
  return false;
}

/** Every address is answered there. */
const isAllAt = (pair: Pair, where: ControllerId) =>
  pair.addresses.every((address) => pair.answers(address) === where);

describe("many moves", () => {
  test("are under way a few at a time, whatever befalls them, and nothing is forgotten in a queue", () => {
    const seen = { underWay: 0, queued: 0 };
    const history = fc.record({ seed, acts: fc.array(act, { minLength: 2, maxLength: 16 }) });
    fc.assert(
      fc.property(history, (drawn) => {
        const { pair, watch } = watched(drawn.seed);
        for (const [what, ms] of drawn.acts) {
          const { who: whom } = what;
          if ("do" in what) strike(pair, what);
          else if (pair.controllers[whom]?.alive) {
            const { who: _, ...command } = what;
            pair.controllers[whom].command({ ...command, request });
          }
          pair.run(ms);
        }
        mendAll(pair);
        const story = () => pair.trace.slice(-60).join("\n");
        expect(settles(pair), story()).toBe(true);
        const idle = () =>
          ids.every((each) => pair.controllers[each]?.state.queuedMoves.length === 0);
        expect(pair.runUntil(idle, mendedWithinMs(pair.timing)), story()).toBe(true);
        seen.underWay = Math.max(seen.underWay, watch.underWayMax);
        seen.queued = Math.max(seen.queued, watch.queuedMax);
      }),
      { numRuns: 100 },
    );
    // The cases are such that all this is seen.
    expect(seen).toEqual({ underWay: movesAtOnce, queued: servers - movesAtOnce });
  });

  test("all arrive, of a takeover and of a planned stop, without a gate that ends by itself", () => {
    fc.assert(
      fc.property(seed, who, (drawn, stays) => {
        const { pair, watch } = watched(drawn);
        const leaves = stays === "a" ? "b" : "a";
        pair.controllers[leaves]?.command({ kind: "takeover", request });
        expect(pair.runUntil(() => isAllAt(pair, leaves), 5000)).toBe(true);
        pair.run(100);
        pair.controllers[leaves]?.happen({ kind: "shutdown", reason: "test" });
        const ended = () => pair.endedMs(leaves) !== undefined;
        expect(pair.runUntil(ended, 5000), pair.trace.slice(-60).join("\n")).toBe(true);
        expect(isAllAt(pair, stays)).toBe(true);
        expect(pair.trace.join("\n")).not.toContain("gate expired");
        expect([watch.underWayMax, watch.queuedMax]).toEqual([movesAtOnce, servers - movesAtOnce]);
      }),
      { numRuns: 20 },
    );
  });

  test("end well for every address, at whatever point of a planned stop either side is lost", () => {
    const cases = fc.record({
      seed,
      events: fc.integer({ min: 0, max: 1700 }),
      victim: who,
      how: fc.constantFrom("kill" as const, "freeze" as const, "power" as const),
    });
    fc.assert(
      fc.property(cases, ({ seed: drawn, events, victim, how }) => {
        const { pair } = watched(drawn);
        pair.controllers.a?.command({ kind: "takeover", request });
        expect(pair.runUntil(() => isAllAt(pair, "a"), 5000)).toBe(true);
        pair.run(100);
        pair.controllers.a?.happen({ kind: "shutdown", reason: "test" });
        pair.runEvents(events);
        pair[how](victim);
        const story = () => pair.trace.slice(-60).join("\n");
        if (victim === "a") {
          expect(
            pair.runUntil(() => isAllAt(pair, "b"), 3000),
            story(),
          ).toBe(true);
          return;
        }
        // Nobody is left to take it: what a has is closed in good order, and it ends as asked.
        expect(
          pair.runUntil(() => pair.endedMs("a") !== undefined, 60_000),
          story(),
        ).toBe(true);
        expect(
          pair.addresses.every((each) => pair.answers(each) !== "a"),
          story(),
        ).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});
