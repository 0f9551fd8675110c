/** What virtual servers use: looked at by turns, one at a time, while they come and go. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { watchUsage } from "../../firmware-ts/daemon/usage.ts";

let names: string[];
let looks: string[];
const watch = () =>
  watchUsage(
    () => names,
    (name) => {
      looks.push(name);
      return name === "away" ? undefined : { processes: looks.length };
    },
  ).seen;

beforeEach(() => {
  vi.useFakeTimers();
  names = ["alpha", "beta"];
  looks = [];
});
afterEach(() => vi.useRealTimers());

test("each is looked at once in ten seconds, one at a time, and the last look is shown", () => {
  const seen = watch();
  expect(seen.size).toBe(0);
  vi.advanceTimersByTime(5000);
  expect(looks).toEqual(["alpha"]);
  vi.advanceTimersByTime(10_000);
  expect(looks).toEqual(["alpha", "beta", "alpha"]);
  expect([...seen]).toEqual([
    ["alpha", { processes: 3 }],
    ["beta", { processes: 2 }],
  ]);
});

test("one that comes is looked at in its turn, and nothing is shown of one that has gone or is not here", () => {
  const seen = watch();
  vi.advanceTimersByTime(10_000);
  expect(looks).toEqual(["alpha", "beta"]);
  names = ["beta", "gamma", "away"];
  vi.advanceTimersByTime(10_000 + 5000);
  expect(looks.slice(2)).toEqual(["gamma", "away", "beta", "gamma"]);
  expect([...seen.keys()].toSorted()).toEqual(["beta", "gamma"]);
});

test("without any there is nothing to look at, until the first comes", () => {
  names = [];
  const seen = watch();
  vi.advanceTimersByTime(30_000);
  expect(looks).toEqual([]);
  names = ["first"];
  vi.advanceTimersByTime(10_000);
  expect([...seen.keys()]).toEqual(["first"]);
});
