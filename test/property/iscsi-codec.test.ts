/** iSCSI headers, framing, text and negotiation: inverse, bounded, and deaf to garbage. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { crc32c } from "../../firmware-ts/wire/crc32c.ts";
import { type Digests, framePdu, PduParser } from "../../firmware-ts/wire/iscsi/framing.ts";
import {
  acceptAnswers,
  answerOffer,
  DEFAULT_PARAMETERS,
  type OwnParameters,
  offerPairs,
} from "../../firmware-ts/wire/iscsi/parameters.ts";
import type { Request, Response } from "../../firmware-ts/wire/iscsi/pdu.ts";
import { decodeRequest, encodeRequest } from "../../firmware-ts/wire/iscsi/requests.ts";
import { decodeResponse, encodeResponse } from "../../firmware-ts/wire/iscsi/responses.ts";
import { serialAdd, serialDistance } from "../../firmware-ts/wire/iscsi/serial.ts";
import {
  decodeText,
  encodeText,
  TEXT_BYTES_MAX,
  TEXT_PAIRS_MAX,
  uniquePairs,
} from "../../firmware-ts/wire/iscsi/text.ts";

const flag = fc.boolean();
const upTo = (max: number) => fc.integer({ min: 0, max });
const u8 = upTo(0xff);
const u16 = upTo(0xffff);
const u32 = upTo(0xffff_ffff);
const lun = upTo(0x3fff);
const isid = fc.stringMatching(/^[0-9a-f]{12}$/);
const constant = <const T>(value: T) => fc.constant(value);
const bytes = (min: number, max: number) =>
  fc.uint8Array({ minLength: min, maxLength: max, size: "max" }).map((value) => Buffer.from(value));
/** Data by its length and first byte: long as it may be, and still quick to make smaller once something has failed. */
const block = (max: number) =>
  fc
    .record({ length: upTo(max), first: u8 })
    .map(({ length, first }) =>
      Buffer.from(Array.from({ length }, (_, at) => (first + at * 7) & 0xff)),
    );

const numbered = { immediate: flag, taskTag: u32, cmdSn: u32, expStatSn: u32 };
const answered = { statSn: u32, expCmdSn: u32, maxCmdSn: u32 };
const residual = fc.oneof(
  constant({ kind: "none", bytes: 0 }),
  fc.record({ kind: fc.constantFrom("underflow" as const, "overflow" as const), bytes: u32 }),
);

const request: fc.Arbitrary<Request> = fc.oneof(
  fc.record({ op: constant("nopOut"), ...numbered, lun, transferTag: u32 }),
  fc.record({
    op: constant("scsiCommand"),
    ...numbered,
    final: flag,
    read: flag,
    write: flag,
    attribute: upTo(7),
    lun,
    expectedBytes: u32,
    cdb: bytes(16, 16),
  }),
  fc.record({
    op: constant("taskRequest"),
    ...numbered,
    function: upTo(0x7f),
    lun,
    referencedTag: u32,
    refCmdSn: u32,
  }),
  fc.record({
    op: constant("loginRequest"),
    ...numbered,
    transit: flag,
    more: flag,
    stage: upTo(3),
    nextStage: upTo(3),
    versionMax: u8,
    versionMin: u8,
    isid,
    tsih: u16,
    connectionId: u16,
  }),
  fc.record({
    op: constant("textRequest"),
    ...numbered,
    final: flag,
    more: flag,
    lun,
    transferTag: u32,
  }),
  fc.record({ op: constant("logoutRequest"), ...numbered, reason: upTo(0x7f), connectionId: u16 }),
  fc.record({
    op: constant("dataOut"),
    final: flag,
    lun,
    taskTag: u32,
    transferTag: u32,
    expStatSn: u32,
    dataSn: u32,
    offset: u32,
  }),
  fc.record({
    op: constant("snack"),
    type: upTo(15),
    lun,
    taskTag: u32,
    transferTag: u32,
    expStatSn: u32,
    begin: u32,
    run: u32,
  }),
);

const dataIn = {
  op: constant("dataIn"),
  ...answered,
  final: flag,
  lun,
  taskTag: u32,
  transferTag: u32,
  dataSn: u32,
  offset: u32,
};

