/** One record to all coordinator disks, before disks whose every answer the test gives, in virtual time. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { FromBeat, ToBeat } from "../../firmware-ts/loop/channel.ts";
import { VolumeDisks } from "../../firmware-ts/loop/volume-disks.ts";
import { VolumeRequests } from "../../firmware-ts/loop/volume-requests.ts";
import type { RecordWritten, VolumeWritten } from "../../firmware-ts/schema/definition.ts";
import { Timeline } from "../../hal/sim/timeline.ts";
import { recordOf } from "../support/volume-records.ts";

const names = ["c1", "c2", "c3"];

function start(serials = names) {
  const timeline = new Timeline();
  /** What each disk works on: the generation, and how it ends. */
  const working = new Map<
    string,
    { generation: number; isWanted: () => boolean; end: (result: RecordWritten) => void }
  >();
  const begun: string[] = [];
  const told: [number, VolumeWritten][] = [];
  const disks = new VolumeDisks(serials, {
    after: (delayMs, run) => timeline.after(delayMs, run),
    writeRecord(serial, { generation }, isWanted, settle) {
      if (working.has(serial)) throw new Error(`${serial} was given two at once`);
      begun.push(`${serial} ${generation}`);
      working.set(serial, {
        generation,
        isWanted,
        end(result) {
          working.delete(serial);
          settle(result);
        },
      });
    },
  });
  return {
    timeline,
    working,
    begun,
    told,
    write: (generation: number, deadlineMs = 100) =>
      disks.write(recordOf({ generation }), deadlineMs, (written) =>
        told.push([generation, written]),
      ),
    registering: (serial: string) => disks.registering(serial),
    end(serial: string, result: RecordWritten = "accepted") {
      const work = working.get(serial);
      if (!work) throw new Error(`${serial} has nothing to do`);
      work.end(result);
    },
    run: (ms: number) => timeline.runUntil(timeline.nowMs + ms, () => undefined),
  };
}

const of = (accepted: number, refused = 0, overtaken = 0) => ({
  accepted,
  refused,
  overtaken,
  total: 3,
});

