/** The queue of virtual time: things happen in the order of their times, and those of one instant in the order in which they were asked for. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Timeline } from "../../hal/sim/timeline.ts";

/** Delays of what an event asks for while it runs: small numbers, so that many fall on one instant. */
const asked = fc.array(fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }), {
  minLength: 1,
  maxLength: 300,
});

interface Waiting {
  readonly atMs: number;
  readonly order: number;
}

/** What the same orders come to with a list that is searched. */
function searched(plan: readonly (readonly number[])[]): number[] {
  const waiting: Waiting[] = [{ atMs: 0, order: 0 }];
  const ran: number[] = [];
  let order = 1;
  while (waiting.length > 0) {
    waiting.sort((one, other) => one.atMs - other.atMs || one.order - other.order);
    const next = waiting.shift() as Waiting;
    for (const delay of plan[ran.length] ?? [])
      waiting.push({ atMs: next.atMs + delay, order: order++ });
    ran.push(next.order);
  }
  return ran;
}

describe("the timeline", () => {
  test("runs what a searched list would run, in its order", () => {
    fc.assert(
      fc.property(asked, (plan) => {
        const timeline = new Timeline();
        const ran: number[] = [];
        let order = 0;
        const ask = (delay: number) => {
          const mine = order++;
          timeline.after(delay, () => {
            const delays = plan[ran.length] ?? [];
            ran.push(mine);
            for (const each of delays) ask(each);
          });
        };
        ask(0);
        while (timeline.step(Number.POSITIVE_INFINITY));
        expect(ran).toEqual(searched(plan));
        expect(timeline.events).toBe(ran.length);
      }),
    );
  });

  test("stops before what is later, and goes on from there", () => {
    const timeline = new Timeline();
    const ran: number[] = [];
    for (const ms of [30, 10, 20]) timeline.at(ms, () => ran.push(ms));
    timeline.runUntil(20, () => undefined);
    expect(ran).toEqual([10, 20]);
    expect(timeline.nowMs).toBe(20);
    expect(timeline.step(29)).toBe(false);
    timeline.at(25, () => ran.push(25));
    timeline.runUntil(40, () => undefined);
    expect(ran).toEqual([10, 20, 25, 30]);
    expect(timeline.step(Number.POSITIVE_INFINITY)).toBe(false);
  });
});
