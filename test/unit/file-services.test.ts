/** Starting a file service, against one that dies at will. */
import { describe, expect, test } from "vitest";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { SpareLine, startProved } from "../../hal/bench/service-part.ts";

const spec = {
  addresses: ["10.0.0.100"],
  exports: [{ id: 1, path: "/vol", pseudo: "/vol" }],
  recoveryDir: "/vol/.dyad",
};
const died = failed("serviceFailed", "probe", "the file service ended");

/** A service whose probes end one after another as given; `killed` when it is killed by us during the first. */
function service(probes: Outcome<number>[], killed = false) {
  let starts = 0;
  let kills = 0;
  return {
    starts: () => starts,
    start: () => {
      starts += 1;
      return Promise.resolve(good(100 + starts));
    },
    probe: () => {
      if (killed) kills += 1;
      return Promise.resolve(probes.shift() ?? good(1));
    },
    killCount: () => kills,
  };
}

describe("a service that is started", () => {
  test.each([
    ["answers: once", [good(3)], 1, undefined],
    ["dies on the way: once more", [died, good(3)], 2, undefined],
    ["dies again: not a third time", [died, died], 2, "serviceFailed"],
    ["is silent: not again", [failed("serviceSilent", "probe", "no answer")], 1, "serviceSilent"],
  ])("and %s", async (_, probes, starts, code) => {
    const each = service([...probes]);
    const outcome = await startProved(each, spec, 1000, () => undefined);
    expect(outcome.ok ? undefined : outcome.fault.code).toBe(code);
    expect(each.starts()).toBe(starts);
  });

  test("and that we kill meanwhile stays dead", async () => {
    const each = service([died], true);
    expect(await startProved(each, spec, 1000, () => undefined)).toMatchObject({ ok: false });
    expect(each.starts()).toBe(1);
  });
});

describe("spares", () => {
  const settle = () => new Promise((resolve) => setImmediate(resolve));

  test("are made one after another, each when the last has come to its hold", async () => {
    const line = new SpareLine();
    const begun: string[] = [];
    const holds: (() => void)[] = [];
    const make = (name: string) =>
      line.next(
        () => {
          begun.push(name);
          return Promise.resolve(name);
        },
        () => new Promise((resolve) => holds.push(resolve)),
      );
    const all = Promise.all([make("one"), make("two"), make("three")]);
    await settle();
    expect(begun).toEqual(["one"]);
    holds[0]?.();
    await settle();
    expect(begun).toEqual(["one", "two"]);
    holds[1]?.();
    expect(await all).toEqual(["one", "two", "three"]);
  });

  test("do not wait for ever for one that comes to no hold, nor for one that could not be begun", async () => {
    const line = new SpareLine(1);
    const never = () => new Promise<void>(() => undefined);
    await line.next(() => Promise.resolve(1), never);
    const broken = line.next(() => Promise.reject(new Error("no")), never);
    const next = line.next(() => Promise.resolve(3), never);
    await expect(broken).rejects.toThrow("no");
    expect(await next).toBe(3);
  });
});
