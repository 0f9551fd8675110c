/**
 * Two controllers and a witness, every order of claims, releases, losses, crashes and lost, late and repeated messages within small bounds:
 * for one generation at most one side ever holds a proof. Then the same with one mistake each, which must be found.
 */
import { describe, expect, test } from "vitest";
import { stepWitnessClient } from "../../firmware-ts/core/witness/client.ts";
import { decide } from "../../firmware-ts/core/witness/register.ts";
import { explore } from "../support/witness-explore.ts";

type Decide = typeof decide;
type StepClient = typeof stepWitnessClient;

describe("every order", () => {
  test.each([
    ["losses and rejoins", { generations: 3, losses: 3 }],
    ["crashes", { generations: 2, losses: 1, crashes: 2 }],
    ["answers that do not come", { generations: 2, losses: 2, timeouts: 1 }],
    ["goodbyes that the witness is not told of", { generations: 3, losses: 2, goodbyes: 1 }],
    ["a witness that restarts", { generations: 2, losses: 2, witnessCrashes: 1 }],
    ["a witness that loses its state", { generations: 2, losses: 2, amnesias: 1 }],
    ["a change of the witness", { generations: 2, losses: 2, switches: 1 }],
    ["copies that are put back from a backup", { generations: 3, losses: 3, restores: 1 }],
  ])("%s", (_name, budget) => {
    const { violation, verdicts, worlds } = explore(budget);
    expect(violation).toBeUndefined();
    // Nothing is shown by worlds in which nothing happens.
    expect(worlds).toBeGreaterThan(1000);
    for (const verdict of ["ready", "proof", "spent", "refused: heldByPartner"])
      expect(verdicts).toContain(verdict);
  });

  test("answers to questions that were given up prove nothing, even if they are heard", () => {
    const budget = { generations: 3, losses: 2, crashes: 1, timeouts: 1 };
    expect(explore(budget, { lateAnswers: true }).violation).toBeUndefined();
  });
});

/** The register forgets who holds the grant. */
const grantsTwice: Decide = (witness, record, request) =>
  decide(
    witness,
    record?.standing.kind === "held" ? { ...record, standing: { kind: "free" } } : record,
    request,
  );

/** One controller's word is enough. */
const oneSided: Decide = (witness, record, request) => {
  const decided = decide(witness, record, request);
  if (decided.write?.standing.kind !== "proposed") return decided;
  const write = { ...decided.write, standing: { kind: "free" } as const };
  return { write, answer: { ...decided.answer, record: write } };
};

/** A grant that was not used may be given back for the same generation, */
const takesBack: Decide = (witness, record, request) => {
  const decided = decide(witness, record, request);
  if (decided.answer.result !== "spentBase" || !record) return decided;
  const write = { ...record, version: record.version + 1, standing: { kind: "free" } as const };
  return { write, answer: { witness, result: "done", record: write } };
};
/** and is. */
const givesBack: StepClient = (client, event) => {
  const step = stepWitnessClient(client, event);
  const { verdict, record, me: side, witness, volume, lastAskId } = step.client;
  if (verdict.kind !== "spent" || verdict.by !== side || !record || step.client.asked) return step;
  const { base, version } = record;
  const request = { kind: "release", witness, volume, side, base, to: base, version } as const;
  return { client: { ...step.client, asked: { id: lastAskId + 1, request } } };
};

/** The register does not remember which bases were granted. */
const forgetsGranted: Decide = (witness, record, request) => {
  if (!record) return decide(witness, record, request);
  const { granted: _forgotten, ...rest } = record;
  return decide(witness, rest, request);
};

/** The client takes a free register for a grant. */
const looksOnly: StepClient = (client, event) => {
  const step = stepWitnessClient(client, event);
  const { want, asked, record } = step.client;
  if (want.kind !== "alone" || asked?.request.kind !== "claim" || !record) return step;
  const { base, next } = want;
  const verdict = { kind: "proof", base, next, version: record.version } as const;
  return { client: { ...step.client, verdict, asked: undefined, wakeAtMs: undefined } };
};

/** The client takes silence for consent. */
const silenceIsConsent: StepClient = (client, event) => {
  const step = stepWitnessClient(client, event);
  if (client.want.kind !== "alone" || event.kind !== "answer" || event.outcome.ok) return step;
  const { base, next } = client.want;
  return { client: { ...step.client, verdict: { kind: "proof", base, next, version: 0 } } };
};

describe("mistakes that are found", () => {
  test.each([
    ["a register that grants twice", { generations: 2, losses: 2 }, { decide: grantsTwice }],
    [
      "a grant that is given back for the same generation",
      { generations: 3, losses: 3 },
      { decide: takesBack, step: givesBack },
    ],
    [
      "a register that is led back to a base that was granted",
      { generations: 3, losses: 3, restores: 1 },
      { decide: forgetsGranted },
    ],
    ["a client that only looks", { generations: 2, losses: 2 }, { step: looksOnly }],
    [
      "a client that takes silence for consent",
      { generations: 2, losses: 2, timeouts: 2 },
      { step: silenceIsConsent },
    ],
    [
      "a witness that answers before it is durable",
      { generations: 2, losses: 2, witnessCrashes: 1 },
      { durableFirst: false },
    ],
    [
      "a witness that has lost its state and not its identity",
      { generations: 2, losses: 2, crashes: 0, amnesias: 1 },
      { newIdentity: false, prune: false },
    ],
    [
      "a new witness that believes one controller",
      { generations: 2, losses: 2, switches: 1 },
      { decide: oneSided },
    ],
    [
      "a right to continue alone that outlives the resync",
      { generations: 3, losses: 3 },
      { giveUpFirst: false },
    ],
    [
      "an outdated copy that is promoted",
      { generations: 2, losses: 1, goodbyes: 1, crashes: 1 },
      { mindsFlags: false },
    ],
    [
      "a power-off that is taken for a proof without the witness",
      { generations: 2, losses: 2, crashes: 1, powerOffs: 1 },
      {},
    ],
  ])("%s", (_name, budget, rules) => {
    const { violation } = explore(budget, rules);
    expect(violation?.at(-1)).toMatch(/both|back to/);
  });
});
