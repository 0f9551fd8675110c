/** The NBD parser against every way in which bytes can arrive, and against bytes that are no NBD at all. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ByteQueue } from "../../firmware-ts/wire/nbd/byte-queue.ts";
import {
  decodeInfoRequest,
  decodeName,
  encodeExportNameAnswer,
  encodeInfoReplies,
} from "../../firmware-ts/wire/nbd/handshake.ts";
import { type ClientMessage, NbdClientParser } from "../../firmware-ts/wire/nbd/parser.ts";
import {
  command,
  maxNameBytes,
  maxOptionBytes,
  maxOptions,
  maxPayloadBytes,
} from "../../firmware-ts/wire/nbd/protocol.ts";
import {
  writeSimpleReply,
  writeStructuredError,
  writeStructuredRead,
} from "../../firmware-ts/wire/nbd/replies.ts";

const u32 = (value: number) => {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
};
const u64 = (value: bigint) => {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(value);
  return out;
};
const flags = u32(3);

function optionBytes(option: number, data: Buffer, length = data.length): Buffer {
  return Buffer.concat([Buffer.from("IHAVEOPT"), u32(option), u32(length), data]);
}
/** Data by its length and first byte: long as it may be, and still quick to make smaller once something has failed. */
const block = (max: number) =>
  fc
    .record({ length: fc.nat(max), first: fc.nat(255) })
    .map(({ length, first }) =>
      Buffer.from(Array.from({ length }, (_, at) => (first + at * 7) & 0xff)),
    );

interface Wanted {
  flags: number;
  type: number;
  cookie: bigint;
  offset: bigint;
  length: number;
  data: Buffer;
}

function requestBytes(request: Wanted): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(0x25609513, 0);
  head.writeUInt16BE(request.flags, 4);
  head.writeUInt16BE(request.type, 6);
  const offset = u64(request.offset);
  return Buffer.concat([head, u64(request.cookie), offset, u32(request.length), request.data]);
}

const anyRequest: fc.Arbitrary<Wanted> = fc
  .record({
    flags: fc.nat(0xffff),
    type: fc.nat(12),
    cookie: fc.bigInt(0n, 2n ** 64n - 1n),
    offset: fc.bigInt(0n, 2n ** 53n - 1n),
    length: fc.nat(0xffff_ffff),
    data: block(3000),
  })
  .map((one) =>
    one.type === command.write
      ? { ...one, length: one.data.length }
      : { ...one, data: Buffer.alloc(0) },
  );

/** Feeds `bytes` cut at the given places and collects everything; `begin` after so many options. */
function parse(bytes: Buffer, cuts: number[], options: number): ClientMessage[] {
  const parser = new NbdClientParser();
  const out: ClientMessage[] = [];
  const places = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort(
    (a, b) => a - b,
  );
  let from = 0;
  let seen = 0;
  for (const to of places) {
    parser.push(bytes.subarray(from, to));
    from = to;
    for (let message = parser.next(); message !== undefined; message = parser.next()) {
      out.push(message);
      if (message.kind === "option" && ++seen === options) parser.beginTransmission();
    }
  }
  expect(parser.bufferedBytes).toBe(0);
  return out;
}

