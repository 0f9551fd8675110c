/** INQUIRY data byte by byte: SPC-4 6.6.2 and 7.8, SBC-3 6.5. */
import { describe, expect, test } from "vitest";
import {
  type BlockLimits,
  type Designator,
  decodeBlockLimits,
  decodeCharacteristics,
  decodeDesignators,
  decodeProvisioning,
  decodeStandardInquiry,
  decodeVpd,
  encodeBlockLimits,
  encodeCharacteristics,
  encodeDesignators,
  encodeProvisioning,
  encodeStandardInquiry,
  encodeVpd,
  type StandardInquiry,
} from "../../firmware-ts/wire/scsi/inquiry.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

describe("the standard data (SPC-4 6.6.2)", () => {
  const disk: StandardInquiry = {
    deviceType: 0,
    qualifier: 0,
    vendor: "DYAD",
    product: "SHELF DISK",
    revision: "1.0",
    versions: [0x00a0, 0x0460, 0x04c0],
  };
  const data = Buffer.concat([
    // SPC-4; HISUP and response format 2; 91 bytes follow; CMDQUE.
    bytes("00 00 06 12 5b 00 00 02"),
    Buffer.from("DYAD    SHELF DISK      1.0 "),
    Buffer.alloc(22),
    bytes("00a0 0460 04c0"),
    Buffer.alloc(32),
  ]);

  test("has 96 bytes, with text padded by spaces and version descriptors from byte 58", () => {
    expect(encodeStandardInquiry(disk)).toEqual(data);
    expect(decodeStandardInquiry(data)).toEqual({ ok: true, value: disk });
  });

  test("says in its first byte what is at this number, or that nothing can be", () => {
    const none: StandardInquiry = { ...disk, qualifier: 3, deviceType: 0x1f };
    expect(encodeStandardInquiry(none)[0]).toBe(0x7f);
    expect(decodeStandardInquiry(encodeStandardInquiry(none))).toEqual({ ok: true, value: none });
  });

  test("carries eight version descriptors at most, and what follows them is none", () => {
    const versions = [1, 2, 3, 4, 5, 6, 7, 8];
    const full = encodeStandardInquiry({ ...disk, versions });
    full.fill(0xff, 74);
    expect(decodeStandardInquiry(full)).toMatchObject({ value: { versions } });
    expect(() => encodeStandardInquiry({ ...disk, versions: [...versions, 9] })).toThrow(
      RangeError,
    );
  });

  test("may end behind the revision, and has the version descriptors that came whole", () => {
    expect(decodeStandardInquiry(data.subarray(0, 35)).ok).toBe(false);
    for (const [length, versions] of [
      [36, []],
      [59, []],
      [60, [0x00a0]],
      [61, [0x00a0]],
    ] as const)
      expect(decodeStandardInquiry(data.subarray(0, length))).toEqual({
        ok: true,
        value: { ...disk, versions },
      });
  });

  test("has ASCII text that fits, and anything else is a broken invariant (SPC-4 4.4.1)", () => {
    expect(() => encodeStandardInquiry({ ...disk, vendor: "12345678" })).not.toThrow();
    for (const change of [
      { vendor: "123456789" },
      { product: "12345678901234567" },
      { revision: "12345" },
      { vendor: "Ä" },
      { vendor: "A\n" },
      { vendor: "\tA" },
    ])
      expect(() => encodeStandardInquiry({ ...disk, ...change })).toThrow(RangeError);
  });
});

describe("a vital product data page (SPC-4 7.8)", () => {
  test("is type, code and length of 16 bits before its body", () => {
    expect(encodeVpd(0x83, bytes("010203"))).toEqual(bytes("00 83 0003 010203"));
    expect(encodeVpd(0x00, Buffer.alloc(0x0102), 0x1f).subarray(0, 4)).toEqual(bytes("1f 00 0102"));
    expect(decodeVpd(bytes("7f 83 0003 010203"))).toEqual({
      ok: true,
      value: { deviceType: 0x1f, page: 0x83, body: bytes("010203") },
    });
  });

  test("may have an empty body", () => {
    expect(decodeVpd(bytes("00 80 0000"))).toEqual({
      ok: true,
      value: { deviceType: 0, page: 0x80, body: Buffer.alloc(0) },
    });
  });

  test("ends where it says, and is refused when it was cut", () => {
    const page = bytes("00 80 0002 4142 43");
    expect(decodeVpd(page)).toMatchObject({ value: { body: bytes("4142") } });
    expect(decodeVpd(page.subarray(0, 6))).toMatchObject({ value: { body: bytes("4142") } });
    for (let length = 0; length < 6; length++)
      expect(decodeVpd(page.subarray(0, length)).ok).toBe(false);
  });
});

