/** The main loop, stride by stride, before a host that only notes; the decisions are a list of answers. */
import { describe, expect, test } from "vitest";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import { type ControllerHost, ControllerLoop } from "../../firmware-ts/loop/controller-loop.ts";
import { done, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ReservationAnswer } from "../../firmware-ts/schema/reservation.ts";

const record = { version: 1, epoch: 4 } as const;

const say = (code: string): Effect => ({
  kind: "report",
  report: { severity: "info", code, message: "" },
});

/** A loop whose decisions are made by `decide`; each step gives a new state unless it says otherwise. */
function start(
  decide: (event: ControllerEvent) => readonly Effect[],
  isIdle: (event: ControllerEvent) => boolean = () => false,
) {
  const story: string[] = [];
  const works: ((outcome: Outcome<string | undefined>) => void)[] = [];
  const reserved: ((answer: ReservationAnswer) => void)[] = [];
  let clockMs = 100;
  const host: ControllerHost = {
    wake: (first) => story.push(first ? "wake first" : "wake"),
    nowMs: () => clockMs,
    persist: ({ epoch }) => story.push(`persist ${epoch}`),
    beat: (message) => story.push(`beat ${message.kind}`),
    reserve: (serial, command, deadlineMs, settle) => {
      story.push(`reserve ${serial} ${command.op} ${deadlineMs}`);
      reserved.push(settle);
    },
    work: (server, { op }, limitMs, settle) => {
      story.push(`work ${server} ${op} ${limitMs}`);
      works.push(settle);
    },
    readVolume: (limitMs) => story.push(`read the volume ${limitMs}`),
    writeVolume: (_record, limitMs) => story.push(`write the volume ${limitMs}`),
    answer: (id) => story.push(`answer ${id}`),
    report: ({ code }) => story.push(code),
    exit: (code, reason) => story.push(`exit ${code} ${reason}`),
    stepped: ({ event, effects }) => story.push(`stepped ${event.kind} ${effects.length}`),
  };
  const loop = new ControllerLoop({
    host,
    initial: { timing: { progressEveryMs: 25 } } as ControllerState,
    coordinators: ["c1"],
    machine: (state, event) => {
      story.push(`take ${event.kind} at ${event.nowMs}`);
      return [isIdle(event) ? state : { ...state }, decide(event)];
    },
  });
  const stepWhole = () => {
    while (loop.advance());
  };
  return {
    loop,
    story,
    works,
    reserved,
    stepWhole,
    later: (ms: number) => {
      clockMs += ms;
    },
  };
}

const booted = (running: ReturnType<typeof start>) => {
  running.loop.start(record);
  running.stepWhole();
  running.story.length = 0;
  return running;
};

