/** The access program: who is served, until when, and what a move of the generation waits for. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { encodeReplicaName } from "../../firmware-ts/wire/nbd/replica-name.ts";
import { AccessProgram } from "../../hal/block/access/access-program.ts";
import { AttemptLog } from "../../hal/block/access/attempt-log.ts";
import { NbdServer } from "../../hal/block/nbd-server.ts";
import { RemoteDevice } from "../../hal/block/remote/remote-device.ts";
import { limitsMs } from "../support/limits.ts";
import { askingTls, servingTls } from "../support/pair-tls.ts";
import { ScriptedDevice } from "../support/scripted-device.ts";
import { RawNbdClient } from "./nbd-raw-client.ts";

const volume = "home";
const block = Buffer.alloc(512, 1);
const timing = {
  ...{ connectTimeoutMs: limitsMs.condition, requestTimeoutMs: limitsMs.condition },
  ...{ backOffMs: 1, backOffMaxMs: 10 },
};

let folder: string;
let server: NbdServer;
let device: ScriptedDevice;
let access: AccessProgram;
const remotes: RemoteDevice[] = [];
const path = () => join(folder, "nbd");

function offer(on: NbdServer, named = volume) {
  return AccessProgram.offer({ server: on, device, volume: named, generation: "g1" });
}

function partner(generation: string, exportName?: (session: string) => string): RemoteDevice {
  const named = (session: string) => encodeReplicaName({ volume, generation, session });
  const one = new RemoteDevice({
    ...{ address: { path: path() }, exportName: exportName ?? named, tls: askingTls, timing },
  });
  remotes.push(one);
  return one;
}

/** Whether it comes up; undefined is "not yet". */
const isUp = (one: RemoteDevice) => one.whenUp(limitsMs.condition);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "dyad-access-"));
  device = new ScriptedDevice(1024 * 1024);
  server = new NbdServer({ tls: servingTls });
  const offered = offer(server);
  if (!offered.ok) throw new Error(offered.fault.message);
  access = offered.value;
  expect((await server.listen({ path: path() })).ok).toBe(true);
});
afterEach(async () => {
  device.prompt = true;
  for (const one of device.held.splice(0)) one.succeed();
  for (const one of remotes.splice(0)) await one.close();
  await server.close();
  await rm(folder, { recursive: true });
});

