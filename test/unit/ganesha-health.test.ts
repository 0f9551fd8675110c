/** The failure monitor of a file service: when silence is a hang, and when it is not. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { HealthMonitor, missesMax } from "../../hal/linux/health.ts";
import { parseStat, type Standing } from "../../hal/linux/standing.ts";

/** Its own clock: the first question comes after a pause of a second, each further one a second later. */
const questionMs = 1000;

const monitors: HealthMonitor[] = [];
beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  for (const monitor of monitors.splice(0)) monitor.stop();
  vi.useRealTimers();
});

const silent = () => new Promise<Outcome>(() => {});
const answering = () => Promise.resolve(done);
const refusing = () => Promise.resolve(failed("refused", "connect", "nobody listens"));

/** A monitor of a service that answers as it is told, at the moment. */
function watch(answer: () => Promise<Outcome>, standing: Standing = "still") {
  const world = { answer, standing, hung: [] as string[], logs: [] as string[], asked: 0 };
  const monitor = new HealthMonitor({
    ask: () => {
      world.asked += 1;
      return world.answer();
    },
    look: () => () => world.standing,
    onHung: (reason) => world.hung.push(reason),
    log: (message) => world.logs.push(message),
  });
  monitors.push(monitor);
  return { world, monitor };
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

describe("a service that answers", () => {
  test("is asked once a second, and nothing is said about it", async () => {
    const { world } = watch(answering);
    await pass(10 * questionMs);
    expect(world.asked).toBe(10);
    expect([world.hung, world.logs]).toEqual([[], []]);
  });

  test("is asked no more once it is stopped, and what it answers then is nothing", async () => {
    let answer: (outcome: Outcome) => void = () => undefined;
    const { world, monitor } = watch(() => new Promise((resolve) => (answer = resolve)));
    await pass(questionMs);
    monitor.stop();
    answer(failed("ioError", "ask", "closed"));
    await pass(10 * questionMs);
    expect([world.asked, world.hung, world.logs]).toEqual([1, [], []]);
  });

  test("slower than it should, but sooner than two questions later, does not hang", async () => {
    const { world } = watch(
      () => new Promise((resolve) => setTimeout(() => resolve(done), 1.5 * questionMs)),
    );
    await pass(60 * questionMs);
    expect(world.hung).toEqual([]);
    expect(world.asked).toBeGreaterThan(30);
  });
});

describe("a service that is silent", () => {
  test("and stands still hangs after two questions, which takes two to three seconds", async () => {
    const { world } = watch(answering);
    await pass(5.4 * questionMs);
    world.answer = silent;
    await pass(2.5 * questionMs);
    expect(world.hung).toEqual([]);
    await pass(0.5 * questionMs);
    expect(world.hung).toEqual([expect.stringContaining("stands still")]);
  });

  test("is told of again as long as that is so, and not when it answers again", async () => {
    const { world } = watch(silent);
    await pass(6 * questionMs);
    expect(world.hung.length).toBe(4);
    world.answer = answering;
    await pass(2 * questionMs);
    const before = world.hung.length;
    await pass(10 * questionMs);
    expect(world.hung.length).toBe(before);
  });

  test("is not told of when it was stopped at the first word", async () => {
    const { world, monitor } = watch(silent);
    world.hung.push = () => {
      monitor.stop();
      return 1;
    };
    await pass(3 * questionMs);
    const { asked } = world;
    await pass(10 * questionMs);
    expect(world.asked).toBe(asked);
  });

  test("and works is given as many questions as are said", async () => {
    const { world } = watch(silent, "works");
    await pass((missesMax.works + 0.5) * questionMs);
    expect(world.hung).toEqual([]);
    await pass(questionMs);
    expect(world.hung).toEqual([expect.stringContaining("it works")]);
  });

  test("and stands still now and then, but not twice in a row, counts as one that works", async () => {
    const { world } = watch(silent, "works");
    for (let i = 0; i < missesMax.works / 2; i += 1) {
      expect(world.hung).toEqual([]);
      world.standing = "still";
      await pass(questionMs);
      world.standing = "works";
      await pass(questionMs);
    }
    await pass(questionMs);
    expect(world.hung.length).toBeGreaterThan(0);
  });

  test("and waits for a disk never hangs, which is told once", async () => {
    const { world } = watch(silent, "disk");
    await pass(100 * questionMs);
    expect(world.hung).toEqual([]);
    expect(world.logs).toEqual([expect.stringContaining("disk")]);
    world.standing = "still";
    await pass(2 * questionMs);
    expect(world.hung.length).toBe(1);
  });
});

describe("a service that answers wrongly", () => {
  test("hangs after two questions, and is not asked without a pause", async () => {
    const { world } = watch(refusing);
    await pass(1.5 * questionMs);
    expect([world.asked, world.hung]).toEqual([1, []]);
    await pass(questionMs);
    expect(world.asked).toBe(2);
    expect(world.hung).toEqual([expect.stringContaining("nobody listens")]);
  });

  test("once, does not", async () => {
    const { world } = watch(refusing);
    await pass(1.5 * questionMs);
    world.answer = answering;
    await pass(questionMs);
    world.answer = refusing;
    await pass(questionMs);
    expect(world.hung).toEqual([]);
  });
});

describe("a stall of this process", () => {
  /** As a process that did not run for a while finds itself: the clock is later, and one of its timers is due. */
  function watchWithClock() {
    const clock = { aheadMs: 0 };
    const world = { asked: 0, hung: 0 };
    const monitor = new HealthMonitor({
      ask: () => {
        world.asked += 1;
        return silent();
      },
      look: () => () => "still",
      onHung: () => (world.hung += 1),
      log: () => undefined,
      nowMs: () => performance.now() + clock.aheadMs,
    });
    monitors.push(monitor);
    return { clock, world };
  }

  test("counts for nothing, however long it was", async () => {
    const { clock, world } = watchWithClock();
    await pass(1.5 * questionMs);
    for (let i = 0; i < 20; i += 1) {
      clock.aheadMs += 60_000;
      await pass(0.5 * questionMs);
    }
    expect([world.asked, world.hung]).toEqual([1, 0]);
    await pass(1.5 * questionMs);
    expect(world.hung).toBe(1);
  });
});

test.each([
  [
    "1234 (ganesha.nfsd) S 1 1234 1234 0 -1 4194560 9 0 0 0 17 25 0 0 10 -10 30 0 5 6 7",
    { state: "S", ticks: 42 },
  ],
  ["7 (a) D ) T 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 5 6 7", { state: "T", ticks: 3 }],
])("a line of /proc/PID/stat is read from behind its name: %s", (line, wanted) => {
  expect(parseStat(line)).toEqual(wanted);
});
