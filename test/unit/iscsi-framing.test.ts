/** PDUs on the byte stream, byte by byte (RFC 7143 11.2): lengths, padding, digests, and what is not copied. */
import { describe, expect, test } from "vitest";
import { crc32c } from "../../firmware-ts/wire/crc32c.ts";
import {
  type Digests,
  framePdu,
  NO_DIGESTS,
  PduParser,
  type RawPdu,
} from "../../firmware-ts/wire/iscsi/framing.ts";

const limits = { dataBytesMax: 8192, ahsBytesMax: 64 };
const headerDigest: Digests = { header: true, data: false };
const dataDigest: Digests = { header: false, data: true };
const bothDigests: Digests = { header: true, data: true };

const newHeader = () => Buffer.alloc(48, 0xa5).fill(0, 4, 8);
const digestOf = (...parts: Buffer[]) => {
  const digest = Buffer.alloc(4);
  digest.writeUInt32LE(crc32c(Buffer.concat(parts)));
  return digest;
};

/** The header as it stands on the wire: lengths of additional segments in words (byte 4) and of data in bytes (5 to 7). */
const sentHeader = (dataBytes: number, ahsWords = 0) => {
  const header = newHeader();
  header[4] = ahsWords;
  header.writeUIntBE(dataBytes, 5, 3);
  return header;
};

/** What a parser delivers of these chunks, copied, and the problem that ended the stream. */
const parse = (
  chunks: readonly Buffer[],
  digests: Digests = NO_DIGESTS,
  parser = new PduParser(limits),
) => {
  parser.useDigests(digests);
  const seen: RawPdu[] = [];
  let problem = null;
  for (const chunk of chunks) {
    problem = parser.push(chunk, ({ header, ahs, data }) =>
      seen.push({ header: Buffer.from(header), ahs: Buffer.from(ahs), data: Buffer.from(data) }),
    );
  }
  return { seen, problem };
};

