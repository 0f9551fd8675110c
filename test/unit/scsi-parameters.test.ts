/** Parameter data of SBC-3 and SPC-4 byte by byte: capacity, UNMAP, mode pages, supported operation codes. */
import { describe, expect, test } from "vitest";
import {
  decodeCapacity10,
  decodeCapacity16,
  decodeModeData,
  decodeSupportedOpcodes,
  decodeUnmap,
  encodeCapacity10,
  encodeCapacity16,
  encodeModeData,
  encodeOneOpcode,
  encodeSupportedOpcodes,
  encodeUnmap,
} from "../../firmware-ts/wire/scsi/parameters.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

const capacity = {
  blocks: 0x0102_0304,
  blockBytes: 4096,
  physicalExponent: 3,
  thin: false,
  unmappedReadsZeros: false,
};

describe("READ CAPACITY", () => {
  test("(10) tells the last address, not the number of blocks (SBC-3 5.15.2)", () => {
    expect(encodeCapacity10(capacity)).toEqual(bytes("01020303 00001000"));
    expect(decodeCapacity10(bytes("01020303 00001000"))).toEqual({
      ok: true,
      value: { blocks: 0x0102_0304, blockBytes: 4096 },
    });
    expect(decodeCapacity10(bytes("01020303 000010")).ok).toBe(false);
  });

  test("(10) shows FFFFFFFFh for a disk whose last address does not fit (SBC-3 5.15.2)", () => {
    const lastOf = (blocks: number) => encodeCapacity10({ ...capacity, blocks }).readUInt32BE(0);
    expect(lastOf(2 ** 32 - 1)).toBe(0xffff_fffe);
    expect(lastOf(2 ** 32)).toBe(0xffff_ffff);
    expect(lastOf(2 ** 40)).toBe(0xffff_ffff);
    expect(decodeCapacity10(bytes("fffffffe 00000200"))).toMatchObject({
      value: { blocks: 2 ** 32 - 1 },
    });
    expect(decodeCapacity10(bytes("ffffffff 00000200"))).toMatchObject({ value: { blocks: null } });
  });

  test.each([
    ["a plain disk", capacity, "00 03 00 00"],
    ["a thin one (LBPME)", { ...capacity, thin: true }, "00 03 80 00"],
    ["zeros where nothing is (LBPRZ)", { ...capacity, unmappedReadsZeros: true }, "00 03 40 00"],
  ])("(16) tells %s (SBC-3 5.16.2)", (_, value, flags) => {
    const head = bytes(`0000000001020303 00001000 ${flags}`);
    const data = Buffer.concat([head, Buffer.alloc(16)]);
    expect(encodeCapacity16(value)).toEqual(data);
    expect(decodeCapacity16(data)).toEqual({ ok: true, value });
    expect(decodeCapacity16(head)).toEqual({ ok: true, value });
    expect(decodeCapacity16(head.subarray(0, 15)).ok).toBe(false);
    // P_TYPE, PROT_EN and P_I_EXPONENT, and the lowest aligned address.
    const more = Buffer.from(
      head.map((byte, at) => byte | ({ 12: 0xff, 13: 0xf0, 14: 0x3f }[at] ?? 0)),
    );
    expect(decodeCapacity16(more)).toEqual({ ok: true, value });
  });

  test("(16) of a disk larger than a number holds is refused", () => {
    const data = encodeCapacity16({ ...capacity, blocks: Number.MAX_SAFE_INTEGER });
    expect(decodeCapacity16(data)).toMatchObject({ value: { blocks: Number.MAX_SAFE_INTEGER } });
    data.writeBigUInt64BE(BigInt(Number.MAX_SAFE_INTEGER), 0);
    expect(decodeCapacity16(data).ok).toBe(false);
  });
});