describe("the main loop", () => {
  test("takes nothing before the boot, and what was offered before it right after it", () => {
    const { loop, story, stepWhole } = start(() => []);
    loop.offer({ kind: "carrier", up: true });
    expect(loop.hasWork).toBe(false);
    expect(loop.advance()).toBe(false);
    expect(story).toEqual([]);
    loop.start(record);
    expect(story).toEqual(["wake", "wake"]);
    stepWhole();
    stepWhole();
    expect(story.filter((line) => line.startsWith("take"))).toEqual([
      "take boot at 100",
      "take carrier at 100",
    ]);
    expect(loop.hasWork).toBe(false);
  });

  test("does one thing in a stride, and takes no event before the last one is performed whole", () => {
    const running = booted(
      start(({ kind }) => (kind === "carrier" ? [say("one"), say("two")] : [])),
    );
    const { loop, story } = running;
    loop.offer({ kind: "carrier", up: true });
    loop.offer({ kind: "shutdown", reason: "test" });
    story.length = 0;
    expect(loop.advance()).toBe(true);
    expect(story.splice(0)).toEqual(["take carrier at 100", "stepped carrier 2"]);
    expect([loop.inStep, loop.hasWork]).toEqual([true, true]);
    expect(loop.advance()).toBe(true);
    expect(story.splice(0)).toEqual(["one"]);
    expect(loop.advance()).toBe(false);
    expect(story.splice(0)).toEqual(["two"]);
    expect([loop.inStep, loop.hasWork]).toEqual([false, true]);
    expect(loop.advance()).toBe(false);
    expect(story.splice(0)).toEqual(["take shutdown at 100", "stepped shutdown 0"]);
    expect(loop.hasWork).toBe(false);
  });

  test("stamps an event with the time at which it is taken, however long it has waited", () => {
    const { loop, story, stepWhole, later } = booted(start(() => []));
    loop.offer({ kind: "carrier", up: true });
    later(5000);
    stepWhole();
    expect(story).toContain("take carrier at 5100");
  });

  test("a tick comes before all that waits, waits once, and is no news when it finds nothing", () => {
    const { loop, story, stepWhole } = booted(
      start(
        () => [],
        ({ kind }) => kind === "tick",
      ),
    );
    loop.offer({ kind: "carrier", up: true });
    loop.tick();
    loop.tick();
    expect(story.splice(0)).toEqual(["wake", "wake first"]);
    stepWhole();
    expect(story.splice(0)).toEqual(["take tick at 100", "beat progress"]);
    stepWhole();
    expect(story.splice(0)).toEqual(["take carrier at 100", "stepped carrier 0"]);
    loop.tick();
    expect(story).toEqual(["wake first"]);
  });

  test("progress is told when all that the tick asked for is under way, and not by other events", () => {
    const { loop, story, stepWhole } = booted(start(() => [say("one"), say("two")]));
    loop.tick();
    stepWhole();
    expect(story.slice(-3)).toEqual(["one", "two", "beat progress"]);
    story.length = 0;
    loop.offer({ kind: "carrier", up: true });
    stepWhole();
    expect(story).not.toContain("beat progress");
  });

  test("progress is told no more often than it is needed", () => {
    const { loop, story, stepWhole, later } = booted(start(() => []));
    const told = () => {
      loop.tick();
      stepWhole();
      return story.splice(0).includes("beat progress");
    };
    expect(told()).toBe(true);
    later(24);
    expect(told()).toBe(false);
    later(1);
    expect(told()).toBe(true);
  });

  test("a tick that changes the state is journalled though it asks for nothing", () => {
    const { loop, story, stepWhole } = booted(start(() => []));
    loop.tick();
    stepWhole();
    expect(story).toContain("stepped tick 0");
  });

  test("sends coordinators' commands through the beat process, and data disks' to their own", () => {
    const effects = (["c1", "d1"] as const).map((serial) => ({
      kind: "reserve" as const,
      token: `t:${serial}`,
      serial,
      command: { op: "readKeys" } as const,
      deadlineMs: 70,
    }));
    const { loop, story, stepWhole, reserved } = booted(
      start(({ kind }) => (kind === "carrier" ? effects : [])),
    );
    loop.offer({ kind: "carrier", up: true });
    stepWhole();
    expect(story.slice(-2)).toEqual(["beat reserve", "reserve d1 readKeys 70"]);
    reserved[0]?.({ status: "good" });
    expect(loop.hasWork).toBe(true);
    stepWhole();
    expect(story.at(-1)).toBe("stepped reserved 0");
  });

  test("an outcome comes back as an event, with its token", () => {
    const taken: ControllerEvent[] = [];
    const work: Effect = {
      kind: "work",
      token: "vs:alpha:1:mount:d1",
      virtualServer: "alpha",
      work: { op: "mount", disk: "d1" },
      limitMs: 20_000,
    };
    const { loop, stepWhole, works, story } = booted(
      start((event) => {
        taken.push(event);
        return event.kind === "carrier" ? [work] : [];
      }),
    );
    loop.offer({ kind: "carrier", up: true });
    stepWhole();
    expect(story).toContain("work alpha mount 20000");
    works[0]?.(done);
    stepWhole();
    const nowMs = 100;
    expect(taken.at(-1)).toEqual({
      kind: "done",
      token: "vs:alpha:1:mount:d1",
      outcome: done,
      nowMs,
    });
  });

  test("performs the effects of each kind", () => {
    const answer = { accepted: true, vetoes: [], plan: [] };
    const { loop, story, stepWhole } = booted(
      start(({ kind }) =>
        kind === "carrier"
          ? [
              { kind: "persist", record: { version: 1, epoch: 9 } },
              {
                kind: "gate",
                command: { kind: "gateKeep", addresses: ["10.0.0.1"] },
              },
              { kind: "grant", on: true, contact: 3 },
              { kind: "mandate", mandate: {} as never },
              { kind: "answer", id: 7, answer },
              { kind: "exit", code: 70, reason: "test" },
            ]
          : [],
      ),
    );
    loop.offer({ kind: "carrier", up: true });
    stepWhole();
    expect(story.slice(-6)).toEqual([
      "persist 9",
      "beat gate",
      "beat grant",
      "beat mandate",
      "answer 7",
      "exit 70 test",
    ]);
  });
});
