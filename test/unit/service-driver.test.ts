/** The life of a file service, with processes that only note what is done to them. */
import { describe, expect, test, vi } from "vitest";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { ServiceDriver } from "../../hal/linux/service-driver.ts";
import type { ProcessEnd, ServiceProcess } from "../../hal/linux/service-process.ts";
import { limitsMs } from "../support/limits.ts";

interface Fake extends ServiceProcess {
  readonly held: boolean;
  readonly service: string;
  released: boolean;
  end(): void;
}

function fakes({
  obeys = true,
  ready = (): Outcome => done,
  answers = (): Outcome => done,
  atHold = Promise.resolve(),
  sees = (_pid: number): Outcome => done,
} = {}) {
  const hung: string[] = [];
  const processes: Fake[] = [];
  const ends: (ProcessEnd & { expected: boolean })[] = [];
  const launch = (
    service: string,
    { held }: { held: boolean },
  ): Promise<Outcome<ServiceProcess>> => {
    const ended = Promise.withResolvers<ProcessEnd>();
    const pid = processes.length + 1;
    let isAlive = true;
    const fake: Fake = {
      pid,
      held,
      service,
      released: false,
      ended: ended.promise,
      atHold,
      alive: () => isAlive,
      release() {
        fake.released = true;
        return Promise.resolve(
          isAlive ? done : failed("serviceFailed", "release", "it ended before"),
        );
      },
      end() {
        isAlive = false;
        ended.resolve({ pid, code: null, signal: "SIGKILL", lastWords: [] });
      },
      kill: () => (obeys ? fake.end() : undefined),
    };
    processes.push(fake);
    return Promise.resolve(good(fake));
  };
  const driver = new ServiceDriver<string>({
    name: "service",
    identify: (service) => service,
    launch,
    makeReady: () => Promise.resolve(ready()),
    sees: (_, pid) => Promise.resolve(sees(pid)),
    probe: (_, __, isAlive) =>
      Promise.resolve(
        isAlive()
          ? good({ tookMs: 1, ask: () => Promise.resolve(answers()) })
          : failed("serviceFailed", "probe", "it ended"),
      ),
    log: () => undefined,
    onEnd: (end) => ends.push(end),
    onHung: (reason) => hung.push(reason),
  });
  const nth = (i: number): Fake => {
    const fake = processes[i];
    if (!fake) throw new Error(`there is no process ${i}`);
    return fake;
  };
  return { driver, processes, ends, hung, nth };
}
const limitMs = limitsMs.condition;

