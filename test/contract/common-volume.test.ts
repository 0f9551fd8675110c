/** The common volume on the disks of the real shelf, over the sessions that the two processes of a controller have. */
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import {
  coordinatorBytesMin,
  decodePair,
  frontBytes,
  frontOffsetBytes,
  restBytes,
  restOffsetBytes,
} from "../../firmware-ts/wire/common-volume.ts";
import { openCommonVolume } from "../../hal/bench/common-volume.ts";
import { type Coordinators, openCoordinators } from "../../hal/bench/coordinators.ts";
import { slotOn } from "../../hal/bench/slots.ts";
import { writeRecord } from "../../hal/block/volume-slots.ts";
import type { CommonVolume } from "../../hal/port/common-volume.ts";
import { type Shelf, startShelf } from "../../hal/shelf/target/shelf.ts";
import { Pair } from "../../hal/sim/pair.ts";
import { limitsMs } from "../support/limits.ts";
import { newFolder } from "../support/shelf-process.ts";
import { recordOf } from "../support/volume-records.ts";

const target = "iqn.2026-11.dyad:shelf";
const serials = ["C0", "C1", "C2"];
const keys = { a: "d701000100000001", b: "d702000100000002" } as const;
const { id: pair } = new Pair().config("a").pair;
const type = "writeExclusiveAllRegistrants";

let folder: ReturnType<typeof newFolder>;
const imageOf = (serial: string) => join(folder.path, serial);
let shelf: Shelf;
let closing: (() => Promise<void>)[] = [];

async function start(sizes: readonly number[] = serials.map(() => 4 * 1024 * 1024)) {
  folder = newFolder();
  shelf = await startShelf({
    listen: { port: 0 },
    targets: [target],
    disks: serials.map((serial, lun) => ({
      ...{ serial, lun, sizeBytes: sizes[lun] ?? 0 },
      backingFile: imageOf(serial),
    })),
  });
}

function configOf(who: ControllerId) {
  const config = new Pair().config(who);
  const portal = `127.0.0.1:${shelf.port}`;
  return { ...config, shelf: { ...config.shelf, portal, target, coordinators: serials } };
}

/** The sessions of a beat process. */
async function beatOf(who: ControllerId): Promise<Coordinators> {
  const coordinators = openCoordinators(configOf(who), "beat");
  closing.push(() => coordinators.close());
  for (const disk of coordinators.disks.values())
    expect(await disk.whenUp(limitsMs.condition)).toBe(true);
  return coordinators;
}

function volumeOf(who: ControllerId, log: string[] = []): CommonVolume {
  const volume = openCommonVolume(configOf(who), { log: (message) => log.push(message) });
  closing.push(() => volume.close());
  return volume;
}

async function claim(beat: Coordinators, who: ControllerId) {
  for (const serial of serials) {
    const key = keys[who];
    for (const command of [{ op: "register", key } as const, { op: "reserve", key, type } as const])
      expect(await beat.reserve(serial, command, limitsMs.condition)).toEqual({ status: "good" });
  }
}

const write = (beat: Coordinators, record: VolumeRecord) =>
  Promise.all(
    [...beat.disks].map(([serial, device]) =>
      writeRecord({ device, serial, pair }, record, () => true),
    ),
  );

/** Whatever a machine that stalls does to a session, the next one is tried. */
async function read(volume: CommonVolume) {
  let view = await volume.read(limitsMs.condition);
  for (let tries = 0; !view.ok && tries < 20; tries += 1)
    view = await volume.read(limitsMs.condition);
  if (!view.ok) throw new Error(JSON.stringify(view.fault));
  return view.value;
}

afterEach(async () => {
  await Promise.all(closing.splice(0).map((close) => close()));
  closing = [];
  await shelf.close();
  folder.remove();
});

