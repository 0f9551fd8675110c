/** The headers of iSCSI byte by byte, as the figures of RFC 7143 clause 11 draw them; a codec that errs both ways alike is caught here. */
import { describe, expect, test } from "vitest";
import { LUN_UNKNOWN, type Request, type Response } from "../../firmware-ts/wire/iscsi/pdu.ts";
import { decodeRequest, encodeRequest } from "../../firmware-ts/wire/iscsi/requests.ts";
import { decodeResponse, encodeResponse } from "../../firmware-ts/wire/iscsi/responses.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

const sent = { immediate: false, taskTag: 0x01020304, cmdSn: 0x05060708, expStatSn: 0x090a0b0c };
const answered = { statSn: 0x21222324, expCmdSn: 0x25262728, maxCmdSn: 0x292a2b2c };
const numbers = "21222324 25262728 292a2b2c";
const none = { kind: "none", bytes: 0 } as const;

const requests: readonly (readonly [string, Request, string])[] = [
  [
    "SCSI Command (11.3): F, R, W and the attribute share one byte",
    {
      op: "scsiCommand",
      ...sent,
      final: true,
      read: true,
      write: false,
      attribute: 1,
      lun: 2,
      expectedBytes: 0x31323334,
      cdb: bytes("28 00 00000007 00 0008 00 000000000000"),
    },
    "01c10000 00000000 0002000000000000 01020304 31323334 05060708 090a0b0c 28000000 00070000 08000000 00000000",
  ],
  [
    "SCSI Command (11.3) to be continued by data, immediate, that writes",
    {
      op: "scsiCommand",
      ...sent,
      immediate: true,
      final: false,
      read: false,
      write: true,
      attribute: 3,
      lun: 0x123,
      expectedBytes: 512,
      cdb: bytes("2a 00 00000007 00 0001 00 000000000000"),
    },
    "41230000 00000000 4123000000000000 01020304 00000200 05060708 090a0b0c 2a000000 00070000 01000000 00000000",
  ],
  [
    "Task Management Function Request (11.5)",
    {
      op: "taskRequest",
      ...sent,
      immediate: true,
      function: 5,
      lun: 1,
      referencedTag: 0x41424344,
      refCmdSn: 0x51525354,
    },
    "42850000 00000000 0001000000000000 01020304 41424344 05060708 090a0b0c 51525354 00000000 00000000 00000000",
  ],
  [
    "SCSI Data-Out (11.7)",
    {
      op: "dataOut",
      final: true,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0x61626364,
      expStatSn: 0x090a0b0c,
      dataSn: 0x71727374,
      offset: 0x81828384,
    },
    "05800000 00000000 0001000000000000 01020304 61626364 00000000 090a0b0c 00000000 71727374 81828384 00000000",
  ],
  [
    "SCSI Data-Out (11.7) in the middle of a sequence",
    {
      op: "dataOut",
      final: false,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0xffffffff,
      expStatSn: 0x090a0b0c,
      dataSn: 0,
      offset: 0,
    },
    "05000000 00000000 0001000000000000 01020304 ffffffff 00000000 090a0b0c 00000000 00000000 00000000 00000000",
  ],
  [
    "Text Request (11.10) with more to come, but no half pair",
    { op: "textRequest", ...sent, final: false, more: false, lun: 3, transferTag: 0xffffffff },
    "04000000 00000000 0003000000000000 01020304 ffffffff 05060708 090a0b0c 00000000 00000000 00000000 00000000",
  ],
  [
    "Text Request (11.10) that will be continued: C without F",
    {
      op: "textRequest",
      ...sent,
      final: false,
      more: true,
      lun: 3,
      transferTag: 0xffffffff,
    },
    "04400000 00000000 0003000000000000 01020304 ffffffff 05060708 090a0b0c 00000000 00000000 00000000 00000000",
  ],
  [
    "Login Request (11.12): T, C, CSG and NSG share one byte, and ISID takes the place of a LUN",
    {
      op: "loginRequest",
      ...sent,
      immediate: true,
      transit: true,
      more: false,
      stage: 1,
      nextStage: 3,
      versionMax: 0x10,
      versionMin: 0x0f,
      isid: "40000137a1b2",
      tsih: 0x9192,
      connectionId: 0x9394,
    },
    "4387100f 00000000 40000137a1b29192 01020304 93940000 05060708 090a0b0c 00000000 00000000 00000000 00000000",
  ],
  [
    "Logout Request (11.14)",
    { op: "logoutRequest", ...sent, immediate: true, reason: 1, connectionId: 0x9394 },
    "46810000 00000000 0000000000000000 01020304 93940000 05060708 090a0b0c 00000000 00000000 00000000 00000000",
  ],
  [
    "SNACK Request (11.16)",
    {
      op: "snack",
      type: 1,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0x61626364,
      expStatSn: 0x090a0b0c,
      begin: 0xa1a2a3a4,
      run: 0xb1b2b3b4,
    },
    "10810000 00000000 0001000000000000 01020304 61626364 00000000 090a0b0c 00000000 00000000 a1a2a3a4 b1b2b3b4",
  ],
  [
    "NOP-Out (11.18)",
    { op: "nopOut", ...sent, immediate: true, lun: 1, transferTag: 0x61626364 },
    "40800000 00000000 0001000000000000 01020304 61626364 05060708 090a0b0c 00000000 00000000 00000000 00000000",
  ],
];

