/** What a controller asks a witness when, and what it makes of the answers. */
import { describe, expect, test } from "vitest";
import {
  askDeadlineMs,
  hurriedMax,
  retryPausesMs,
  type Step,
  startWitnessClient,
  stepWitnessClient,
  turnPauseMs,
  type Want,
  type WitnessClient,
  watchPauseMs,
} from "../../firmware-ts/core/witness/client.ts";
import { failed, good } from "../../firmware-ts/schema/outcome.ts";
import type { WitnessAnswer, WitnessRecord } from "../../firmware-ts/schema/witness.ts";

const witness = "1".repeat(32);
const settled: Want = { kind: "settled", base: "g1" };
const alone: Want = { kind: "alone", base: "g1", next: "g2", epoch: 7 };
const free: WitnessRecord = { version: 5, base: "g1", standing: { kind: "free" } };
const heldBy = (by: "a" | "b", next = "g2", version = 6, base = "g1"): WitnessRecord => ({
  version,
  base,
  standing: { kind: "held", by, next, epoch: 7 },
});

/** A controller `a`, and the questions that it asks, in order. */
function controller(seenVersion = 0) {
  let client: WitnessClient = startWitnessClient("a", witness, "v", seenVersion);
  let nowMs = 1000;
  let last: Step["ask"];
  const take = (step: Step) => {
    client = step.client;
    last = step.ask;
    return last?.request;
  };
  return {
    client: () => client,
    last: () => last,
    pass(ms: number) {
      nowMs += ms;
      return take(stepWitnessClient(client, { kind: "tick", nowMs }));
    },
    want: (want: Want) => take(stepWitnessClient(client, { kind: "want", want, nowMs })),
    answer: (
      record: WitnessRecord | null,
      result: WitnessAnswer["result"] = "done",
      id = client.asked?.id ?? 0,
      who = witness,
    ) =>
      take(
        stepWitnessClient(client, {
          kind: "answer",
          id,
          outcome: good({ witness: who, result, record }),
          nowMs,
        }),
      ),
    fail: () =>
      take(
        stepWitnessClient(client, {
          kind: "answer",
          id: client.asked?.id ?? 0,
          outcome: failed("timeout", "ask", "no answer"),
          nowMs,
        }),
      ),
    wakesIn: () => (client.wakeAtMs === undefined ? undefined : client.wakeAtMs - nowMs),
  };
}

