/** What an NBD server says and hears, byte by byte (NetworkBlockDevice/nbd, doc/proto.md). */
import { describe, expect, test } from "vitest";
import { ByteQueue } from "../../firmware-ts/wire/nbd/byte-queue.ts";
import {
  decodeInfoRequest,
  decodeName,
  type ExportFacts,
  encodeExportNameAnswer,
  encodeGreeting,
  encodeInfoReplies,
  encodeOptionReply,
  encodeServerEntry,
  transmissionFlags,
} from "../../firmware-ts/wire/nbd/handshake.ts";
import { type ClientMessage, NbdClientParser } from "../../firmware-ts/wire/nbd/parser.ts";
import {
  writeSimpleReply,
  writeStructuredError,
  writeStructuredRead,
} from "../../firmware-ts/wire/nbd/replies.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

const facts: ExportFacts = {
  name: "disk",
  description: "",
  sizeBytes: 2 ** 33 + 512,
  blockSizeBytes: 512,
  preferredBlockSizeBytes: 4096,
  maxPayloadBytes: 2 ** 25,
  readOnly: false,
  multiConn: true,
};

describe("the handshake of the server (proto.md)", () => {
  test("greets with NBDMAGIC, IHAVEOPT, and the flags of fixed newstyle and no zeroes (Newstyle negotiation)", () => {
    expect(encodeGreeting()).toEqual(
      Buffer.concat([Buffer.from("NBDMAGICIHAVEOPT"), bytes("0003")]),
    );
  });

  test("answers an option with its number, the type of the reply, and data with their length (Fixed newstyle negotiation)", () => {
    expect(encodeOptionReply(7, 0x80000006, Buffer.from("no"))).toEqual(
      bytes("0003e889045565a9 00000007 80000006 00000002 6e6f"),
    );
    expect(encodeOptionReply(2, 1, Buffer.alloc(0))).toEqual(
      bytes("0003e889045565a9 00000002 00000001 00000000"),
    );
  });

  test("lists an export by the length of its name in bytes, and the name (NBD_REP_SERVER)", () => {
    expect(encodeServerEntry("dä")).toEqual(bytes("00000003 64c3a4"));
  });

  test("answers EXPORT_NAME with size and flags, and 124 zeroes for a client that wants them", () => {
    const answer = bytes("0000000200000200 05ed");
    expect(encodeExportNameAnswer(facts, true)).toEqual(answer);
    expect(encodeExportNameAnswer(facts, false)).toEqual(
      Buffer.concat([answer, Buffer.alloc(124)]),
    );
  });

  test("tells a size of more than 32 bits in two halves, also where the lower one is zero", () => {
    const answer = encodeExportNameAnswer({ ...facts, sizeBytes: 2 ** 40 }, true);
    expect(answer.readBigUInt64BE(0)).toBe(2n ** 40n);
  });

  test.each([
    // Bits 0 to 10: has flags, read-only, flush, FUA, rotational, trim, write zeroes, DF, multi-conn, resize, cache.
    ["a disk that many connections write", {}, 0b101_1110_1101],
    ["a disk for one connection", { multiConn: false }, 0b100_1110_1101],
    ["a disk to be read", { readOnly: true }, 0b101_1000_0111],
  ])("offers what it can do with %s (Transmission flags)", (_, change, flags) => {
    expect(transmissionFlags({ ...facts, ...change })).toBe(flags);
  });

  describe("tells a client that asks by GO or INFO (NBD_REP_INFO)", () => {
    const head = (length: string) => `0003e889045565a9 00000007 00000003 ${length}`;
    const size = bytes(`${head("0000000c")} 0000 0000000200000200 05ed`);
    const blocks = bytes(`${head("0000000e")} 0003 00000200 00001000 02000000`);
    const name = bytes(`${head("00000006")} 0001 6469736b`);
    const description = bytes(`${head("00000005")} 0002 c3a42e`);
    const described = { ...facts, description: "ä." };

    test.each([
      ["size and block sizes, unasked", described, [], [size, blocks]],
      ["the name when it is asked for", described, [1], [size, blocks, name]],
      ["the description when it is asked for", described, [2], [size, blocks, description]],
      ["both", described, [2, 1], [size, blocks, name, description]],
      ["no description where there is none", facts, [2], [size, blocks]],
      ["nothing more for requests that it does not know", described, [0, 3, 77], [size, blocks]],
    ])("%s", (_, about, asked, replies) => {
      expect(encodeInfoReplies(7, about, asked)).toEqual(replies);
    });
  });
});

