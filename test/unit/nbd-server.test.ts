/** The NBD server towards clients that behave, that do not, and over devices that fail. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { BlockDevice } from "../../hal/block/device.ts";
import { NbdServer, type NbdServerOptions } from "../../hal/block/nbd-server.ts";
import { RawNbdClient } from "./nbd-raw-client.ts";

/** A device whose answers the test gives: nothing completes before the test says so. */
class HeldDevice implements BlockDevice {
  readonly sizeBytes = 1024 * 1024;
  readonly blockSizeBytes = 512;
  readonly held: { operation: string; offset: number; answer: (outcome: Outcome) => void }[] = [];
  #wake: () => void = () => {};

  #hold(operation: string, offset: number): Promise<Outcome> {
    return new Promise((answer) => {
      this.held.push({ operation, offset, answer });
      this.#wake();
    });
  }
  /** Resolves when so many operations wait. */
  async waiting(count: number): Promise<void> {
    while (this.held.length < count)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
  }
  async read(offset: number, length: number): Promise<Outcome<Buffer>> {
    const outcome = await this.#hold("read", offset);
    return outcome.ok ? good(Buffer.alloc(length, 7)) : outcome;
  }
  write(offset: number, _data: Buffer, { fua }: { fua: boolean }): Promise<Outcome> {
    return this.#hold(fua ? "write fua" : "write", offset);
  }
  flush = () => this.#hold("flush", 0);
  trim = (offset: number) => this.#hold("trim", offset);
  writeZeroes = (offset: number, _length: number, { mayTrim }: { mayTrim: boolean }) =>
    this.#hold(mayTrim ? "zero" : "zero allocated", offset);
  close = async () => {};
}

let folder: string;
let server: NbdServer;
let device: HeldDevice;
const clients: RawNbdClient[] = [];

async function start(options: NbdServerOptions = {}): Promise<void> {
  server = new NbdServer(options);
  device = new HeldDevice();
  server.add({ name: "disk", device });
  const listening = await server.listen({ path: join(folder, "nbd") });
  expect(listening.ok).toBe(true);
}
function client(): RawNbdClient {
  const one = new RawNbdClient({ path: join(folder, "nbd") });
  clients.push(one);
  return one;
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "dyad-nbd-"));
});
afterEach(async () => {
  vi.useRealTimers();
  for (const one of clients.splice(0)) one.socket.destroy();
  for (const one of device.held) one.answer(done);
  await server.close();
  await rm(folder, { recursive: true });
});

const block = Buffer.alloc(512, 1);

