/** The task set: aborts, order, unit attentions, the fence in each state of a command, and APTPL. */
import { describe, expect, test } from "vitest";
import { Asc, SenseKey, Status } from "../../firmware-ts/wire/scsi/codes.ts";
import { encodeUnmap } from "../../firmware-ts/wire/scsi/parameters.ts";
import { ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import { parseAptpl, recordOf, restored } from "../../hal/shelf/disk/aptpl.ts";
import { Attentions, NEXUSES_MAX } from "../../hal/shelf/disk/attentions.ts";
import { MemoryMedium } from "../../hal/shelf/disk/medium.ts";
import {
  BLOCK,
  BLOCKS,
  block,
  Client,
  newDisk,
  type SendOptions,
  SteppedMedium,
  SteppedStore,
} from "../support/shelf-disk.ts";

const WERO = ReservationType.writeExclusiveRegistrantsOnly;
const A = 0xan;
const B = 0xbn;

/** Two registrants, the first holding, and a medium that moves when told. */
const pair = () => {
  const medium = new SteppedMedium();
  const disk = newDisk(medium);
  const a = new Client(disk, "a");
  const b = new Client(disk, "b");
  a.register(A);
  b.register(B);
  a.reserve(A, WERO);
  return { medium, disk, a, b };
};

const good = { status: Status.good };

describe("PREEMPT AND ABORT against a write in each state", () => {
  const preempt = (b: Client) =>
    b.reserveOut("preemptAndAbort", { key: B, target: A }, { type: WERO });

  test.each<[string, SendOptions]>([
    ["held on its way", { held: true }],
    ["waiting for its data", { later: true }],
  ])("%s: aborted at once, and its data comes to nothing", (_, options) => {
    const { medium, disk, a, b } = pair();
    const write = a.write(0, block(7), options);
    expect(preempt(b).result).toEqual(good);
    expect(write.result).toEqual({ status: Status.taskAborted });
    disk.release(write.task);
    disk.supply(write.task, block(7));
    medium.drain();
    expect(medium.bytes[0]).toBe(0);
  });

  test("queued behind another: aborted, though the other is carried out first", () => {
    const { medium, a, b } = pair();
    const first = a.write(0, block(1));
    const second = a.write(0, block(2));
    const fence = preempt(b);
    expect(fence.ended).toBe(0);
    medium.drain();
    expect(first.result).toEqual(good);
    expect([second.result, fence.result]).toEqual([good, good]);
    expect(medium.bytes[0]).toBe(2);
  });

  test("behind the fence: aborted, never started", () => {
    const { medium, a, b } = pair();
    const first = a.write(0, block(1));
    const fence = preempt(b);
    const second = a.write(8, block(2));
    expect(second.ended).toBe(0);
    medium.drain();
    expect([first.result, fence.result]).toEqual([good, good]);
    expect(second.result).toEqual({ status: Status.taskAborted });
    expect(medium.bytes[8 * BLOCK]).toBe(0);
  });

  test("running: the preempt completes only when the medium has", () => {
    const { medium, a, b } = pair();
    const write = a.write(0, block(7));
    const fence = preempt(b);
    medium.step();
    expect(fence.ended).toBe(0);
    medium.step();
    expect([write.result, fence.result]).toEqual([good, good]);
  });

  test("a later write conflicts, after the unit attention", () => {
    const { a, b } = pair();
    preempt(b);
    expect(a.write(0, block(1)).result?.sense).toEqual({
      key: SenseKey.unitAttention,
      code: Asc.registrationsPreempted,
    });
    expect(a.write(0, block(1)).result).toEqual({ status: Status.reservationConflict });
  });

  test("commands of others are left alone", () => {
    const { disk, medium, b } = pair();
    const c = new Client(disk, "c");
    c.register(0xcn);
    const bystander = c.write(1, block(3), { later: true });
    preempt(b);
    disk.supply(bystander.task, block(3));
    medium.drain();
    expect(bystander.result).toEqual(good);
  });

  test("a plain PREEMPT aborts nothing, but what has not started conflicts", () => {
    const { medium, disk, a, b } = pair();
    const write = a.write(0, block(7), { later: true });
    const fence = b.reserveOut("preempt", { key: B, target: A }, { type: WERO });
    expect(fence.result).toEqual(good);
    expect(write.ended).toBe(0);
    disk.supply(write.task, block(7));
    medium.drain();
    expect(write.result).toEqual({ status: Status.reservationConflict });
    expect(medium.bytes[0]).toBe(0);
  });
});

describe("task management (SAM-5 clause 7)", () => {
  test("ABORT TASK of a running write is complete only when the medium is", () => {
    const { medium, disk, a } = pair();
    const write = a.write(0, block(1));
    let told: boolean | null = null;
    disk.abort(write.task, (existed) => {
      told = existed;
    });
    expect(told).toBeNull();
    medium.drain();
    expect([told, write.ended, write.result]).toEqual([true, 1, null]);
    disk.abort(write.task, (existed) => {
      told = existed;
    });
    expect(told).toBe(false);
  });

  test("LOGICAL UNIT RESET aborts everyone's commands, tells all, and leaves reservations", () => {
    const { medium, disk, a, b } = pair();
    const own = a.write(0, block(1), { later: true });
    const other = b.write(0, block(2), { held: true });
    const running = b.write(4, block(3));
    let done = false;
    disk.reset(a.nexus, () => {
      done = true;
    });
    expect(own).toMatchObject({ ended: 1, result: null });
    expect(other.result).toEqual({ status: Status.taskAborted });
    expect(done).toBe(false);
    medium.drain();
    expect(done).toBe(true);
    expect(running.result).toEqual({ status: Status.taskAborted });
    expect(a.attentions()).toEqual([Asc.logicalUnitReset]);
    expect(b.attentions()).toEqual([Asc.logicalUnitReset]);
    expect(a.fullStatus().entries.length).toBe(2);
  });

  test("CLEAR TASK SET aborts everyone's, ABORT TASK SET only one's own", () => {
    const { disk, a, b } = pair();
    const first = [a, b].map((client) => client.write(0, block(1), { later: true }));
    disk.abortTaskSet(a.nexus, () => {});
    expect(first.map(({ ended }) => ended)).toEqual([1, 0]);
    disk.clearTaskSet(a.nexus, () => {});
    expect(first[1]?.result).toEqual({ status: Status.taskAborted });
  });

  test("a lost nexus takes its commands along and comes back with a unit attention", () => {
    const { medium, disk, a } = pair();
    const write = a.write(0, block(1), { later: true });
    disk.disconnect(a.nexus);
    expect(write).toMatchObject({ ended: 1, result: null });
    disk.supply(write.task, block(1));
    disk.connect(a.nexus);
    medium.drain();
    expect(medium.bytes[0]).toBe(0);
    expect(a.attentions()).toEqual([Asc.nexusLoss]);
    expect(a.fullStatus().entries.length).toBe(2);
  });
});

describe("order among commands", () => {
  test("overlapping writes keep their order, disjoint ones run together", () => {
    const { medium, a } = pair();
    a.write(0, block(1));
    a.write(0, block(2));
    a.write(9, block(3));
    expect(medium.steps.length).toBe(2);
    medium.drain();
    expect([medium.bytes[0], medium.bytes[9 * BLOCK]]).toEqual([2, 3]);
  });

  test("reads of the same blocks run together, and not with a write", () => {
    const { medium, a, b } = pair();
    a.read(0);
    b.read(0);
    const write = a.write(0, block(5));
    expect(medium.steps.length).toBe(2);
    medium.drain();
    expect(write.result).toEqual(good);
  });

  test("an ordered command waits for all before it and holds all after it", () => {
    const { medium, a } = pair();
    a.write(0, block(1));
    const ordered = a.read(20, 1, { ordered: true });
    const after = a.read(30);
    expect(medium.steps.length).toBe(1);
    medium.step();
    medium.step();
    expect(medium.steps.length).toBe(1);
    medium.step();
    medium.step();
    expect([ordered.ended, after.ended]).toEqual([1, 0]);
    medium.drain();
    expect(after.ended).toBe(1);
  });
});

describe("unit attentions (SAM-5 5.14)", () => {
  test("a new nexus hears of the power-on, an unknown one is owed nothing", () => {
    const attentions = new Attentions();
    attentions.connect("x");
    expect([attentions.take("x"), attentions.take("x")]).toEqual([Asc.powerOnOrReset, undefined]);
    attentions.add("y", Asc.logicalUnitReset);
    expect(attentions.take("y")).toBeUndefined();
  });

  test("INQUIRY and REPORT LUNS pass, REQUEST SENSE takes the attention as its data", () => {
    const { disk, a } = pair();
    disk.reset(null, () => {});
    const inquiry = a.send({ name: "inquiry", page: null, allocationBytes: 96 });
    expect(inquiry.result?.status).toBe(Status.good);
    const sense = a.send({ name: "requestSense", descriptor: false, allocationBytes: 18 });
    expect(sense.result?.data?.readUInt16BE(12)).toBe(Asc.logicalUnitReset);
    expect(a.attentions()).toEqual([]);
  });

  test("only so many nexuses are remembered, the absent go first", () => {
    const attentions = new Attentions();
    for (let index = 0; index < NEXUSES_MAX; index++) {
      attentions.connect(`n${index}`);
      attentions.take(`n${index}`);
    }
    attentions.disconnect("n3");
    attentions.connect("new");
    attentions.connect("n3");
    expect(attentions.take("n3")).toBe(Asc.powerOnOrReset);
    attentions.connect("n4");
    expect(attentions.take("n4")).toBe(Asc.nexusLoss);
  });
});

describe("APTPL (SPC-4 5.12.5)", () => {
  test("a registration is answered only when it is kept, and refused when it cannot be", () => {
    const store = new SteppedStore();
    store.immediate = false;
    const disk = newDisk(new MemoryMedium(BLOCK * BLOCKS), store);
    const a = new Client(disk, "a");
    const first = a.register(A, { aptpl: true });
    expect(first.ended).toBe(0);
    expect(a.fullStatus().entries).toEqual([]);
    store.waiting.shift()?.(null);
    expect(first.result).toEqual(good);
    const second = a.register(B, { aptpl: true });
    store.waiting.shift()?.(new Error("disk full"));
    expect(second.result?.sense).toEqual({
      key: SenseKey.hardwareError,
      code: Asc.internalTargetFailure,
    });
    expect(a.fullStatus().entries.map(({ key }) => key)).toEqual([A]);
  });

  test.each(Object.values(ReservationType))("type %i is as it was after power-on", (type) => {
    const store = new SteppedStore();
    const before = newDisk(new MemoryMedium(BLOCK * BLOCKS), store);
    const a = new Client(before, "a");
    const b = new Client(before, "b");
    a.register(A, { aptpl: true });
    b.register(B, { aptpl: true });
    b.reserve(B, type);
    const kept = store.saved.at(-1);
    const parsed = parseAptpl(JSON.stringify(kept));
    if (!parsed.ok) throw new Error(parsed.problem);
    const after = newDisk(new MemoryMedium(BLOCK * BLOCKS), store, restored(parsed.record));
    const again = new Client(after, "a");
    expect(again.fullStatus()).toEqual({ ...a.fullStatus(), generation: 0 });
    expect(new Client(after, "stranger").write(0, block(1)).result).toEqual({
      status: Status.reservationConflict,
    });
    expect(new Client(after, "b").write(0, block(1)).result).toEqual(good);
  });

  test("the last registration decides: without APTPL the record is emptied", () => {
    const store = new SteppedStore();
    const a = new Client(newDisk(new MemoryMedium(BLOCK * BLOCKS), store), "a");
    a.register(A, { aptpl: true });
    a.register(A);
    expect(store.saved.map(({ registrations }) => registrations.length)).toEqual([1, 0]);
    a.reserve(A, WERO);
    expect(store.saved.length).toBe(2);
  });

  test("broken records are refused", () => {
    const state = recordOf(restored({ version: 1, registrations: [], reservation: null }));
    expect(parseAptpl(JSON.stringify(state)).ok).toBe(true);
    expect(parseAptpl("{").ok).toBe(false);
    expect(parseAptpl(JSON.stringify({ ...state, version: 2 })).ok).toBe(false);
    const orphan = { ...state, reservation: { type: 5, holder: 0 } };
    expect(parseAptpl(JSON.stringify(orphan))).toMatchObject({ ok: false });
  });
});

describe("block commands (SBC-3 clause 5)", () => {
  const memory = () => {
    const disk = newDisk(new MemoryMedium(BLOCK * BLOCKS));
    return new Client(disk, "a");
  };
  const same = {
    name: "writeSame",
    cdbBytes: 16,
    protect: 0,
    anchor: false,
    unmap: false,
    noData: false,
    lba: 0,
    blocks: 4,
  } as const;

  test("COMPARE AND WRITE writes on a match, else says where it differs", () => {
    const a = memory();
    expect(a.compareAndWrite(3, block(0), block(9)).result).toEqual(good);
    const wrong = block(9);
    wrong[17] = 1;
    expect(a.compareAndWrite(3, wrong, block(1)).result?.sense).toEqual({
      key: SenseKey.miscompare,
      code: Asc.miscompareDuringVerify,
      information: 17,
    });
    expect(a.read(3).result?.data).toEqual(block(9));
  });

  test("WRITE SAME repeats its block, with NDOB writes zeros", () => {
    const a = memory();
    expect(a.send(same, block(5)).result).toEqual(good);
    expect(a.read(0, 5).result?.data).toEqual(
      Buffer.concat([Buffer.alloc(4 * BLOCK, 5), block(0)]),
    );
    expect(a.send({ ...same, unmap: true, noData: true }).result).toEqual(good);
    expect(a.read(0, 4).result?.data).toEqual(Buffer.alloc(4 * BLOCK));
    expect(a.send({ ...same, blocks: 0 }, block(5)).result?.sense?.code).toBe(
      Asc.invalidFieldInCdb,
    );
  });

  test("UNMAP zeros its ranges; one outside fails all of them", () => {
    const a = memory();
    a.send(same, block(5));
    const list = (blocks: number) =>
      encodeUnmap([
        { lba: 1, blocks: 1 },
        { lba: 3, blocks },
      ]);
    const unmap = (data: Buffer) =>
      a.send({ name: "unmap", anchor: false, parameterBytes: data.length }, data).result;
    expect(unmap(list(BLOCKS))?.sense?.code).toBe(Asc.lbaOutOfRange);
    expect(a.read(1).result?.data).toEqual(block(5));
    expect(unmap(list(1))).toEqual(good);
    expect([0, 1, 2, 3].map((lba) => a.read(lba).result?.data?.[0])).toEqual([5, 0, 5, 0]);
    expect(unmap(list(1).subarray(0, 20))?.sense?.code).toBe(Asc.parameterListLength);
  });

  test("a medium that fails shows as a medium error", () => {
    const medium = new SteppedMedium();
    const a = new Client(newDisk(medium), "a");
    const sent = [a.read(0), a.write(9, block(1))];
    medium.failing = true;
    medium.drain();
    expect(sent.map(({ result }) => result?.sense)).toEqual([
      { key: SenseKey.mediumError, code: Asc.unrecoveredReadError },
      { key: SenseKey.mediumError, code: Asc.writeError },
    ]);
  });

  test("the last block is there, the one after it is not", () => {
    const a = memory();
    expect(a.read(BLOCKS - 1).result?.status).toBe(Status.good);
    expect(a.read(BLOCKS).result?.sense?.code).toBe(Asc.lbaOutOfRange);
    expect(a.read(BLOCKS, 0).result?.status).toBe(Status.good);
    expect(a.read(BLOCKS + 1, 0).result?.sense?.code).toBe(Asc.lbaOutOfRange);
  });
});