describe("the UNMAP parameter list (SBC-3 5.28.2)", () => {
  const ranges = [
    { lba: 0x01_0203_0405, blocks: 0x06070809 },
    { lba: 7, blocks: 0 },
  ];
  const list = bytes(
    "0026 0020 00000000 0000000102030405 06070809 00000000 0000000000000007 00000000 00000000",
  );

  test("is two lengths and 16 bytes for each range", () => {
    expect(encodeUnmap(ranges)).toEqual(list);
    expect(decodeUnmap(list)).toEqual({ ok: true, value: ranges });
    expect(encodeUnmap([])).toEqual(bytes("0006 0000 00000000"));
    expect(decodeUnmap(bytes("0006 0000 00000000"))).toEqual({ ok: true, value: [] });
  });

  test("is refused when it is shorter than it says, and ends where it says", () => {
    for (const length of [0, 7, 8, 39])
      expect(decodeUnmap(list.subarray(0, length)).ok).toBe(false);
    expect(decodeUnmap(Buffer.concat([list, Buffer.alloc(16, 1)]))).toEqual({
      ok: true,
      value: ranges,
    });
  });

  test("is read without a partial last range", () => {
    for (const announced of [31, 17, 16]) {
      const data = Buffer.from(list);
      data.writeUInt16BE(announced, 2);
      expect(decodeUnmap(data)).toEqual({ ok: true, value: ranges.slice(0, 1) });
    }
  });

  test("may name an address that no number holds, which is beyond every disk", () => {
    const data = Buffer.from(list).fill(0xff, 8, 16);
    expect(decodeUnmap(data)).toMatchObject({ value: [{ lba: Number.MAX_SAFE_INTEGER }, {}] });
  });
});

describe("MODE SENSE data", () => {
  const caching = { page: 0x08, subpage: 0, body: bytes("04 00000000") };
  const extension = { page: 0x0a, subpage: 1, body: bytes("0102") };
  const pages = [caching, extension];
  const listed = "08 05 0400000000 4a 01 0002 0102";

  test.each([
    ["(6)", 6, false, false, `10 00 00 00 ${listed}`],
    ["(6) of a write protected disk (WP, SBC-3 6.4.1)", 6, true, false, `10 00 80 00 ${listed}`],
    ["(6) of a disk with DPO and FUA (SBC-3 6.4.1)", 6, false, true, `10 00 10 00 ${listed}`],
    ["(10)", 10, true, true, `0013 00 90 00 00 0000 ${listed}`],
    ["(10) of a plain disk", 10, false, false, `0013 00 00 00 00 0000 ${listed}`],
  ] as const)(
    "%s: a header, and short and long pages (SPC-4 7.5)",
    (_, size, writeProtected, dpoFua, hex) => {
      const value = { writeProtected, dpoFua, pages };
      expect(encodeModeData(value, size)).toEqual(bytes(hex));
      expect(decodeModeData(bytes(hex), size)).toEqual({ ok: true, value });
    },
  );

  test("of more than a short header can announce is a broken invariant", () => {
    const many = (count: number) => ({
      writeProtected: false,
      dpoFua: false,
      pages: Array.from({ length: count }, () => ({ page: 1, subpage: 0, body: Buffer.alloc(26) })),
    });
    expect(() => encodeModeData(many(9), 6)).not.toThrow();
    expect(() => encodeModeData(many(10), 6)).toThrow(RangeError);
    expect(() => encodeModeData(many(10), 10)).not.toThrow();
  });

  test.each([
    ["(6)", 6, `18 00 00 08 0001020304050607 ${listed}`],
    ["(10)", 10, `001b 00 00 00 00 0008 0001020304050607 ${listed}`],
  ] as const)("%s is read past its block descriptors", (_, size, hex) => {
    expect(decodeModeData(bytes(hex), size)).toMatchObject({ ok: true, value: { pages } });
  });

  test.each([
    ["(6)", 6, `10 00 00 00 ${listed}`],
    ["(10)", 10, `0013 00 00 00 00 0000 ${listed}`],
  ] as const)("%s that was cut is read as far as pages came whole", (_, size, hex) => {
    const data = bytes(hex);
    const headerBytes = size === 6 ? 4 : 8;
    for (let length = 0; length <= data.length; length++) {
      const read = decodeModeData(data.subarray(0, length), size);
      const whole = length < headerBytes + 7 ? 0 : length < data.length ? 1 : 2;
      expect(read).toEqual(
        length < headerBytes
          ? { ok: false, problem: expect.any(String) }
          : {
              ok: true,
              value: { writeProtected: false, dpoFua: false, pages: pages.slice(0, whole) },
            },
      );
    }
  });

  test("ends where it says, whatever follows", () => {
    for (const announced of ["0a", "0f"])
      expect(decodeModeData(bytes(`${announced} 00 00 00 ${listed}`), 6)).toMatchObject({
        value: { pages: [caching] },
      });
    for (const announced of ["000d", "0012"])
      expect(decodeModeData(bytes(`${announced} 00 00 00 00 0000 ${listed}`), 10)).toMatchObject({
        value: { pages: [caching] },
      });
  });

  test("the bits beside WP and DPOFUA are none of them (SBC-3 6.4.1)", () => {
    const plain = { value: { writeProtected: false, dpoFua: false } };
    expect(decodeModeData(bytes("03 00 6f 00"), 6)).toMatchObject(plain);
    expect(decodeModeData(bytes("0006 00 6f 00 00 0000"), 10)).toMatchObject(plain);
  });

  test("has no more than 256 pages for us, however short they are", () => {
    const page = { page: 1, subpage: 0, body: bytes("0102") };
    const read = (count: number) => {
      const pages = Array.from({ length: count }, () => page);
      const value = { writeProtected: false, dpoFua: false, pages };
      const decoding = decodeModeData(encodeModeData(value, 10), 10);
      return decoding.ok ? decoding.value.pages : [];
    };
    expect(read(1)).toEqual([page]);
    expect(read(256)).toHaveLength(256);
    expect(read(300)).toEqual(read(256));
  });

  test("the PS bit beside a page code is none of it (SPC-4 7.5.6)", () => {
    expect(decodeModeData(bytes(`10 00 00 00 ${listed.replace("08", "88")}`), 6)).toMatchObject({
      value: { pages },
    });
  });
});

