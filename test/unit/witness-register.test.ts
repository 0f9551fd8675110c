/** The register as a table: every kind of request at every kind of record. */
import { describe, expect, test } from "vitest";
import { decide } from "../../firmware-ts/core/witness/register.ts";
import { answerRequest, emptyState, listVolumes } from "../../firmware-ts/core/witness/state.ts";
import {
  type WitnessRecord,
  type WitnessRequest,
  type WitnessState,
  witnessLimits,
  witnessRequestSchema,
  witnessStateSchema,
} from "../../firmware-ts/schema/witness.ts";

const witness = "1".repeat(32);
const addressed = { witness, volume: "v" };
const free: WitnessRecord = { version: 5, base: "g1", standing: { kind: "free" } };
const proposed: WitnessRecord = { ...free, standing: { kind: "proposed", by: "a" } };
const held: WitnessRecord = {
  ...free,
  standing: { kind: "held", by: "a", next: "g2", epoch: 3 },
};
const by = (side: "a" | "b", version = 5, base = "g1") => ({ ...addressed, side, base, version });
const register = (...words: Parameters<typeof by>): WitnessRequest => ({
  kind: "register",
  ...by(...words),
});
const claim = (...words: Parameters<typeof by>): WitnessRequest => ({
  kind: "claim",
  next: "g9",
  epoch: 4,
  ...by(...words),
});
const release = (to: string, ...words: Parameters<typeof by>): WitnessRequest => ({
  kind: "release",
  to,
  ...by(...words),
});
const impose = (version: number, base = "g1"): WitnessRequest => ({
  kind: "impose",
  ...addressed,
  base,
  version,
  reason: "r",
});

describe("refused", () => {
  test.each<[string, WitnessRecord | undefined, WitnessRequest, string]>([
    ["a registration of what is registered", free, register("a"), "registered"],
    ["a registration of what is held", held, register("a"), "registered"],
    ["an administrator's, too", free, impose(5), "registered"],
    ["an administrator's of what is held", held, impose(5), "registered"],
    ["a claim of nothing", undefined, claim("a", 0), "unregistered"],
    ["a claim of what one side has registered, by that side", proposed, claim("a"), "unregistered"],
    ["the same by the other side", proposed, claim("b"), "unregistered"],
    ["a claim from another base", free, claim("a", 5, "g0"), "otherBase"],
    ["a claim of what the other side holds", held, claim("b"), "held"],
    ["a claim from what will be the base", held, claim("b", 5, "g2"), "otherBase"],
    ["a claim on an older version", free, claim("a", 4), "stale"],
    ["a claim on a version that is to come", free, claim("a", 6), "stale"],
    [
      "a claim to continue as the same",
      free,
      { ...by("a"), kind: "claim", next: "g1", epoch: 4 },
      "spentBase",
    ],
    ["a release of nothing", undefined, release("g2", "a", 0), "unregistered"],
    ["a release of what one side has registered", proposed, release("g2", "a"), "unregistered"],
    ["a release from another base", free, release("g2", "a", 5, "g0"), "otherBase"],
    ["a release by who does not hold it", held, release("g2", "b"), "held"],
    ["a release to the same base", held, release("g1", "a"), "spentBase"],
    ["a release to the same base of what nobody holds", free, release("g1", "a"), "spentBase"],
    [
      "a release to a base that was granted before",
      { ...held, granted: ["g0", "g1"] },
      release("g0", "a"),
      "spentBase",
    ],
    [
      "the same by anybody, when nobody holds it",
      { ...free, granted: ["g0"] },
      release("g0", "b"),
      "spentBase",
    ],
    [
      "a claim to continue as a base that was granted before",
      { ...free, granted: ["g9", "g0"] },
      claim("b"),
      "spentBase",
    ],
    ["a late release", held, release("g2", "a", 4), "stale"],
    ["a registration of nothing on a version", undefined, register("a", 1), "stale"],
  ])("%s", (_name, record, request, result) => {
    const decided = decide(witness, record, request);
    expect(decided).toEqual({ answer: { witness, result, record: record ?? null } });
  });
});