describe("NBD parser", () => {
  test("yields the same messages however the stream is cut", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ option: fc.nat(20), data: block(200) }), {
          minLength: 1,
          maxLength: 5,
        }),
        fc.array(anyRequest, { maxLength: 12, size: "max" }),
        fc.array(fc.nat(60_000), { maxLength: 30, size: "max" }),
        (options, requests, cuts) => {
          const bytes = Buffer.concat([
            flags,
            ...options.map(({ option, data }) => optionBytes(option, data)),
            ...requests.map(requestBytes),
          ]);
          const messages = parse(bytes, cuts, options.length);
          expect(messages.slice(1, 1 + options.length)).toEqual(
            options.map(({ option, data }) => ({
              kind: "option",
              option,
              data,
            })),
          );
          const got = messages.slice(1 + options.length).map((message) => {
            if (message.kind !== "request") throw new Error(message.kind);
            return {
              flags: message.flags,
              type: message.command,
              cookie: (BigInt(message.cookieHigh) << 32n) | BigInt(message.cookieLow),
              offset: BigInt(message.offset),
              length: message.length,
              data: Buffer.from(message.data),
            };
          });
          expect(got).toEqual(requests);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("never throws on garbage, and says nothing after a violation", () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 300, size: "max" }), { maxLength: 10 }),
        fc.boolean(),
        (chunks, transmission) => {
          const parser = new NbdClientParser();
          if (transmission) {
            parser.push(Buffer.concat([flags, optionBytes(7, Buffer.alloc(0))]));
            parser.next();
            parser.next();
            parser.beginTransmission();
          }
          let violated = false;
          for (const chunk of chunks) {
            parser.push(Buffer.from(chunk));
            for (let message = parser.next(); message !== undefined; message = parser.next()) {
              expect(violated).toBe(false);
              violated = message.kind === "violation";
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test("an option at the limit passes, one byte more is refused before it arrives", () => {
    const atLimit = parse(
      Buffer.concat([flags, optionBytes(7, Buffer.alloc(maxOptionBytes))]),
      [],
      0,
    );
    expect(atLimit[1]).toMatchObject({ kind: "option", option: 7 });
    const parser = new NbdClientParser();
    parser.push(Buffer.concat([flags, optionBytes(7, Buffer.alloc(0), maxOptionBytes + 1)]));
    parser.next();
    expect(parser.next()).toMatchObject({ kind: "violation", reason: "optionTooLong" });
  });

  test("options are counted", () => {
    const many = Array.from({ length: maxOptions + 1 }, () => optionBytes(3, Buffer.alloc(0)));
    const messages = parse(Buffer.concat([flags, ...many.slice(1)]), [], 0);
    expect(messages).toHaveLength(1 + maxOptions);
    const parser = new NbdClientParser();
    parser.push(Buffer.concat([flags, ...many]));
    let last: ClientMessage | undefined;
    for (let message = parser.next(); message; message = parser.next()) last = message;
    expect(last).toMatchObject({ kind: "violation", reason: "tooManyOptions" });
  });

  test("a write payload above 32 MiB is refused before it arrives", () => {
    const write = { flags: 0, type: command.write, cookie: 1n, offset: 0n, data: Buffer.alloc(0) };
    for (const [length, kind] of [
      [maxPayloadBytes, undefined],
      [maxPayloadBytes + 1, "violation"],
    ] as const) {
      const parser = new NbdClientParser();
      parser.push(Buffer.concat([flags, optionBytes(7, Buffer.alloc(0))]));
      parser.next();
      parser.next();
      parser.beginTransmission();
      parser.push(requestBytes({ ...write, length }));
      expect(parser.next()?.kind).toBe(kind);
    }
  });
});

describe("NBD handshake data", () => {
  test("GO data: name and requests, lengths checked", () => {
    fc.assert(
      fc.property(
        fc
          .string({ maxLength: 60, unit: "grapheme", size: "max" })
          .filter((name) => !name.includes("\0")),
        fc.array(fc.nat(0xffff), { maxLength: 8 }),
        fc.nat(40),
        (name, asked, cut) => {
          const text = Buffer.from(name);
          const list = Buffer.alloc(2 + 2 * asked.length);
          list.writeUInt16BE(asked.length);
          for (const [index, type] of asked.entries()) list.writeUInt16BE(type, 2 + 2 * index);
          const data = Buffer.concat([u32(text.length), text, list]);
          expect(decodeInfoRequest(data)).toEqual({ name: text.toString(), asked });
          if (cut > 0) expect(decodeInfoRequest(data.subarray(0, -cut))).toBeUndefined();
        },
      ),
    );
  });

  test("names: 4096 bytes, valid UTF-8, no zero", () => {
    expect(decodeName(Buffer.alloc(maxNameBytes, "a"))).toHaveLength(maxNameBytes);
    expect(decodeName(Buffer.alloc(maxNameBytes + 1, "a"))).toBeUndefined();
    expect(decodeName(Buffer.from([0xff]))).toBeUndefined();
    expect(decodeName(Buffer.from("a\0b"))).toBeUndefined();
  });

  test("a read-only export offers no way to write", () => {
    const facts = {
      name: "disk",
      description: "",
      sizeBytes: 2 ** 40 + 512,
      blockSizeBytes: 512,
      preferredBlockSizeBytes: 4096,
      maxPayloadBytes,
      readOnly: true,
      multiConn: true,
    };
    const answer = encodeExportNameAnswer(facts, false);
    expect(answer).toHaveLength(134);
    expect(answer.readBigUInt64BE(0)).toBe(2n ** 40n + 512n);
    // Bits 1 read-only, 3 FUA, 5 trim, 6 write zeroes (proto.md, "Transmission flags").
    expect(answer.readUInt16BE(8) & 0b1101010).toBe(0b10);
    const sizes = encodeInfoReplies(7, facts, [])[1];
    expect(sizes?.subarray(20).toString("hex")).toBe("0003000002000000100002000000");
  });
});

describe("NBD replies", () => {
  const cookie = { cookieHigh: 0x01020304, cookieLow: 0xf5f6f7f8 };
  test("layouts of proto.md", () => {
    const out = Buffer.alloc(64);
    expect(writeSimpleReply(out, 0, cookie, 5)).toBe(16);
    expect(out.toString("hex", 0, 16)).toBe("674466980000000501020304f5f6f7f8");
    expect(writeStructuredRead(out, 0, cookie, 2 ** 33 + 7, 512)).toBe(28);
    expect(out.toString("hex", 0, 28)).toBe(
      "668e33ef0001000101020304f5f6f7f8000002080000000200000007",
    );
    expect(writeStructuredError(out, 0, cookie, 1)).toBe(26);
    expect(out.toString("hex", 0, 26)).toBe("668e33ef0001800101020304f5f6f7f800000006000000010000");
  });
});

describe("ByteQueue", () => {
  test("behaves as the concatenation of its chunks", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.record({ push: fc.uint8Array({ maxLength: 50, size: "max" }) }),
            fc.record({ take: fc.nat(80) }),
          ),
          { maxLength: 200, size: "max" },
        ),
        (steps) => {
          const queue = new ByteQueue();
          let model = Buffer.alloc(0);
          for (const step of steps) {
            if ("push" in step) {
              queue.push(Buffer.from(step.push));
              model = Buffer.concat([model, step.push]);
            } else {
              const want = step.take <= model.length ? model.subarray(0, step.take) : undefined;
              expect(queue.take(step.take)?.toString("hex")).toBe(want?.toString("hex"));
              if (want) model = model.subarray(step.take);
            }
            expect(queue.length).toBe(model.length);
          }
        },
      ),
    );
  });
});
