/** Real-time priority for the way of the data: short, with rests, and below the decisions. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { Hurry, hurryMs, processesMax } from "../../hal/bench/hurry.ts";
import { priorities } from "../../hal/bench/priorities.ts";

let raised: Set<number>;
let asked: number[];
let said: string[];
let answer: Outcome;
let hurry: Hurry;

beforeEach(() => {
  vi.useFakeTimers();
  [raised, asked, said, answer] = [new Set(), [], [], done];
  hurry = new Hurry({
    raise(pid) {
      asked.push(pid);
      if (answer.ok) raised.add(pid);
      return answer;
    },
    lower(pid) {
      raised.delete(pid);
      return done;
    },
    log: (message) => said.push(message),
  });
});

afterEach(() => {
  vi.useRealTimers();
});

test("nobody has been starved for a second when it ends, however often it is asked for", () => {
  expect(hurryMs).toBeLessThan(900);
  for (let ms = 0; ms < hurryMs; ms += 10) {
    hurry.begin([7, 8]);
    expect([...raised]).toEqual([7, 8]);
    vi.advanceTimersByTime(10);
  }
  expect(raised.size).toBe(0);
  expect(asked).toEqual([7, 8]);
});

test("a second disk shares the end of the first", () => {
  hurry.begin([7, 8]);
  vi.advanceTimersByTime(hurryMs - 10);
  hurry.begin([7, 9]);
  expect([...raised]).toEqual([7, 8, 9]);
  vi.advanceTimersByTime(10);
  expect(raised.size).toBe(0);
});

test("after it everybody has a turn before the next", () => {
  hurry.begin([7]);
  vi.advanceTimersByTime(hurryMs);
  hurry.begin([7]);
  expect(raised.size).toBe(0);
  vi.advanceTimersByTime(100);
  hurry.begin([7]);
  expect([...raised]).toEqual([7]);
  vi.advanceTimersByTime(hurryMs);
  expect(raised.size).toBe(0);
});

test("many at once are not in a hurry, and those who were are no longer", () => {
  hurry.begin([7, 8]);
  hurry.begin([7, 9]);
  hurry.begin([7, 10]);
  hurry.begin([7, 11]);
  expect(raised.size).toBe(processesMax);
  hurry.begin([7, 12]);
  expect(raised.size).toBe(0);
  vi.advanceTimersByTime(hurryMs - 1);
  hurry.begin([7]);
  expect(raised.size).toBe(0);
  vi.advanceTimersByTime(1);
  hurry.begin([7]);
  expect([...raised]).toEqual([7]);
});

test("the end of the controller ends it for good", () => {
  hurry.begin([7]);
  hurry.close();
  expect(raised.size).toBe(0);
  vi.advanceTimersByTime(10_000);
  hurry.begin([7]);
  expect(raised.size).toBe(0);
});

test("without the right to it nothing is raised, and that is said once", () => {
  answer = failed("refused", "test", "no CAP_SYS_NICE");
  for (const _ of [1, 2, 3]) hurry.begin([7, 8]);
  expect(raised.size).toBe(0);
  expect(said).toHaveLength(1);
  answer = done;
  hurry.begin([7]);
  expect([...raised]).toEqual([7]);
});

test("data go behind decisions, and decisions behind heartbeats", () => {
  expect(priorities.data).toBeLessThan(priorities.main);
  expect(priorities.main).toBeLessThan(priorities.beat);
  expect(priorities.data).toBeGreaterThanOrEqual(1);
});
