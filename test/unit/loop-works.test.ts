/** The order of works, before a host that starts and ends them when the test says so. */
import { describe, expect, test } from "vitest";
import type { Work } from "../../firmware-ts/core/effects.ts";
import { WorkQueue } from "../../firmware-ts/loop/work-queue.ts";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";

type Settle = (outcome: Outcome<string | undefined>) => void;

function start() {
  const story: string[] = [];
  const running = new Map<string, Settle>();
  const timers: { readonly atMs: number; readonly run: () => void; over: boolean }[] = [];
  let clockMs = 0;
  const queue = new WorkQueue({
    after(delayMs, run) {
      const timer = { atMs: clockMs + delayMs, run, over: false };
      timers.push(timer);
      return () => {
        timer.over = true;
      };
    },
    run(server, work, _limitMs, ended) {
      story.push(`${server} ${work.op}`);
      running.set(`${server} ${work.op}`, ended);
    },
  });
  return {
    story,
    ask: (server: string, work: Work, limitMs = 100) =>
      queue.perform(server, work, limitMs, (outcome) =>
        story.push(`${server} ${work.op}: ${outcome.ok ? "done" : outcome.fault.code}`),
      ),
    end: (name: string, outcome: Outcome<string | undefined> = done) =>
      running.get(name)?.(outcome),
    pass(ms: number) {
      clockMs += ms;
      for (const timer of timers) {
        if (timer.over || timer.atMs > clockMs) continue;
        timer.over = true;
        timer.run();
      }
    },
    openTimers: () => timers.filter(({ over }) => !over).length,
  };
}

const mount: Work = { op: "mount", disk: "d1" };
const abandon: Work = { op: "abandon", disk: "d1" };

describe("the order of works", () => {
  test("those of one virtual server run in turn, those of two side by side", () => {
    const { ask, end, story } = start();
    ask("alpha", mount);
    ask("alpha", abandon);
    ask("beta", mount);
    expect(story.splice(0)).toEqual(["alpha mount", "beta mount"]);
    end("alpha mount");
    expect(story).toEqual(["alpha mount: done", "alpha abandon"]);
  });

  test("a work that failed holds nobody up", () => {
    const { ask, end, story } = start();
    ask("alpha", mount);
    ask("alpha", abandon);
    end("alpha mount", failed("mountFailed", "mount", "no"));
    expect(story).toEqual(["alpha mount", "alpha mount: mountFailed", "alpha abandon"]);
  });

  test("past its limit a work is late for the decisions, and still in the way of the next", () => {
    const { ask, end, pass, story } = start();
    ask("alpha", mount, 100);
    ask("alpha", abandon, 300);
    pass(100);
    expect(story.splice(0)).toEqual(["alpha mount", "alpha mount: timeout"]);
    end("alpha mount");
    expect(story).toEqual(["alpha abandon"]);
  });

  test("a limit counts from the asking, also while others are in the way", () => {
    const { ask, end, pass, story } = start();
    ask("alpha", mount, 1000);
    ask("alpha", abandon, 100);
    pass(100);
    expect(story.splice(0)).toEqual(["alpha mount", "alpha abandon: timeout"]);
    // It is done all the same: whoever asked wants it gone.
    end("alpha mount");
    expect(story).toEqual(["alpha mount: done", "alpha abandon"]);
    end("alpha abandon");
    expect(story).toHaveLength(2);
  });

  test("a kill waits for nobody, and what comes after it waits for both", () => {
    const { ask, end, story } = start();
    ask("alpha", { op: "startService" });
    ask("alpha", { op: "killService" });
    ask("alpha", abandon);
    expect(story.splice(0)).toEqual(["alpha startService", "alpha killService"]);
    end("alpha startService", failed("serviceFailed", "startService", "killed"));
    expect(story.splice(0)).toEqual(["alpha startService: serviceFailed"]);
    end("alpha killService");
    expect(story).toEqual(["alpha killService: done", "alpha abandon"]);
  });

  test("leaves no timer behind", () => {
    const { ask, end, openTimers } = start();
    ask("alpha", mount);
    ask("alpha", { op: "killService" });
    expect(openTimers()).toBe(2);
    end("alpha mount");
    end("alpha killService");
    expect(openTimers()).toBe(0);
  });
});