describe("REPORT SUPPORTED OPERATION CODES", () => {
  const list = [
    { opcode: 0x9e, action: 0x0110, cdbBytes: 16 },
    { opcode: 0x12, action: null, cdbBytes: 6 },
  ];
  const plain = bytes("00000010 9e 00 0110 00 01 0010 12 00 0000 00 00 0006");
  const timed = bytes(
    "00000028 9e 00 0110 00 03 0010 000a 0000 00000000 00000000 12 00 0000 00 02 0006 000a 0000 00000000 00000000",
  );

  test("lists every command, with or without its timeouts (SPC-4 6.35.2)", () => {
    expect(encodeSupportedOpcodes(list, false)).toEqual(plain);
    expect(encodeSupportedOpcodes(list, true)).toEqual(timed);
    for (const data of [plain, timed])
      expect(decodeSupportedOpcodes(data)).toEqual({ ok: true, value: list });
  });

  test("tells a service action of zero from none (SERVACTV)", () => {
    const value = [{ opcode: 0x5e, action: 0, cdbBytes: 10 }];
    expect(encodeSupportedOpcodes(value, false)[9]).toBe(1);
    expect(decodeSupportedOpcodes(encodeSupportedOpcodes(value, false))).toEqual({
      ok: true,
      value,
    });
  });

  test("is read as far as commands came whole, and no further than it says", () => {
    for (let length = 0; length <= plain.length; length++)
      expect(decodeSupportedOpcodes(plain.subarray(0, length))).toEqual(
        length < 4
          ? { ok: false, problem: expect.any(String) }
          : { ok: true, value: list.slice(0, Math.floor((length - 4) / 8)) },
      );
    const longer = Buffer.concat([plain, bytes("00 00 0000 00 00 0006")]);
    expect(decodeSupportedOpcodes(longer)).toEqual({ ok: true, value: list });
    const shorter = Buffer.from(plain);
    shorter[3] = 15;
    expect(decodeSupportedOpcodes(shorter)).toEqual({ ok: true, value: list.slice(0, 1) });
  });

  test("shows which bits of one command count, or that there is no such command (SPC-4 6.35.3)", () => {
    const usage = bytes("12 01 ff ff ff 07");
    expect(encodeOneOpcode(null, true)).toEqual(bytes("00 01 0000"));
    expect(encodeOneOpcode(usage, false)).toEqual(bytes("00 03 0006 1201ffffff07"));
    expect(encodeOneOpcode(usage, true)).toEqual(
      bytes("00 83 0006 1201ffffff07 000a 0000 00000000 00000000"),
    );
  });
});