const responses: readonly (readonly [string, Response, string])[] = [
  [
    "SCSI Response (11.4) with fewer bytes moved than expected: U",
    {
      op: "scsiResponse",
      ...answered,
      response: 0,
      status: 2,
      taskTag: 0x01020304,
      expDataSn: 0x31323334,
      residual: { kind: "underflow", bytes: 0x41424344 },
    },
    `21820002 00000000 0000000000000000 01020304 00000000 ${numbers} 31323334 00000000 41424344`,
  ],
  [
    "SCSI Response (11.4) with more bytes to move than expected: O",
    {
      op: "scsiResponse",
      ...answered,
      response: 1,
      status: 0,
      taskTag: 0x01020304,
      expDataSn: 0,
      residual: { kind: "overflow", bytes: 0x41424344 },
    },
    `21840100 00000000 0000000000000000 01020304 00000000 ${numbers} 00000000 00000000 41424344`,
  ],
  [
    "SCSI Response (11.4) with exactly what was expected: neither bit, and no residual",
    {
      op: "scsiResponse",
      ...answered,
      response: 0,
      status: 0,
      taskTag: 0x01020304,
      expDataSn: 0,
      residual: none,
    },
    `21800000 00000000 0000000000000000 01020304 00000000 ${numbers} 00000000 00000000 00000000`,
  ],
  [
    "Task Management Function Response (11.6)",
    { op: "taskResponse", ...answered, response: 255, taskTag: 0x01020304 },
    `2280ff00 00000000 0000000000000000 01020304 00000000 ${numbers} 00000000 00000000 00000000`,
  ],
  [
    "SCSI Data-In (11.7) that ends the command: S, with status and residual",
    {
      op: "dataIn",
      ...answered,
      final: true,
      status: 8,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0xffffffff,
      dataSn: 0x31323334,
      offset: 0x51525354,
      residual: { kind: "underflow", bytes: 0x41424344 },
    },
    `25830008 00000000 0001000000000000 01020304 ffffffff ${numbers} 31323334 51525354 41424344`,
  ],
  [
    "SCSI Data-In (11.7) in the middle of a command",
    {
      op: "dataIn",
      ...answered,
      final: false,
      status: null,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0xffffffff,
      dataSn: 0x31323334,
      offset: 0x51525354,
      residual: none,
    },
    `25000000 00000000 0001000000000000 01020304 ffffffff ${numbers} 31323334 51525354 00000000`,
  ],
  [
    "Ready To Transfer (11.8)",
    {
      op: "readyToTransfer",
      ...answered,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0x61626364,
      r2tSn: 0x31323334,
      offset: 0x51525354,
      bytes: 0x71727374,
    },
    `31800000 00000000 0001000000000000 01020304 61626364 ${numbers} 31323334 51525354 71727374`,
  ],
  [
    "Asynchronous Message (11.9): a reserved task tag and three parameters",
    {
      op: "asyncMessage",
      ...answered,
      lun: 1,
      event: 1,
      vendorCode: 2,
      parameters: [0x3132, 0x3334, 0x3536],
    },
    `32800000 00000000 0001000000000000 ffffffff 00000000 ${numbers} 01023132 33343536 00000000`,
  ],
  [
    "Text Response (11.11)",
    {
      op: "textResponse",
      ...answered,
      final: true,
      more: false,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0xffffffff,
    },
    `24800000 00000000 0001000000000000 01020304 ffffffff ${numbers} 00000000 00000000 00000000`,
  ],
  [
    "Text Response (11.11) that will be continued: C without F",
    {
      op: "textResponse",
      ...answered,
      final: false,
      more: true,
      lun: 1,
      taskTag: 0x01020304,
      transferTag: 0x61626364,
    },
    `24400000 00000000 0001000000000000 01020304 61626364 ${numbers} 00000000 00000000 00000000`,
  ],
  [
    "Login Response (11.13): class and detail of the status in bytes 36 and 37",
    {
      op: "loginResponse",
      ...answered,
      transit: false,
      more: true,
      stage: 0,
      nextStage: 1,
      versionMax: 0x10,
      versionActive: 0x0f,
      isid: "40000137a1b2",
      tsih: 0x9192,
      taskTag: 0x01020304,
      status: 0x0203,
    },
    `2341100f 00000000 40000137a1b29192 01020304 00000000 ${numbers} 02030000 00000000 00000000`,
  ],
  [
    "Logout Response (11.15)",
    {
      op: "logoutResponse",
      ...answered,
      response: 1,
      taskTag: 0x01020304,
      time2Wait: 0x3132,
      time2Retain: 0x3334,
    },
    `26800100 00000000 0000000000000000 01020304 00000000 ${numbers} 00000000 31323334 00000000`,
  ],
  [
    "Reject (11.17): a reserved task tag",
    { op: "reject", ...answered, reason: 9, dataSn: 0x31323334 },
    `3f800900 00000000 0000000000000000 ffffffff 00000000 ${numbers} 31323334 00000000 00000000`,
  ],
  [
    "NOP-In (11.19)",
    {
      op: "nopIn",
      ...answered,
      lun: 1,
      taskTag: 0xffffffff,
      transferTag: 0x61626364,
    },
    `20800000 00000000 0001000000000000 ffffffff 61626364 ${numbers} 00000000 00000000 00000000`,
  ],
];