describe("what a client asks for by GO or INFO", () => {
  test("is a name and a list of information requests", () => {
    expect(decodeInfoRequest(bytes("00000000 0000"))).toEqual({ name: "", asked: [] });
    expect(decodeInfoRequest(bytes("00000002 c3a4 0002 0003 0101"))).toEqual({
      name: "ä",
      asked: [3, 0x101],
    });
  });

  test.each([
    ["nothing", ""],
    ["a length without room for the count", "00000000 00"],
    ["a name that ends past the data", "00000002 64 0000"],
    ["a name whose end takes the place of the count", "00000001 0000"],
    ["a request less than announced", "00000001 64 0002 0003"],
    ["a request more than announced", "00000001 64 0001 0003 0001"],
    ["half a request", "00000001 64 0001 00"],
    ["a name that is no UTF-8", "00000001 ff 0000"],
    ["a name with a zero byte", "00000001 00 0000"],
  ])("is refused with %s", (_, hex) => {
    expect(decodeInfoRequest(bytes(hex))).toBeUndefined();
  });

  test("may be the longest name with 256 requests, which one option carries and no more", () => {
    const request = Buffer.concat([
      bytes("00001000"),
      Buffer.alloc(4096, "n"),
      bytes("0100"),
      Buffer.alloc(2 * 256, 1),
    ]);
    expect(decodeInfoRequest(request)?.asked).toHaveLength(256);
    const heard = (length: number) => {
      const parser = new NbdClientParser();
      parser.push(bytes("00000003"));
      parser.next();
      parser.push(Buffer.concat([option(7, length), Buffer.alloc(length)]));
      return parser.next()?.kind;
    };
    expect(heard(request.length)).toBe("option");
    expect(heard(request.length + 1)).toBe("violation");
  });

  test("names an export by its exact bytes, a byte order mark among them", () => {
    expect(decodeName(bytes("efbbbf 64"))).toBe("\ufeffd");
    expect(decodeName(bytes("64c3a4"))).toBe("dä");
    expect(decodeName(Buffer.alloc(0))).toBe("");
  });
});

function option(type: number, length: number): Buffer {
  const head = Buffer.alloc(16);
  head.write("IHAVEOPT", "latin1");
  head.writeUInt32BE(type, 8);
  head.writeUInt32BE(length, 12);
  return head;
}

const read = "25609513 0001 0000 0102030405060708 0000000200000200 00001000";

/** A parser that has heard client flags and, when asked, one option after which transmission begins. */
function listening(phase: "options" | "transmission"): NbdClientParser {
  const parser = new NbdClientParser();
  parser.push(bytes("00000003"));
  parser.next();
  if (phase === "options") return parser;
  parser.push(option(7, 0));
  parser.next();
  parser.beginTransmission();
  return parser;
}

describe("what a client sends (proto.md)", () => {
  test("first its flags, then options, and requests when the server lets it", () => {
    const parser = new NbdClientParser();
    parser.push(Buffer.concat([bytes("00000003"), option(7, 2), bytes("abcd")]));
    expect(parser.next()).toEqual({ kind: "flags", flags: 3 });
    expect(parser.next()).toEqual({ kind: "option", option: 7, data: bytes("abcd") });
    expect(parser.next()).toBeUndefined();
    parser.beginTransmission();
    parser.push(bytes(read));
    expect(parser.next()).toEqual({
      kind: "request",
      command: 0,
      flags: 1,
      cookieHigh: 0x01020304,
      cookieLow: 0x05060708,
      offset: 2 ** 33 + 512,
      length: 4096,
      data: Buffer.alloc(0),
    });
    expect(parser.bufferedBytes).toBe(0);
  });

  test("a write brings its payload, and only a write", () => {
    const parser = listening("transmission");
    const write = read.replace("0001 0000", "0000 0001").replace(/00001000$/, "00000002");
    parser.push(bytes(`${write} aa`));
    expect(parser.next()).toBeUndefined();
    parser.push(bytes("bb"));
    expect(parser.next()).toMatchObject({ command: 1, length: 2, data: bytes("aabb") });
  });

  test.each<readonly ["options" | "transmission", string, string]>([
    ["options", "49484156 00000000 00000003 00000000", "badOptionMagic"],
    ["options", "00000000 454f5054 00000003 00000000", "badOptionMagic"],
    ["transmission", read.replace("25609513", "25609514"), "badRequestMagic"],
  ])("a message of the %s without its magic ends the connection", (phase, hex, reason) => {
    const parser = listening(phase);
    parser.push(bytes(hex));
    expect(parser.next()).toMatchObject({ kind: "violation", reason });
  });

  test("a connection that ended is deaf: nothing is kept of what still arrives", () => {
    const parser = listening("transmission");
    parser.push(Buffer.alloc(28));
    expect(parser.next()?.kind).toBe("violation");
    const kept = parser.bufferedBytes;
    parser.push(bytes(read));
    expect(parser.bufferedBytes).toBe(kept);
    expect(parser.next()).toBeUndefined();
  });

  test("transmission that begins before options, or twice, is a broken invariant", () => {
    expect(() => new NbdClientParser().beginTransmission()).toThrow("transmission after flags");
    expect(() => listening("transmission").beginTransmission()).toThrow(
      "transmission after transmission",
    );
  });

  test("a message in the smallest pieces is the same message", () => {
    const parser = listening("transmission");
    const seen: ClientMessage[] = [];
    for (const byte of bytes(read)) {
      parser.push(Buffer.of(byte));
      const message = parser.next();
      if (message) seen.push(message);
    }
    expect(seen).toHaveLength(1);
    expect(seen[0]).toMatchObject({ offset: 2 ** 33 + 512, length: 4096 });
  });
});