describe("NBD server", () => {
  test("acknowledges a write only when the device has", async () => {
    await start();
    const one = client();
    await one.go("disk");
    one.request(1, 11, 0, 512, block);
    one.request(1, 12, 512, 512, block, 1);
    await device.waiting(2);
    expect(device.held.map(({ operation }) => operation)).toEqual(["write", "write fua"]);
    device.held[1]?.answer(done);
    // Replies come in the order of completion.
    expect(await one.simple()).toEqual({ error: 0, cookie: 12 });
    device.held[0]?.answer(done);
    expect(await one.simple()).toEqual({ error: 0, cookie: 11 });
  });

  test.each([
    ["fenced", 1],
    ["diskLost", 5],
    ["timeout", 5],
    ["badInput", 22],
  ] as const)("a device's %s is error %i, for writes and structured reads", async (code, error) => {
    await start();
    const one = client();
    await one.go("disk", true);
    one.request(1, 1, 0, 512, block);
    await device.waiting(1);
    device.held[0]?.answer(failed(code, "write", "as the test wants"));
    expect(await one.simple()).toEqual({ error, cookie: 1 });
    one.request(0, 2, 0, 512);
    await device.waiting(2);
    device.held[1]?.answer(failed(code, "read", "as the test wants"));
    const chunk = await one.read(26);
    expect(chunk.readUInt16BE(6)).toBe(0x8001);
    expect(chunk.readUInt32BE(20)).toBe(error);
    expect(server.faults.size).toBe(0);
  });

  test("an export that is off refuses everything and is drained when off resolves", async () => {
    await start();
    const found = server.add({ name: "other", device, on: true });
    if (!found.ok) throw new Error("add");
    const one = client();
    await one.go("other");
    one.request(1, 1, 0, 512, block);
    await device.waiting(1);
    let off = false;
    const turnedOff = found.value.turnOff().then(() => {
      off = true;
    });
    one.request(1, 2, 0, 512, block);
    one.request(0, 3, 0, 512);
    expect(await one.simple()).toEqual({ error: 5, cookie: 2 });
    expect(await one.simple()).toEqual({ error: 5, cookie: 3 });
    expect(off).toBe(false);
    device.held[0]?.answer(done);
    await turnedOff;
    expect(device.held).toHaveLength(1);
    expect(found.value.counters.refused).toBe(2);
    found.value.turnOn();
    expect(await one.simple()).toEqual({ error: 0, cookie: 1 });
    one.request(3, 4, 0, 0);
    await device.waiting(2);
  });

  test.each([
    ["beyond the end", 0, 1024 * 1024, 512, 22],
    ["a write beyond the end", 1, 1024 * 1024 - 512, 1024, 28],
    ["off the blocks", 0, 1, 512, 22],
    ["a length off the blocks", 4, 0, 100, 22],
    ["an empty read", 0, 0, 0, 22],
    ["an offset of 2^63", 0, 2 ** 63, 512, 22],
    ["an unknown command", 99, 0, 512, 22],
  ] as const)("refuses %s without asking the device", async (_, command, offset, length, error) => {
    await start();
    const one = client();
    await one.go("disk");
    one.request(command, 1, offset, length, command === 1 ? Buffer.alloc(length) : undefined);
    expect(await one.simple()).toEqual({ error, cookie: 1 });
    expect(device.held).toHaveLength(0);
  });

  test("a read-only export refuses every way to write", async () => {
    await start();
    server.add({ name: "locked", device, readOnly: true });
    const one = client();
    expect((await one.go("locked")) & 2).toBe(2);
    one.request(1, 1, 0, 512, block);
    one.request(4, 2, 0, 512);
    one.request(6, 3, 0, 512);
    for (const cookie of [1, 2, 3]) expect(await one.simple()).toEqual({ error: 1, cookie });
    expect(device.held).toHaveLength(0);
  });

  test("trim, write zeroes and flush reach the device with their flags", async () => {
    await start();
    const one = client();
    await one.go("disk");
    one.request(4, 1, 0, 512);
    one.request(6, 2, 512, 512);
    one.request(6, 3, 1024, 512, undefined, 2);
    one.request(3, 4, 0, 0);
    one.request(5, 5, 0, 512);
    await device.waiting(4);
    expect(device.held.map(({ operation }) => operation)).toEqual([
      "trim",
      "zero",
      "zero allocated",
      "flush",
    ]);
    // CACHE is advice; it is answered though the device was not asked.
    expect(await one.simple()).toEqual({ error: 0, cookie: 5 });
  });

  test("commands in flight are bounded, and none is lost behind the bound", async () => {
    await start({ limits: { maxCommandsInFlight: 4 } });
    const one = client();
    await one.go("disk");
    for (let cookie = 1; cookie <= 20; cookie += 1) one.request(1, cookie, 0, 512, block);
    const seen: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      await device.waiting(4);
      expect(device.held).toHaveLength(4);
      for (const held of device.held.splice(0)) held.answer(done);
      for (let i = 0; i < 4; i += 1) seen.push((await one.simple()).cookie);
    }
    expect(seen).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
  });

  test("LIST, INFO, ABORT, unknown options and unknown exports", async () => {
    await start();
    server.add({ name: "two", device, description: "the second" });
    const one = client();
    await one.read(18);
    one.socket.write(Buffer.from([0, 0, 0, 1]));
    one.option(3, Buffer.alloc(0));
    expect((await one.reply()).data.toString("latin1", 4)).toBe("disk");
    expect((await one.reply()).data.toString("latin1", 4)).toBe("two");
    expect((await one.reply()).type).toBe(1);
    one.option(3, Buffer.alloc(1));
    expect((await one.reply()).type).toBe(0x80000003);
    one.option(77, Buffer.alloc(3));
    expect(await one.reply()).toMatchObject({ option: 77, type: 0x80000001 });
    one.option(6, Buffer.from([0, 0, 0, 1, 120, 0, 0]));
    expect((await one.reply()).type).toBe(0x80000006);
    // The default export exists only where there is one export.
    one.option(6, Buffer.from([0, 0, 0, 0, 0, 0]));
    expect((await one.reply()).type).toBe(0x80000006);
    one.option(6, Buffer.from([0, 0, 0, 3, 116, 119, 111, 0, 1, 0, 2]));
    const infos = [await one.reply(), await one.reply(), await one.reply()];
    expect(infos.map(({ data }) => data.readUInt16BE(0))).toEqual([0, 3, 2]);
    expect((await one.reply()).type).toBe(1);
    one.option(2, Buffer.alloc(0));
    expect((await one.reply()).type).toBe(1);
    await one.closed();
    expect(server.faults.size).toBe(0);
  });

  test("EXPORT_NAME of an unknown export closes, counted", async () => {
    await start();
    const one = client();
    await one.read(18);
    one.socket.write(Buffer.from([0, 0, 0, 3]));
    one.option(1, Buffer.from("nothing"));
    await one.closed();
    expect([...server.faults]).toEqual([["unknownExport", 1]]);
  });

  test.each([
    ["badClientFlags", [0x80, 0, 0, 1]],
    ["badOptionMagic", [0, 0, 0, 1, ...Buffer.alloc(16, 0x41)]],
    ["optionTooLong", [0, 0, 0, 1, ...Buffer.from("IHAVEOPT"), 0, 0, 0, 7, 1, 0, 0, 0]],
  ] as const)("%s closes this connection only, counted", async (reason, bytes) => {
    await start();
    const honest = client();
    await honest.go("disk");
    const one = client();
    await one.read(18);
    one.socket.write(Buffer.from(bytes));
    await one.closed();
    expect([...server.faults]).toEqual([[reason, 1]]);
    honest.request(5, 9, 0, 512);
    expect(await honest.simple()).toEqual({ error: 0, cookie: 9 });
  });

  test("a stream that loses its framing, and one that ends inside a message", async () => {
    await start();
    const one = client();
    await one.go("disk");
    one.socket.write(Buffer.alloc(28, 9));
    await one.closed();
    const two = client();
    await two.go("disk");
    two.request(1, 1, 0, 512, block.subarray(0, 100));
    two.socket.end();
    await two.closed();
    expect(Object.fromEntries(server.faults)).toEqual({ badRequestMagic: 1, truncated: 1 });
    expect(device.held).toHaveLength(0);
  });

  test("connections are bounded; silence in the handshake is", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    await start({
      limits: { maxConnections: 1, maxConnectionsOfExport: 0, handshakeTimeoutMs: 30 },
    });
    const one = client();
    await one.read(18);
    const two = client();
    await two.closed();
    vi.advanceTimersByTime(30);
    vi.useRealTimers();
    await one.closed();
    expect(Object.fromEntries(server.faults)).toEqual({
      tooManyConnections: 1,
      handshakeTimeout: 1,
    });
    await expect.poll(() => server.connections).toBe(0);
  });

  test("every export brings room for its own clients", async () => {
    await start({ limits: { maxConnections: 0, maxConnectionsOfExport: 2 } });
    const [one, two, three] = [client(), client(), client()];
    await Promise.all([one.read(18), two.read(18)]);
    await three.closed();
    expect(server.add({ name: "other", device }).ok).toBe(true);
    const four = client();
    await four.read(18);
    expect(Object.fromEntries(server.faults)).toEqual({ tooManyConnections: 1 });
  });

  test("disconnect waits for what is in flight", async () => {
    await start();
    const one = client();
    await one.go("disk");
    one.request(1, 5, 0, 512, block);
    one.request(2, 6, 0, 0);
    await device.waiting(1);
    device.held[0]?.answer(done);
    expect(await one.simple()).toEqual({ error: 0, cookie: 5 });
    await one.closed();
  });

  test("a socket file left by a killed process is replaced, a live one is not", async () => {
    await start();
    const second = new NbdServer();
    const refused = await second.listen({ path: join(folder, "nbd") });
    expect(refused.ok).toBe(false);
    await second.close();
  });
});