const response: fc.Arbitrary<Response> = fc.oneof(
  fc.record({ op: constant("nopIn"), ...answered, lun, taskTag: u32, transferTag: u32 }),
  fc.record({
    op: constant("scsiResponse"),
    ...answered,
    response: u8,
    status: u8,
    taskTag: u32,
    expDataSn: u32,
    residual,
  }),
  fc.record({ op: constant("taskResponse"), ...answered, response: u8, taskTag: u32 }),
  fc.record({
    op: constant("loginResponse"),
    ...answered,
    transit: flag,
    more: flag,
    stage: upTo(3),
    nextStage: upTo(3),
    versionMax: u8,
    versionActive: u8,
    isid,
    tsih: u16,
    taskTag: u32,
    status: u16,
  }),
  fc.record({
    op: constant("textResponse"),
    ...answered,
    final: flag,
    more: flag,
    lun,
    taskTag: u32,
    transferTag: u32,
  }),
  fc.record({ ...dataIn, status: constant(null), residual: constant({ kind: "none", bytes: 0 }) }),
  fc.record({ ...dataIn, status: u8, residual }),
  fc.record({
    op: constant("readyToTransfer"),
    ...answered,
    lun,
    taskTag: u32,
    transferTag: u32,
    r2tSn: u32,
    offset: u32,
    bytes: u32,
  }),
  fc.record({
    op: constant("asyncMessage"),
    ...answered,
    lun,
    event: u8,
    vendorCode: u8,
    parameters: fc.tuple(u16, u16, u16),
  }),
  fc.record({
    op: constant("logoutResponse"),
    ...answered,
    response: u8,
    taskTag: u32,
    time2Wait: u16,
    time2Retain: u16,
  }),
  fc.record({ op: constant("reject"), ...answered, reason: u8, dataSn: u32 }),
);

