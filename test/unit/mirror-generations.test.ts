/** How generations change, and what is refused. */
import { describe, expect, test } from "vitest";
import {
  adopt,
  ancestry,
  becomeTarget,
  continueAlone,
  countAgainst,
  demote,
  detach,
  finish,
  firstReplica,
  freshReplica,
  outdate,
  promote,
  reclaim,
  settled,
  yieldTo,
} from "../../firmware-ts/core/mirror/generations.ts";
import { proofGap } from "../../firmware-ts/core/mirror/proofs.ts";
import { historyMax, type ReplicaMetadata } from "../../firmware-ts/schema/mirror.ts";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { generation, replicaAt } from "../support/replicas.ts";

const value = (outcome: Outcome<ReplicaMetadata>): ReplicaMetadata => {
  if (!outcome.ok) throw new Error(outcome.fault.message);
  return outcome.value;
};
const fault = <T>(outcome: Outcome<T>) => (outcome.ok ? "done" : outcome.fault.message);
const powerOff = { kind: "powerOff" } as const;
const override = { kind: "override", who: "operator", why: "the other building burns" } as const;
const going = { fresh: generation(9), epoch: 4, proof: powerOff };

describe("going on alone", () => {
  test("what both had is the base, and the new generation is nobody else's", () => {
    const next = value(continueAlone(replicaAt(5, { history: [generation(1)] }), going));
    expect(next).toMatchObject({
      current: generation(9),
      base: generation(5),
      history: [generation(1)],
      isSole: true,
      epoch: 4,
      continued: { epoch: 4, proof: powerOff },
    });
  });

  test("a base that was left of a resync is older than what it was for", () => {
    const next = value(continueAlone(replicaAt(5, { base: generation(4) }), going));
    expect(ancestry(next)).toEqual([9, 5, 4].map(generation));
    const same = value(continueAlone(replicaAt(5, { base: generation(5) }), going));
    expect(ancestry(same)).toEqual([9, 5].map(generation));
  });

  test("who is incomplete, outdated or of an older epoch does not; an override helps the outdated only", () => {
    expect(fault(continueAlone(replicaAt(5, { isComplete: false }), going))).toContain(
      "not complete",
    );
    expect(fault(continueAlone(replicaAt(5, { isOutdated: true }), going))).toContain("outdated");
    expect(fault(continueAlone(replicaAt(5, { epoch: 5 }), going))).toContain("epoch 4 is older");
    const forced = { ...going, proof: override };
    expect(value(continueAlone(replicaAt(5, { isOutdated: true }), forced)).isOutdated).toBe(false);
    const incomplete = replicaAt(5, { isComplete: false });
    expect(fault(continueAlone(incomplete, forced))).toContain("not complete");
  });

  test("a generation that was used before is a mistake", () => {
    expect(() => continueAlone(replicaAt(9), going)).toThrow("used before");
  });

  test("only so many older generations are remembered, the newest first", () => {
    let metadata = replicaAt(1);
    for (let number = 2; number < 40; number++) {
      metadata = value(continueAlone(metadata, { ...going, fresh: generation(number) }));
      metadata = settled(metadata);
    }
    expect(metadata.history).toHaveLength(historyMax);
    expect(metadata.history[0]).toBe(generation(38));
  });
});

describe("becoming primary, and not any more", () => {
  test("it is marked before the first write, in an epoch that never falls", () => {
    expect(value(promote(replicaAt(5), 7))).toMatchObject({ isPrimary: true, epoch: 7 });
    expect(fault(promote(replicaAt(5, { epoch: 8 }), 7))).toContain("older than 8");
    expect(fault(promote(replicaAt(5, { isOutdated: true }), 7))).toContain("outdated");
    expect(fault(promote(replicaAt(5, { isComplete: false }), 7))).toContain("not complete");
    expect(demote(replicaAt(5, { isPrimary: true })).isPrimary).toBe(false);
  });

  test("goodbye is said by who has nothing in flight", () => {
    expect(outdate(replicaAt(5)).isOutdated).toBe(true);
    expect(() => outdate(replicaAt(5, { isPrimary: true }))).toThrow("in flight");
  });
});

