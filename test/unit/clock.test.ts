/** The clock that the processes of a controller share. */
import { expect, test } from "vitest";
import { monotonicMs, originOf } from "../../firmware-ts/daemon/clock.ts";

/** Two clocks of one time; each look takes a little, and the looks named here are interrupted. */
function looks(lackMs: number, interrupted: Readonly<Record<number, number>>) {
  let nowMs = 1000;
  let count = 0;
  const look = (of: () => number) => () => {
    nowMs += 0.001 + (interrupted[count++] ?? 0);
    return of();
  };
  return [look(() => nowMs), look(() => nowMs - lackMs)] as const;
}

test("a process that is interrupted while it finds its origin is not behind the others", () => {
  const [clock, own] = looks(700, { 1: 25, 4: 3 });
  expect(originOf(clock, own)).toBeCloseTo(700, 1);
});

test("whoever is interrupted always takes the best that it got", () => {
  const always = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [i, 0.5 + (i % 7)]));
  const [clock, own] = looks(700, always);
  expect(Math.abs(originOf(clock, own) - 700)).toBeLessThan(7);
});

test("it is CLOCK_MONOTONIC", () => {
  const before = Number(process.hrtime.bigint()) / 1e6;
  const now = monotonicMs();
  const after = Number(process.hrtime.bigint()) / 1e6;
  expect(now).toBeGreaterThan(before - 0.1);
  expect(now).toBeLessThan(after + 0.1);
});