describe("the headers of an initiator (RFC 7143)", () => {
  test.each(requests)("%s", (_, value, hex) => {
    expect(encodeRequest(value)).toEqual(bytes(hex));
    expect(decodeRequest(bytes(hex))).toEqual({ ok: true, value });
  });
});

describe("the headers of a target (RFC 7143)", () => {
  test.each(responses)("%s", (_, value, hex) => {
    expect(encodeResponse(value)).toEqual(bytes(hex));
    expect(decodeResponse(bytes(hex))).toEqual({ ok: true, value });
  });
});

describe("operation codes (RFC 7143 11.2.1.2)", () => {
  const every = Array.from({ length: 64 }, (_, opcode) => opcode);
  const accepted = (decode: (header: Buffer) => { readonly ok: boolean }) =>
    every.filter((opcode) => decode(Buffer.alloc(48).fill(opcode, 0, 1)).ok);

  test("an initiator sends eight of them, a target ten, and nothing else is read", () => {
    expect(accepted(decodeRequest)).toEqual([0, 1, 2, 3, 4, 5, 6, 0x10]);
    expect(accepted(decodeResponse)).toEqual([
      0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f,
    ]);
  });

  test("the two bits above the code are none of it", () => {
    const header = Buffer.alloc(48);
    header[0] = 0xc4;
    expect(decodeRequest(header)).toMatchObject({ value: { op: "textRequest", immediate: true } });
    header[0] = 0xe4;
    expect(decodeResponse(header)).toMatchObject({ value: { op: "textResponse" } });
  });
});

