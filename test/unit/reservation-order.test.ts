/** The order of the reservation commands of one disk: changes one after another, readings behind the changes before them. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ReservationCommand } from "../../firmware-ts/schema/reservation.ts";
import { ReservationOrder } from "../../hal/port/reservation-order.ts";

const change: ReservationCommand = { op: "unregister" };
const keys: ReservationCommand = { op: "readKeys" };
const holder: ReservationCommand = { op: "readReservation" };

/** Commands that enter at once; `begun` grows as they begin, `leave` ends one. */
function line(...commands: readonly ReservationCommand[]) {
  const order = new ReservationOrder();
  const begun: number[] = [];
  const leave = commands.map((command, index) => order.enter(command, () => begun.push(index)));
  return { begun, leave, order };
}

describe("reservation commands of one disk", () => {
  test("a change begins when all before it are answered", () => {
    const { begun, leave } = line(keys, holder, change, change);
    expect(begun).toEqual([0, 1]);
    leave[1]?.();
    expect(begun).toEqual([0, 1]);
    leave[0]?.();
    expect(begun).toEqual([0, 1, 2]);
    leave[2]?.();
    expect(begun).toEqual([0, 1, 2, 3]);
  });

  test("readings begin together when the change before them is answered", () => {
    const { begun, leave } = line(change, keys, holder);
    expect(begun).toEqual([0]);
    leave[0]?.();
    expect(begun).toEqual([0, 1, 2]);
  });

  test("a reading does not overtake a change that waits", () => {
    const { begun, leave } = line(keys, change, holder);
    expect(begun).toEqual([0]);
    leave[0]?.();
    expect(begun).toEqual([0, 1]);
  });

  test("one that is given up never begins, and holds nobody up", () => {
    const { begun, leave } = line(change, change, keys);
    leave[1]?.();
    leave[0]?.();
    expect(begun).toEqual([0, 2]);
  });

  test("one that is answered in the moment in which it begins lets the next begin, once", () => {
    const order = new ReservationOrder();
    const begun: string[] = [];
    const first = order.enter(change, () => begun.push("first"));
    let second = () => {};
    second = order.enter(change, () => {
      begun.push("second");
      second();
    });
    order.enter(keys, () => begun.push("third"));
    first();
    expect(begun).toEqual(["first", "second", "third"]);
  });

  test("whatever enters and leaves: nobody begins too early, nobody twice, and in the end all have", () => {
    const step = fc.record({ isChange: fc.boolean(), leaves: fc.nat(5) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const order = new ReservationOrder();
        const there: { isChange: boolean; begun: boolean; leave: () => void }[] = [];
        const gone = new Set<number>();
        const leave = (index: number) => {
          if (gone.has(index) || !there[index]?.begun) return;
          gone.add(index);
          there[index].leave();
        };
        steps.forEach(({ isChange, leaves }, index) => {
          const each = { isChange, begun: false, leave: () => {} };
          there.push(each);
          each.leave = order.enter(isChange ? change : keys, () => {
            expect(each.begun).toBe(false);
            each.begun = true;
            const before = there.slice(0, index).filter((_, at) => !gone.has(at));
            expect(before.filter((other) => isChange || other.isChange)).toEqual([]);
          });
          leave(leaves);
        });
        for (let round = 0; round < steps.length; round++) leave(round);
        expect(there.every(({ begun }) => begun)).toBe(true);
      }),
    );
  });
});
