/** Limits are part of what a virtual server is: both controllers know them, the common volume keeps them, and a change of them stops nobody. */
import { describe, expect, test } from "vitest";
import { differenceOf } from "../../firmware-ts/core/definitions.ts";
import { type LimitsConfig, virtualServerSchema } from "../../firmware-ts/schema/config.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { alpha } from "../support/volume-records.ts";

const limits: LimitsConfig = { cpuWeight: 100, cpuPercent: 40, memoryMb: 256, processes: 512 };

test("other limits are set beside the run; whoever says nothing of them has the defaults", () => {
  expect(differenceOf(alpha, { ...alpha, limits })).toBe("beside");
  const { limits: _, ...silent } = alpha;
  expect(differenceOf(alpha, virtualServerSchema.parse(silent))).toBe("none");
});

describe("a change of limits of one that is served", () => {
  const pair = new Pair();
  pair.start("a");
  pair.start("b");
  pair.run(6000);
  const servers = () =>
    (["a", "b"] as const).map((id) => {
      const server = pair.controllers[id]?.state.servers[0];
      if (!server) throw new Error(`${id} does not know it`);
      return server;
    });
  const before = servers();
  const [served] = before;
  if (!served) throw new Error("two controllers expected");
  const server = { ...served.config, limits };
  pair.controllers.a?.command({
    kind: "change",
    change: { action: "modify", name: server.name, server },
    request: { dryRun: false, force: false, reason: "" },
  });
  pair.run(2000);

  test("is in force on both controllers, and it was served all the time by the same start", () => {
    expect(served.phase.kind).toBe("serving");
    for (const [i, each] of servers().entries()) {
      expect(each.config.limits).toEqual(limits);
      expect(each.made).toEqual({ config: server, isWhole: true });
      expect(each.round).toBe(before[i]?.round);
      expect(each.phase).toEqual(before[i]?.phase);
    }
    const [a, b] = [pair.controllers.a?.state, pair.controllers.b?.state];
    expect(a?.configuration).toBe(b?.configuration);
  });

  test("is on the common volume", () => {
    const { a } = pair.controllers;
    expect(servers()[0]?.definition.sequence).toBe(1);
    expect(a?.state.volume.known[0]?.generation).toBeGreaterThan(1);
    for (const serial of pair.coordinators) {
      const slots = pair.shelf.readPair(serial, "a", 0);
      if (slots === "failed") throw new Error(`${serial} cannot be read`);
      const records = slots.flatMap((slot) => (slot.kind === "record" ? [slot.record] : []));
      const newest = records.toSorted((one, other) => one.generation - other.generation).at(-1);
      expect(newest?.definition).toMatchObject({ sequence: 1, server: { name: "alpha", limits } });
    }
  });
});