describe("a resync", () => {
  test("leaves the target with what the source has, and the source with nothing to count", () => {
    const source = value(continueAlone(replicaAt(5), going));
    const target = becomeTarget(replicaAt(5, { controller: "b" }), generation(9), undefined);
    expect(target).toMatchObject({ isComplete: false, current: generation(5) });
    const shared = finish(countAgainst(source, generation(5)));
    expect(shared).toMatchObject({ isSole: false, base: generation(5) });
    expect(reclaim(shared).isSole).toBe(true);
    const { current = "", history } = settled(shared);
    const adopted = adopt(target, { current, history });
    expect(adopted).toMatchObject({
      current: generation(9),
      history: [generation(5)],
      isComplete: true,
    });
    expect(adopted.replacedBy).toBeUndefined();
    expect(settled(shared)).toMatchObject({ history: [generation(5)], isSole: false });
    expect(settled(shared).base).toBeUndefined();
  });

  test("a full copy has an id of its own, against which the source counts", () => {
    const target = becomeTarget(
      replicaAt(3, { base: generation(2) }),
      generation(9),
      generation(77),
    );
    expect(ancestry(target)).toEqual([generation(77)]);
    const source = countAgainst(replicaAt(9, { base: generation(5) }), generation(77));
    expect(ancestry(source)).toEqual([9, 77, 5].map(generation));
  });

  test("what is not being overwritten with it does not become it", () => {
    const finished = { current: generation(9), history: [] };
    expect(() => adopt(replicaAt(5), finished)).toThrow("not being overwritten");
    const other = becomeTarget(replicaAt(5), generation(8), undefined);
    expect(() => adopt(other, finished)).toThrow("not being overwritten");
  });
});

describe("a new volume, and two that have diverged", () => {
  test("a replica is fresh until the volume begins with it", () => {
    const shape = {
      volume: generation(1),
      controller: "a",
      dataBytes: 8,
      granularityBytes: 4,
    } as const;
    const first = value(firstReplica(freshReplica(shape), generation(2)));
    expect(first).toMatchObject({ current: generation(2), isComplete: true, isSole: true });
    expect(fault(firstReplica(first, generation(3)))).toContain("holds data");
  });

  test("one is given up for the other, or becomes a volume of its own", () => {
    const given = yieldTo(replicaAt(5, { base: generation(1), isSole: true }), generation(6));
    expect(given).toMatchObject({ isComplete: false, isSole: false, replacedBy: generation(6) });
    expect(given.base).toBe(generation(1));
    const both = yieldTo(replicaAt(5, { isPrimary: true }), generation(5));
    expect(both).toMatchObject({ isComplete: false, replacedBy: generation(5) });
    const own = value(detach(replicaAt(5, { base: generation(1) }), generation(50), generation(7)));
    expect(own).toMatchObject({
      volume: generation(50),
      current: generation(7),
      history: [],
      isSole: true,
    });
    const { volume } = own;
    expect(fault(detach(own, volume, generation(8)))).toContain("id of its own");
    expect(fault(detach(given, generation(60), generation(8)))).toContain("not complete");
  });
});

describe("a proof", () => {
  const current = generation(5);
  const next = generation(6);
  const witness = { kind: "witness", generation: current, next } as const;
  const word = { kind: "goodbye", isDurable: true } as const;
  const ofLife = { kind: "goodbye", isDurable: false } as const;
  const by = (arbiter: "witness" | "powerOff", isContinuous = true) => ({
    arbiter,
    current,
    next,
    isContinuous,
  });

  test.each([
    ["an override, whatever it is worth", override, by("witness", false)],
    ["the witness, also for who was away", witness, by("witness", false)],
    ["the partner's durable word", word, by("witness", false)],
    ["the partner's word for its life, where only its power counts", ofLife, by("powerOff")],
    ["the partner without power", powerOff, by("powerOff")],
  ])("holds: %s", (_what, proof, circumstances) => {
    expect(proofGap(proof, circumstances)).toBeUndefined();
  });

  test.each([
    ["a witness that does not decide", witness, by("powerOff"), "not decided by a witness"],
    ["another generation", { ...witness, generation: generation(4) }, by("witness"), "another"],
    ["another name", { ...witness, next: generation(7) }, by("witness"), "another"],
    ["a word that may die with its life", ofLife, by("witness"), "present life"],
    ["that word, to who was away", ofLife, by("powerOff", false), "not running"],
    ["power, where a witness decides", powerOff, by("witness"), "decided by a witness"],
    ["power, to who was away", powerOff, by("powerOff", false), "not running"],
  ])("does not hold: %s", (_what, proof, circumstances, gap) => {
    expect(proofGap(proof, circumstances)).toContain(gap);
  });
});