describe("done", () => {
  const standing = (kind: "free") => ({ kind });
  test.each<[string, WitnessRecord | undefined, WitnessRequest, WitnessRecord]>([
    [
      "one side registers",
      undefined,
      register("a", 0),
      { version: 1, base: "g1", standing: { kind: "proposed", by: "a" } },
    ],
    ["it says so again", proposed, register("a"), { ...proposed, version: 6 }],
    [
      "it has another base by now",
      proposed,
      register("a", 5, "g2"),
      { version: 6, base: "g2", standing: { kind: "proposed", by: "a" } },
    ],
    [
      "the other side has another base",
      proposed,
      register("b", 5, "g2"),
      { version: 6, base: "g2", standing: { kind: "proposed", by: "b" } },
    ],
    ["the other side says the same", proposed, register("b"), { ...free, version: 6 }],
    [
      "an administrator registers",
      undefined,
      impose(0),
      { version: 1, base: "g1", standing: standing("free"), imposed: "r" },
    ],
    [
      "an administrator settles what one side has begun",
      proposed,
      impose(5, "g4"),
      { version: 6, base: "g4", standing: standing("free"), imposed: "r" },
    ],
    [
      "a claim",
      free,
      claim("b"),
      {
        version: 6,
        base: "g1",
        standing: { kind: "held", by: "b", next: "g9", epoch: 4 },
        granted: ["g1"],
      },
    ],
    [
      "a claim of who holds it",
      { ...held, granted: ["g0", "g1"] },
      claim("a"),
      {
        version: 6,
        base: "g1",
        standing: { kind: "held", by: "a", next: "g9", epoch: 4 },
        granted: ["g0", "g1"],
      },
    ],
    [
      "a claim keeps who registered the volume",
      { ...free, imposed: "r" },
      claim("a"),
      {
        version: 6,
        base: "g1",
        standing: { kind: "held", by: "a", next: "g9", epoch: 4 },
        imposed: "r",
        granted: ["g1"],
      },
    ],
    [
      "a release",
      { ...held, granted: ["g1"] },
      release("g2", "a"),
      { version: 6, base: "g2", standing: standing("free"), granted: ["g1"] },
    ],
    [
      "a release of what nobody holds",
      free,
      release("g2", "b"),
      { version: 6, base: "g2", standing: standing("free") },
    ],
  ])("%s", (_name, record, request, write) => {
    const decided = decide(witness, record, request);
    expect(decided).toEqual({ answer: { witness, result: "done", record: write }, write });
    // And the same once more, late: nothing.
    expect(decide(witness, write, request).answer.result).toBe("stale");
  });

  test("the last bases that were granted are remembered, and no more than that", () => {
    const granted = Array.from({ length: witnessLimits.grantedMax }, (_, index) => `old${index}`);
    const { write } = decide(witness, { ...free, granted }, claim("a"));
    expect(write?.granted).toEqual([...granted.slice(1), "g1"]);
  });

  test("a look changes nothing", () => {
    const look = { kind: "look", ...addressed } as const;
    expect(decide(witness, held, look)).toEqual({
      answer: { witness, result: "done", record: held },
    });
  });
});

test.each([
  register("a"),
  claim("a"),
  release("g2", "a"),
  impose(5),
  { kind: "look", ...addressed } as const,
])("another witness does nothing and tells nothing: $kind", (request) => {
  const other = "2".repeat(32);
  expect(decide(other, free, request)).toEqual({
    answer: { witness: other, result: "otherWitness", record: null },
  });
});

describe("the records of all pairs", () => {
  test("are apart, and listed by name", () => {
    let state = emptyState(witness);
    const change = (pair: string, request: WitnessRequest) => {
      const { next, answer } = answerRequest(state, pair, request);
      state = next ?? state;
      return answer.result;
    };
    for (const volume of ["w", "v"])
      expect(change("alpha", { ...register("a", 0), volume })).toBe("done");
    expect(change("beta", register("b", 0, "g7"))).toBe("done");
    expect(listVolumes(state, "alpha").volumes.map(({ volume }) => volume)).toEqual(["v", "w"]);
    expect(listVolumes(state, "beta").volumes).toHaveLength(1);
    expect(listVolumes(state, "constructor")).toEqual({ witness, volumes: [] });
    expect(change("toString", claim("a", 0))).toBe("unregistered");
    expect(witnessStateSchema.parse(JSON.parse(JSON.stringify(state)))).toEqual(state);
  });

  test("have room for so many volumes of a pair, and changes of those are still made", () => {
    let state: WitnessState = emptyState(witness);
    for (let number = 0; number < witnessLimits.volumesMax; number += 1)
      state =
        answerRequest(state, "alpha", { ...register("a", 0), volume: `v${number}` }).next ?? state;
    const more = answerRequest(state, "alpha", { ...register("a", 0), volume: "more" });
    expect(more).toEqual({ answer: { witness, result: "full", record: null } });
    expect(answerRequest(state, "beta", register("a", 0)).answer.result).toBe("done");
    expect(answerRequest(state, "alpha", { ...register("b", 1), volume: "v0" }).answer.result).toBe(
      "done",
    );
    expect(witnessStateSchema.safeParse(state).success).toBe(true);
    const records = { ...state.pairs.alpha, more: free };
    expect(witnessStateSchema.safeParse({ ...state, pairs: { alpha: records } }).success).toBe(
      false,
    );
  });
});

test("a reason may have 200 bytes", () => {
  for (const reason of ["r".repeat(200), "\u00fc".repeat(100)])
    expect(witnessRequestSchema.safeParse({ ...impose(0), reason }).success).toBe(true);
});

test.each([
  [{ ...claim("a"), volume: "" }],
  [{ ...claim("a"), volume: "__proto__" }],
  [{ ...claim("a"), volume: "a/b" }],
  [{ ...claim("a"), volume: "v".repeat(65) }],
  [{ ...claim("a"), version: -1 }],
  [{ ...claim("a"), version: 1.5 }],
  [{ ...claim("a"), version: 2 ** 53 }],
  [{ ...claim("a"), side: "c" }],
  [{ ...claim("a"), witness: "1".repeat(31) }],
  [{ ...claim("a"), more: 1 }],
  [{ ...impose(0), reason: "" }],
  [{ ...impose(0), reason: "two\nlines" }],
  [{ ...impose(0), reason: "r".repeat(201) }],
  [{ ...impose(0), reason: "\u00fc".repeat(101) }],
  [{ ...impose(0), reason: "half a pair: \ud83d" }],
])("is no request: %j", (request) => {
  expect(witnessRequestSchema.safeParse(request).success).toBe(false);
});
