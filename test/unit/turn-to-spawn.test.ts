import { expect, test } from "vitest";
import { turnToSpawn } from "../../hal/port/turn-to-spawn.ts";

test("programs are started in the order of asking, one in each turn of the event loop", async () => {
  let turn = 0;
  let isOver = false;
  const count = () => {
    turn += 1;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  const seen: { asked: number; turn: number }[] = [];
  const asked = [0, 1, 2, 3, 4];
  await Promise.all(
    asked.map((each) => turnToSpawn().then(() => seen.push({ asked: each, turn }))),
  );
  isOver = true;
  expect(seen.map((each) => each.asked)).toEqual(asked);
  expect(new Set(seen.map((each) => each.turn)).size).toBe(asked.length);
});

test("after a start this thread rests for three times as long as it took", async () => {
  await turnToSpawn();
  const fromMs = performance.now();
  const spentMs = 10;
  while (performance.now() - fromMs < spentMs);
  await turnToSpawn();
  // A timer may come a millisecond early.
  expect(performance.now() - fromMs).toBeGreaterThanOrEqual(4 * spentMs - 1);
});
