/** The mirror, case by case: who waits for whom, what a loss holds, and what each decision does. */
import { beforeEach, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { MirrorDevice, type MirrorOptions } from "../../hal/block/mirror/mirror-device.ts";
import { Resync, verify } from "../../hal/block/mirror/resync.ts";
import { MemoryActivity, MemoryDirty } from "../support/mirror-ports.ts";
import { ScriptedDevice } from "../support/scripted-device.ts";

const sizeBytes = 64 * 1024;
const grainBytes = 4096;
const block = Buffer.alloc(512, 0x5a);

let local: ScriptedDevice;
let remote: ScriptedDevice;
let dirty: MemoryDirty;
let activity: MemoryActivity;
let lost: string[];
let mirror: MirrorDevice;

function make(more: Partial<MirrorOptions> = {}): Outcome<MirrorDevice> {
  return MirrorDevice.create({
    ...{ local, remote, sizeBytes, blockSizeBytes: 512, dirty, activity },
    handlers: { legLost: (leg, reason) => lost.push(`${leg}: ${reason}`) },
    ...more,
  });
}

function fresh(more: Partial<MirrorOptions> = {}): void {
  const made = make(more);
  if (!made.ok) throw new Error(made.fault.message);
  mirror = made.value;
}

beforeEach(() => {
  local = new ScriptedDevice(sizeBytes);
  remote = new ScriptedDevice(sizeBytes);
  dirty = new MemoryDirty(sizeBytes, grainBytes);
  activity = new MemoryActivity(8192);
  lost = [];
  fresh();
});

/** What has come of an operation so far. */
function watch(operation: Promise<Outcome<unknown>>): { state: string } {
  const seen = { state: "open" };
  void operation.then((outcome) => {
    seen.state = outcome.ok ? "ok" : outcome.fault.code;
  });
  return seen;
}
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const write = (offset: number, data = block, fua = false) =>
  watch(mirror.write(offset, data, { fua }));

function answerAll(): void {
  for (const leg of [local, remote]) {
    leg.prompt = true;
    for (const one of leg.held.splice(0)) one.succeed();
  }
}

/** A write whose answer the remote leg fails. */
async function loseRemote(offset = 0): Promise<{ state: string }> {
  const one = write(offset);
  await turn();
  local.take().succeed();
  remote.take().fail("effectUnknown", true);
  await turn();
  return one;
}

describe("a mirror", () => {
  test("is made of legs that can carry it, and pieces that fit", () => {
    const small = new ScriptedDevice(sizeBytes - 512);
    const coarse = new ScriptedDevice(sizeBytes, { blockSizeBytes: 4096 });
    for (const wrong of [
      { local: small },
      { remote: small },
      { remote: coarse },
      { sizeBytes: sizeBytes - 100 },
      { blockSizeBytes: 768 },
      { activity: new MemoryActivity(6000) },
      { dirty: new MemoryDirty(sizeBytes, 256) },
    ])
      expect(make(wrong)).toMatchObject({ fault: { code: "badInput" } });
    expect(make({ remote: undefined }).ok).toBe(true);
  });

  test("acknowledges when both legs have it, and sends to both at once", async () => {
    const one = write(0);
    await turn();
    expect([local.held.length, remote.held.length]).toEqual([1, 1]);
    remote.take().succeed();
    await turn();
    expect(one.state).toBe("open");
    local.take().succeed();
    await turn();
    expect(one.state).toBe("ok");
  });

  test("lets what overlaps wait, and nothing else", async () => {
    activity.active.add(0);
    const states = [write(0), write(512, Buffer.alloc(1024)), write(1024), write(4096)];
    const read = watch(mirror.read(0, 512));
    await turn();
    expect(local.held.map(({ offset }) => offset)).toEqual([0, 512, 4096]);
    for (const leg of [local, remote]) leg.take(1).succeed();
    await turn();
    expect(local.held.map(({ offset }) => offset)).toEqual([0, 4096, 1024]);
    answerAll();
    await turn();
    expect(states.map(({ state }) => state)).toEqual(Array(4).fill("ok"));
    expect(read.state).toBe("ok");
  });

  test("wakes an extent before the first write to it, and lets it rest when a flush has covered it", async () => {
    activity.prompt = false;
    const one = write(0);
    const two = write(8192 - 512, Buffer.alloc(1024));
    await turn();
    expect(local.held).toEqual([]);
    for (const persist of activity.waiting.splice(0)) persist();
    await turn();
    expect(local.held).toHaveLength(2);
    // A flush covers what was acknowledged: not this extent, to which a write is under way.
    for (const leg of [local, remote]) leg.take(0).succeed();
    await turn();
    const flush = watch(mirror.flush());
    await turn();
    for (const leg of [local, remote]) leg.take(1).succeed();
    await turn();
    expect([one.state, flush.state, two.state]).toEqual(["ok", "ok", "open"]);
    expect([...activity.active]).toEqual([0, 1]);
    answerAll();
    await turn();
    expect(await mirror.flush()).toMatchObject({ ok: true });
    expect([...activity.active]).toEqual([]);
  });

  test("flushes by itself before too much is unflushed", async () => {
    fresh({ unflushedGrainsMax: 2 });
    answerAll();
    for (let offset = 0; offset < 3 * grainBytes; offset += grainBytes) write(offset);
    await expect.poll(() => mirror.status.unflushedBytes).toBe(0);
  });

  test("trims by zeroes: what is read behind a trim is the same on both", async () => {
    answerAll();
    await mirror.write(0, block, { fua: true });
    expect(await mirror.trim(0, 512)).toMatchObject({ ok: true });
    for (const leg of [local, remote])
      expect(leg.content.subarray(0, 512)).toEqual(Buffer.alloc(512));
  });

  test("refuses what lies outside, does nothing for nothing, and closes behind what is under way", async () => {
    expect(await mirror.write(sizeBytes, block, { fua: false })).toMatchObject({
      fault: { code: "badInput" },
    });
    expect(await mirror.read(100, 512)).toMatchObject({ fault: { code: "badInput" } });
    expect(await mirror.write(0, Buffer.alloc(0), { fua: false })).toMatchObject({ ok: true });
    const one = write(0);
    await turn();
    const closed = mirror.close();
    expect(await mirror.flush()).toMatchObject({ fault: { code: "refused" } });
    answerAll();
    await closed;
    expect(one.state).not.toBe("open");
  });
});

describe("a lost leg", () => {
  test("holds what is under way and what is asked, and is told once; reads go on", async () => {
    const one = await loseRemote();
    const two = write(4096);
    const flush = watch(mirror.flush());
    mirror.lose("remote", "again");
    await turn();
    expect(lost).toEqual([expect.stringMatching(/^remote: .*effectUnknown/)]);
    expect([one.state, two.state, flush.state]).toEqual(["open", "open", "open"]);
    expect([local.held.length, remote.held.length]).toEqual([0, 0]);
    const elsewhere = watch(mirror.read(8192, 512));
    const same = watch(mirror.read(0, 512));
    await turn();
    local.take().succeed();
    await turn();
    // What may never be acknowledged is not shown.
    expect([elsewhere.state, same.state]).toEqual(["ok", "open"]);
    expect(mirror.status).toMatchObject({ held: 3, legs: { local: "inSync", remote: "lost" } });
  });

  test("is done without when all that it may lack is marked, what it had not flushed among it", async () => {
    answerAll();
    await mirror.write(3 * grainBytes, block, { fua: false });
    await mirror.flush();
    await mirror.write(5 * grainBytes, block, { fua: false });
    local.prompt = false;
    remote.prompt = false;
    const one = await loseRemote();
    dirty.prompt = false;
    const decided = watch(mirror.continueWithout("remote"));
    await turn();
    expect([one.state, decided.state]).toEqual(["open", "open"]);
    for (const persist of dirty.waiting.splice(0)) persist();
    await turn();
    expect([one.state, decided.state]).toEqual(["ok", "ok"]);
    expect([...dirty.durable].sort()).toEqual([0, 5]);
    const two = write(2 * grainBytes);
    await turn();
    local.take().succeed();
    await turn();
    expect([two.state, remote.held.length]).toEqual(["open", 0]);
    for (const persist of dirty.waiting.splice(0)) persist();
    await turn();
    expect(two.state).toBe("ok");
  });

  test("a mark that fails is a loss of the other leg, too: then nothing can go on", async () => {
    const one = await loseRemote();
    dirty.broken = true;
    expect(await mirror.continueWithout("remote")).toMatchObject({ fault: { code: "ioError" } });
    expect(mirror.status.legs).toEqual({ local: "lost", remote: "lost" });
    for (const leg of ["local", "remote"] as const) {
      expect(await mirror.continueWithout(leg)).toMatchObject({ fault: { code: "refused" } });
      expect(await mirror.legBack(leg)).toMatchObject({ fault: { code: "refused" } });
    }
    expect(one.state).toBe("open");
    mirror.fail("both replicas are lost");
    await turn();
    expect(one.state).toBe("diskLost");
    expect(await mirror.write(0, block, { fua: false })).toMatchObject({
      fault: { message: "both replicas are lost" },
    });
    expect(await mirror.read(0, 512)).toMatchObject({ ok: false });
    expect(await mirror.flush()).toMatchObject({ ok: false });
  });

  test("an extent that cannot be activated is a loss of the local leg, whose reads come from the other then", async () => {
    activity.broken = true;
    const one = write(0);
    await turn();
    expect(lost).toEqual([expect.stringMatching(/^local: /)]);
    activity.broken = false;
    const read = watch(mirror.read(4096, 512));
    await turn();
    expect([one.state, read.state, remote.held.length]).toEqual(["open", "open", 0]);
    expect((await mirror.continueWithout("local")).ok).toBe(true);
    answerAll();
    await turn();
    expect([one.state, read.state]).toEqual(["ok", "ok"]);
    expect(remote.content.subarray(0, 512)).toEqual(block);
    expect(local.content.subarray(0, 512)).toEqual(Buffer.alloc(512));
    expect([...dirty.durable]).toEqual([0]);
  });

  test("a read that fails is asked of the other leg once that is decided", async () => {
    const read = watch(mirror.read(0, 512));
    await turn();
    local.take().fail("ioError", false);
    await turn();
    expect([read.state, lost.length]).toEqual(["open", 1]);
    const decided = mirror.continueWithout("local");
    answerAll();
    expect((await decided).ok).toBe(true);
    await turn();
    expect(read.state).toBe("ok");
  });

  test("that is back gets what it may have forgotten, durably, before anything is acknowledged", async () => {
    answerAll();
    await mirror.write(5 * grainBytes, block, { fua: false });
    local.prompt = false;
    remote.prompt = false;
    const one = await loseRemote();
    const two = write(2 * grainBytes);
    remote.losePower();
    const back = watch(mirror.legBack("remote"));
    remote.prompt = true;
    for (let reads = 0; reads < 2; reads += 1) {
      await turn();
      expect(one.state).toBe("open");
      expect(local.held).toHaveLength(1);
      local.take().succeed();
    }
    await turn();
    expect([back.state, one.state, two.state]).toEqual(["ok", "ok", "open"]);
    expect(mirror.status.legs.remote).toBe("inSync");
    remote.losePower();
    for (const offset of [0, 5 * grainBytes])
      expect(remote.content.subarray(offset, offset + 512)).toEqual(block);
    answerAll();
    await turn();
    expect(two.state).toBe("ok");
    expect(dirty.dirtyBytes).toBe(0);
  });

  test("that is lost again while it is taken back stays lost, also when nothing was under way to it", async () => {
    const one = await loseRemote();
    remote.prompt = true;
    const back = watch(mirror.legBack("remote"));
    await turn();
    mirror.lose("remote", "a second time");
    local.take().succeed();
    await turn();
    expect([back.state, one.state, lost.length]).toEqual(["diskLost", "open", 2]);
    const again = watch(mirror.legBack("remote"));
    answerAll();
    await turn();
    await turn();
    expect([again.state, one.state]).toEqual(["ok", "ok"]);
  });

  test("nobody decides about a leg that is not lost", async () => {
    for (const leg of ["local", "remote"] as const) {
      expect(await mirror.continueWithout(leg)).toMatchObject({ fault: { code: "refused" } });
      expect(await mirror.legBack(leg)).toMatchObject({ fault: { code: "refused" } });
      expect(await mirror.attach(leg, remote)).toMatchObject({ fault: { code: "refused" } });
      expect(mirror.joined(leg)).toMatchObject({ fault: { code: "refused" } });
    }
  });
});

describe("a resync", () => {
  beforeEach(async () => {
    answerAll();
    mirror.lose("remote", "the test");
    expect((await mirror.continueWithout("remote")).ok).toBe(true);
    for (let offset = 0; offset < sizeBytes; offset += 2 * grainBytes)
      await mirror.write(offset, block, { fua: false });
  });

  test("copies what is dirty, and nothing else; then the leg can join", async () => {
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    expect(mirror.joined("remote")).toMatchObject({ fault: { code: "refused" } });
    const resync = new Resync({ mirror, dirty });
    expect(await resync.run()).toBe("complete");
    expect(resync.progress).toMatchObject({ copiedBytes: sizeBytes / 2, dirtyBytes: 0 });
    expect(mirror.joined("remote").ok).toBe(true);
    expect(remote.content.equals(local.content)).toBe(true);
    expect(mirror.status.legs.remote).toBe("inSync");
  });

  test("a write to what is being copied comes behind it, and goes to both", async () => {
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    local.prompt = false;
    const run = new Resync({ mirror, dirty, copyBytes: grainBytes }).run();
    await turn();
    const newer = Buffer.alloc(512, 0x77);
    const [same, elsewhere] = [write(0, newer), write(grainBytes, newer)];
    await turn();
    expect(local.held.map(({ operation, offset }) => `${operation} ${offset}`)).toEqual([
      "read 0",
      `write ${grainBytes}`,
    ]);
    answerAll();
    expect(await run).toBe("complete");
    expect([same.state, elsewhere.state]).toEqual(["ok", "ok"]);
    for (const leg of [local, remote]) expect(leg.content.subarray(0, 512)).toEqual(newer);
  });

  test("that is stopped leaves dirty what it did not copy, and the next one goes on", async () => {
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    local.prompt = false;
    const first = new Resync({ mirror, dirty, copyBytes: grainBytes });
    const run = first.run();
    await turn();
    first.stop();
    local.take().succeed();
    expect(await run).toBe("stopped");
    expect(dirty.dirtyBytes).toBe(sizeBytes / 2 - grainBytes);
    answerAll();
    const second = new Resync({ mirror, dirty });
    expect(await second.run()).toBe("complete");
    expect(second.progress.copiedBytes).toBe(sizeBytes / 2 - grainBytes);
  });

  test("a target that fails is left without asking, and nothing is clean that it may have forgotten", async () => {
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    const before = dirty.dirtyBytes;
    remote.prompt = false;
    const run = new Resync({ mirror, dirty, copyBytes: grainBytes, batchBytes: grainBytes }).run();
    await turn();
    remote.take().succeed();
    await turn();
    // The copy is there, and its flush is not.
    remote.broken = "diskLost";
    remote.take().fail("diskLost", false);
    expect(await run).toBe("lost");
    expect(dirty.dirtyBytes).toBe(before);
    expect(lost).toHaveLength(2);
    expect(mirror.status.legs.remote).toBe("out");
    expect(await mirror.write(grainBytes, block, { fua: false })).toMatchObject({ ok: true });
    expect(dirty.durable.has(1)).toBe(true);
  });

  test("a flush that succeeds says nothing of a target that was lost meanwhile", async () => {
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    const grain = { offset: 0, length: grainBytes };
    expect(await mirror.copy(mirror.attachment, grain)).toBe("done");
    remote.prompt = false;
    const settled = watch(mirror.settle(mirror.attachment, [grain]));
    await turn();
    mirror.lose("remote", "its power");
    remote.take().succeed();
    await turn();
    expect(settled.state).toBe("diskLost");
    expect(dirty.durable.has(0)).toBe(true);
  });

  test("what an earlier attachment copied counts for nothing in the next", async () => {
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    const old = mirror.attachment;
    expect(await mirror.copy(old, { offset: 0, length: grainBytes })).toBe("done");
    mirror.lose("remote", "its power");
    await expect.poll(() => mirror.status.legs.remote).toBe("out");
    remote.losePower();
    expect((await mirror.attach("remote", remote)).ok).toBe(true);
    expect(await mirror.settle(old, [{ offset: 0, length: grainBytes }])).toMatchObject({
      ok: false,
    });
    expect(await mirror.copy(old, { offset: 0, length: grainBytes })).toBe("left");
    expect(dirty.durable.has(0)).toBe(true);
  });
});

describe("a comparison of the legs", () => {
  beforeEach(() => {
    answerAll();
    remote.content.fill(0xee, 3 * grainBytes, 3 * grainBytes + 7);
  });

  test("reports what differs, and changes nothing", async () => {
    const report = await verify(mirror, { pieceBytes: grainBytes });
    expect(report).toEqual({
      ...{ comparedBytes: sizeBytes, differentBytes: grainBytes, complete: true },
      differences: [{ offset: 3 * grainBytes, length: grainBytes }],
    });
    expect(remote.content[3 * grainBytes]).toBe(0xee);
  });

  test.each(["local", "remote"] as const)("repairs from the %s leg when told to", async (from) => {
    const right = from === "local" ? 0 : 0xee;
    const report = await verify(mirror, { pieceBytes: grainBytes, repairFrom: from });
    expect(report.differentBytes).toBe(grainBytes);
    for (const leg of [local, remote]) expect(leg.content[3 * grainBytes]).toBe(right);
    expect((await verify(mirror, { pieceBytes: grainBytes })).differentBytes).toBe(0);
  });

  test("ends with a leg, and when it is not wanted any more", async () => {
    const stopped = await verify(mirror, { pieceBytes: grainBytes, isWanted: () => false });
    expect(stopped).toMatchObject({ comparedBytes: 0, complete: false });
    remote.broken = "ioError";
    expect(await verify(mirror, { pieceBytes: grainBytes })).toMatchObject({ complete: false });
    expect(lost).toEqual([expect.stringMatching(/^remote/)]);
    expect(await verify(mirror, { pieceBytes: grainBytes })).toMatchObject({ comparedBytes: 0 });
  });
});
