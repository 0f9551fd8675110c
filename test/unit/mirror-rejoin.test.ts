/** Two replicas meet: a case for each row of the table, and what holds for all that may be written down. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { mirrored, rejoin, rejoinBy, rejoinTable } from "../../firmware-ts/core/mirror/rejoin.ts";
import type { ReplicaMetadata, Verdict } from "../../firmware-ts/schema/mirror.ts";
import { anyReplica, generation, replicaAt } from "../support/replicas.ts";

const fresh = (): ReplicaMetadata => {
  const { current: _, ...rest } = replicaAt(1, { isComplete: false });
  return rest;
};
const at = replicaAt;
/** Went on alone from `base`. */
const alone = (current: number, base: number, history: number[] = []) =>
  at(current, { base: generation(base), history: history.map(generation), isSole: true });
const target = (current: number, replacedBy: number) =>
  at(current, { isComplete: false, replacedBy: generation(replacedBy) });

const copies = (how: "bitmap" | "full") => ({ kind: "resync", source: "mine", how });
const kind = (name: Verdict["kind"]) => ({ kind: name });

/** Row, mine, theirs, verdict. */
const cases: readonly (readonly [string, ReplicaMetadata, ReplicaMetadata, object])[] = [
  ["another volume", at(1), at(1, { volume: "00000000000000bb" }), kind("unrelated")],
  ["same controller", at(1), at(1, { controller: "a" }), kind("unrelated")],
  ["another shape", at(1), at(1, { dataBytes: 2 ** 31 }), kind("unrelated")],
  ["another shape", at(1), at(1, { granularityBytes: 4096 }), kind("unrelated")],
  ["nothing written yet", fresh(), fresh(), kind("neither")],
  ["none complete", target(1, 2), target(3, 2), kind("neither")],
  ["none complete", target(1, 2), fresh(), kind("neither")],
  ["outdated beside fresh", at(1, { isOutdated: true }), fresh(), kind("neither")],
  ["fresh", at(1), fresh(), copies("full")],
  ["sole, and yet not alone", at(1), at(1, { isSole: true }), kind("diverged")],
  ["sole, and yet not alone", alone(2, 1), at(1, { isSole: true }), kind("diverged")],
  [
    "both primary at once",
    at(1, { isPrimary: true }),
    at(1, { isPrimary: true }),
    kind("diverged"),
  ],
  ["crashed primary", at(1, { isPrimary: true }), at(1, { isOutdated: true }), copies("bitmap")],
  ["nothing to do", at(1), at(1), kind("same")],
  ["nothing to do", at(1, { isOutdated: true }), at(1, { isOutdated: true }), kind("same")],
  ["nothing to do", at(2, { base: generation(1) }), at(2), kind("same")],
  ["resync goes on", alone(2, 1), target(1, 2), copies("bitmap")],
  ["yielded", alone(2, 1), at(3, { ...target(3, 2), base: generation(1) }), copies("bitmap")],
  ["resync begins anew", alone(2, 1), target(3, 2), copies("full")],
  ["resync begins anew", at(2), target(3, 2), copies("full")],
  [
    "the newer one is incomplete",
    at(1),
    at(2, { ...target(2, 4), base: generation(1) }),
    kind("neither"),
  ],
  ["incomplete, of a generation that we have", at(1), target(1, 2), copies("full")],
  ["incomplete, of a generation that we have", alone(3, 2, [1]), target(1, 2), copies("full")],
  ["incomplete, of a generation that we have", alone(3, 2, [1]), target(5, 2), copies("full")],
  ["went on alone", alone(2, 1), at(1), copies("bitmap")],
  ["went on alone", alone(2, 1), at(1, { isPrimary: true }), copies("bitmap")],
  ["away for more than one generation", alone(3, 2, [1]), at(1), copies("full")],
  ["diverged", alone(2, 1), alone(3, 1), kind("diverged")],
  ["diverged", alone(4, 2, [1]), alone(3, 1), kind("diverged")],
  ["history too short", at(9), at(1), kind("unrelated")],
];

describe("what two replicas are to each other", () => {
  test.each(cases)("%s", (row, mine, other, verdict) => {
    const theirs: ReplicaMetadata =
      row === "same controller" ? other : { ...other, controller: "b" };
    expect(rejoin(mine, theirs)).toMatchObject(verdict);
    const { reason } = rejoin(mine, theirs);
    const isSaid = (each: (typeof rejoinTable)[number]) =>
      each.reason("a", "b") === reason || each.reason("b", "a") === reason;
    expect(rejoinTable.find(isSaid)?.name).toBe(row);
    expect(rejoin(theirs, mine)).toEqual(mirrored(rejoin(mine, theirs)));
  });

  test("the reason names the controllers, and is the same on both sides", () => {
    const [a, b] = [alone(2, 1), at(1, { controller: "b" })];
    expect(rejoin(a, b).reason).toContain("a went on while b was away");
    expect(rejoin(b, a).reason).toContain("a went on while b was away");
    const newer = { ...alone(2, 1), controller: "b" } as const;
    expect(rejoin(at(1), newer).reason).toContain("b went on while a was away");
  });

  test("each row has its case", () => {
    const names = cases.map(([name]) => name);
    for (const { name } of rejoinTable) expect(names).toContain(name);
  });

  test("there is an answer for whatever may be written down, and the other side has its mirror image", () => {
    fc.assert(
      fc.property(anyReplica, anyReplica, (mine, theirs) => {
        const verdict = rejoin(mine, theirs);
        expect(rejoin(theirs, mine)).toEqual(mirrored(verdict));
        if (verdict.kind !== "resync") return;
        const source = verdict.source === "mine" ? mine : theirs;
        expect(source.isComplete).toBe(true);
        expect(source.volume).toBe((verdict.source === "mine" ? theirs : mine).volume);
      }),
      { numRuns: 20_000 },
    );
  });

  test("two that each call themselves the newer one have diverged", () => {
    const mine = at(1, { base: generation(2) });
    const theirs = at(2, { base: generation(1), controller: "b" });
    expect(rejoin(mine, theirs)).toMatchObject({ kind: "diverged" });
  });

  test("a table without an end is a mistake", () => {
    expect(() => rejoinBy([], at(1), at(1))).toThrow("the last row");
  });
});
