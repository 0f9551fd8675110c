/** The proof that an SMB service answers, against servers that answer as they are told. */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { here } from "../../hal/linux/place/programs.ts";
import { type Offered, probeShares } from "../../hal/linux/samba/probe.ts";
import { command, ntStatus } from "../../hal/linux/samba/smb2.ts";
import { limitsMs } from "../support/limits.ts";

const servers: Server[] = [];
const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

interface Said {
  readonly status: number;
  readonly body?: Buffer;
}
type Answers = (code: number, count: number) => Said | undefined;

const challenge = Buffer.from("0900000048000c004e544c4d5353500002000000", "hex");
const negotiated = Buffer.concat([Buffer.from("410001001002", "hex"), Buffer.alloc(58)]);

/** As smbd answers a null session; `share` is what it says to TREE_CONNECT. */
const likeSmbd =
  (share: number): Answers =>
  (code, count) => {
    if (code === command.negotiate) return { status: 0, body: negotiated };
    if (code === command.treeConnect) return { status: share };
    return count === 0 ? { status: ntStatus.moreProcessing, body: challenge } : { status: 0 };
  };

/** Answers each request with what it is told; undefined: with nothing. Value: its port. */
async function listen(answers: Answers, seen: number[] = []): Promise<number> {
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    let setUps = 0;
    let rest = Buffer.alloc(0);
    socket.on("data", (chunk) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE(0)) {
        const end = 4 + rest.readUInt32BE(0);
        const head = Buffer.from(rest.subarray(4, 68));
        rest = rest.subarray(end);
        const code = head.readUInt16LE(12);
        seen.push(code);
        const said = answers(code, code === command.sessionSetup ? setUps++ : 0);
        if (!said) continue;
        head.writeUInt32LE(said.status, 8);
        head.writeUInt32LE(1, 16);
        head.writeBigUInt64LE(77n, 40);
        const length = Buffer.alloc(4);
        const body = said.body ?? Buffer.alloc(0);
        length.writeUInt32BE(64 + body.length);
        socket.write(Buffer.concat([length, head, body]));
      }
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

const offered = (port: number, change: Partial<Offered> = {}): Offered => ({
  addresses: ["127.0.0.1"],
  port,
  guest: true,
  shares: ["one", "two"],
  ...change,
});
const limit = { place: here, deadlineMs: limitsMs.condition, stillUseful: () => true };
/** One attempt, whatever becomes of it. */
const once = { ...limit, stillUseful: () => false };

describe("a probe of SMB", () => {
  test("is done when a null session has come to every share", async () => {
    const seen: number[] = [];
    const port = await listen(likeSmbd(ntStatus.success), seen);
    expect((await probeShares(offered(port), limit)).ok).toBe(true);
    expect(seen).toEqual([0, 1, 1, 3, 3]);
  });

  test("asks at each address, and for shares at the first", async () => {
    const seen: number[] = [];
    const port = await listen(likeSmbd(ntStatus.success), seen);
    const two = offered(port, { addresses: ["127.0.0.1", "127.0.0.1"], shares: ["one"] });
    expect((await probeShares(two, limit)).ok).toBe(true);
    expect(seen.toSorted()).toEqual([0, 0, 1, 1, 3]);
  });

  test.each([
    ["not there", ntStatus.badNetworkName, false, false],
    ["not there, for guests", ntStatus.badNetworkName, true, false],
    ["not for guests", ntStatus.accessDenied, false, true],
    ["for guests, and refuses them", ntStatus.accessDenied, true, false],
  ])("of a share that is %s", async (_, status, guest, isWell) => {
    const port = await listen(likeSmbd(status));
    if (isWell) {
      expect((await probeShares(offered(port, { guest }), limit)).ok).toBe(true);
      return;
    }
    const probed = await probeShares(offered(port, { guest }), once);
    const cause = probed.ok ? undefined : probed.fault.cause;
    expect(cause).toMatchObject({ code: "refused", operation: "TREE_CONNECT one" });
    expect(cause?.message).toContain(status.toString(16));
  });

  test.each([
    [true, "SESSION_SETUP"],
    [false, undefined],
  ])(
    "of a null session that is refused, where guests are welcome: %s",
    async (guest, operation) => {
      const port = await listen((code, count) =>
        code === command.sessionSetup && count > 0
          ? { status: ntStatus.accessDenied }
          : likeSmbd(0)(code, count),
      );
      const probed = await probeShares(offered(port, { guest }), once);
      expect(probed.ok ? "" : probed.fault.cause?.operation).toBe(operation);
    },
  );

  test.each<[string, string, Answers]>([
    ["says nothing", "timeout", () => undefined],
    [
      "has no dialect that was offered",
      "badInput",
      (code, i) => (code === command.negotiate ? { status: 0 } : likeSmbd(0)(code, i)),
    ],
    ["refuses to negotiate", "refused", () => ({ status: ntStatus.accessDenied })],
    [
      "asks for no proof",
      "refused",
      (code, i) => (code === command.sessionSetup ? { status: 0 } : likeSmbd(0)(code, i)),
    ],
    [
      "asks for a proof and says for what not",
      "badInput",
      (code, i) =>
        code === command.sessionSetup && i === 0
          ? { status: ntStatus.moreProcessing }
          : likeSmbd(0)(code, i),
    ],
  ])("does not believe one that %s", async (_, code, answers) => {
    const probed = await probeShares(offered(await listen(answers)), once);
    expect(!probed.ok && probed.fault.cause?.code).toBe(code);
  });

  test("ends at its limit", async () => {
    const port = await listen(likeSmbd(ntStatus.badNetworkName));
    const probed = await probeShares(offered(port), { ...limit, deadlineMs: 50 });
    expect(!probed.ok && probed.fault.code).toBe("serviceSilent");
  });

  test("waits for the answer that was announced to come later", async () => {
    const port = await listen(likeSmbd(ntStatus.success));
    const pending = Buffer.alloc(4 + 64);
    pending.writeUInt32BE(64);
    pending.writeUInt32BE(0xfe534d42, 4);
    pending.writeUInt32LE(0x103, 12);
    pending.writeUInt32LE(1, 20);
    servers[0]?.on("connection", (socket) => socket.write(pending));
    expect((await probeShares(offered(port), limit)).ok).toBe(true);
  });

  test("asks again until one answers that did not at first", async () => {
    let refusals = 3;
    const port = await listen((code, i) => {
      if (code !== command.treeConnect || refusals === 0) return likeSmbd(0)(code, i);
      refusals -= 1;
      return { status: ntStatus.badNetworkName };
    });
    expect((await probeShares(offered(port), limit)).ok).toBe(true);
    expect(refusals).toBe(0);
  });

  test("ends when it is of no use any more, also with a good answer", async () => {
    const port = await listen(likeSmbd(ntStatus.success));
    const probed = await probeShares(offered(port), { ...limit, stillUseful: () => false });
    expect(!probed.ok && probed.fault.code).toBe("serviceFailed");
  });
});
