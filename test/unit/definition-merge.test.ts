/** What a starting controller makes of its configuration file and the common volume. */
import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { readDefinitions } from "../../firmware-ts/daemon/definitions.ts";
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import type { VolumeRecord, VolumeView } from "../../firmware-ts/schema/definition.ts";
import { mergeDefinitions } from "../../firmware-ts/schema/definition-merge.ts";
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { alpha, recordOf } from "../support/volume-records.ts";

/** Servers that have nothing in common, by the digit in what is theirs. */
const server = (name: string, digit: number): VirtualServerConfig => ({
  ...alpha,
  name,
  addresses: [`10.0.0.${100 + digit}/24`],
  routes: [],
  volumes: [{ id: 1, disk: `d${digit}`, export: `/${digit}` }],
});

const one = server("one", 1);
const two = server("two", 2);
const three = server("three", 3);

const record = (
  number: number,
  of: VirtualServerConfig,
  wanted: "started" | "stopped" | "deleted" = "started",
) => recordOf({ number, server: of, wanted, sequence: 4 });

function merge(
  file: readonly VirtualServerConfig[],
  records: readonly VolumeRecord[] = [],
  reserved: readonly number[] = [],
) {
  const shelf = { coordinators: ["c1"] };
  const { definitions, warnings } = mergeDefinitions(
    { shelf, virtualServers: file },
    { records, reserved },
  );
  const shown = definitions.map(
    ({ number, sequence, wanted, server: { name } }) => `${number} ${name} ${wanted} ${sequence}`,
  );
  return { shown, warnings };
}

describe("what there is", () => {
  test("is what the file says, when the volume says nothing", () => {
    expect(merge([one, two])).toEqual({
      shown: ["0 one started 0", "1 two started 0"],
      warnings: [],
    });
    expect(merge([])).toEqual({ shown: [], warnings: [] });
  });

  test("is what the volume says, whatever the file says", () => {
    expect(merge([], [record(5, three), record(2, one, "stopped")])).toEqual({
      shown: ["2 one stopped 4", "5 three started 4"],
      warnings: [],
    });
    expect(merge([one, two], [record(0, one), record(1, two, "stopped")])).toEqual({
      shown: ["0 one started 4", "1 two stopped 4"],
      warnings: [],
    });
  });

  test("a deleted one keeps its number, and nothing else", () => {
    expect(merge([one, two], [record(0, two, "deleted")])).toEqual({
      shown: ["0 two deleted 4", "1 two started 0"],
      warnings: [
        "entry 0 of the configuration file, one, is not used: virtual server 0 was deleted (two)",
      ],
    });
  });

  test("an entry says the same in whatever order its keys are: an id that was chosen comes last, one that was read comes first", () => {
    const chosen = { ...one, volumes: one.volumes.map(({ id, ...rest }) => ({ ...rest, id })) };
    expect(merge([chosen], [record(0, one)]).warnings).toEqual([]);
  });

  test("an entry that says something else is told and not used", () => {
    const moved = { ...one, home: "b" } as const;
    expect(merge([one], [record(0, moved)])).toEqual({
      shown: ["0 one started 4"],
      warnings: [
        "entry 0 of the configuration file, one, is not used: the common volume has one as number 0, change 4, and it differs",
      ],
    });
  });

  test("what is not understood leaves its number unserved, whatever the file says", () => {
    expect(merge([one, two], [], [0])).toEqual({
      shown: ["1 two started 0"],
      warnings: [
        "entry 0 of the configuration file, one, is not used: what the common volume has of number 0 cannot be understood",
      ],
    });
  });
});