describe("continuing alone", () => {
  test("looks, claims on the version that it has seen, and has a proof when that is granted", () => {
    const { want, answer, client, last, wakesIn } = controller();
    expect(want(alone)).toEqual({ kind: "look", witness, volume: "v" });
    expect(last()?.deadlineMs).toBe(askDeadlineMs);
    expect(client().verdict.kind).toBe("unknown");
    expect(answer(free)).toEqual({
      kind: "claim",
      witness,
      volume: "v",
      side: "a",
      base: "g1",
      next: "g2",
      epoch: 7,
      version: 5,
    });
    expect(client().verdict.kind).toBe("unknown");
    expect(answer(heldBy("a"))).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "proof", base: "g1", next: "g2", version: 6 });
    expect(wakesIn()).toBeUndefined();
  });

  test("claims at once when it has watched the register while both were in sync", () => {
    const { want, answer } = controller();
    want(settled);
    answer(free);
    expect(want(alone)).toMatchObject({ kind: "claim", version: 5 });
  });

  test("does not refuse on what it knew before: it looks again", () => {
    const { want, answer, client } = controller();
    want(settled);
    answer({ version: 1, base: "g1", standing: { kind: "proposed", by: "a" } });
    expect(want(alone)).toMatchObject({ kind: "look" });
    expect(answer(free)).toMatchObject({ kind: "claim" });
    expect(client().verdict.kind).toBe("unknown");
  });

  test("looks first when a question of before may have taken effect unheard", () => {
    const { want, answer } = controller();
    want(alone);
    answer(free);
    expect(want({ ...alone, next: "g3" })).toMatchObject({ kind: "look" });
    expect(answer(heldBy("a"))).toMatchObject({ kind: "claim", next: "g3", version: 6 });
  });

  test("takes a version that has moved on from the answer, and claims again", () => {
    const { want, answer, client } = controller();
    want(alone);
    answer(free);
    expect(answer({ ...free, version: 8 }, "stale")).toMatchObject({ kind: "claim", version: 8 });
    answer(heldBy("a", "g2", 9));
    expect(client().verdict).toMatchObject({ kind: "proof", version: 9 });
  });

  test("asks again after a lost answer, and claims anew what it holds already", () => {
    const { want, answer, fail, pass, client, wakesIn } = controller();
    want(alone);
    answer(free);
    expect(fail()).toBeUndefined();
    expect(client().verdict).toMatchObject({ kind: "unknown" });
    expect(wakesIn()).toBe(retryPausesMs[0]);
    expect(pass(retryPausesMs[0] - 1)).toBeUndefined();
    expect(pass(1)).toMatchObject({ kind: "look" });
    // It had been granted: only the answer to a claim of now is a proof.
    expect(answer(heldBy("a"))).toMatchObject({ kind: "claim", version: 6 });
    expect(client().verdict.kind).toBe("unknown");
    answer(heldBy("a", "g2", 7));
    expect(client().verdict.kind).toBe("proof");
  });

  test("waits longer after each failure, up to a limit", () => {
    const { want, fail, pass, wakesIn } = controller();
    want(alone);
    const pauses = [...retryPausesMs, retryPausesMs.at(-1)].map(() => {
      fail();
      const pauseMs = wakesIn() ?? 0;
      pass(pauseMs);
      return pauseMs;
    });
    expect(pauses).toEqual([...retryPausesMs, retryPausesMs.at(-1)]);
  });

  test.each<[string, WitnessRecord | null, string]>([
    ["the partner holds it", heldBy("b"), "heldByPartner"],
    ["the partner holds another base", heldBy("b", "g3", 6, "g2"), "heldByPartner"],
    ["there is no record", null, "unregistered"],
    [
      "only the partner has registered",
      { version: 1, base: "g1", standing: { kind: "proposed", by: "b" } },
      "unregistered",
    ],
    ["an old copy: the register is ahead", { ...free, base: "g7" }, "otherBase"],
    [
      "it holds another base, and said it would be something else",
      heldBy("a", "g9", 6, "g0"),
      "otherBase",
    ],
  ])("is refused when %s, and looks again later", (_name, record, why) => {
    const { want, answer, pass, client, wakesIn } = controller();
    want(alone);
    expect(answer(record)).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "refused", why });
    expect(wakesIn()).toBe(watchPauseMs);
    expect(pass(watchPauseMs)).toMatchObject({ kind: "look" });
  });

  test("releases first what it had continued from, when the release did not come through in time", () => {
    const { want, answer, client } = controller();
    want(alone);
    expect(answer(heldBy("a", "g1", 6, "g0"))).toMatchObject({
      kind: "release",
      base: "g0",
      to: "g1",
      version: 6,
    });
    expect(answer({ ...free, version: 7 })).toMatchObject({
      kind: "claim",
      base: "g1",
      version: 7,
    });
    answer(heldBy("a", "g2", 8));
    expect(client().verdict.kind).toBe("proof");
  });

  test("a late answer, of what was asked before, proves nothing", () => {
    const { want, answer, client } = controller();
    want(alone);
    answer(free);
    const late = client().asked?.id;
    want(settled);
    want({ ...alone, base: "g5", next: "g6" });
    expect(answer(heldBy("a"), "done", late)).toBeUndefined();
    expect(client().verdict.kind).toBe("unknown");
  });

  test.each<[string, WitnessRecord | null]>([
    ["nothing", null],
    ["a free record", { ...free, version: 6 }],
    ["the partner", heldBy("b")],
    ["another generation", heldBy("a", "g3")],
    ["another base", heldBy("a", "g2", 6, "g0")],
    ["another version", heldBy("a", "g2", 7)],
  ])("a grant for %s is none", (_name, record) => {
    const { want, answer, client } = controller();
    want(alone);
    answer(free);
    expect(answer(record)).toBeUndefined();
    expect(client().verdict.kind).not.toBe("proof");
  });

  test("a witness that contradicts itself is not asked in a loop", () => {
    const { want, answer, client, wakesIn } = controller();
    want(alone);
    let version = 5;
    for (let times = 0; times < hurriedMax; times += 1) {
      expect(answer({ ...free, version }, "stale")).toBeDefined();
      version += 1;
    }
    expect(answer({ ...free, version }, "stale")).toBeUndefined();
    expect(client().verdict.kind).toBe("unknown");
    expect(wakesIn()).toBe(watchPauseMs);
  });
});

