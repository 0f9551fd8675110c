/** The judge of clients' histories: what one file could have shown, and what it could not. */
import { describe, expect, test } from "vitest";
import { type Operation, whyNotLinearizable } from "../../hal/sim/history.ts";

type Short = readonly ["r" | "w", number, number, number?];

/** [kind, value, begin, end]; without an end it was never answered. */
const history = (...list: readonly Short[]): Operation[] =>
  list.map(([kind, value, beginMs, endMs], client) => ({
    client,
    kind: kind === "r" ? "read" : "write",
    file: "r1",
    value,
    beginMs,
    endMs: endMs ?? Number.POSITIVE_INFINITY,
  }));

describe("linearizable", () => {
  test.each<[string, Short[]]>([
    ["nothing", []],
    ["the beginning", [["r", 0, 1, 2]]],
    [
      "one after the other",
      [
        ["w", 1, 1, 2],
        ["r", 1, 3, 4],
        ["w", 2, 5, 6],
        ["r", 2, 7, 8],
      ],
    ],
    [
      "a read during a write, either way",
      [
        ["w", 1, 1, 9],
        ["r", 0, 2, 3],
        ["r", 1, 4, 5],
      ],
    ],
    [
      "a write that was never answered, seen",
      [
        ["w", 1, 1],
        ["r", 1, 5, 6],
      ],
    ],
    [
      "a write that was never answered, not seen",
      [
        ["w", 1, 1],
        ["r", 0, 5, 6],
      ],
    ],
    [
      "a write that happens long after it began",
      [
        ["w", 1, 1],
        ["r", 0, 5, 6],
        ["r", 1, 8, 9],
      ],
    ],
    [
      "two at once, read in either order",
      [
        ["w", 1, 1, 9],
        ["w", 2, 2, 9],
        ["r", 2, 3, 4],
        ["r", 1, 5, 6],
      ],
    ],
  ])("%s", (_, list) => expect(whyNotLinearizable(history(...list))).toBeUndefined());

  test.each<[string, Short[]]>([
    [
      "an acknowledged write is gone",
      [
        ["w", 1, 1, 2],
        ["r", 0, 3, 4],
      ],
    ],
    [
      "a read goes back",
      [
        ["w", 1, 1, 9],
        ["r", 1, 2, 3],
        ["r", 0, 4, 5],
      ],
    ],
    ["a value that nobody wrote", [["r", 7, 1, 2]]],
    [
      "a value before its time",
      [
        ["r", 1, 1, 2],
        ["w", 1, 3, 4],
      ],
    ],
    [
      "an older value comes back",
      [
        ["w", 1, 1, 2],
        ["w", 2, 3, 4],
        ["r", 1, 5, 6],
      ],
    ],
    [
      "a value within the stretch of another",
      [
        ["w", 1, 1, 2],
        ["w", 2, 3, 4],
        ["r", 1, 6, 7],
        ["r", 2, 8, 9],
      ],
    ],
    [
      "seen and then never again, though not answered",
      [
        ["w", 1, 1],
        ["r", 1, 2, 3],
        ["r", 0, 4, 5],
      ],
    ],
  ])("not: %s", (_, list) => expect(whyNotLinearizable(history(...list))).toContain("r1: "));

  test("files are judged each on its own", () => {
    const [one] = history(["w", 1, 1, 2]);
    const [other] = history(["r", 0, 3, 4]);
    if (!one || !other) throw new Error("no operations");
    expect(whyNotLinearizable([one, { ...other, file: "r2" }])).toBeUndefined();
  });
});
