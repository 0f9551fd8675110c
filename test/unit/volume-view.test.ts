/** What the coordinator disks say together, disk by disk and slot by slot. */
import { describe, expect, test } from "vitest";
import { emptySlot, type Slot, type SlotPair } from "../../firmware-ts/wire/common-volume.ts";
import { type DiskContent, resolveVolume } from "../../firmware-ts/wire/volume-view.ts";
import { recordOf } from "../support/volume-records.ts";

const at = (generation: number, epoch = 1, owner: "a" | "b" = "a"): Slot => ({
  kind: "record",
  record: recordOf({ generation, epoch, owner }),
});
const torn: Slot = { kind: "damaged", ours: true, reason: "torn or damaged" };
const strange: Slot = { kind: "damaged", ours: false, reason: "no record" };
const later = (generation: number): Slot => ({
  kind: "unknown",
  stamp: { epoch: 1, generation, owner: 1 },
  reason: "written by a newer firmware (format 2)",
});

/** Disks c1, c2, … that hold these pairs of number 3. */
const disks = (...pairs: SlotPair[]): DiskContent[] =>
  pairs.map((pair, index) => ({ serial: `c${index + 1}`, pairs: new Map([[3, pair]]) }));

function view(...pairs: SlotPair[]) {
  const resolved = resolveVolume(disks(...pairs), 3);
  if (!resolved.ok) throw new Error(resolved.fault.message);
  const { records, ...rest } = resolved.value;
  return { newest: records.map(({ generation, epoch }) => [epoch, generation]), ...rest };
}

const fine = { thin: [], reserved: [], damaged: [] };

describe("the newest record", () => {
  test("is what all hold", () => {
    const pair: SlotPair = [at(3), at(4)];
    expect(view(pair, pair, pair)).toEqual({ ...fine, newest: [[1, 4]] });
  });

  test("is thin when fewer than a majority hold it", () => {
    const old: SlotPair = [at(3), at(2)];
    expect(view([at(3), at(4)], old, old)).toEqual({ ...fine, thin: [3], newest: [[1, 4]] });
    const two: SlotPair = [at(3), at(4)];
    expect(view(two, two, old)).toEqual({ ...fine, newest: [[1, 4]] });
  });

  test("is that of the higher epoch, then of the higher generation, then of b", () => {
    expect(view([at(9), at(2, 2)], [at(9), emptySlot]).newest).toEqual([[2, 2]]);
    const tied = resolveVolume(disks([at(1), at(1, 1, "b")], [at(1), emptySlot]), 3);
    expect(tied.ok && tied.value.records[0]?.owner).toBe("b");
  });

  test("outlives a writing that was cut short on every disk", () => {
    const pair: SlotPair = [torn, at(4)];
    expect(view(pair, pair, pair)).toEqual({
      ...fine,
      newest: [[1, 4]],
      damaged: [1, 2, 3].map((n) => `c${n}: slot 0 of number 3: torn or damaged`),
    });
  });

  test("of two disks of which one is behind is thin: the third may be lost", () => {
    expect(view([at(3), at(4)], [at(3), emptySlot])).toEqual({
      ...fine,
      thin: [3],
      newest: [[1, 4]],
    });
  });
});

describe("what is kept for others", () => {
  test("a newer format makes the number neither free nor known", () => {
    expect(view([later(5), at(4)], [at(4), at(3)], [at(4), at(3)])).toEqual({
      newest: [],
      thin: [],
      reserved: [3],
      damaged: ["number 3: written by a newer firmware (format 2); it is left alone"],
    });
  });

  test("an older record that is not understood is history", () => {
    expect(view([later(3), at(4)], [later(3), at(4)])).toEqual({ ...fine, newest: [[1, 4]] });
  });

  test("both slots spoilt, and no other disk knows", () => {
    const spent = view([torn, torn], [emptySlot, emptySlot]);
    expect(spent.reserved).toEqual([3]);
    expect(spent.damaged[0]).toBe("number 3: both of its records are damaged; it is left alone");
    expect(view([torn, torn], [at(2), emptySlot])).toMatchObject({
      newest: [[1, 2]],
      reserved: [],
    });
  });

  test("a first writing that was cut short leaves the number free", () => {
    expect(view([torn, emptySlot], [torn, emptySlot])).toMatchObject({ newest: [], reserved: [] });
  });

  test("what another use of the disk left is no record and keeps nothing", () => {
    expect(view([strange, strange], [emptySlot, emptySlot])).toEqual({
      ...fine,
      newest: [],
      damaged: ["c1: no record, in 2 slots, which count as empty"],
    });
  });
});

test("no majority, no view", () => {
  const resolved = resolveVolume(disks([at(1), emptySlot]), 3);
  expect(resolved).toMatchObject({ ok: false, fault: { code: "diskLost" } });
  expect(resolved.ok ? "" : resolved.fault.message).toBe(
    "1 of 3 coordinator disks can be read, and 2 are needed",
  );
});

test("one coordinator is a majority of one", () => {
  const resolved = resolveVolume(disks([at(1), emptySlot]), 1);
  expect(resolved).toMatchObject({ ok: true, value: { thin: [], records: [{ generation: 1 }] } });
});

test("many troubles are counted", () => {
  const pairs = new Map(
    Array.from({ length: 64 }, (_, number): [number, SlotPair] => [number, [torn, emptySlot]]),
  );
  const resolved = resolveVolume([{ serial: "c1", pairs }], 1);
  expect(resolved.ok && resolved.value.damaged).toHaveLength(9);
  expect(resolved.ok && resolved.value.damaged.at(-1)).toBe("and 56 more");
});