describe("the common volume", () => {
  beforeEach(() => start());

  test("is written by the registered nexus, and read by whoever asks", async () => {
    const a = await beatOf("a");
    await claim(a, "a");
    const first = recordOf({ generation: 1, number: 63 });
    const second = recordOf({ generation: 2, number: 63, sequence: 9 });
    expect(await write(a, first)).toEqual(["accepted", "accepted", "accepted"]);
    expect(await write(a, second)).toEqual(["accepted", "accepted", "accepted"]);
    const view = await read(volumeOf("b"));
    expect(view).toEqual({ records: [second], thin: [], reserved: [], damaged: [] });
    // Sessions that are registered nowhere leave the reservation as it is.
    expect(shelf.status().disks.map(({ registrations }) => registrations.length)).toEqual([
      1, 1, 1,
    ]);
  });

  test("is closed to a nexus that is not registered, and to one that was preempted", async () => {
    const [a, b] = await Promise.all([beatOf("a"), beatOf("b")]);
    await claim(a, "a");
    expect(await write(b, recordOf({ owner: "b" }))).toEqual(["refused", "refused", "refused"]);
    expect(await write(a, recordOf())).toEqual(["accepted", "accepted", "accepted"]);
    for (const serial of ["C0", "C1"]) {
      const key = keys.b;
      for (const command of [
        { op: "register", key } as const,
        { op: "preempt", key, victim: keys.a, type } as const,
      ])
        expect(await b.reserve(serial, command, limitsMs.condition)).toEqual({ status: "good" });
    }
    // The loser has the third, and that is no majority.
    expect(await write(a, recordOf({ generation: 2 }))).toEqual(["refused", "refused", "accepted"]);
    const survivors = recordOf({ generation: 3, epoch: 2, owner: "b" });
    expect(await write(b, survivors)).toEqual(["accepted", "accepted", "refused"]);
    const view = await read(volumeOf("a"));
    expect(view.records).toEqual([survivors]);
  });

  test("lies beside the beats, and each leaves the other alone", async () => {
    const a = await beatOf("a");
    const [disk] = a.disks.values();
    if (!disk) throw new Error("no disk");
    const sector = new Uint8Array(512).fill(7);
    for (const lba of [8, 16]) expect(await slotOn(disk).write(lba, sector)).toBe("good");
    await write(a, recordOf({ number: 0 }));
    for (const lba of [8, 16]) expect(await slotOn(disk).read(lba)).toEqual(Buffer.from(sector));
  });

  test("of one reader that waits for its sessions, while a disk is away", async () => {
    const a = await beatOf("a");
    await write(a, recordOf());
    shelf.setFault({
      id: "away",
      disk: "C1",
      action: { kind: "pathLoss", mode: "cut" },
    });
    const volume = volumeOf("a");
    expect(await read(volume)).toMatchObject({ records: [recordOf()], thin: [] });
    shelf.clearFault();
    for (const disk of ["C1", "C2"])
      shelf.setFault({ disk, operations: "read", action: { kind: "error" } });
    expect(await volume.read(limitsMs.condition)).toMatchObject({
      ok: false,
      fault: { code: "diskLost", cause: { message: expect.stringContaining("C2") } },
    });
    shelf.clearFault();
    expect(await read(volume)).toMatchObject({ records: [recordOf()] });
  });

  test("is not waited for longer than the limit", async () => {
    shelf.setFault({ action: { kind: "pathLoss", mode: "blackhole" } });
    const view = await volumeOf("a").read(50);
    expect(["diskLost", "timeout"]).toContain(view.ok ? "" : view.fault.code);
  });

  test("a newer record on one disk is left alone there", async () => {
    const a = await beatOf("a");
    const [newest] = a.disks.values();
    if (!newest) throw new Error("no disk");
    expect(
      await writeRecord(
        { device: newest, serial: "C0", pair },
        recordOf({ generation: 5 }),
        () => true,
      ),
    ).toBe("accepted");
    expect(await write(a, recordOf({ generation: 4 }))).toEqual([
      "overtaken",
      "accepted",
      "accepted",
    ]);
    expect(await read(volumeOf("a"))).toMatchObject({ records: [{ generation: 5 }] });
  });

  test("what is not wanted any more when the disk has been read is not written", async () => {
    const a = await beatOf("a");
    const [device] = a.disks.values();
    if (!device) throw new Error("no disk");
    const asked: boolean[] = [];
    const isWanted = () => {
      asked.push(false);
      return false;
    };
    const disk = { device, serial: "C0", pair };
    expect(await writeRecord(disk, recordOf({ generation: 5 }), isWanted)).toBe("failed");
    expect(asked).toHaveLength(1);
    expect(await write(a, recordOf())).toEqual(["accepted", "accepted", "accepted"]);
    expect(await read(volumeOf("a"))).toMatchObject({ records: [recordOf()], thin: [] });
  });

  test("what another pair has left is not believed, and may be written over", async () => {
    const a = await beatOf("a");
    for (const [serial, device] of a.disks)
      await writeRecord(
        { device, serial, pair: pair + 1 },
        recordOf({ epoch: 9, generation: 9 }),
        () => true,
      );
    const volume = volumeOf("a");
    expect(await read(volume)).toMatchObject({ records: [], reserved: [] });
    expect((await read(volume)).damaged[0]).toMatch(/: a record of pair 18, in 1 slots/);
    expect(await write(a, recordOf())).toEqual(["accepted", "accepted", "accepted"]);
    expect(await read(volume)).toMatchObject({ records: [recordOf()] });
  });

  test("a record that fits no slot is written nowhere", async () => {
    const a = await beatOf("a");
    const lines = new Array<string>(64).fill("é".repeat(200));
    const state = { mounts: [], routes: lines, devices: [] };
    expect(await write(a, recordOf({ state }))).toEqual(["failed", "failed", "failed"]);
    expect(await read(volumeOf("a"))).toMatchObject({ records: [] });
  });
});

