/** The order of many starts, of works that end when the test says so. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type StartStage, StartTurns } from "../../firmware-ts/daemon/start-turns.ts";

const settle = () => vi.advanceTimersByTimeAsync(0);

/** Works by name, as they begin, and how each is ended. */
function works(turns: StartTurns) {
  const begun: string[] = [];
  const ends = new Map<string, { resolve: (value: string) => void; reject: (e: Error) => void }>();
  return {
    begun,
    take: (name: string, stage: StartStage = "begin") =>
      turns.take(name, stage, () => {
        begun.push(name);
        return new Promise<string>((resolve, reject) => ends.set(name, { resolve, reject }));
      }),
    end: async (name: string) => {
      ends.get(name)?.resolve(name);
      await settle();
    },
    fail: async (name: string) => {
      ends.get(name)?.reject(new Error(name));
      await settle();
    },
  };
}

describe("starts", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  test("begin at once as long as there are few, and then as others end", async () => {
    const { begun, take, end } = works(new StartTurns({ atOnce: 2, turnMsMax: 300 }));
    const all = Promise.all([take("a"), take("b"), take("c"), take("d")]);
    expect(begun).toEqual(["a", "b"]);
    await end("b");
    expect(begun).toEqual(["a", "b", "c"]);
    for (const name of ["c", "a", "d"]) await end(name);
    expect(await all).toEqual(["a", "b", "c", "d"]);
    void take("e");
    void take("f");
    void take("g");
    expect(begun.slice(4)).toEqual(["e", "f"]);
  });

  test("that have begun go on before others begin", async () => {
    const { begun, take, end } = works(new StartTurns({ atOnce: 1, turnMsMax: 300 }));
    void take("a mounts");
    void take("b mounts");
    void take("a serves", "goOn");
    await end("a mounts");
    expect(begun.at(-1)).toBe("a serves");
    await end("a serves");
    expect(begun.at(-1)).toBe("b mounts");
  });

  test("that hang hold up nobody for longer than a turn, and give none back twice", async () => {
    const { begun, take, end } = works(new StartTurns({ atOnce: 1, turnMsMax: 300 }));
    void take("hangs");
    void take("a");
    void take("b");
    await vi.advanceTimersByTimeAsync(299);
    expect(begun).toEqual(["hangs"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(begun).toEqual(["hangs", "a"]);
    await end("hangs");
    expect(begun).toEqual(["hangs", "a"]);
    await end("a");
    expect(begun).toEqual(["hangs", "a", "b"]);
  });

  test("that are dropped while they wait do not run, and the others keep their order", async () => {
    const turns = new StartTurns({ atOnce: 1, turnMsMax: 300 });
    const { begun, take, end } = works(turns);
    const all = Promise.all([take("a"), take("b"), take("c"), take("d"), take("b", "goOn")]);
    turns.drop("b");
    turns.drop("a");
    for (const name of ["a", "c", "d"]) await end(name);
    expect(await all).toEqual(["a", undefined, "c", "d", undefined]);
    expect(begun).toEqual(["a", "c", "d"]);
  });

  test("that throw give their turn back, too", async () => {
    const { begun, take, fail } = works(new StartTurns({ atOnce: 1, turnMsMax: 300 }));
    const broken = take("a").catch((error: Error) => error.message);
    void take("b");
    await fail("a");
    expect([await broken, begun]).toEqual(["a", ["a", "b"]]);
    expect(vi.getTimerCount()).toBe(1);
  });
});