describe("headers", () => {
  test("requests", () => {
    fc.assert(
      fc.property(request, (value) => {
        const header = encodeRequest(value);
        expect(header.length).toBe(48);
        expect(decodeRequest(header)).toEqual({ ok: true, value });
      }),
      { numRuns: 1000 },
    );
  });
  test("responses", () => {
    fc.assert(
      fc.property(response, (value) => {
        const header = encodeResponse(value);
        expect(header.length).toBe(48);
        expect(decodeResponse(header)).toEqual({ ok: true, value });
      }),
      { numRuns: 1000 },
    );
  });
  test("garbage never throws, and no request is taken for a response", () => {
    fc.assert(
      fc.property(bytes(48, 48), (header) => {
        const both = [decodeRequest(header).ok, decodeResponse(header).ok];
        expect(both.filter(Boolean).length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 2000 },
    );
  });
});

const limits = { dataBytesMax: 4096, ahsBytesMax: 64 };
const digests: fc.Arbitrary<Digests> = fc.record({ header: flag, data: flag });
const pdu = fc.record({ header: bytes(48, 48), data: block(2000) }).map(({ header, data }) => {
  header.fill(0, 4, 8);
  return { header, data };
});

const parse = (stream: Buffer, cuts: readonly number[], using: Digests) => {
  const parser = new PduParser(limits);
  parser.useDigests(using);
  const seen: { header: Buffer; data: Buffer }[] = [];
  let problem = null;
  const places = [0, ...cuts.map((cut) => cut % (stream.length + 1)), stream.length];
  places.sort((a, b) => a - b);
  for (let index = 1; index < places.length; index++) {
    problem = parser.push(stream.subarray(places[index - 1], places[index]), ({ header, data }) =>
      seen.push({ header: Buffer.from(header), data: Buffer.from(data) }),
    );
  }
  return { seen, problem };
};

describe("framing", () => {
  test("any PDUs, cut anywhere, with and without digests, come out as they went in", () => {
    fc.assert(
      fc.property(
        fc.array(pdu, { minLength: 1, maxLength: 6 }),
        fc.array(upTo(20_000), { maxLength: 30, size: "max" }),
        digests,
        (pdus, cuts, using) => {
          const stream = Buffer.concat(
            pdus.flatMap(({ header, data }) => framePdu(header, data, using)),
          );
          const { seen, problem } = parse(stream, cuts, using);
          expect(problem).toBeNull();
          expect(seen).toEqual(pdus);
        },
      ),
    );
  });

  test("byte by byte", () => {
    const pdus = [Buffer.from("ab"), Buffer.alloc(0), Buffer.alloc(9, 7)].map((data) => ({
      header: Buffer.alloc(48, 1).fill(0, 4, 8),
      data,
    }));
    const using = { header: true, data: true };
    const stream = Buffer.concat(pdus.flatMap(({ header, data }) => framePdu(header, data, using)));
    const cuts = Array.from(stream, (_, index) => index);
    expect(parse(stream, cuts, using).seen).toEqual(pdus);
  });

  test("data goes where the placement says", () => {
    const place = Buffer.alloc(10);
    const parser = new PduParser(limits, (_, size) => place.subarray(2, 2 + size));
    const stream = Buffer.concat(
      framePdu(Buffer.alloc(48), Buffer.from("12345"), { header: false, data: false }),
    );
    const got: Buffer[] = [];
    parser.push(stream.subarray(0, 50), ({ data }) => got.push(data));
    parser.push(stream.subarray(50), ({ data }) => got.push(data));
    expect(place.toString("latin1", 2, 7)).toBe("12345");
    expect(got[0]?.buffer).toBe(place.buffer);
  });

  test("a segment at the limit passes, one byte more ends the stream", () => {
    for (const [size, problem] of [
      [4096, null],
      [4097, "dataTooLong"],
    ] as const) {
      const stream = Buffer.concat(
        framePdu(Buffer.alloc(48), Buffer.alloc(size), { header: false, data: false }),
      );
      expect(parse(stream, [], { header: false, data: false }).problem).toBe(problem);
    }
  });

  test("additional header segments pass up to the limit", () => {
    for (const [words, problem] of [
      [16, null],
      [17, "ahsTooLong"],
    ] as const) {
      const header = Buffer.alloc(48);
      header[4] = words;
      const stream = Buffer.concat([header, Buffer.alloc(words * 4, 9)]);
      const parser = new PduParser(limits);
      const ahs: number[] = [];
      const result = parser.push(stream, (raw) => ahs.push(raw.ahs.length));
      expect(result).toBe(problem);
      expect(ahs).toEqual(problem === null ? [64] : []);
    }
  });

  test("one flipped bit is found by the digests", () => {
    const using = { header: true, data: true };
    fc.assert(
      fc.property(pdu, u32, ({ header, data }, where) => {
        fc.pre(data.length > 0);
        const stream = Buffer.concat(framePdu(header, data, using));
        const at = where % stream.length;
        // Bytes 4 to 7 are lengths: a wrong one can also show as a PDU that never ends.
        fc.pre(at < 4 || at > 7);
        stream[at] = (stream[at] ?? 0) ^ 0x10;
        expect(parse(stream, [], using).problem).toMatch(/Digest$/);
      }),
    );
  });

  test("after a problem or a stop nothing more is delivered", () => {
    const parser = new PduParser(limits);
    let count = 0;
    const stream = Buffer.concat([Buffer.alloc(48), Buffer.alloc(48)]);
    parser.push(stream, () => {
      count++;
      parser.stop();
    });
    expect(count).toBe(1);
  });
});

test("CRC32C: the examples of RFC 7143 appendix A.4", () => {
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a91_36aa);
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8_ab43);
  expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, index) => index)))).toBe(0x46dd_794e);
  expect(crc32c(Buffer.from("123456789"))).toBe(0xe306_9283);
});

test("CRC32C of a whole is that of its parts in turn", () => {
  fc.assert(
    fc.property(bytes(0, 100), bytes(0, 100), (first, second) => {
      expect(crc32c(second, crc32c(first))).toBe(crc32c(Buffer.concat([first, second])));
    }),
  );
});

describe("text", () => {
  const pair = fc.tuple(
    fc.stringMatching(/^[A-Za-z][A-Za-z0-9.-]{0,62}$/, { size: "max" }),
    fc.stringMatching(/^[ -~]{0,80}$/, { size: "max" }),
  );
  test("pairs", () => {
    fc.assert(
      fc.property(fc.array(pair, { maxLength: 40, size: "max" }), (pairs) => {
        expect(decodeText(encodeText(pairs))).toEqual({ ok: true, value: pairs });
      }),
    );
  });
  test("garbage and excess are refused", () => {
    fc.assert(fc.property(bytes(0, 300), (data) => typeof decodeText(data).ok === "boolean"));
    expect(decodeText(Buffer.alloc(TEXT_BYTES_MAX, 0)).ok).toBe(true);
    expect(decodeText(Buffer.alloc(TEXT_BYTES_MAX + 1, 0)).ok).toBe(false);
    const pairs = Array.from({ length: TEXT_PAIRS_MAX + 1 }, () => ["k", "v"] as const);
    expect(decodeText(encodeText(pairs.slice(1))).ok).toBe(true);
    expect(decodeText(encodeText(pairs)).ok).toBe(false);
    expect(
      uniquePairs([
        ["a", "1"],
        ["a", "2"],
      ]).ok,
    ).toBe(false);
  });
});

