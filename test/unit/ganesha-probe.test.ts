/** The proof that a file service answers, against servers that do so only sometimes. */
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { fileServiceSchema } from "../../hal/linux/ganesha/config.ts";
import { probeService } from "../../hal/linux/ganesha/probe.ts";
import { XdrWriter } from "../../hal/linux/ganesha/xdr.ts";
import { here } from "../../hal/linux/place/programs.ts";
import { limitsMs } from "../support/limits.ts";

const servers: Server[] = [];
const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** Answers every call with success and `body`, but does not look at its first `deaf` connections. Value: its port. */
async function listen(body: Buffer, deaf: number): Promise<number> {
  let taken = 0;
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    taken += 1;
    if (taken <= deaf) return;
    socket.on("data", (call) => {
      // RFC 5531 section 9: xid, REPLY, accepted, no verifier, success.
      const reply = new XdrWriter()
        .uint32(call.readUInt32BE(4))
        .uint32(1)
        .uint32(0)
        .uint32(0)
        .uint32(0);
      const record = Buffer.concat([reply.uint32(0).finish(), body]);
      const mark = Buffer.alloc(4);
      mark.writeUInt32BE(0x8000_0000 + record.length);
      socket.write(Buffer.concat([mark, record]));
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

async function serviceWith(deafNfs: number, deafMount: number) {
  const handle = new XdrWriter().uint32(0).opaque(Buffer.from("handle")).uint32(0).finish();
  return fileServiceSchema.parse({
    addresses: ["127.0.0.1"],
    port: await listen(Buffer.alloc(0), deafNfs),
    mountdPort: await listen(handle, deafMount),
    exports: [{ id: 1, path: "/vol", pseudo: "/vol" }],
    recoveryDir: "/vol/.dyad",
  });
}

const limit = { place: here, deadlineMs: limitsMs.condition, stillUseful: () => true };

describe("a probe", () => {
  test.each([
    [0, 0],
    [1, 0],
    [0, 1],
    [2, 1],
  ])(
    "does not wait for connections that are taken and never served: %i, %i",
    async (nfs, mount) => {
      // Waiting for one of them would use up the limit, and be told as silence.
      const probed = await probeService(await serviceWith(nfs, mount), limit);
      expect(probed).toMatchObject({ ok: true });
    },
  );

  test("of a service that has answered, and has ended before that was heard, is no proof", async () => {
    const gone = { ...limit, stillUseful: () => false };
    const probed = await probeService(await serviceWith(0, 0), gone);
    expect(!probed.ok && probed.fault.code).toBe("serviceFailed");
  });

  test("ends at its limit when nothing is ever served", async () => {
    const probed = await probeService(await serviceWith(99, 0), { ...limit, deadlineMs: 500 });
    expect(probed).toMatchObject({ ok: false, fault: { code: "serviceSilent" } });
  });
});