describe("the replies of the transmission phase (proto.md)", () => {
  const cookie = { cookieHigh: 0x01020304, cookieLow: 0x05060708 };

  test.each([
    [
      "a simple reply: error and cookie",
      (out: Buffer) => writeSimpleReply(out, 4, cookie, 22),
      "67446698 00000016 0102030405060708",
    ],
    [
      "a structured read: the only chunk, its offset before the data",
      (out: Buffer) => writeStructuredRead(out, 4, cookie, 2 ** 40, 512),
      "668e33ef 0001 0001 0102030405060708 00000208 0000010000000000",
    ],
    [
      "a structured error: the only chunk, with an empty message",
      (out: Buffer) => writeStructuredError(out, 4, cookie, 5),
      "668e33ef 0001 8001 0102030405060708 00000006 00000005 0000",
    ],
  ])("%s, written over whatever was there", (_, write, hex) => {
    const out = Buffer.alloc(64, 0xee);
    const end = write(out);
    expect(out.subarray(0, end)).toEqual(bytes(`eeeeeeee ${hex}`));
    expect(out.subarray(end)).toEqual(Buffer.alloc(64 - end, 0xee));
  });
});

describe("bytes that wait for their message", () => {
  const queue = (...chunks: string[]) => {
    const made = new ByteQueue();
    const buffers = chunks.map(bytes);
    for (const chunk of buffers) made.push(chunk);
    return { made, buffers };
  };

  test("are not copied out of the chunk that holds all of them", () => {
    const { made, buffers } = queue("0102030405", "0607");
    const seen = [made.take(2), made.take(3), made.take(2)];
    for (const chunk of buffers) chunk.fill(9);
    expect(seen).toEqual([bytes("0909"), bytes("090909"), bytes("0909")]);
  });

  test("are put together over chunks, from the middle of one to the middle of another", () => {
    const { made } = queue("0102", "", "030405", "06");
    expect(made.take(1)).toEqual(bytes("01"));
    expect(made.peek(3)).toEqual(bytes("020304"));
    expect(made.take(3)).toEqual(bytes("020304"));
    expect(made.peek(3)).toBeUndefined();
    expect(made.take(2)).toEqual(bytes("0506"));
    expect(made.peek(0)).toHaveLength(0);
  });

  test("can be passed over, but not more of them than there are", () => {
    const { made } = queue("0102", "030405");
    made.skip(3);
    expect(made.length).toBe(2);
    expect(() => made.skip(3)).toThrow(RangeError);
    expect(made.take(2)).toEqual(bytes("0405"));
  });

  test("keep their order through hundreds of chunks", () => {
    const made = new ByteQueue();
    for (let index = 0; index < 600; index += 3) made.push(Buffer.of(index, index + 1, index + 2));
    const taken: number[] = [];
    for (let index = 0; index < 300; index++) taken.push(...(made.take(2) ?? []));
    expect(taken).toEqual(Array.from({ length: 600 }, (_, index) => index & 0xff));
    made.push(bytes("0708"));
    expect(made.take(2)).toEqual(bytes("0708"));
  });
});
