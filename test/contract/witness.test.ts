/** One contract for both witnesses: what a controller may rely on, whichever it is given (hal/port/witness). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  WitnessAnswer,
  WitnessRecord,
  WitnessRequest,
} from "../../firmware-ts/schema/witness.ts";
import { limitsMs } from "../support/limits.ts";
import { until } from "../support/until.ts";
import { contradictions, grantedTwice, type Told } from "../support/witness-history.ts";
import { builtInLab, etcdLab, type WitnessLab } from "./witness-lab.ts";

const deadlineMs = limitsMs.condition;

function said<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) throw new Error(outcome.fault.message);
  return outcome.value;
}

describe.each([
  ["built-in", builtInLab],
  ["etcd", etcdLab],
])("%s", (_name, prepare) => {
  let lab: WitnessLab;
  let witness: string;
  beforeAll(async () => {
    lab = await prepare();
    await lab.start();
    witness = said(await lab.client().list(deadlineMs)).witness;
  });
  afterAll(() => lab?.remove());

  /** Asks as one of the controllers would. */
  const asker = (volume: string) => {
    const addressed = { witness, volume };
    const ask = async (request: WitnessRequest) =>
      said(await lab.client().ask(request, deadlineMs));
    return {
      look: () => ask({ kind: "look", ...addressed }),
      register: (side: "a" | "b", base: string, version: number) =>
        ask({ kind: "register", ...addressed, side, base, version }),
      claim: (side: "a" | "b", base: string, version: number, next = `after-${base}-${side}`) =>
        ask({ kind: "claim", ...addressed, side, base, version, next, epoch: 7 }),
      release: (side: "a" | "b", base: string, to: string, version: number) =>
        ask({ kind: "release", ...addressed, side, base, to, version }),
      impose: (base: string, version: number) =>
        ask({ kind: "impose", ...addressed, base, version, reason: "the other one has burnt" }),
    };
  };
  const results = (answers: readonly WitnessAnswer[]) => answers.map(({ result }) => result);
  async function registered(volume: string, base = "g1") {
    const { register } = asker(volume);
    await register("a", base, 0);
    expect(await register("b", base, 1)).toMatchObject({ result: "done", record: { version: 2 } });
    return asker(volume);
  }

  test("nothing is granted for a volume that nobody, or only one side, has registered", async () => {
    const { look, claim, register } = asker("unknown");
    expect(await look()).toEqual({ witness, result: "done", record: null });
    expect(await claim("a", "g1", 0)).toMatchObject({ result: "unregistered", record: null });
    expect(await register("a", "g1", 0)).toMatchObject({
      record: { version: 1, base: "g1", standing: { kind: "proposed", by: "a" } },
    });
    expect(await claim("a", "g1", 1)).toMatchObject({ result: "unregistered" });
    expect(await claim("b", "g1", 1)).toMatchObject({ result: "unregistered" });
  });

  test("one side gets the grant, the other never; it is released only by its holder, to another base", async () => {
    const { claim, release } = await registered("held");
    expect(await claim("a", "g1", 2, "g2")).toEqual({
      witness,
      result: "done",
      record: {
        version: 3,
        base: "g1",
        standing: { kind: "held", by: "a", next: "g2", epoch: 7 },
        granted: ["g1"],
      },
    });
    expect((await claim("b", "g1", 3)).result).toBe("held");
    expect((await release("b", "g1", "g2", 3)).result).toBe("held");
    expect((await release("a", "g1", "g1", 3)).result).toBe("spentBase");
    // Asked again by the same side: granted again.
    expect(await claim("a", "g1", 3, "g2")).toMatchObject({
      result: "done",
      record: { version: 4 },
    });
    expect((await release("a", "g1", "g2", 4)).record).toEqual({
      version: 5,
      base: "g2",
      standing: { kind: "free" },
      granted: ["g1"],
    });
    expect((await release("b", "g2", "g1", 5)).result).toBe("spentBase");
    expect((await claim("b", "g1", 5)).result).toBe("otherBase");
    expect((await claim("b", "g2", 5)).result).toBe("done");
  });

  test("what is late or comes twice changes nothing", async () => {
    const { claim, release, look } = await registered("late");
    await claim("a", "g1", 2, "g2");
    expect((await claim("a", "g1", 2, "g2")).result).toBe("stale");
    await release("a", "g1", "g2", 3);
    const before = (await look()).record;
    expect(
      results([
        await release("a", "g1", "g2", 3),
        await claim("a", "g1", 2, "g2"),
        await claim("b", "g2", 3),
      ]),
    ).toEqual(["stale", "stale", "stale"]);
    expect((await look()).record).toEqual(before);
  });

  test("of many that ask at the same time one is granted", async () => {
    const { claim, look } = await registered("race");
    const asked = ["a", "b", "a", "b", "a", "b", "a", "b"] as const;
    const answers = await Promise.all(asked.map((side) => claim(side, "g1", 2)));
    expect(answers.filter(({ result }) => result === "done")).toHaveLength(1);
    expect((await look()).record).toMatchObject({ version: 3, standing: { kind: "held" } });
  });

  test("an administrator registers what is not registered, and changes nothing else", async () => {
    const { impose } = asker("imposed");
    expect(await impose("g1", 0)).toMatchObject({
      result: "done",
      record: { standing: { kind: "free" }, imposed: "the other one has burnt" },
    });
    expect((await impose("g2", 1)).result).toBe("registered");
  });

  test("a question for another witness is refused, and it tells nothing", async () => {
    const request = { kind: "look", witness: "f".repeat(32), volume: "held" } as const;
    expect(said(await lab.client().ask(request, deadlineMs))).toEqual({
      witness,
      result: "otherWitness",
      record: null,
    });
  });

  test("another pair has other volumes", async () => {
    await registered("shared-name");
    const list = said(await lab.client("other").list(deadlineMs));
    expect(list.volumes).toEqual([]);
    const look = { kind: "look", witness: list.witness, volume: "shared-name" } as const;
    expect(said(await lab.client("other").ask(look, deadlineMs)).record).toBeNull();
  });

  test("what was answered is there after kill -9, and so is the identity", async () => {
    const { claim, look } = await registered("killed");
    const answers = [2, 3, 4, 5].map((version) => claim("b", "g1", version, `g${version}`));
    // Whatever is answered while it dies must last; what is not answered may.
    const settled = Promise.allSettled(answers);
    await answers[0];
    await lab.kill();
    const told = (await settled).flatMap((each) =>
      each.status === "fulfilled" ? (each.value.record?.version ?? 0) : [],
    );
    await lab.start();
    expect(said(await lab.client().list(deadlineMs)).witness).toBe(witness);
    const { record } = await look();
    expect(record?.version).toBeGreaterThanOrEqual(Math.max(3, ...told));
    expect(record?.standing).toMatchObject({ kind: "held", by: "b" });
    expect((await claim("a", "g1", record?.version ?? 0)).result).toBe("held");
  });

  test("what many askers are told at the same time, with kill -9 in between, fits one order", async () => {
    const { register } = asker("history");
    const history: Told[] = [];
    let position = 0;
    const ask = async (request: WitnessRequest) => {
      position += 1;
      const asked = position;
      const outcome = await lab.client().ask(request, deadlineMs);
      position += 1;
      history.push(
        outcome.ok
          ? { request, asked, answered: position, answer: outcome.value }
          : { request, asked },
      );
      return outcome.ok ? outcome.value.record : undefined;
    };
    const addressed = { witness, volume: "history" };
    await ask({ kind: "register", ...addressed, side: "a", base: "g0", version: 0 });
    const someone = async (side: "a" | "b", number: number) => {
      let record: WitnessRecord | null | undefined;
      for (let turn = 0; turn < 20; turn += 1) {
        await until("somebody answers", async () => {
          record ??= await ask({ kind: "look", ...addressed });
          return record !== undefined;
        });
        if (!record) throw new Error("the record is gone");
        const { base, version, standing } = record;
        const own = { ...addressed, side, base, version };
        const next = `${side}${number}-${turn}`;
        if (standing.kind === "proposed") record = await ask({ kind: "register", ...own });
        else if (standing.kind === "held" && standing.by === side && turn % 2 === 0)
          record = await ask({ kind: "release", ...own, to: next });
        else record = await ask({ kind: "claim", ...own, next, epoch: turn });
      }
    };
    const killed = async () => {
      await until("half of it was told", () => history.length > 30);
      await lab.kill();
      await lab.start();
    };
    await Promise.all([
      someone("a", 1),
      someone("b", 1),
      someone("a", 2),
      someone("b", 2),
      killed(),
    ]);
    expect(history.filter(({ answer }) => answer === undefined).length).toBeGreaterThan(0);
    expect(contradictions(witness, history)).toEqual([]);
    expect(grantedTwice(history)).toEqual([]);
    expect((await register("a", "g0", 0)).result).toBe("stale");
  });

  test("all volumes are listed, by name", async () => {
    const { volumes } = said(await lab.client().list(deadlineMs));
    const names = volumes.map(({ volume }) => volume);
    expect(names).toEqual(names.toSorted());
    expect(names).toEqual(expect.arrayContaining(["held", "killed", "late", "race"]));
  });

  test("one that does not answer costs no more than the deadline; one that is not there costs nothing", async () => {
    lab.process().kill("SIGSTOP");
    const look = { kind: "look", witness, volume: "held" } as const;
    try {
      expect(await lab.client().ask(look, 200)).toMatchObject({ fault: { code: "timeout" } });
    } finally {
      lab.process().kill("SIGCONT");
    }
    await lab.kill();
    expect(await lab.client().ask(look, deadlineMs)).toMatchObject({ fault: { code: "ioError" } });
    await lab.start();
    expect((await lab.client().ask(look, deadlineMs)).ok).toBe(true);
  });
});