describe("in sync", () => {
  test("registers what is not there, and waits for the partner to do the same", () => {
    const { want, answer, pass, client, wakesIn } = controller();
    expect(want(settled)).toMatchObject({ kind: "look" });
    expect(answer(null)).toMatchObject({ kind: "register", base: "g1", version: 0, side: "a" });
    answer({ version: 1, base: "g1", standing: { kind: "proposed", by: "a" } });
    expect(client().verdict).toMatchObject({ kind: "unknown" });
    expect(wakesIn()).toBe(turnPauseMs);
    expect(pass(turnPauseMs)).toMatchObject({ kind: "look" });
    answer({ ...free, version: 2 });
    expect(client().verdict).toEqual({ kind: "ready" });
    expect(wakesIn()).toBe(watchPauseMs);
  });

  test("agrees to what the partner has registered, and corrects another base", () => {
    const { want, answer } = controller();
    want(settled);
    const proposed = { version: 1, base: "g1", standing: { kind: "proposed", by: "b" } } as const;
    expect(answer(proposed)).toMatchObject({ kind: "register", base: "g1", version: 1 });
    want(settled);
    expect(answer({ ...proposed, base: "g0" })).toMatchObject({ kind: "register", base: "g1" });
  });

  test("registers anew what it has registered itself at another base", () => {
    const { want, answer } = controller();
    want(settled);
    expect(
      answer({ version: 1, base: "g0", standing: { kind: "proposed", by: "a" } }),
    ).toMatchObject({ kind: "register", base: "g1", version: 1 });
  });

  test("releases its own grant to the generation in which both are now", () => {
    const { want, answer, client } = controller();
    want({ kind: "settled", base: "g2" });
    expect(answer(heldBy("a"))).toEqual({
      kind: "release",
      witness,
      volume: "v",
      side: "a",
      base: "g1",
      to: "g2",
      version: 6,
    });
    answer({ version: 7, base: "g2", standing: { kind: "free" } });
    expect(client().verdict).toEqual({ kind: "ready" });
  });

  test("leads a free register on that was not told of a generation", () => {
    const { want, answer } = controller();
    want({ kind: "settled", base: "g2" });
    expect(answer(free)).toMatchObject({ kind: "release", base: "g1", to: "g2", version: 5 });
  });

  test("leaves it to the partner to release the partner's grant", () => {
    const { want, answer, client, wakesIn } = controller();
    want({ kind: "settled", base: "g2" });
    expect(answer(heldBy("b"))).toBeUndefined();
    expect(client().verdict).toMatchObject({ kind: "unknown" });
    expect(wakesIn()).toBe(turnPauseMs);
  });

  test.each(["a", "b"] as const)("says that the generation is spent by %s", (by) => {
    const { want, answer, client } = controller();
    want(settled);
    expect(answer(heldBy(by))).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "spent", by });
  });

  test("a generation that was granted from before is told, and not asked for at once again", () => {
    const { want, answer, client, wakesIn } = controller();
    want({ kind: "settled", base: "g0" });
    expect(answer({ ...free, granted: ["g0"] })).toMatchObject({ kind: "release", to: "g0" });
    expect(answer({ ...free, granted: ["g0"] }, "spentBase")).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "refused", why: "spentBase" });
    expect(wakesIn()).toBe(watchPauseMs);
  });

  test("a full witness is told", () => {
    const { want, answer, client } = controller();
    want(settled);
    answer(null);
    answer(null, "full");
    expect(client().verdict).toEqual({ kind: "refused", why: "full" });
  });
});

describe("which witness", () => {
  test.each(["otherWitness", "done"] as const)("another identity proves nothing (%s)", (result) => {
    const { want, answer, client, wakesIn } = controller();
    want(alone);
    answer(free);
    expect(answer(heldBy("a"), result, undefined, "2".repeat(32))).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "refused", why: "otherWitness" });
    expect(wakesIn()).toBe(watchPauseMs);
  });

  test("one that has forgotten what it said is not believed again", () => {
    const { want, answer, client, wakesIn } = controller(9);
    want(alone);
    expect(answer({ ...free, version: 8 })).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "refused", why: "wentBack" });
    expect(wakesIn()).toBeUndefined();
    expect(want(alone)).toBeUndefined();
    expect(client().verdict).toEqual({ kind: "refused", why: "wentBack" });
  });

  test("remembers the highest version", () => {
    const { want, answer, client } = controller(2);
    want(settled);
    answer(free);
    expect(client().seenVersion).toBe(5);
  });
});

test("who wants nothing asks nothing, and hears nothing", () => {
  const { want, answer, pass, client, wakesIn } = controller();
  want(alone);
  const id = client().asked?.id;
  expect(want({ kind: "nothing" })).toBeUndefined();
  expect(answer(free, "done", id)).toBeUndefined();
  expect(pass(1_000_000)).toBeUndefined();
  expect(client().verdict).toEqual({ kind: "idle" });
  expect(wakesIn()).toBeUndefined();
});