describe("fields of a header", () => {
  const command: Request = {
    op: "scsiCommand",
    ...sent,
    final: true,
    read: true,
    write: false,
    attribute: 0,
    lun: 0,
    expectedBytes: 8,
    cdb: bytes("250000000000000000 00"),
  };

  test("reserved bits beside a flag are none of it", () => {
    const flagsOf = (opcode: number, flags: number) => {
      const header = Buffer.alloc(48);
      header[0] = opcode;
      header[1] = flags;
      return [decodeRequest(header), decodeResponse(header)].find(({ ok }) => ok);
    };
    expect(flagsOf(0x01, 0x18)).toMatchObject({
      value: { final: false, read: false, write: false, attribute: 0 },
    });
    expect(flagsOf(0x05, 0x7f)).toMatchObject({ value: { final: false } });
    expect(flagsOf(0x04, 0x3f)).toMatchObject({ value: { final: false, more: false } });
    expect(flagsOf(0x03, 0x30)).toMatchObject({
      value: { transit: false, more: false, stage: 0, nextStage: 0 },
    });
    expect(flagsOf(0x10, 0xf0)).toMatchObject({ value: { type: 0 } });
    expect(flagsOf(0x21, 0xf9)).toMatchObject({ value: { residual: none } });
    expect(flagsOf(0x25, 0x7e)).toMatchObject({ value: { final: false, status: null } });
    expect(flagsOf(0x24, 0x3f)).toMatchObject({ value: { final: false, more: false } });
  });

  test("a shorter CDB is padded with zeros (11.3.5), a longer one needs an extension header", () => {
    expect(encodeRequest(command).subarray(32)).toEqual(
      bytes("25000000 00000000 00000000 00000000"),
    );
    expect(() => encodeRequest({ ...command, cdb: Buffer.alloc(16) })).not.toThrow();
    expect(() => encodeRequest({ ...command, cdb: Buffer.alloc(17) })).toThrow(RangeError);
  });

  test("the CDB of a command outlives the header that it came in", () => {
    const header = encodeRequest(command);
    const decoding = decodeRequest(header);
    header.fill(0xff);
    expect(decoding).toMatchObject({
      value: { cdb: bytes("25000000 00000000 00000000 00000000") },
    });
  });

  test("a LUN of a method that we cannot address names no unit, and none is written as zeros", () => {
    const header = encodeRequest({ ...command, lun: LUN_UNKNOWN });
    expect(header.subarray(8, 16)).toEqual(Buffer.alloc(8));
    // C101h: the REPORT LUNS well known unit (SAM-5 4.7).
    header.writeUInt16BE(0xc101, 8);
    expect(decodeRequest(header)).toMatchObject({ value: { lun: LUN_UNKNOWN } });
  });

  test("a session id is twelve hexadecimal digits, and anything else a broken invariant (11.12.5)", () => {
    const login = requests.find(([, { op }]) => op === "loginRequest")?.[1];
    if (login?.op !== "loginRequest") throw new Error("no login among the examples");
    expect(encodeRequest({ ...login, isid: "40000137A1B2" })).toEqual(encodeRequest(login));
    for (const isid of ["", "40000137a1b", "40000137a1b20", "040000137a1b2", "40000137a1bg"])
      expect(() => encodeRequest({ ...login, isid })).toThrow(RangeError);
  });

  test("a value that does not fit its field is a broken invariant", () => {
    expect(() => encodeRequest({ ...command, taskTag: 2 ** 32 })).toThrow(RangeError);
    expect(() => encodeRequest({ ...command, lun: 0x4000 })).toThrow(RangeError);
  });

  test("without S a Data-In carries no residual, and its bits say nothing (11.7.3)", () => {
    const middle = responses.find(([, { op }]) => op === "dataIn")?.[1];
    if (middle?.op !== "dataIn") throw new Error("no Data-In among the examples");
    expect(encodeResponse({ ...middle, status: null })).toEqual(
      encodeResponse({ ...middle, status: null, residual: none }),
    );
    const header = Buffer.alloc(48);
    header[0] = 0x25;
    header[1] = 0x86;
    header.writeUInt32BE(9, 44);
    expect(decodeResponse(header)).toMatchObject({ value: { status: null, residual: none } });
  });
});