describe("designation descriptors (SPC-4 7.8.6)", () => {
  const unit: Designator = {
    association: 0,
    type: 3,
    codeSet: 1,
    value: bytes("6001020304050607"),
  };
  const port: Designator = { association: 1, type: 4, codeSet: 1, value: bytes("00000001") };
  const target: Designator = { association: 2, type: 8, codeSet: 3, value: Buffer.from("iqn") };
  const page = bytes("01 03 00 08 6001020304050607 51 94 00 04 00000001 53 a8 00 03 69716e");

  test("name the unit without a protocol, port and device with that of iSCSI", () => {
    expect(encodeDesignators([unit, port, target])).toEqual(page);
    expect(decodeDesignators(page)).toEqual({ ok: true, value: [unit, port, target] });
    expect(decodeDesignators(Buffer.alloc(0))).toEqual({ ok: true, value: [] });
  });

  test("may be empty, and the bits beside their fields are none of them", () => {
    const empty = { association: 0, type: 0, codeSet: 0, value: Buffer.alloc(0) };
    expect(decodeDesignators(bytes("f0 40 ff 00"))).toEqual({ ok: true, value: [empty] });
  });

  test("are refused when the page ends within one", () => {
    const ends = [12, 20];
    for (let length = 1; length < page.length; length++)
      expect(decodeDesignators(page.subarray(0, length)).ok).toBe(ends.includes(length));
  });

  test("are 64 at most", () => {
    const many = Array.from({ length: 64 }, () => port);
    expect(decodeDesignators(encodeDesignators(many))).toEqual({ ok: true, value: many });
    expect(decodeDesignators(encodeDesignators([...many, port])).ok).toBe(false);
  });

  test("have 255 bytes at most, and a longer one is a broken invariant", () => {
    expect(() => encodeDesignators([{ ...unit, value: Buffer.alloc(256) }])).toThrow(RangeError);
  });
});

describe("block limits (SBC-3 6.5.3)", () => {
  const limits: BlockLimits = {
    writeSameNonZero: true,
    compareAndWriteBlocksMax: 0x02,
    optimalGranularityBlocks: 0x0304,
    transferBlocksMax: 0x05060708,
    transferBlocksOptimal: 0x090a0b0c,
    prefetchBlocksMax: 0x0d0e0f10,
    unmapBlocksMax: 0x11121314,
    unmapDescriptorsMax: 0x15161718,
    unmapGranularityBlocks: 0x191a1b1c,
    writeSameBlocksMax: 0x1d_1e1f_2021_22,
  };
  const body = Buffer.concat([
    bytes(
      "01 02 0304 05060708 090a0b0c 0d0e0f10 11121314 15161718 191a1b1c 00000000 00001d1e1f202122",
    ),
    Buffer.alloc(20),
  ]);

  test("have 60 bytes in the order of the standard", () => {
    expect(encodeBlockLimits(limits)).toEqual(body);
    expect(decodeBlockLimits(body)).toEqual({ ok: true, value: limits });
    expect(encodeBlockLimits({ ...limits, writeSameNonZero: false })[0]).toBe(0);
  });

  test("that an older device does not know are no limit; its first 12 bytes must be there", () => {
    expect(decodeBlockLimits(body.subarray(0, 11)).ok).toBe(false);
    const fields = [
      ["prefetchBlocksMax", 16],
      ["unmapBlocksMax", 20],
      ["unmapDescriptorsMax", 24],
      ["unmapGranularityBlocks", 28],
      ["writeSameBlocksMax", 40],
    ] as const;
    for (const length of [12, 15, 16, 19, 20, 23, 24, 27, 28, 39, 40]) {
      const unknown = fields.filter(([, end]) => length < end).map(([name]) => [name, 0]);
      expect(decodeBlockLimits(body.subarray(0, length))).toEqual({
        ok: true,
        value: { ...limits, ...Object.fromEntries(unknown) },
      });
    }
  });

  test("beyond what a number holds stay beyond every disk", () => {
    const huge = Buffer.from(body).fill(0xff, 32, 40);
    expect(decodeBlockLimits(huge)).toMatchObject({
      value: { writeSameBlocksMax: Number.MAX_SAFE_INTEGER },
    });
  });
});

describe("other pages of SBC-3", () => {
  test("block device characteristics (6.5.2): the rotation rate in the first two of 60 bytes", () => {
    const body = Buffer.concat([bytes("1c20"), Buffer.alloc(58)]);
    expect(encodeCharacteristics(7200)).toEqual(body);
    expect(decodeCharacteristics(bytes("1c20"))).toEqual({ ok: true, value: 7200 });
    expect(decodeCharacteristics(bytes("1c")).ok).toBe(false);
  });

  const none = {
    unmap: false,
    writeSame16: false,
    writeSame10: false,
    readsZeros: false,
    anchors: false,
    type: 0,
  };
  test.each([
    ["nothing", none, "00 00 00 00"],
    ["UNMAP (LBPU)", { ...none, unmap: true }, "00 80 00 00"],
    ["WRITE SAME (16) that unmaps (LBPWS)", { ...none, writeSame16: true }, "00 40 00 00"],
    ["WRITE SAME (10) that unmaps (LBPWS10)", { ...none, writeSame10: true }, "00 20 00 00"],
    ["zeros where nothing is (LBPRZ)", { ...none, readsZeros: true }, "00 04 00 00"],
    ["anchors (ANC_SUP)", { ...none, anchors: true }, "00 02 00 00"],
    ["thin provisioning", { ...none, type: 2 }, "00 00 02 00"],
  ])("logical block provisioning (6.5.4): %s", (_, value, hex) => {
    expect(encodeProvisioning(value)).toEqual(bytes(hex));
    expect(decodeProvisioning(bytes(hex))).toEqual({ ok: true, value });
    expect(decodeProvisioning(bytes(hex).subarray(0, 3)).ok).toBe(false);
    // All bits that mean nothing to us: DP, reserved ones, and the threshold exponent.
    const reserved = Buffer.from(
      bytes(hex).map((byte, at) => byte | ([0xff, 0x19, 0xf8, 0xff][at] ?? 0)),
    );
    expect(decodeProvisioning(reserved)).toEqual({ ok: true, value });
  });
});
