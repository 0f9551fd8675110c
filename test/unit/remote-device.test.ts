/** The remote device: what it sends, what it does when a server is lost, late, mad or says no. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  encodeGreeting,
  encodeInfoReplies,
  encodeOptionReply,
} from "../../firmware-ts/wire/nbd/handshake.ts";
import { NbdServer, type NbdServerOptions } from "../../hal/block/nbd-server.ts";
import type { RemoteOptions } from "../../hal/block/remote/options.ts";
import { RemoteDevice } from "../../hal/block/remote/remote-device.ts";
import { limitsMs } from "../support/limits.ts";
import { askingTls, keyTls, servingTls } from "../support/pair-tls.ts";
import { ScriptedDevice } from "../support/scripted-device.ts";

const sizeBytes = 1024 * 1024;
const patient = {
  connectTimeoutMs: limitsMs.condition,
  requestTimeoutMs: limitsMs.condition,
  backOffMs: 1,
  backOffMaxMs: 10,
};

let folder: string;
let server: NbdServer;
let device: ScriptedDevice;
let raw: Server | undefined;
const remotes: RemoteDevice[] = [];
const path = () => join(folder, "nbd");

async function serve(options: NbdServerOptions = {}, exported = {}): Promise<void> {
  server = new NbdServer(options);
  expect(server.add({ name: "disk", device, ...exported }).ok).toBe(true);
  expect((await server.listen({ path: path() })).ok).toBe(true);
}

function remote(options: Partial<RemoteOptions> = {}): RemoteDevice {
  const made = new RemoteDevice({
    ...{ address: { path: path() }, exportName: () => "disk" },
    ...options,
    timing: { ...patient, ...options.timing },
  });
  remotes.push(made);
  return made;
}

async function up(options: Partial<RemoteOptions> = {}): Promise<RemoteDevice> {
  const made = remote(options);
  expect(await made.whenUp(limitsMs.condition)).toBe(true);
  return made;
}

const codeOf = async (outcome: Promise<Outcome<unknown>>) => {
  const answer = await outcome;
  return answer.ok ? "ok" : answer.fault.code;
};

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "dyad-remote-"));
  device = new ScriptedDevice(sizeBytes, { prompt: true });
});
afterEach(async () => {
  device.prompt = true;
  for (const one of device.held.splice(0)) one.succeed();
  for (const one of remotes.splice(0)) await one.close();
  await server?.close();
  raw?.close();
  raw = undefined;
  await rm(folder, { recursive: true });
});

const block = Buffer.alloc(512, 0x5a);

describe("a remote device", () => {
  test("is the disk of the server, with all its operations", async () => {
    await serve();
    const one = await up();
    expect([one.sizeBytes, one.blockSizeBytes]).toEqual([sizeBytes, 512]);
    expect(await one.write(512, block, { fua: false })).toMatchObject({ ok: true });
    expect(await one.read(0, 1024)).toMatchObject({
      value: Buffer.concat([Buffer.alloc(512), block]),
    });
    expect(await one.flush()).toMatchObject({ ok: true });
    expect(await one.writeZeroes(512, 512, { fua: true, mayTrim: false })).toMatchObject({
      ok: true,
    });
    expect(device.content.subarray(512, 1024)).toEqual(Buffer.alloc(512));
    expect(await one.trim(0, 512)).toMatchObject({ ok: true });
    expect(await one.write(sizeBytes - 512, Buffer.alloc(1024), { fua: false })).toMatchObject({
      fault: { code: "badInput" },
    });
    expect(await one.read(1, 512)).toMatchObject({ fault: { code: "badInput" } });
    expect(await one.read(0, 0)).toMatchObject({ ok: true });
  });

  test.each(["key", "none"] as const)(
    "moves large data whole over several connections, protected by %s",
    async (tls) => {
      const [asking, serving] =
        tls === "key" ? [{ tls: askingTls }, { tls: servingTls }] : [{}, {}];
      device = new ScriptedDevice(16 * sizeBytes, { prompt: true });
      await serve(serving);
      const one = await up({ ...asking, limits: { connections: 4 } });
      expect(server.connections).toBe(4);
      const parts = Array.from({ length: 16 }, (_, index) => Buffer.alloc(sizeBytes, index + 1));
      const written = await Promise.all(
        parts.map((part, index) => one.write(index * sizeBytes, part, { fua: false })),
      );
      expect(written.every(({ ok }) => ok)).toBe(true);
      expect(device.content.equals(Buffer.concat(parts))).toBe(true);
      const back = await one.read(0, 16 * sizeBytes);
      expect(back.ok && back.value.equals(device.content)).toBe(true);
    },
  );

  test("keeps to one connection where the server does not say that several are one", async () => {
    await serve();
    const [exported] = [server.add({ name: "single", device })];
    if (!exported.ok) throw new Error("add");
    Object.assign(exported.value.facts, { multiConn: false });
    const one = remote({ exportName: () => "single", limits: { connections: 4 } });
    expect(await one.whenUp(limitsMs.condition)).toBe(true);
    expect(server.connections).toBe(1);
  });

  test("bounds what is under way, in requests and in bytes, and what waits", async () => {
    device.prompt = false;
    await serve();
    const one = await up({
      limits: { requestsInFlightMax: 4, bytesInFlightMax: 1536, requestsWaitingMax: 3 },
    });
    const answers = Array.from({ length: 7 }, (_, index) =>
      codeOf(one.write(index * 512, block, { fua: false })),
    );
    expect(await answers[6]).toBe("refused");
    await device.waiting(3);
    expect(device.held.map(({ offset }) => offset)).toEqual([0, 512, 1024]);
    for (let done = 0; done < 6; done += 1) {
      await device.waiting(1);
      device.take().succeed();
    }
    expect(await Promise.all(answers.slice(0, 6))).toEqual(Array(6).fill("ok"));
    // One that is larger than the bound goes alone.
    const large = codeOf(one.write(0, Buffer.alloc(4096), { fua: false }));
    await device.waiting(1);
    device.take().succeed();
    expect(await large).toBe("ok");
  });

  test("tells the server's faults apart", async () => {
    await serve();
    const one = await up();
    for (const [code, told] of [
      ["fenced", "refused"],
      ["badInput", "badInput"],
      ["ioError", "ioError"],
    ] as const) {
      device.broken = code;
      expect(await codeOf(one.write(0, block, { fua: false }))).toBe(told);
    }
    expect(one.status).toMatchObject({ state: "up", losses: 0 });
  });

  test("a lost connection: what was under way is unknown, reads are lost, nothing is sent again", async () => {
    device.prompt = false;
    const said: string[] = [];
    await serve();
    const one = await up({
      handlers: { up: (session) => said.push(`up ${session}`), down: () => said.push("down") },
      limits: { requestsInFlightMax: 2 },
    });
    const write = one.write(0, block, { fua: false }).then((answer) => {
      said.push("write");
      return answer;
    });
    const read = codeOf(one.read(0, 512));
    const never = codeOf(one.write(512, block, { fua: false }));
    await device.waiting(2);
    one.cut("the test cuts");
    expect(await write).toMatchObject({ fault: { code: "effectUnknown" } });
    expect(await read).toBe("diskLost");
    expect(await never).toBe("diskLost");
    expect(await codeOf(one.flush())).toBe("diskLost");
    expect(await one.whenUp(limitsMs.condition)).toBe(true);
    expect(said).toEqual(["up 1", "down", "write", "up 2"]);
    for (const held of device.held.splice(0)) held.succeed();
    device.prompt = true;
    // The server may have lost its power, and with it what it had acknowledged: somebody has to say that this was looked at.
    expect(await codeOf(one.write(1024, block, { fua: false }))).toBe("diskLost");
    expect(one.grant(1)).toMatchObject({ fault: { code: "diskLost" } });
    expect(one.grant(2).ok).toBe(true);
    expect(await codeOf(one.write(1024, block, { fua: false }))).toBe("ok");
    expect(device.content.subarray(512, 1024)).toEqual(Buffer.alloc(512));
    expect(one.status).toMatchObject({ session: 2, granted: true, losses: 1 });
  });

  test("one connection less is a session less", async () => {
    device.prompt = false;
    await serve();
    const one = await up({ limits: { connections: 3 } });
    const writes = [0, 512, 1024].map((offset) => codeOf(one.write(offset, block, { fua: false })));
    await device.waiting(3);
    one.cut("the first of three");
    expect(await Promise.all(writes)).toEqual(Array(3).fill("effectUnknown"));
  });

  test("a request that is late ends the session", async () => {
    device.prompt = false;
    await serve();
    const one = await up({ timing: { requestTimeoutMs: 20 } });
    expect(await codeOf(one.write(0, block, { fua: false }))).toBe("effectUnknown");
    await expect.poll(() => one.status.losses).toBeGreaterThan(0);
  });

  test("comes up when the server does, and again when it is back", async () => {
    const one = remote();
    expect(await codeOf(one.read(0, 512))).toBe("diskLost");
    await serve();
    expect(await one.whenUp(limitsMs.condition)).toBe(true);
    await server.close();
    await expect.poll(() => one.status.state).toBe("connecting");
    await serve();
    expect(await one.whenUp(limitsMs.condition)).toBe(true);
    expect(one.status.session).toBe(2);
  });

  test("a disk of another size is not the one that it was", async () => {
    await serve();
    const one = await up();
    await server.close();
    device = new ScriptedDevice(2 * sizeBytes, { prompt: true });
    await serve();
    await expect.poll(() => one.status.reason).toMatch(/has changed/);
    expect(one.status.state).toBe("connecting");
  });

  test("a read-only export is no replica", async () => {
    await serve({}, { readOnly: true });
    const one = remote();
    await expect.poll(() => one.status.reason).toMatch(/read-only/);
    expect(one.status.session).toBe(0);
  });

  test("opening fails when the device is not up in time, and says why", async () => {
    const options = { address: { path: path() }, exportName: () => "disk" };
    const opened = await RemoteDevice.open({ ...options, timing: { backOffMs: 1 } }, 20);
    expect(opened).toMatchObject({ ok: false, fault: { code: "diskLost" } });
  });

  test("closing waits for what is under way, and refuses the rest", async () => {
    device.prompt = false;
    await serve();
    const one = await up({ limits: { requestsInFlightMax: 1 } });
    const write = codeOf(one.write(0, block, { fua: false }));
    const waiting = codeOf(one.write(512, block, { fua: false }));
    await device.waiting(1);
    const closed = one.close();
    expect(await waiting).toBe("diskLost");
    expect(await codeOf(one.flush())).toBe("refused");
    device.take().succeed();
    expect(await write).toBe("ok");
    await closed;
    await expect.poll(() => server.connections).toBe(0);
    expect(server.faults.size).toBe(0);
  });
});

describe("with TLS", () => {
  test("a wrong key, a wrong id, our own, and none: nothing is served or told", async () => {
    const faults: string[] = [];
    await serve({ tls: servingTls, onFault: (reason) => faults.push(reason) });
    const wrong = remote({ tls: keyTls("controller-a", "controller-b", Buffer.alloc(32, 8)) });
    const other = remote({ tls: keyTls("controller-c", "controller-b") });
    // The key is the same both ways: our own server must not take us for the partner.
    const ourselves = remote({ tls: servingTls });
    const plain = remote();
    await expect.poll(() => ourselves.status.reason).not.toBe("");
    await expect.poll(() => wrong.status.reason).not.toBe("");
    await expect.poll(() => other.status.reason).not.toBe("");
    await expect.poll(() => plain.status.reason).toMatch(/demands TLS/);
    for (const one of [wrong, other, ourselves, plain]) expect(one.status.session).toBe(0);
    expect(faults).toContain("tlsFailed");
    expect(faults).toContain("withoutTls");
  });

  test("a server without TLS gets no name", async () => {
    await serve();
    const one = remote({ tls: askingTls });
    await expect.poll(() => one.status.reason).toMatch(/has no TLS/);
    expect(one.status.session).toBe(0);
  });
});

describe("a mad server", () => {
  /** Answers each connection with these bytes, whatever it says. */
  async function mad(script: (socket: Socket) => void): Promise<void> {
    raw = createServer((socket) => {
      socket.on("error", () => {});
      script(socket);
    });
    await new Promise<void>((resolve) => raw?.listen(path(), resolve));
  }
  const facts = {
    ...{ name: "disk", description: "", sizeBytes, blockSizeBytes: 512, readOnly: false },
    ...{ preferredBlockSizeBytes: 4096, maxPayloadBytes: 65_536, multiConn: true },
  };
  const welcome = Buffer.concat([
    ...encodeInfoReplies(7, facts, []),
    encodeOptionReply(7, 1, Buffer.alloc(0)),
  ]);

  test("that speaks something else, is silent, or hangs up", async () => {
    await mad((socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"));
    const one = remote();
    await expect.poll(() => one.status.reason).toMatch(/broke the protocol: badGreeting/);
    raw?.close();
    await mad((socket) => socket.end());
    await expect.poll(() => one.status.reason).toMatch(/closed the connection/);
    raw?.close();
    await mad(() => {});
    const hasty = remote({ timing: { connectTimeoutMs: 20 } });
    await expect.poll(() => hasty.status.reason).toMatch(/no export within 20 ms/);
  });

  test.each([
    ["badReplyMagic", Buffer.alloc(16, 9)],
    ["unknownCookie", Buffer.from("674466980000000000000009000000ff", "hex")],
  ])("whose answers make no sense: %s", async (reason, answer) => {
    await mad((socket) => {
      socket.write(encodeGreeting());
      socket.once("data", () => {
        socket.write(welcome);
        socket.once("data", () => socket.write(answer));
      });
    });
    const one = await up({ timing: { backOffMs: limitsMs.condition } });
    expect(await codeOf(one.write(0, block, { fua: false }))).toBe("effectUnknown");
    expect(one.status.reason).toMatch(new RegExp(`broke the protocol: ${reason}`));
  });

  test("that answers twice is found out by the second answer", async () => {
    await mad((socket) => {
      socket.write(encodeGreeting());
      socket.once("data", () => {
        socket.write(welcome);
        socket.on("data", (request: Buffer) => {
          const reply = Buffer.alloc(16);
          reply.writeUInt32BE(0x67446698, 0);
          request.copy(reply, 8, 8, 16);
          socket.write(Buffer.concat([reply, reply]));
        });
      });
    });
    const one = await up({ timing: { backOffMs: limitsMs.condition } });
    expect(await codeOf(one.flush())).toBe("ok");
    await expect.poll(() => one.status.reason).toMatch(/unknownCookie/);
  });

  test("with small payloads gets large requests in parts", async () => {
    await serve();
    const [exported] = [server.add({ name: "small", device })];
    if (!exported.ok) throw new Error("add");
    Object.assign(exported.value.facts, { maxPayloadBytes: 1024 });
    const one = await up({ exportName: () => "small" });
    const data = Buffer.from(Array.from({ length: 2560 }, (_, at) => at & 0xff));
    expect(await codeOf(one.write(512, data, { fua: false }))).toBe("ok");
    expect(await one.read(512, 2560)).toMatchObject({ value: data });
    expect(device.content.subarray(512, 3072)).toEqual(data);
  });
});