describe("what contradicts counts as stopped", () => {
  test("what only the file says gives way to a record", () => {
    const greedy = { ...one, volumes: [{ id: 1, disk: "d3", export: "/1" }] };
    expect(merge([greedy], [record(7, three)])).toEqual({
      shown: ["0 one stopped 0", "7 three started 4"],
      warnings: [
        "one (number 0) counts as stopped: volumes[0].disk: disk d3 is already used by three",
      ],
    });
  });

  test("of two records the higher number gives way", () => {
    const same = { ...server("other", 1), name: "other" };
    const { shown, warnings } = merge([], [record(4, same), record(3, one)]);
    expect(shown).toEqual(["3 one started 4", "4 other stopped 4"]);
    expect(warnings).toHaveLength(1);
  });

  test("a stopped one keeps what is its own", () => {
    const { shown } = merge([], [record(0, one, "stopped"), record(1, { ...two, name: "one" })]);
    expect(shown).toEqual(["0 one stopped 4", "1 one stopped 4"]);
  });

  test("one that has given way takes nothing from a third", () => {
    const between = { ...server("between", 2), addresses: ["10.0.0.101/24", "10.0.0.103/24"] };
    const { shown } = merge([], [record(0, one), record(1, between), record(2, three)]);
    expect(shown).toEqual(["0 one started 4", "1 between stopped 4", "2 three started 4"]);
  });

  test("no coordinator disk is a volume", () => {
    const wrong = { ...one, volumes: [{ id: 1, disk: "c1", export: "/1" }] };
    expect(merge([], [record(0, wrong)]).shown).toEqual(["0 one stopped 4"]);
  });
});

test("whatever is found, what is started contradicts nothing, and each number is there once", () => {
  const any = fc
    .tuple(fc.constantFrom("one", "two", "three"), fc.integer({ min: 1, max: 4 }))
    .map(([name, digit]) => server(name, digit));
  const entries = fc.array(any, { maxLength: 6 });
  const recorded = fc.uniqueArray(
    fc.tuple(fc.nat(8), any, fc.constantFrom("started", "stopped", "deleted")),
    { selector: ([number]) => number, maxLength: 6 },
  );
  fc.assert(
    fc.property(entries, recorded, fc.subarray([0, 1, 9]), (file, list, reserved) => {
      const records = list
        .filter(([number]) => !reserved.includes(number))
        .map(([number, of, wanted]) => record(number, of, wanted as "started"));
      const shelf = { coordinators: ["c1"] };
      const given = { shelf, virtualServers: file };
      const { definitions } = mergeDefinitions(given, { records, reserved });
      const started = definitions.filter(({ wanted }) => wanted === "started");
      const isUnique = (values: readonly unknown[]) => new Set(values).size === values.length;
      const unique = (of: (each: VirtualServerConfig) => unknown) =>
        expect(isUnique(started.map((each) => of(each.server)))).toBe(true);
      unique(({ name }) => name);
      unique(({ addresses: [address] }) => address);
      unique(({ volumes: [volume] }) => volume?.disk);
      expect(isUnique(definitions.map(({ number }) => number))).toBe(true);
      const numbers = definitions.map(({ number }) => number);
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
      for (const number of reserved) expect(numbers).not.toContain(number);
      // The order in which records were found does not matter.
      expect(
        mergeDefinitions(given, { records: records.toReversed(), reserved }).definitions,
      ).toEqual(definitions);
    }),
  );
});

describe("a start", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  const file = { ...new Pair().config("a"), virtualServers: [one, two] };
  const view: VolumeView = {
    records: [record(1, three)],
    thin: [],
    reserved: [],
    damaged: ["c1: torn"],
  };

  test("waits for a majority, and says so once", async () => {
    const log: string[] = [];
    let tries = 0;
    const answers: Outcome<VolumeView>[] = [
      failed("diskLost", "read the common volume", "no majority of 3 coordinator disks"),
      failed("timeout", "read the common volume", "no majority within 2000 ms"),
      { ok: true, value: view },
    ];
    const common = {
      read: async () => answers[tries++] ?? failed("ioError", "test", "asked too often"),
      close: async () => undefined,
    };
    vi.useFakeTimers();
    const reading = readDefinitions(file, common, (line) => log.push(line));
    await vi.advanceTimersByTimeAsync(400);
    expect(tries).toBe(1);
    await vi.advanceTimersByTimeAsync(1000);
    const definitions = await reading;
    expect(definitions.map(({ server: { name } }) => name)).toEqual(["one", "three"]);
    expect(log).toEqual([
      "waiting for a majority of the coordinator disks: read the common volume: no majority of 3 coordinator disks [diskLost]",
      "the common volume can be read: the start goes on",
      "common volume: c1: torn",
      "entry 1 of the configuration file, two, is not used: the common volume has three as number 1, change 4, and it differs",
    ]);
    expect(tries).toBe(3);
  });
});