describe("coordinator disks without room for it", () => {
  test("are named, with what they need, and others serve", async () => {
    const large = coordinatorBytesMin;
    await start([1024 * 1024, large, large]);
    const a = await beatOf("a");
    expect(await write(a, recordOf())).toEqual(["failed", "accepted", "accepted"]);
    const log: string[] = [];
    const volume = volumeOf("a", log);
    for (let tries = 0; tries < 3; tries += 1)
      expect(await read(volume)).toMatchObject({ records: [recordOf()], thin: [] });
    await expect
      .poll(() => log)
      .toEqual([
        "common volume: coordinator disk C0 has 1,048,576 bytes and needs at least 2,129,920 [diskError]",
      ]);
  });

  test("are a fault when they are the majority", async () => {
    await start([1024 * 1024, 1024 * 1024, 4 * 1024 * 1024]);
    const volume = volumeOf("a");
    const view = await volume.read(limitsMs.condition);
    expect(view.ok ? "" : JSON.stringify(view.fault)).toContain("C1 has 1,048,576 bytes");
  });
});

test("the bytes on a disk are those of the format", async () => {
  await start();
  const a = await beatOf("a");
  const routes = new Array<string>(32).fill("r".repeat(200));
  const records = [
    recordOf({ number: 5, generation: 1 }),
    recordOf({ number: 5, generation: 2, state: { mounts: [], routes, devices: [] } }),
  ];
  for (const record of records)
    expect(await write(a, record)).toEqual(["accepted", "accepted", "accepted"]);
  const image = readFileSync(imageOf("C2"));
  const partsOf = (slot: 0 | 1) => {
    const [front, rest] = [frontOffsetBytes(5, slot), restOffsetBytes(5, slot)];
    return [image.subarray(front, front + frontBytes), image.subarray(rest, rest + restBytes)];
  };
  const [first, second] = [partsOf(0), partsOf(1)];
  expect(decodePair({ number: 5, pair }, [Buffer.concat(first), Buffer.concat(second)])).toEqual(
    records.map((record) => ({ kind: "record", record })),
  );
  // Most records need no more than a front.
  expect(first[1]?.every((byte) => byte === 0)).toBe(true);
  for (const part of [...first, ...second]) part.fill(0);
  expect(image.every((byte) => byte === 0)).toBe(true);

  // Long ones are read and written like short ones, and by turns.
  const volume = volumeOf("a");
  expect(await read(volume)).toMatchObject({ records: [records[1]], thin: [], damaged: [] });
  const short = recordOf({ number: 5, generation: 3 });
  const again = { ...records[1], generation: 4 } as VolumeRecord;
  for (const record of [short, again, { ...again, generation: 5 }]) {
    expect(await write(a, record)).toEqual(["accepted", "accepted", "accepted"]);
    expect(await read(volume)).toMatchObject({ records: [record], thin: [], damaged: [] });
  }
  expect(await write(a, again)).toEqual(["overtaken", "overtaken", "overtaken"]);
});

test("what has changed on a disk since the last look is seen at the next, though most is the same", async () => {
  await start();
  const a = await beatOf("a");
  const [kept, spoilt] = [recordOf({ number: 4 }), recordOf({ number: 5 })];
  for (const record of [kept, spoilt]) await write(a, record);
  const volume = volumeOf("a");
  const whole = [kept, spoilt];
  for (let look = 0; look < 2; look += 1)
    expect(await read(volume)).toMatchObject({ records: whole, damaged: [] });
  for (const serial of ["C0", "C1", "C2"]) {
    const image = openSync(imageOf(serial), "r+");
    // Somewhere in its body.
    writeSync(image, "?", frontOffsetBytes(5, 0) + 40);
    closeSync(image);
  }
  const view = await read(volume);
  expect(view).toMatchObject({ records: [kept] });
  expect(view.damaged).toContainEqual(expect.stringContaining("slot 0 of number 5: torn"));
});