describe("negotiation", () => {
  const segment = fc.integer({ min: 512, max: 0xff_ffff });
  const own: fc.Arbitrary<OwnParameters> = fc.record({
    digests: fc.constantFrom("refuse" as const, "allow" as const),
    receiveDataBytesMax: segment,
    initialR2t: flag,
    immediateData: flag,
    maxBurstBytes: segment,
    firstBurstBytes: segment,
    outstandingR2tMax: fc.integer({ min: 1, max: 65_535 }),
  });

  test("both sides reach the same outcome, within both sides' limits", () => {
    fc.assert(
      fc.property(own, own, (initiator, target) => {
        const answer = answerOffer(offerPairs(initiator), target);
        if (!answer.ok) throw new Error(answer.problem);
        const accepted = acceptAnswers(answer.value.answers, initiator);
        if (!accepted.ok) throw new Error(accepted.problem);
        const { parameters } = answer.value;
        expect(parameters.sendDataBytesMax).toBe(initiator.receiveDataBytesMax);
        expect(accepted.value.sendDataBytesMax).toBe(target.receiveDataBytesMax);
        expect({ ...accepted.value, sendDataBytesMax: 0 }).toEqual({
          ...parameters,
          sendDataBytesMax: 0,
        });
        expect(parameters.initialR2t).toBe(initiator.initialR2t || target.initialR2t);
        expect(parameters.immediateData).toBe(initiator.immediateData && target.immediateData);
        expect(parameters.maxBurstBytes).toBe(
          Math.min(initiator.maxBurstBytes, target.maxBurstBytes),
        );
      }),
    );
  });

  const plain: OwnParameters = {
    digests: "refuse",
    receiveDataBytesMax: 8192,
    initialR2t: false,
    immediateData: true,
    maxBurstBytes: 65_536,
    firstBurstBytes: 65_536,
    outstandingR2tMax: 1,
  };

  test("unknown keys are not understood and harmless; bad values end it", () => {
    expect(answerOffer([["X-com.example.thing", "1"]], plain)).toEqual({
      ok: true,
      value: {
        answers: [["X-com.example.thing", "NotUnderstood"]],
        parameters: DEFAULT_PARAMETERS,
      },
    });
    expect(answerOffer([["MaxBurstLength", "511"]], plain).ok).toBe(false);
    expect(answerOffer([["InitialR2T", "Maybe"]], plain).ok).toBe(false);
    expect(answerOffer([["HeaderDigest", "CRC32C"]], plain).ok).toBe(false);
    expect(answerOffer([["MaxRecvDataSegmentLength", "1e9"]], plain).ok).toBe(false);
    expect(acceptAnswers([["MaxBurstLength", "131072"]], plain).ok).toBe(false);
    expect(acceptAnswers([["ImmediateData", "Reject"]], plain).ok).toBe(false);
  });

  test("the first common digest of the offer wins", () => {
    const allow = { ...plain, digests: "allow" as const };
    const offer = [["DataDigest", "CRC32C,None"] as const];
    expect(answerOffer(offer, allow)).toMatchObject({
      value: { parameters: { dataDigest: true } },
    });
    expect(answerOffer(offer, plain)).toMatchObject({
      value: { parameters: { dataDigest: false } },
    });
  });
});

test("serial numbers go around the end", () => {
  expect(serialAdd(0xffff_ffff, 2)).toBe(1);
  expect(serialDistance(0xffff_fffe, 3)).toBe(5);
  expect(serialDistance(3, 0xffff_fffe)).toBe(-5);
  expect(serialDistance(7, 7)).toBe(0);
  // Half the numbers lie after, half before (RFC 1982 3.2).
  expect(serialDistance(0, 0x7fff_ffff)).toBe(2 ** 31 - 1);
  expect(serialDistance(0, 0x8000_0001)).toBe(1 - 2 ** 31);
});