describe("a PDU on the wire (11.2)", () => {
  test.each([0, 1, 2, 3, 4, 5, 1023, 1024, 1025, 1026, 1027, 1028, 8191])(
    "of %i bytes of data: a length of 24 bits, zeros up to four bytes, digests where negotiated",
    (size) => {
      const data = Buffer.alloc(size, 0x5a);
      const header = sentHeader(size);
      const padding = Buffer.alloc([0, 3, 2, 1][size % 4] ?? 0);
      for (const digests of [NO_DIGESTS, headerDigest, dataDigest, bothDigests]) {
        const stream = Buffer.concat([
          header,
          ...(digests.header ? [digestOf(header)] : []),
          data,
          padding,
          ...(digests.data && size > 0 ? [digestOf(data, padding)] : []),
        ]);
        expect(Buffer.concat(framePdu(newHeader(), data, digests))).toEqual(stream);
        const { seen, problem } = parse([stream], digests);
        expect(problem).toBeNull();
        expect(seen).toEqual([{ header, ahs: Buffer.alloc(0), data }]);
      }
    },
  );

  test("the digest of a header is sent with its least significant byte first (13.1)", () => {
    const [frame] = framePdu(Buffer.alloc(48), Buffer.alloc(0), headerDigest);
    // CRC32C of 48 zeros by the polynomial alone, bit by bit.
    let crc = 0xffff_ffff;
    for (let bit = 0; bit < 48 * 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
    expect(frame?.readUInt32LE(48)).toBe(~crc >>> 0);
  });

  test("small data travels in one buffer, large data is not copied, and no empty buffer is written", () => {
    const small = Buffer.alloc(1024, 1);
    const large = Buffer.alloc(1028, 1);
    const odd = Buffer.alloc(1029, 1);
    expect(framePdu(newHeader(), small, NO_DIGESTS)).toHaveLength(1);
    for (const [data, digests, buffers] of [
      [large, NO_DIGESTS, 2],
      [large, headerDigest, 2],
      [large, dataDigest, 3],
      [odd, NO_DIGESTS, 3],
    ] as const) {
      const frame = framePdu(newHeader(), data, digests);
      expect(frame).toHaveLength(buffers);
      expect(frame[1]).toBe(data);
    }
    const header = newHeader();
    expect(framePdu(header, Buffer.alloc(0), dataDigest)[0]).toBe(header);
  });
});

describe("additional header segments (11.2.2)", () => {
  const ahs = Buffer.from("0102030405060708", "hex");

  test("come between header and digest, which covers them", () => {
    const header = sentHeader(2, 2);
    const data = Buffer.from("ab");
    const stream = Buffer.concat([header, ahs, digestOf(header, ahs), data, Buffer.alloc(2)]);
    expect(parse([stream], headerDigest)).toEqual({ seen: [{ header, ahs, data }], problem: null });
    stream[50] = 0xff;
    expect(parse([stream], headerDigest)).toEqual({ seen: [], problem: "headerDigest" });
  });

  test("are none of the next PDU's", () => {
    const [first, second] = [sentHeader(0, 2), sentHeader(0)];
    const { seen } = parse([Buffer.concat([first, ahs, second])]);
    expect(seen.map((pdu) => pdu.ahs)).toEqual([ahs, Buffer.alloc(0)]);
  });

  test("may be forbidden altogether", () => {
    const parser = new PduParser({ ...limits, ahsBytesMax: 0 });
    expect(parse([sentHeader(0), sentHeader(0, 1)], NO_DIGESTS, parser)).toMatchObject({
      seen: [{}],
      problem: "ahsTooLong",
    });
  });
});

describe("damage", () => {
  test.each([1, 2, 3, 4])(
    "in data of %i bytes or its padding is found by the data digest",
    (size) => {
      const stream = Buffer.concat(framePdu(newHeader(), Buffer.alloc(size, 7), dataDigest));
      for (let at = 48; at < stream.length; at++) {
        const damaged = Buffer.from(stream);
        damaged[at] = (damaged[at] ?? 0) ^ 1;
        expect(parse([damaged], dataDigest)).toEqual({ seen: [], problem: "dataDigest" });
      }
    },
  );

  test("in a header is found by the header digest before data is asked for", () => {
    const asked: number[] = [];
    const parser = new PduParser(limits, (_, bytes) => {
      asked.push(bytes);
      return undefined;
    });
    const stream = Buffer.concat(framePdu(newHeader(), Buffer.from("ab"), headerDigest));
    stream[0] = 0;
    expect(parse([stream], headerDigest, parser)).toEqual({ seen: [], problem: "headerDigest" });
    expect(asked).toEqual([]);
  });

  test("is final: a stream that lost its framing is not read on (7.7)", () => {
    const parser = new PduParser(limits);
    const good = Buffer.concat(framePdu(newHeader(), Buffer.from("ab"), NO_DIGESTS));
    expect(parse([good, sentHeader(8193), good, good], NO_DIGESTS, parser)).toMatchObject({
      seen: [{ data: Buffer.from("ab") }],
      problem: "dataTooLong",
    });
  });
});

describe("digests count from the next PDU on", () => {
  test("as when the last PDU of a login ends the phase without them", () => {
    const parser = new PduParser(limits);
    const stream = Buffer.concat([
      ...framePdu(newHeader(), Buffer.from("login"), NO_DIGESTS),
      ...framePdu(newHeader(), Buffer.from("full"), bothDigests),
    ]);
    const seen: string[] = [];
    const problem = parser.push(stream, ({ data }) => {
      seen.push(data.toString());
      parser.useDigests(bothDigests);
    });
    expect([seen, problem]).toEqual([["login", "full"], null]);
  });
});

describe("where data goes", () => {
  const data = Buffer.from("12345");
  const stream = Buffer.concat(framePdu(newHeader(), data, NO_DIGESTS));
  const delivered = (parser: PduParser, ...chunks: Buffer[]) => {
    const seen: Buffer[] = [];
    for (const chunk of chunks) parser.push(chunk, (pdu) => seen.push(pdu.data));
    expect(seen).toEqual([data]);
    return seen[0];
  };

  test("data that arrives in one piece is not copied", () => {
    const chunk = Buffer.from(stream);
    const seen = delivered(new PduParser(limits), chunk);
    chunk.fill(0x39, 48, 53);
    expect(seen?.toString()).toBe("99999");
  });

  test("data that arrives in pieces is put together", () => {
    for (let cut = 49; cut < 53; cut++)
      delivered(new PduParser(limits), stream.subarray(0, cut), stream.subarray(cut));
  });

  test("data with a place is written there, in one piece or in several", () => {
    for (const cut of [0, 48, 50, 53]) {
      const place = Buffer.alloc(5);
      const asked: [string, number][] = [];
      const parser = new PduParser(limits, (header, bytes) => {
        asked.push([header.toString("hex"), bytes]);
        return place;
      });
      const seen = delivered(parser, stream.subarray(0, cut), stream.subarray(cut));
      expect(seen).toBe(place);
      expect(asked).toEqual([[sentHeader(5).toString("hex"), 5]]);
    }
  });

  test("a place of another length is a broken invariant", () => {
    for (const size of [4, 6]) {
      const parser = new PduParser(limits, () => Buffer.alloc(size));
      expect(() => parser.push(stream, () => {})).toThrow(RangeError);
    }
  });

  test("a segment that is too long is not asked a place for", () => {
    const asked: number[] = [];
    const parser = new PduParser(limits, (_, bytes) => {
      asked.push(bytes);
      return undefined;
    });
    parser.push(sentHeader(8193), () => {});
    expect(asked).toEqual([]);
  });
});
