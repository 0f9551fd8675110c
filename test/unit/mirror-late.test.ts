/** The mirror when answers, decisions and marks come late: what must not be believed, begun or forgotten meanwhile. */
import { beforeEach, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import { MirrorDevice } from "../../hal/block/mirror/mirror-device.ts";
import { MemoryActivity, MemoryDirty } from "../support/mirror-ports.ts";
import { ScriptedDevice } from "../support/scripted-device.ts";

const sizeBytes = 64 * 1024;
const grainBytes = 4096;
const block = Buffer.alloc(512, 0x5a);

let local: ScriptedDevice;
let remote: ScriptedDevice;
let dirty: MemoryDirty;
let activity: MemoryActivity;
let mirror: MirrorDevice;

beforeEach(() => {
  local = new ScriptedDevice(sizeBytes);
  remote = new ScriptedDevice(sizeBytes);
  dirty = new MemoryDirty(sizeBytes, grainBytes);
  activity = new MemoryActivity(8192);
  const made = MirrorDevice.create({
    ...{ local, remote, sizeBytes, blockSizeBytes: 512, dirty, activity },
    handlers: { legLost: () => {} },
  });
  if (!made.ok) throw new Error(made.fault.message);
  mirror = made.value;
});

/** What has come of something so far. */
function watch(operation: Promise<Outcome<unknown> | string | undefined>): { state: string } {
  const seen = { state: "open" };
  void operation.then((outcome) => {
    if (typeof outcome === "object") seen.state = outcome.ok ? "ok" : outcome.fault.code;
    else seen.state = outcome ?? "ended";
  });
  return seen;
}
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
const write = (offset: number, data = block) => watch(mirror.write(offset, data, { fua: false }));

/** The remote leg is a target, and one grain is dirty. */
async function resyncing(): Promise<void> {
  mirror.lose("remote", "the test");
  expect((await mirror.continueWithout("remote")).ok).toBe(true);
  const one = write(0);
  await turn();
  local.take().succeed();
  await turn();
  expect(one.state).toBe("ok");
  expect((await mirror.attach("remote", remote)).ok).toBe(true);
}

describe("a leg that was out", () => {
  test("has nothing of what it answered before, which may have gone with its power", async () => {
    const one = write(0);
    await turn();
    remote.take().succeed();
    await turn();
    mirror.lose("remote", "its power");
    expect((await mirror.continueWithout("remote")).ok).toBe(true);
    remote.losePower();
    const attached = watch(mirror.attach("remote", remote));
    await turn();
    local.take().succeed();
    await turn();
    expect([one.state, attached.state]).toEqual(["ok", "ok"]);
    expect([...dirty.durable]).toEqual([0]);
  });
});

describe("an extent", () => {
  test("stays in the log while a change waits for another one of its range", async () => {
    const one = write(0);
    await turn();
    activity.prompt = false;
    for (const leg of [local, remote]) leg.take().succeed();
    await turn();
    const two = write(8192 - 512, Buffer.alloc(1024));
    await turn();
    const flush = watch(mirror.flush());
    for (const leg of [local, remote]) leg.take().succeed();
    await turn();
    expect([one.state, flush.state, two.state]).toEqual(["ok", "ok", "open"]);
    for (const persist of activity.waiting.splice(0)) persist();
    await turn();
    expect(local.held).toHaveLength(1);
    expect([...activity.active]).toEqual([0, 1]);
  });
});

describe.each([
  ["that has failed", () => mirror.fail("the test")],
  ["that is closed", () => void mirror.close()],
])("a mirror %s", (_, end) => {
  const grain = { offset: 0, length: grainBytes };

  test("begins no copy, comparison or decision", async () => {
    await resyncing();
    const { attachment } = mirror;
    end();
    expect(await mirror.copy(attachment, grain)).toBe("left");
    expect(await mirror.settle(attachment, [grain])).toMatchObject({ ok: false });
    await dirty.clean([grain]);
    expect(mirror.joined("remote")).toMatchObject({ ok: false });
    expect([local.held, remote.held]).toEqual([[], []]);
  });

  test("compares and attaches nothing", async () => {
    end();
    expect(await mirror.compare(grain)).toBe("left");
    expect([local.held, remote.held]).toEqual([[], []]);
    expect(await mirror.attach("remote", remote)).toMatchObject({ ok: false });
  });

  test("writes nothing of a copy that it was reading", async () => {
    await resyncing();
    const copied = watch(mirror.copy(mirror.attachment, grain));
    await turn();
    end();
    local.take().succeed();
    await turn();
    expect([copied.state, remote.held]).toEqual(["left", []]);
  });

  test("cleans nothing behind a flush of the target", async () => {
    await resyncing();
    const settled = watch(mirror.settle(mirror.attachment, [grain]));
    await turn();
    end();
    remote.take().succeed();
    await turn();
    expect(settled.state).not.toBe("ok");
    expect(dirty.durable.has(0)).toBe(true);
  });

  test("takes no leg back", async () => {
    const one = write(0);
    await turn();
    local.take().succeed();
    remote.take().fail("effectUnknown", false);
    await turn();
    const back = watch(mirror.legBack("remote"));
    await turn();
    end();
    local.take().succeed();
    await turn();
    expect([back.state, one.state]).not.toContain("ok");
    expect(remote.held).toEqual([]);
  });
});

describe("closing", () => {
  test.each([
    [
      "a copy",
      () => mirror.copy(mirror.attachment, { offset: 0, length: grainBytes }),
      () => local,
    ],
    ["what ends a copy", () => mirror.settle(mirror.attachment, []), () => remote],
  ])("waits for %s", async (_, begin, where) => {
    await resyncing();
    const work = watch(begin());
    await turn();
    const closed = watch(mirror.close().then(() => undefined));
    await turn();
    expect([work.state, closed.state]).toEqual(["open", "open"]);
    where().take().succeed();
    await turn();
    expect(closed.state).toBe("ended");
  });
});

describe("metadata", () => {
  test("that cannot be cleaned are a loss of the leg that carries them", async () => {
    await resyncing();
    dirty.broken = true;
    const settled = watch(mirror.settle(mirror.attachment, [{ offset: 0, length: grainBytes }]));
    await turn();
    remote.take().succeed();
    await turn();
    expect(settled.state).toBe("ioError");
    expect(mirror.status.legs.local).toBe("lost");
  });
});

describe("a repair", () => {
  test("is unflushed behind a flush that began while it was written", async () => {
    remote.content.fill(0xee, 0, 512);
    const repaired = watch(mirror.compare({ offset: 0, length: grainBytes }, "local"));
    await turn();
    for (const leg of [local, remote]) leg.take().succeed();
    await turn();
    const flush = watch(mirror.flush());
    await turn();
    // The flush is answered behind the write, and began before it was answered.
    local.take().succeed();
    remote.take(0).succeed();
    remote.take(0).succeed();
    await turn();
    expect([repaired.state, flush.state]).toEqual(["different", "ok"]);
    mirror.lose("remote", "its power");
    expect((await mirror.continueWithout("remote")).ok).toBe(true);
    expect([...dirty.durable]).toEqual([0]);
  });
});
