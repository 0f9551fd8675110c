/** The witness under a network that loses, repeats and reorders, and restarts at every step: what is told fits one order, and lasts. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { decide } from "../../firmware-ts/core/witness/register.ts";
import { answerRequest, emptyState } from "../../firmware-ts/core/witness/state.ts";
import {
  type WitnessRequest,
  type WitnessState,
  witnessAnswerSchema,
  witnessRequestSchema,
  witnessStateSchema,
} from "../../firmware-ts/schema/witness.ts";
import { contradictions, grantedTwice, type Told } from "../support/witness-history.ts";

const witness = "1".repeat(32);
const side = fc.constantFrom("a" as const, "b" as const);
const generation = fc.constantFrom("g0", "g1", "g2");
const addressed = { witness: fc.constant(witness), volume: fc.constant("v") };
const version = fc.nat({ max: 6 });
const based = { ...addressed, side, base: generation, version };

const request: fc.Arbitrary<WitnessRequest> = fc.oneof(
  fc.record({ kind: fc.constant("look" as const), ...addressed }),
  fc.record({ kind: fc.constant("register" as const), ...based }),
  fc.record({ kind: fc.constant("claim" as const), ...based, next: generation, epoch: fc.nat() }),
  fc.record({ kind: fc.constant("release" as const), ...based, to: generation }),
  fc.record({
    kind: fc.constant("impose" as const),
    ...addressed,
    base: generation,
    version,
    reason: fc.constant("r"),
  }),
);

/** One thing that happens to the requests, which are named by their places. */
const happening = fc.record({
  /** Which request is carried out next; any number of times, in any order, or never. */
  which: fc.nat({ max: 30 }),
  isTold: fc.boolean(),
  crash: fc.constantFrom("never", "never", "beforeItIsKept", "beforeItIsTold"),
});

type Happening = typeof happening extends fc.Arbitrary<infer T> ? T : never;

/** A witness that ends anywhere reads what it kept; an answer is given only when that is done. */
function run(requests: readonly WitnessRequest[], happenings: readonly Happening[]) {
  let durable: WitnessState = emptyState(witness);
  let memory = durable;
  const history: Told[] = [];
  let position = requests.length;
  for (const { which, isTold, crash } of happenings) {
    const asked = which % requests.length;
    const each = requests[asked];
    if (each === undefined) continue;
    const { answer, next } = answerRequest(memory, "alpha", each);
    if (crash !== "beforeItIsKept" && next !== undefined) {
      durable = witnessStateSchema.parse(JSON.parse(JSON.stringify(next)));
      memory = durable;
    }
    if (crash !== "never") memory = durable;
    position += 1;
    // All were asked at the beginning: a later one may overtake an earlier one, and one may be answered twice.
    history.push(
      crash === "never" && isTold
        ? { request: each, asked, answered: position, answer }
        : { request: each, asked },
    );
  }
  return history;
}

test("what is told fits one order, and no generation is granted to both", () => {
  fc.assert(
    fc.property(
      fc.array(request, { minLength: 1, maxLength: 30 }),
      fc.array(happening, { maxLength: 40 }),
      (requests, happenings) => {
        const history = run(requests, happenings);
        expect(contradictions(witness, history)).toEqual([]);
      },
    ),
    { numRuns: 2000 },
  );
});

/** Requests as sides send them that have looked: so that much takes effect. */
const lively = fc.array(
  fc.record({
    request: request.filter(({ kind }) => kind !== "look"),
    isRepeatedLater: fc.boolean(),
    fresh: fc.boolean(),
  }),
  // As long as they may be: short ones hardly get beyond the first grant.
  { maxLength: 60, size: "max" },
);

test("a base that was granted is never granted to the other side, and versions only rise", () => {
  let grants = 0;
  fc.assert(
    fc.property(lively, (sent) => {
      const registered = { kind: "impose", witness, volume: "v", base: "g0" } as const;
      const first = { ...registered, version: 0, reason: "r" };
      let state = answerRequest(emptyState(witness), "alpha", first).next ?? emptyState(witness);
      const history: Told[] = [];
      const later: WitnessRequest[] = [];
      let generations = 3;
      const carryOut = (each: WitnessRequest) => {
        const before = state.pairs.alpha?.v?.version ?? 0;
        const { answer, next } = answerRequest(state, "alpha", each);
        state = next ?? state;
        expect(state.pairs.alpha?.v?.version ?? 0).toBe(next ? before + 1 : before);
        history.push({ request: each, asked: 0, answer });
        grants += each.kind === "claim" && answer.result === "done" ? 1 : 0;
      };
      for (const { request: drawn, isRepeatedLater, fresh } of sent) {
        const record = state.pairs.alpha?.v;
        let each = drawn;
        if (fresh && "version" in each) each = { ...each, version: record?.version ?? 0 };
        if (fresh && record && "base" in each) each = { ...each, base: record.base };
        // Mostly a new generation, and sometimes an old one that somebody has put back.
        if (each.kind === "release" && !isRepeatedLater) {
          each = { ...each, to: `g${generations}` };
          generations += 1;
        }
        carryOut(each);
        if (isRepeatedLater) later.push(each);
        else for (const late of later) carryOut(late);
      }
      expect(grantedTwice(history)).toEqual([]);
    }),
    { numRuns: 300 },
  );
  expect(grants).toBeGreaterThan(200);
});

test("what a register makes of a request is well formed, and told as it is kept", () => {
  fc.assert(
    fc.property(fc.array(request, { maxLength: 30 }), (requests) => {
      let state = emptyState(witness);
      for (const each of requests) {
        expect(witnessRequestSchema.parse(each)).toEqual(each);
        const fresh =
          "version" in each ? { ...each, version: state.pairs.alpha?.v?.version ?? 0 } : each;
        const { answer, next } = answerRequest(state, "alpha", fresh);
        expect(witnessAnswerSchema.parse(answer)).toEqual(answer);
        state = next ?? state;
        expect(answer.record ?? undefined).toEqual(state.pairs.alpha?.v);
      }
    }),
  );
});

test("the judge notices a witness that forgets, and one that grants twice", () => {
  const told: Told[] = [];
  let record: ReturnType<typeof decide>["write"];
  const tell = (each: WitnessRequest) => {
    const decided = decide(witness, record, each);
    record = decided.write ?? record;
    told.push({
      request: each,
      asked: told.length * 2,
      answered: told.length * 2 + 1,
      answer: decided.answer,
    });
  };
  const base = { witness, volume: "v", base: "g0" } as const;
  tell({ kind: "register", ...base, side: "a", version: 0 });
  tell({ kind: "register", ...base, side: "b", version: 1 });
  tell({ kind: "claim", ...base, side: "a", version: 2, next: "g1", epoch: 1 });
  expect(contradictions(witness, told)).toEqual([]);
  record = { version: 2, base: "g0", standing: { kind: "free" } };
  tell({ kind: "claim", ...base, side: "b", version: 2, next: "g2", epoch: 1 });
  expect(contradictions(witness, told)).not.toEqual([]);
  expect(grantedTwice(told)).toEqual(["both from g0"]);
  told.pop();
  record = undefined;
  tell({ kind: "look", witness, volume: "v" });
  expect(contradictions(witness, told)).not.toEqual([]);
});
