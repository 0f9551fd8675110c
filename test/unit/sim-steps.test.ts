/** What counts as a step of a world, who hears of it, and what becomes of one whose doer is struck down before it. */
import { describe, expect, test } from "vitest";
import {
  type Deed,
  doWatched,
  StepCounter,
  type StepWatch,
  watchedHost,
} from "../../hal/sim/steps.ts";

const deed = (name: string, ...args: readonly unknown[]): Deed => ({ who: "a", name, args });

describe("a watched host", () => {
  /** A host that notes what is done, and a watch that notes when it hears of it. */
  function bench(strikesBefore?: string) {
    const notes: string[] = [];
    let isAlive = true;
    const watch: StepWatch = {
      begins: ({ name, args }) => {
        notes.push(`before ${name} ${args.join()}`);
        if (name === strikesBefore) isAlive = false;
        return notes.length;
      },
      ended: ({ name }, ordinal) => notes.push(`after ${name} ${ordinal}`),
    };
    const plain = {
      nowMs: () => 7,
      persist: (epoch: number) => {
        notes.push(`persist ${epoch}`);
      },
      gate: { open: (address: string) => `opened ${address}` },
    };
    const part = { who: "a", name: "main", isAlive: () => isAlive } as const;
    return { notes, host: watchedHost(plain, watch, part, ["nowMs"]) };
  }

  test("does what it is asked, and tells of it before and after, under its own name", () => {
    const { host, notes } = bench();
    host.persist(3);
    expect(notes).toEqual(["before main.persist 3", "persist 3", "after main.persist 1"]);
    expect(host.gate.open("x")).toBe("opened x");
    expect(notes.slice(3)).toEqual(["before main.gate.open x", "after main.gate.open 4"]);
  });

  test("tells nothing of what only asks", () => {
    const { host, notes } = bench();
    expect(host.nowMs()).toBe(7);
    expect(notes).toEqual([]);
  });

  test("does nothing any more when its process is struck down before, and nobody hears of the rest", () => {
    const { host, notes } = bench("main.persist");
    host.persist(3);
    expect(host.gate.open("x")).toMatchObject({ ok: false });
    host.persist(4);
    expect(notes).toEqual(["before main.persist 3"]);
  });
});

describe("a deed", () => {
  test("is done without a watch", () => {
    expect(
      doWatched(
        undefined,
        deed("disk"),
        () => false,
        () => 5,
      ),
    ).toBe(5);
  });

  test("that nobody can call back is done whatever becomes of its doer", () => {
    const heard: (number | undefined)[] = [];
    const watch: StepWatch = { begins: () => 1, ended: (_, ordinal) => heard.push(ordinal) };
    expect(
      doWatched(
        watch,
        deed("disk"),
        () => true,
        () => 5,
      ),
    ).toBe(5);
    expect(heard).toEqual([1]);
  });
});

describe("numbers of steps", () => {
  const beat = (more: object) => ({ sequence: 1, progressAgeMs: 5, mode: "paired", ...more });
  const counted = (...deeds: readonly Deed[]) => {
    const counter = new StepCounter();
    return deeds.map((each) => counter.count(each));
  };

  test("rise on each side by itself, also for the same thing done again", () => {
    const other = { ...deed("main.persist"), who: "b" } as const;
    const once = deed("main.persist", { epoch: 1 });
    expect(counted(once, once, other, once)).toEqual([0, 1, 0, 2]);
  });

  test("are not given to what the clock repeats, as long as it says the same", () => {
    const send = (links: string[], more = {}) => deed("beat.send", links, beat(more));
    expect(
      counted(
        send(["serial"]),
        send(["serial"], { sequence: 2, progressAgeMs: 9 }),
        send(["disk"], { sequence: 3 }),
        send(["serial"], { sequence: 4, mode: "alone" }),
        send(["serial"], { sequence: 5 }),
        send(["serial"], { sequence: 6, somethingNew: 1 }),
        send(["serial"], { sequence: 7, somethingNew: 2 }),
      ),
    ).toEqual([0, undefined, 1, 2, 3, 4, 5]);
    const renew = (address: string, leaseMs: number) =>
      deed("beat.gate.renew", [address], leaseMs, 17);
    expect(counted(renew("x", 1), renew("x", 2), renew("y", 2))).toEqual([0, undefined, 1]);
    const word = (kind: string) => deed("main.beat", { kind });
    expect(counted(word("progress"), word("progress"), word("mandate"), word("mandate"))).toEqual([
      0,
      undefined,
      1,
      2,
    ]);
  });
});
