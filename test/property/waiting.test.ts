import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Waiting } from "../../firmware-ts/loop/waiting.ts";

const orders = fc.array(
  fc.oneof(
    { weight: 80, arbitrary: fc.record({ do: fc.constant("push" as const), one: fc.nat() }) },
    { weight: 40, arbitrary: fc.record({ do: fc.constant("unshift" as const), one: fc.nat() }) },
    { weight: 60, arbitrary: fc.constant({ do: "shift" as const }) },
    { weight: 1, arbitrary: fc.constant({ do: "clear" as const }) },
  ),
  { maxLength: 300, size: "max" },
);

describe("what waits for its turn", () => {
  test("leaves as from an array, whatever came at either end before", () => {
    fc.assert(
      fc.property(orders, (given) => {
        const waiting = new Waiting<number>();
        const model: number[] = [];
        for (const order of given) {
          if (order.do === "shift") expect(waiting.shift()).toBe(model.shift());
          else if (order.do === "clear") {
            waiting.clear();
            model.length = 0;
          } else {
            waiting[order.do](order.one);
            model[order.do](order.one);
          }
          expect(waiting.length).toBe(model.length);
        }
        while (model.length > 0) expect(waiting.shift()).toBe(model.shift());
        expect(waiting.shift()).toBeUndefined();
      }),
    );
  });
});