describe("a record for all disks", () => {
  test("is told when a majority has it, and goes to the others all the same", () => {
    const { write, end, told, working } = start();
    write(1);
    end("c2");
    expect(told).toEqual([]);
    end("c3");
    expect(told).toEqual([[1, of(2)]]);
    end("c1");
    expect(told).toHaveLength(1);
    expect(working.size).toBe(0);
  });

  test.each<[string, RecordWritten[], VolumeWritten]>([
    ["refused by a majority", ["refused", "refused"], of(0, 2)],
    ["out of reach of a majority", ["failed", "failed"], of(0)],
    ["overtaken on one, refused on another", ["overtaken", "refused"], of(0, 1, 1)],
    ["taken by one, and by no other", ["accepted", "failed", "refused"], of(1, 1)],
    [
      "taken by a majority that one disk has refused",
      ["refused", "accepted", "accepted"],
      of(2, 1),
    ],
  ])("%s", (_, answers, written) => {
    const { write, end, told } = start();
    write(1);
    answers.forEach((answer, index) => {
      expect(told).toEqual([]);
      end(names[index] ?? "", answer);
    });
    expect(told).toEqual([[1, written]]);
  });

  test("is told at its deadline with what is known by then", () => {
    const { write, end, told, run } = start();
    write(1);
    end("c1");
    run(99);
    expect(told).toEqual([]);
    run(1);
    expect(told).toEqual([[1, of(1)]]);
    end("c2");
    end("c3");
    expect(told).toHaveLength(1);
  });

  test("waits behind the one before it on a disk that hangs, and is on the others meanwhile", () => {
    const { write, end, told, begun } = start();
    write(1);
    end("c1");
    end("c2");
    write(2);
    end("c1");
    end("c2");
    expect(told).toEqual([
      [1, of(2)],
      [2, of(2)],
    ]);
    expect(begun).not.toContain("c3 2");
    end("c3", "failed");
    expect(begun.at(-1)).toBe("c3 2");
  });

  test("does not begin any more when it was given up", () => {
    const { write, end, begun, run, working } = start();
    write(1, 1000);
    write(2, 100);
    run(100);
    end("c1");
    expect(begun).not.toContain("c1 2");
    expect(working.has("c1")).toBe(false);
    // One that a majority has refused is given up as well.
    write(3);
    end("c1", "refused");
    end("c2");
    end("c2", "refused");
    end("c3");
    expect(begun).not.toContain("c3 3");
  });

  test("one disk that hangs for ever costs a bounded queue, and nobody's answer", () => {
    const { write, end, told, run, begun } = start();
    for (let generation = 1; generation <= 1000; generation += 1) {
      write(generation, 10_000);
      end("c1");
      end("c2");
    }
    expect(told).toHaveLength(1000);
    expect(told.every(([, { accepted }]) => accepted === 2)).toBe(true);
    run(10_000);
    end("c3");
    expect(begun.filter((each) => each.startsWith("c3"))).toEqual(["c3 1"]);
  });

  test("a registration on a disk ends what was asked for before, there alone", () => {
    const { write, end, told, begun, working, registering } = start();
    write(1);
    write(2);
    registering("c3");
    const wanted = ["c1", "c2", "c3"].map((serial) => working.get(serial)?.isWanted());
    expect(wanted).toEqual([true, true, false]);
    write(3);
    for (const serial of names) end(serial, serial === "c3" ? "failed" : "accepted");
    expect(begun.filter((each) => each.startsWith("c3"))).toEqual(["c3 1", "c3 3"]);
    expect(working.get("c3")?.isWanted()).toBe(true);
    for (const serial of ["c1", "c1", "c2", "c2", "c3"]) end(serial);
    expect(told).toEqual([
      [1, of(2)],
      [2, of(2)],
      [3, of(2)],
    ]);
  });

  test("one that is given up while a disk reads is not sent there any more", () => {
    const { write, run, end, working } = start();
    write(1, 100);
    end("c1");
    expect(working.get("c2")?.isWanted()).toBe(true);
    run(100);
    expect(working.get("c2")?.isWanted()).toBe(false);
  });

  test("a registration on a majority ends a writing at once", () => {
    const { write, told, registering, begun } = start();
    write(1);
    write(2);
    registering("c1");
    expect(told).toEqual([]);
    registering("c2");
    expect(told).toEqual([[2, of(0)]]);
    expect(begun).toEqual(["c1 1", "c2 1", "c3 1"]);
  });

  test("a disk that is none of them registers nobody", () => {
    const { registering } = start();
    expect(() => registering("c4")).toThrow(/c4 is no coordinator disk/);
  });

  test("one disk is a majority of one", () => {
    const { write, end, told } = start(["c1"]);
    write(1);
    end("c1");
    expect(told).toEqual([[1, { ...of(1), total: 1 }]]);
  });

  test("whatever the disks do, each writing is told once and each disk sees them in order", () => {
    const steps = fc.array(
      fc.record({
        what: fc.constantFrom("write", "c1", "c2", "c3", "wait", "register"),
        how: fc.constantFrom<RecordWritten>("accepted", "refused", "overtaken", "failed"),
        ms: fc.nat(80),
      }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(steps, (plan) => {
        const { write, working, told, run, begun, registering } = start();
        let generation = 0;
        for (const { what, how, ms } of plan) {
          if (what === "write") write(++generation);
          else if (what === "wait") run(ms);
          else if (what === "register") registering(names[ms % names.length] ?? "");
          else working.get(what)?.end(how);
        }
        run(100);
        expect(told.map(([each]) => each).toSorted((a, b) => a - b)).toEqual(
          Array.from({ length: generation }, (_, index) => index + 1),
        );
        for (const serial of names) {
          const order = begun
            .filter((each) => each.startsWith(serial))
            .map((each) => +each.slice(3));
          expect(order).toEqual(order.toSorted((a, b) => a - b));
        }
      }),
    );
  });
});

test("what was asked for before a process stood still, and is over by then, is not begun", () => {
  const { write, told, begun } = start();
  write(1, 0);
  write(2, -5000);
  expect([told, begun]).toEqual([
    [
      [1, of(0)],
      [2, of(0)],
    ],
    [],
  ]);
});

describe("the main process's side", () => {
  function ask() {
    const timeline = new Timeline();
    const sent: Extract<ToBeat, { kind: "volumeWrite" }>[] = [];
    const told: VolumeWritten[] = [];
    const requests = new VolumeRequests({
      after(delayMs, run) {
        let isOver = false;
        timeline.after(delayMs, () => {
          if (!isOver) run();
        });
        return () => {
          isOver = true;
        };
      },
      nowMs: () => timeline.nowMs,
      beat: (message) => {
        if (message.kind === "volumeWrite") sent.push(message);
      },
      total: 3,
    });
    const answer = (index: number, written: VolumeWritten): void => {
      const { token = "" } = sent[index] ?? {};
      requests.written({ kind: "volumeWritten", token, written } satisfies FromBeat);
    };
    const write = () => requests.write(recordOf(), 500, (written) => told.push(written));
    const run = (ms: number) => timeline.runUntil(timeline.nowMs + ms, () => undefined);
    return { sent, told, answer, write, run };
  }

  test("each answer goes to whoever asked", () => {
    const { sent, told, answer, write, run } = ask();
    write();
    write();
    expect(new Set(sent.map(({ token }) => token)).size).toBe(2);
    expect(sent[0]).toMatchObject({ untilMs: 500, record: recordOf() });
    answer(1, of(2));
    answer(0, of(0, 3));
    answer(0, of(3));
    run(10_000);
    expect(told).toEqual([of(2), of(0, 3)]);
  });

  test("a beat process that stands still is not waited for; what it says later is late", () => {
    const { told, answer, write, run } = ask();
    write();
    run(599);
    expect(told).toEqual([]);
    run(1);
    expect(told).toEqual([of(0)]);
    answer(0, of(3));
    expect(told).toHaveLength(1);
  });
});
