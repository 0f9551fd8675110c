/** The port mapper's answers, as clients of each version ask (RFC 1833). */

import { Duplex } from "node:stream";
import fc from "fast-check";
import { afterEach, describe, expect, test, vi } from "vitest";
import { answerConnection } from "../../hal/linux/ganesha/port-mapper.ts";
import { answerPortMapper, asRecord } from "../../hal/linux/ganesha/port-mapping.ts";
import { encodeCall, RecordReader } from "../../hal/linux/ganesha/rpc.ts";
import { XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";

const question = {
  address: "10.0.0.100",
  registrations: [
    { program: 100003, version: 3, transport: "tcp", port: 2049 },
    { program: 100003, version: 4, transport: "tcp", port: 2049 },
    { program: 100005, version: 3, transport: "tcp", port: 20048 },
  ],
} as const;
const identity = { machine: "client", uid: 0, gid: 0 };

/** The whole reply to a call of the port mapper, from its accept status on. */
function ask(version: number, procedure: number, args: Uint8Array, program = 100000): XdrReader {
  const target = { program, version, procedure };
  const call = encodeCall(7, target, identity, args).subarray(4);
  const reply = answerPortMapper(call, question);
  if (!reply) throw new Error("no reply");
  const reader = new XdrReader(reply);
  // xid, REPLY, MSG_ACCEPTED, and an empty verifier.
  expect([1, 2, 3, 4, 5].map(() => reader.uint32())).toEqual([7, 1, 0, 0, 0]);
  return reader;
}

const mapping = (program: number, version: number, protocol: number) =>
  new XdrWriter().uint32(program).uint32(version).uint32(protocol).uint32(0).finish();
const address = (program: number, version: number, netid: string) =>
  new XdrWriter().uint32(program).uint32(version).string(netid).string("").string("").finish();

describe("version 2", () => {
  const port = (...words: [number, number, number]) => {
    const reader = ask(2, 3, mapping(...words));
    expect(reader.uint32()).toBe(0);
    return reader.uint32();
  };

  test("GETPORT tells the port, of another version rather than none, and 0 for what is not there", () => {
    expect(port(100003, 3, 6)).toBe(2049);
    expect(port(100005, 1, 6)).toBe(20048);
    expect(port(100005, 3, 17)).toBe(0);
    expect(port(100021, 4, 6)).toBe(0);
  });

  test("DUMP lists all", () => {
    const reader = ask(2, 4, new Uint8Array());
    expect(reader.uint32()).toBe(0);
    const list: number[][] = [];
    while (reader.uint32() === 1) list.push([1, 2, 3, 4].map(() => reader.uint32()));
    expect(list).toEqual([
      [100003, 3, 6, 2049],
      [100003, 4, 6, 2049],
      [100005, 3, 6, 20048],
    ]);
  });
});

describe.each([3, 4])("version %i", (version) => {
  const where = (program: number, netid: string) => {
    const reader = ask(version, 3, address(program, 3, netid));
    expect(reader.uint32()).toBe(0);
    return reader.string(256);
  };

  test("GETADDR tells address and port, and nothing for what is not there", () => {
    expect(where(100003, "tcp")).toBe("10.0.0.100.8.1");
    expect(where(100005, "tcp6")).toBe("10.0.0.100.78.80");
    expect(where(100005, "udp")).toBe("");
    expect(where(100021, "tcp")).toBe("");
  });

  test("DUMP lists all", () => {
    const reader = ask(version, 4, new Uint8Array());
    expect(reader.uint32()).toBe(0);
    const list: unknown[] = [];
    while (reader.uint32() === 1)
      list.push([reader.uint32(), reader.uint32(), ...[1, 2, 3].map(() => reader.string(256))]);
    expect(list[2]).toEqual([100005, 3, "tcp", "10.0.0.100.78.80", "superuser"]);
    expect(list).toHaveLength(3);
  });
});

describe("anything else", () => {
  const status = (version: number, procedure: number, program?: number) =>
    ask(version, procedure, new Uint8Array(), program).uint32();

  test("NULL is answered, registrations are not taken, other programs and versions are not there", () => {
    expect(status(2, 0)).toBe(0);
    expect([status(2, 1), status(4, 2), status(3, 9)]).toEqual([3, 3, 3]);
    expect(status(2, 0, 100003)).toBe(1);
    const mismatch = ask(5, 0, new Uint8Array());
    expect([1, 2, 3].map(() => mismatch.uint32())).toEqual([2, 2, 4]);
  });

  test("a call that ends too soon is garbage; another RPC version is denied; a reply is not answered", () => {
    expect(ask(2, 3, new Uint8Array(4)).uint32()).toBe(4);
    const call = Buffer.from(
      encodeCall(
        7,
        { program: 100000, version: 2, procedure: 0 },
        identity,
        new Uint8Array(),
      ).subarray(4),
    );
    call.writeUInt32BE(3, 8);
    expect(answerPortMapper(call, question)?.readUInt32BE(8)).toBe(1);
    call.writeUInt32BE(1, 4);
    expect(answerPortMapper(call, question)).toBeUndefined();
  });

  test("no bytes at all bring an exception, and every answer is a record", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, isCall) => {
        const call = Buffer.from(bytes);
        if (isCall && call.length >= 16)
          Buffer.from("00000000000000020001 86a0".replace(" ", ""), "hex").copy(call, 4);
        const reply = answerPortMapper(call, question);
        if (!reply) return;
        expect(new RecordReader().push(asRecord(reply))).toEqual([reply]);
      }),
    );
  });
});

test("by datagram nobody gets the whole list: the answer could be sent to somebody who did not ask", () => {
  const target = { program: 100000, version: 3, procedure: 4 };
  const call = encodeCall(7, target, identity, Buffer.alloc(0)).subarray(4);
  const reply = answerPortMapper(call, { ...question, datagram: true });
  expect(reply && reply.length <= call.length).toBe(true);
});

describe("a connection", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  /** A client that sends what it is told to, and that reads no answer. */
  const client = () => {
    const stream = new Duplex({ read: () => undefined, write: () => undefined });
    answerConnection(Object.assign(stream, { localAddress: "10.0.0.100" }));
    return stream;
  };
  const dump = encodeCall(
    7,
    { program: 100000, version: 3, procedure: 4 },
    identity,
    Buffer.alloc(0),
  );
  const turn = () => new Promise((resolve) => setImmediate(resolve));

  test("ends when its answers are not read, before they fill the memory", async () => {
    const stream = client();
    for (let count = 0; count < 1000 && !stream.destroyed; count += 1) {
      stream.push(dump);
      await turn();
    }
    expect(stream.destroyed).toBe(true);
    expect(stream.writableLength).toBeLessThan(200_000);
  });

  test("ends at a call that is longer than any that is understood", async () => {
    const stream = client();
    stream.push(Buffer.from([0x80, 0x10, 0, 0]));
    await turn();
    expect(stream.destroyed).toBe(true);
  });

  test("ends after ten seconds, however busy it is: there are few of them", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const stream = client();
    // A call of a kilobyte, of which a byte comes every second.
    stream.push(Buffer.from([0x80, 0, 4, 0]));
    for (let second = 1; second <= 10; second += 1) {
      expect(stream.destroyed).toBe(false);
      stream.push(Buffer.of(0));
      await turn();
      vi.advanceTimersByTime(1000);
    }
    expect(stream.destroyed).toBe(true);
  });
});