describe("an access program", () => {
  test("is offered behind TLS only, once, under ids", () => {
    expect(offer(new NbdServer())).toMatchObject({ fault: { code: "badInput" } });
    expect(offer(server)).toMatchObject({ fault: { code: "badInput" } });
    expect(offer(server, "a/b")).toMatchObject({ fault: { code: "badInput" } });
    expect(offer(server, "other").ok).toBe(true);
  });

  test("serves nobody before it admits", async () => {
    const one = partner("g1");
    await expect.poll(() => one.status.reason).toMatch(/not open/);
    access.admit();
    expect(await isUp(one)).toBe(true);
    expect(access.status).toMatchObject({ generation: "g1", admitting: true, sessions: 1 });
  });

  test("refuses another generation for good, and says which it has", async () => {
    access.admit();
    const said: string[] = [];
    const one = new RemoteDevice({
      ...{ address: { path: path() }, tls: askingTls, timing },
      exportName: (session) => encodeReplicaName({ volume, generation: "g0", session }),
      handlers: { refused: (reason) => said.push(reason) },
    });
    remotes.push(one);
    expect(await isUp(one)).toBe(false);
    expect(one.status.state).toBe("refused");
    expect(said).toEqual([expect.stringMatching(/has generation g1, not g0/)]);
    expect(await one.write(0, block, { fua: false })).toMatchObject({
      fault: { code: "generationRefused" },
    });
    expect(access.status.refusedGenerations).toBe(1);
  });

  test.each([
    ["its bare name", () => "replica/home"],
    ["the default export", () => ""],
    ["another volume", (session: string) => `replica/other/g1/${session}`],
  ])("is not found by %s", async (_, name) => {
    access.admit();
    const one = partner("g1", name);
    await expect.poll(() => one.status.reason).toMatch(/no such export/);
  });

  test("without TLS tells nothing: no list, no information, and no difference between names", async () => {
    access.admit();
    const faults: string[] = [];
    const watched = new NbdServer({ tls: servingTls, onFault: (reason) => faults.push(reason) });
    expect(offer(watched).ok).toBe(true);
    const plain = join(folder, "plain");
    await watched.listen({ path: plain });
    const one = new RawNbdClient({ path: plain });
    await one.read(18);
    one.socket.write(Buffer.from([0, 0, 0, 3]));
    for (const option of [3, 6, 7, 8, 77]) {
      one.option(option, Buffer.alloc(option > 5 ? 6 : 0));
      expect(await one.reply()).toMatchObject({ option, type: 0x80000005, data: Buffer.alloc(0) });
    }
    // Said once, however much is asked.
    expect(faults).toEqual(["withoutTls"]);
    one.option(1, Buffer.from(encodeReplicaName({ volume, generation: "g1", session: "s" })));
    await one.closed();
    const two = new RawNbdClient({ path: plain });
    await two.read(18);
    two.socket.write(Buffer.from([0, 0, 0, 3]));
    two.option(2, Buffer.alloc(0));
    expect((await two.reply()).type).toBe(1);
    await two.closed();
    const three = new RawNbdClient({ path: plain });
    await three.read(18);
    three.socket.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), startTls, startTls]));
    await three.closed();
    expect(faults.at(-1)).toBe("plaintextAfterStartTls");
    await watched.close();
  });

  test("a new session waits until the old one's requests have left the device", async () => {
    access.admit();
    const one = partner("g1");
    expect(await isUp(one)).toBe(true);
    const write = one.write(0, block, { fua: false });
    await device.waiting(1);
    one.cut("the test cuts");
    expect(await write).toMatchObject({ fault: { code: "effectUnknown" } });
    await expect.poll(() => access.status.sessions).toBe(2);
    expect(one.status.state).toBe("connecting");
    device.take().succeed();
    expect(await isUp(one)).toBe(true);
    expect(one.status.session).toBe(2);
  });

  test("a session that has ended does not come back", async () => {
    access.admit();
    const fixed = encodeReplicaName({ volume, generation: "g1", session: "s1" });
    const old = partner("g1", () => fixed);
    expect(await isUp(old)).toBe(true);
    const next = partner("g1");
    expect(await isUp(next)).toBe(true);
    await expect.poll(() => old.status.reason).toMatch(/session has ended/);
    expect(next.status.losses).toBe(0);
  });

  test("a move cuts everybody at once, and ends when the device is idle", async () => {
    access.admit();
    const one = partner("g1");
    expect(await isUp(one)).toBe(true);
    const writes = [one.write(0, block, { fua: false }), one.write(512, block, { fua: false })];
    await device.waiting(2);
    let moved = false;
    const move = access.moveGeneration("g2").then(() => {
      moved = true;
    });
    for (const write of writes)
      expect(await write).toMatchObject({ fault: { code: "effectUnknown" } });
    await expect.poll(() => one.status.state).toBe("refused");
    expect(() => access.admit()).toThrow("admitted while it moves");
    device.take().succeed();
    expect(moved).toBe(false);
    device.take().fail("ioError", false);
    await move;
    expect(device.held).toEqual([]);
    const next = partner("g2");
    await expect.poll(() => next.status.reason).toMatch(/not open/);
    access.admit();
    expect(await isUp(next)).toBe(true);
  });

  test("a move while a session waits for its predecessor leaves neither", async () => {
    access.admit();
    const one = partner("g1");
    expect(await isUp(one)).toBe(true);
    const write = one.write(0, block, { fua: false });
    await device.waiting(1);
    const two = partner("g1");
    await expect.poll(() => access.status.sessions).toBeGreaterThan(1);
    const move = access.moveGeneration("g2");
    device.take().succeed();
    await move;
    expect(await write).toMatchObject({ ok: false });
    expect(await isUp(two)).toBe(false);
    device.prompt = true;
    expect(await two.write(0, block, { fua: false })).toMatchObject({ ok: false });
    await expect.poll(() => server.connections).toBe(0);
  });

  test("goes with its clients when it is withdrawn", async () => {
    access.admit();
    const one = partner("g1");
    expect(await isUp(one)).toBe(true);
    await access.withdraw();
    await expect.poll(() => one.status.reason).toMatch(/no such export/);
  });

  test("a generation that is no name is a broken invariant", async () => {
    await expect(access.moveGeneration("a/b")).rejects.toThrow(RangeError);
  });
});

const startTls = Buffer.concat([Buffer.from("IHAVEOPT"), Buffer.from([0, 0, 0, 5, 0, 0, 0, 0])]);

describe("the log of attempts", () => {
  test("names the first at once, counts the next, and tells how many there were", () => {
    const log = new AttemptLog({ everyMs: 1000 });
    expect(log.note(0, "10.0.0.9", "tlsFailed")).toBe("10.0.0.9: tlsFailed");
    expect(log.note(1, "10.0.0.9", "withoutTls")).toBe("10.0.0.9: withoutTls");
    expect(log.note(2, "", "withoutTls")).toBe("a local process: withoutTls");
    for (let at = 3; at < 1000; at += 1)
      expect(log.note(at, "10.0.0.9", "tlsFailed")).toBeUndefined();
    const told = "10.0.0.9: tlsFailed (and 997 more since the last line)";
    expect(log.note(1000, "10.0.0.9", "tlsFailed")).toBe(told);
    expect(log.note(2000, "10.0.0.9", "tlsFailed")).toBe("10.0.0.9: tlsFailed");
  });

  test("an entry that is old makes room, also when something was counted since its line", () => {
    const log = new AttemptLog({ everyMs: 1000, entriesMax: 1 });
    log.note(0, "p0", "x");
    log.note(1, "p0", "x");
    expect(log.note(1000, "p1", "x")).toBe("p1: x");
    expect(log.note(1001, "p2", "x")).toBe("p2: x");
  });

  test("a thousand addresses share a line beyond the bound, and room comes back", () => {
    const log = new AttemptLog({ everyMs: 1000, entriesMax: 4 });
    const lines = Array.from({ length: 1000 }, (_, peer) => log.note(0, `p${peer}`, "x"));
    expect(lines.filter((line) => line !== undefined)).toHaveLength(5);
    expect(log.note(1000, "p5000", "x")).toBe("p5000: x");
    for (let peer = 6000; peer < 6002; peer += 1) log.note(1000, `p${peer}`, "x");
    expect(log.note(1001, "p9999", "x")).toBe(
      "p9999: x (and 995 more of others since the last line)",
    );
  });
});