describe("a service", () => {
  test("goes on from the spare that was held for it, and from no other", async () => {
    const { driver, processes, nth } = fakes();
    await driver.prepare("a");
    await driver.prepare("a");
    expect(processes).toHaveLength(1);
    expect(await driver.start("a")).toEqual(good(1));
    expect(nth(0)).toMatchObject({ held: true, released: true });
    expect(driver.state()).toEqual({ pid: 1, sparePid: undefined });
    await driver.stop(limitMs);
    await driver.prepare("b");
    expect(await driver.start("a")).toEqual(good(3));
    expect(nth(1)).toMatchObject({ service: "b", released: false });
    expect(nth(1).alive()).toBe(false);
    expect(nth(2)).toMatchObject({ service: "a", held: false });
  });

  test("is started anew beside a spare that has ended", async () => {
    const { driver, processes, ends, nth } = fakes();
    await driver.prepare("a");
    const release = nth(0).release;
    nth(0).release = () => {
      nth(0).end();
      return release();
    };
    expect(await driver.start("a")).toEqual(good(2));
    expect(processes).toHaveLength(2);
    // Nobody lost a service by that.
    expect(ends.map(({ pid, expected }) => [pid, expected])).toEqual([[1, true]]);
    nth(1).end();
    await expect.poll(() => ends.at(-1)).toMatchObject({ pid: 2, expected: false });
  });

  const blind = failed("serviceFailed", "look", "it does not see the volume");

  test("does not go on from a spare that does not see its volume", async () => {
    const { driver, processes, nth } = fakes({ sees: (pid) => (pid === 1 ? blind : done) });
    await driver.prepare("a");
    expect(await driver.start("a")).toEqual(good(2));
    expect(nth(0)).toMatchObject({ held: true, released: false });
    expect(nth(0).alive()).toBe(false);
    expect(nth(1)).toMatchObject({ held: false });
    expect(processes).toHaveLength(2);
  });

  test("looks at a spare only once it is at its hold, where it is in its place", async () => {
    const hold = Promise.withResolvers<void>();
    const looked: number[] = [];
    const { driver, nth } = fakes({
      atHold: hold.promise,
      sees: (pid) => {
        looked.push(pid);
        return done;
      },
    });
    await driver.prepare("a");
    const started = driver.start("a");
    await new Promise((resolve) => setImmediate(resolve));
    expect([looked, nth(0).released]).toEqual([[], false]);
    hold.resolve();
    expect(await started).toEqual(good(1));
    expect([looked, nth(0).released]).toEqual([[1], true]);
  });

  test("does not wait for ever for a spare, nor for a look through it: they are looked at when they answer", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const late = failed("timeout", "look", "no answer");
    try {
      for (const options of [
        { atHold: new Promise<void>(() => undefined) },
        { sees: () => late },
      ]) {
        const { driver, processes, nth } = fakes(options);
        await driver.prepare("a");
        const started = driver.start("a");
        await vi.advanceTimersByTimeAsync(5000);
        expect(await started).toEqual(good(1));
        expect(nth(0).released).toBe(true);
        expect(processes).toHaveLength(1);
      }
    } finally {
      vi.useRealTimers();
    }
  });

  test("ends what answers and does not see its volume, and starts another when it is asked to", async () => {
    const { driver, nth } = fakes({ sees: (pid) => (pid === 1 ? blind : done) });
    await driver.start("a");
    expect(await driver.probe(limitMs)).toEqual(blind);
    expect(nth(0).alive()).toBe(false);
    expect(await driver.start("a")).toEqual(good(2));
    expect(await driver.probe(limitMs)).toEqual(good(1));
  });

  test("kills a spare that is waited for, lets it go on no more, and starts no other", async () => {
    const hold = Promise.withResolvers<void>();
    const { driver, processes, nth } = fakes({ atHold: hold.promise, sees: () => blind });
    await driver.prepare("a");
    const started = driver.start("a");
    await new Promise((resolve) => setImmediate(resolve));
    expect(driver.processes()).toEqual([1]);
    driver.kill();
    expect(nth(0).alive()).toBe(false);
    hold.resolve();
    expect(await started).toMatchObject({ ok: false });
    expect(nth(0).released).toBe(false);
    expect(processes).toHaveLength(1);
    expect(driver.processes()).toEqual([]);
  });

  test("is one, however often it is started, and serves nothing else meanwhile", async () => {
    const { driver, processes } = fakes();
    expect(await Promise.all([driver.start("a"), driver.start("a")])).toEqual([good(1), good(1)]);
    expect(processes).toHaveLength(1);
    expect(await driver.start("b")).toMatchObject({ ok: false, fault: { code: "refused" } });
  });

  test("touches nothing where its volume is not ready", async () => {
    const { driver, processes } = fakes({ ready: () => failed("timeout", "make", "late") });
    expect(await driver.start("a")).toMatchObject({ ok: false, fault: { code: "timeout" } });
    expect(processes).toEqual([]);
  });

  test("that was killed while it started does not come up", async () => {
    const { driver, ends, nth } = fakes();
    const starting = driver.start("a");
    driver.kill();
    expect(await starting).toMatchObject({ ok: false, fault: { code: "refused" } });
    expect(nth(0).alive()).toBe(false);
    expect(await driver.stop(limitMs)).toEqual(done);
    expect(ends).toMatchObject([{ expected: true }]);
    expect(driver.killCount()).toBe(2);
  });

  test("tells its end, and whether it was asked for", async () => {
    const { driver, ends, nth } = fakes();
    await driver.start("a");
    nth(0).end();
    await nth(0).ended;
    expect(await driver.probe(limitMs)).toMatchObject({ ok: false });
    expect(ends).toMatchObject([{ pid: 1, expected: false }]);
    await driver.start("a");
    expect(await driver.probe(limitMs)).toEqual(good(1));
    await driver.stop(limitMs);
    expect(ends).toMatchObject([{ expected: false }, { pid: 2, expected: true }]);
  });

  test("is asked whether it answers from its proof to its end, and told of when it does not", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
    try {
      let outcome: Outcome = done;
      let asked = 0;
      const { driver, hung } = fakes({
        answers() {
          asked += 1;
          return outcome;
        },
      });
      await driver.start("a");
      await vi.advanceTimersByTimeAsync(5000);
      expect(asked).toBe(0);
      await driver.probe(limitMs);
      await vi.advanceTimersByTimeAsync(5000);
      expect(asked).toBeGreaterThan(2);
      expect(hung).toEqual([]);
      outcome = failed("serviceSilent", "ask", "no answer");
      await vi.advanceTimersByTimeAsync(5000);
      expect(hung.length).toBeGreaterThan(0);
      await driver.stop(limitMs);
      const before = [asked, hung.length];
      await vi.advanceTimersByTimeAsync(5000);
      expect([asked, hung.length]).toEqual(before);
    } finally {
      vi.useRealTimers();
    }
  });

  test("that does not die is not taken for ended, and nothing is started beside it", async () => {
    const { driver, processes } = fakes({ obeys: false });
    await driver.start("a");
    expect(await driver.stop(1)).toMatchObject({ ok: false, fault: { code: "timeout" } });
    expect(driver.state().pid).toBe(1);
    processes[0]?.end();
    expect(await driver.stop(limitMs)).toEqual(done);
  });

  test("goes on when its spare is dropped", async () => {
    const { driver, processes } = fakes();
    await driver.start("a");
    await driver.prepare("b");
    expect(await driver.dropSpare(limitMs)).toEqual(done);
    expect(processes.map((each) => each.alive())).toEqual([true, false]);
    expect(await driver.dropSpare(limitMs)).toEqual(done);
  });

  test("is closed with its spare", async () => {
    const { driver, processes } = fakes();
    await driver.start("a");
    await driver.prepare("b");
    await driver.close(limitMs);
    expect(processes.map((each) => each.alive())).toEqual([false, false]);
  });
});
