/** Command descriptor blocks byte by byte, as the tables of SPC-4 and SBC-3 draw them, and what is refused of them. */
import { describe, expect, test } from "vitest";
import { decodeCdb, encodeCdb, opcodeOf } from "../../firmware-ts/wire/scsi/cdb.ts";
import { type Command, transferOf } from "../../firmware-ts/wire/scsi/command.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");
const padded = (hex: string) => Buffer.concat([bytes(hex), Buffer.alloc(16)]).subarray(0, 16);

const read = { name: "read", cdbBytes: 10, protect: 0, dpo: false, fua: false } as const;
const sense: Command = {
  name: "modeSense",
  cdbBytes: 6,
  noBlockDescriptors: true,
  longLba: false,
  control: 2,
  page: 0x3f,
  subpage: 0xff,
  allocationBytes: 0xc0,
};
const same: Command = {
  name: "writeSame",
  cdbBytes: 10,
  protect: 1,
  anchor: true,
  unmap: false,
  noData: false,
  lba: 0x01020304,
  blocks: 0x0506,
};
const opcodes: Command = {
  name: "reportSupportedOpcodes",
  timeouts: true,
  options: 2,
  opcode: 0x9e,
  action: 0x0110,
  allocationBytes: 0x01020304,
};

const blocks: readonly (readonly [string, Command, string])[] = [
  ["TEST UNIT READY (SPC-4 6.47)", { name: "testUnitReady" }, "00 00 00 00 00 00"],
  [
    "REQUEST SENSE (SPC-4 6.39)",
    { name: "requestSense", descriptor: true, allocationBytes: 252 },
    "03 01 00 00 fc 00",
  ],
  [
    "INQUIRY (SPC-4 6.6) of the standard data",
    { name: "inquiry", page: null, allocationBytes: 0x0124 },
    "12 00 00 01 24 00",
  ],
  [
    "INQUIRY (SPC-4 6.6) of a vital product data page",
    { name: "inquiry", page: 0x83, allocationBytes: 0xff },
    "12 01 83 00 ff 00",
  ],
  [
    "INQUIRY (SPC-4 6.6) of page 00h, which is not the standard data",
    { name: "inquiry", page: 0, allocationBytes: 8 },
    "12 01 00 00 08 00",
  ],
  ["MODE SENSE (6) (SPC-4 6.13)", sense, "1a 08 bf ff c0 00"],
  [
    "MODE SENSE (10) (SPC-4 6.14)",
    { ...sense, cdbBytes: 10, longLba: true, control: 1, page: 8, subpage: 0 },
    "5a 18 48 00 00 00 00 00 c0 00",
  ],
  [
    "START STOP UNIT (SBC-3 5.25)",
    {
      name: "startStopUnit",
      immediate: true,
      powerCondition: 3,
      noFlush: true,
      loadEject: false,
      start: true,
    },
    "1b 01 00 00 35 00",
  ],
  [
    "START STOP UNIT (SBC-3 5.25) that ejects",
    {
      name: "startStopUnit",
      immediate: false,
      powerCondition: 0,
      noFlush: false,
      loadEject: true,
      start: false,
    },
    "1b 00 00 00 02 00",
  ],
  [
    "REPORT LUNS (SPC-4 6.33)",
    { name: "reportLuns", select: 2, allocationBytes: 0x01020304 },
    "a0 00 02 00 00 00 01 02 03 04 00 00",
  ],
  ["REPORT SUPPORTED OPERATION CODES (SPC-4 6.35)", opcodes, "a3 0c 82 9e 01 10 01 02 03 04 00 00"],
  ["READ CAPACITY (10) (SBC-3 5.15)", { name: "readCapacity10" }, "25 00 00000000 00 0000 00"],
  [
    "READ CAPACITY (16) (SBC-3 5.16)",
    { name: "readCapacity16", allocationBytes: 32 },
    "9e 10 0000000000000000 00000020 00 00",
  ],
  [
    "READ (6) (SBC-3 5.10): 21 bits of address",
    { ...read, cdbBytes: 6, lba: 0x1f_fffe, blocks: 255 },
    "08 1f ff fe ff 00",
  ],
  [
    "READ (6) (SBC-3 5.10): a length of zero is 256 blocks",
    { ...read, cdbBytes: 6, lba: 7, blocks: 256 },
    "08 00 00 07 00 00",
  ],
  [
    "READ (10) (SBC-3 5.11)",
    { ...read, protect: 5, dpo: true, lba: 0x01020304, blocks: 0x0506 },
    "28 b0 01020304 00 0506 00",
  ],
  [
    "READ (10) (SBC-3 5.11): a length of zero is no block",
    { ...read, lba: 1, blocks: 0 },
    "28 00 00000001 00 0000 00",
  ],
  [
    "READ (12) (SBC-3 5.12)",
    { ...read, cdbBytes: 12, fua: true, lba: 0x01020304, blocks: 0x05060708 },
    "a8 08 01020304 05060708 00 00",
  ],
  [
    "READ (16) (SBC-3 5.13)",
    { ...read, cdbBytes: 16, lba: 0x01_0203_0405_0607, blocks: 0x08090a0b },
    "88 00 0001020304050607 08090a0b 00 00",
  ],
  [
    "WRITE (6) (SBC-3 5.32)",
    { ...read, name: "write", cdbBytes: 6, lba: 7, blocks: 1 },
    "0a 00 00 07 01 00",
  ],
  [
    "WRITE (10) (SBC-3 5.33)",
    { ...read, name: "write", protect: 1, dpo: true, fua: true, lba: 7, blocks: 8 },
    "2a 38 00000007 00 0008 00",
  ],
  [
    "WRITE (12) (SBC-3 5.34)",
    { ...read, name: "write", cdbBytes: 12, lba: 7, blocks: 8 },
    "aa 00 00000007 00000008 00 00",
  ],
  [
    "WRITE (16) (SBC-3 5.35)",
    { ...read, name: "write", cdbBytes: 16, lba: 7, blocks: 8 },
    "8a 00 0000000000000007 00000008 00 00",
  ],
  [
    "VERIFY (10) (SBC-3 5.29)",
    { name: "verify", cdbBytes: 10, protect: 2, dpo: true, byteCheck: 1, lba: 7, blocks: 8 },
    "2f 52 00000007 00 0008 00",
  ],
  [
    "VERIFY (12) (SBC-3 5.30)",
    { name: "verify", cdbBytes: 12, protect: 0, dpo: false, byteCheck: 3, lba: 7, blocks: 8 },
    "af 06 00000007 00000008 00 00",
  ],
  [
    "VERIFY (16) (SBC-3 5.31)",
    { name: "verify", cdbBytes: 16, protect: 0, dpo: false, byteCheck: 0, lba: 7, blocks: 8 },
    "8f 00 0000000000000007 00000008 00 00",
  ],
  [
    "COMPARE AND WRITE (SBC-3 5.2)",
    { name: "compareAndWrite", protect: 1, dpo: true, fua: true, lba: 7, blocks: 0xff },
    "89 38 0000000000000007 000000 ff 00 00",
  ],
  ["WRITE SAME (10) (SBC-3 5.42)", same, "41 30 01020304 00 0506 00"],
  [
    "WRITE SAME (16) (SBC-3 5.43) that unmaps",
    { ...same, cdbBytes: 16, protect: 0, anchor: false, unmap: true, noData: true },
    "93 09 0000000001020304 00000506 00 00",
  ],
  [
    "UNMAP (SBC-3 5.28)",
    { name: "unmap", anchor: true, parameterBytes: 0x0118 },
    "42 01 00000000 00 0118 00",
  ],
  [
    "SYNCHRONIZE CACHE (10) (SBC-3 5.26)",
    { name: "synchronizeCache", cdbBytes: 10, immediate: true, lba: 7, blocks: 8 },
    "35 02 00000007 00 0008 00",
  ],
  [
    "SYNCHRONIZE CACHE (16) (SBC-3 5.27)",
    { name: "synchronizeCache", cdbBytes: 16, immediate: false, lba: 7, blocks: 8 },
    "91 00 0000000000000007 00000008 00 00",
  ],
  [
    "PRE-FETCH (10) (SBC-3 5.8)",
    { name: "prefetch", cdbBytes: 10, immediate: false, lba: 7, blocks: 8 },
    "34 00 00000007 00 0008 00",
  ],
  [
    "PRE-FETCH (16) (SBC-3 5.9)",
    { name: "prefetch", cdbBytes: 16, immediate: true, lba: 7, blocks: 8 },
    "90 02 0000000000000007 00000008 00 00",
  ],
  [
    "PERSISTENT RESERVE IN (SPC-4 6.15)",
    { name: "persistentReserveIn", action: 3, allocationBytes: 0x0102 },
    "5e 03 00000000 00 0102 00",
  ],
  [
    "PERSISTENT RESERVE OUT (SPC-4 6.16)",
    { name: "persistentReserveOut", action: 5, scope: 1, type: 6, parameterBytes: 24 },
    "5f 05 16 0000 00000018 00",
  ],
];

describe("command descriptor blocks", () => {
  test.each(blocks)("%s", (_, command, hex) => {
    expect(encodeCdb(command)).toEqual(padded(hex));
    expect(decodeCdb(padded(hex))).toEqual({ ok: true, command });
    expect(opcodeOf(command)).toBe(bytes(hex)[0]);
  });

  test("a block is read when it has the length of its group (SPC-4 4.3.2), and not one byte before", () => {
    for (const [, command, hex] of blocks) {
      const block = bytes(hex);
      expect(decodeCdb(block)).toEqual({ ok: true, command });
      expect(decodeCdb(block.subarray(0, -1))).toEqual({ ok: false, problem: "opcode" });
    }
  });

  test("NACA in the control byte is an invalid field, wherever the length puts that byte (SAM-5 5.2)", () => {
    for (const [, , hex] of blocks) {
      const block = bytes(hex);
      const at = block.length - 1;
      block[at] = 0x04;
      expect(decodeCdb(block)).toEqual({ ok: false, problem: "field", at });
      // The other bits of the control byte are none of ours.
      block[at] = 0xfb;
      expect(decodeCdb(block).ok).toBe(true);
    }
  });

  test("exactly the operation codes above are known", () => {
    const known = Array.from({ length: 256 }, (_, opcode) => opcode).filter((opcode) => {
      const decoding = decodeCdb(Buffer.alloc(16).fill(opcode, 0, 1));
      return decoding.ok || decoding.problem !== "opcode";
    });
    const listed = new Set(blocks.map(([, , hex]) => bytes(hex)[0]));
    expect(known).toEqual([...listed].toSorted((one, other) => (one ?? 0) - (other ?? 0)));
    expect(decodeCdb(Buffer.alloc(0))).toEqual({ ok: false, problem: "opcode" });
  });
});

describe("what a block must not say", () => {
  test.each([
    ["a page code without EVPD (SPC-4 6.6.1)", "12 00 80 00 ff 00", 2],
    ["the obsolete CMDDT bit of INQUIRY (SPC-4 6.6.1)", "12 02 00 00 ff 00", 1],
    ["CMDDT together with EVPD", "12 03 80 00 ff 00", 1],
    ["an unknown service action of SERVICE ACTION IN (16)", "9e 12", 1],
    ["an unknown service action of MAINTENANCE IN", "a3 0a", 1],
  ])("%s", (_, hex, at) => {
    expect(decodeCdb(padded(hex))).toEqual({ ok: false, problem: "field", at });
  });

  test("reserved bits beside a service action are none of it", () => {
    expect(decodeCdb(padded("9e f0"))).toMatchObject({ command: { name: "readCapacity16" } });
    expect(decodeCdb(padded("a3 ec"))).toMatchObject({
      command: { name: "reportSupportedOpcodes" },
    });
    expect(decodeCdb(padded("5e e1"))).toMatchObject({ command: { action: 1 } });
    expect(decodeCdb(padded("5f e1"))).toMatchObject({ command: { action: 1 } });
  });

  test("bits of the other form of a command are reserved: LLBAA and NDOB exist in the long one only", () => {
    expect(decodeCdb(padded("1a 10 08 00 ff 00"))).toMatchObject({ command: { longLba: false } });
    expect(decodeCdb(padded("5a 10 08"))).toMatchObject({ command: { longLba: true } });
    expect(decodeCdb(padded("41 01"))).toMatchObject({ command: { noData: false } });
    expect(decodeCdb(padded("93 01"))).toMatchObject({ command: { noData: true } });
    expect(decodeCdb(padded("08 ff ff ff"))).toMatchObject({ command: { lba: 0x1f_ffff } });
    expect(encodeCdb({ ...same, noData: true })).toEqual(encodeCdb(same));
  });

  test.each([
    ["READ", "28", 1, { dpo: 0x10, fua: 0x08 }],
    ["VERIFY", "2f", 1, { dpo: 0x10 }],
    ["COMPARE AND WRITE", "89", 1, { dpo: 0x10, fua: 0x08 }],
    ["WRITE SAME", "93", 1, { anchor: 0x10, unmap: 0x08, noData: 0x01 }],
    ["UNMAP", "42", 1, { anchor: 0x01 }],
    ["SYNCHRONIZE CACHE", "35", 1, { immediate: 0x02 }],
    ["PRE-FETCH", "34", 1, { immediate: 0x02 }],
    ["MODE SENSE", "5a", 1, { longLba: 0x10, noBlockDescriptors: 0x08 }],
    ["REQUEST SENSE", "03", 1, { descriptor: 0x01 }],
    ["START STOP UNIT", "1b", 1, { immediate: 0x01 }],
    ["START STOP UNIT", "1b", 4, { noFlush: 0x04, loadEject: 0x02, start: 0x01 }],
  ])("a flag of %s is one bit: all others of its byte do not set it", (_, opcode, at, flags) => {
    for (const [name, mask] of Object.entries(flags)) {
      const block = padded(opcode);
      block[at] = ~mask;
      expect(decodeCdb(block)).toMatchObject({ command: { [name]: false } });
      block[at] = mask;
      expect(decodeCdb(block)).toMatchObject({ command: { [name]: true } });
    }
  });

  test("an address of 64 bits that no number holds is read as beyond the end", () => {
    const lbaOf = (hex: string) => {
      const decoding = decodeCdb(padded(hex));
      return decoding.ok && "lba" in decoding.command ? decoding.command.lba : undefined;
    };
    expect(lbaOf("88 00 001fffffffffffff")).toBe(Number.MAX_SAFE_INTEGER);
    expect(lbaOf("88 00 001ffffffffffffe")).toBe(Number.MAX_SAFE_INTEGER - 1);
    expect(lbaOf("88 00 0020000000000000")).toBe(Number.MAX_SAFE_INTEGER);
    expect(lbaOf("89 00 ffffffffffffffff")).toBe(Number.MAX_SAFE_INTEGER);
  });
});

describe("a command that its block cannot say is a broken invariant", () => {
  const six = { ...read, cdbBytes: 6, lba: 0, blocks: 1 } as const;
  const ten = { ...read, lba: 0, blocks: 1 } as const;
  const verify: Command = {
    name: "verify",
    cdbBytes: 10,
    protect: 0,
    dpo: false,
    byteCheck: 0,
    lba: 0,
    blocks: 1,
  };
  const reserve: Command = {
    name: "persistentReserveOut",
    action: 0,
    scope: 0,
    type: 0,
    parameterBytes: 24,
  };

  test.each<readonly [string, Command]>([
    ["22 bits of address in READ (6)", { ...six, lba: 0x20_0000 }],
    ["no block in READ (6), where zero means 256", { ...six, blocks: 0 }],
    ["257 blocks in READ (6)", { ...six, blocks: 257 }],
    ["33 bits of address in READ (10)", { ...ten, lba: 2 ** 32 }],
    ["65,536 blocks in READ (10)", { ...ten, blocks: 0x1_0000 }],
    ["33 bits of address in READ (12)", { ...ten, cdbBytes: 12, lba: 2 ** 32 }],
    ["an address that is no safe integer", { ...ten, cdbBytes: 16, lba: 2 ** 53 }],
    ["a negative address", { ...ten, cdbBytes: 16, lba: -1 }],
    ["a fractional address", { ...ten, cdbBytes: 16, lba: 0.5 }],
    ["a protection field of four bits", { ...ten, protect: 8 }],
    ["one of VERIFY", { ...verify, protect: 8 }],
    ["one of WRITE SAME", { ...same, protect: 8 }],
    [
      "one of COMPARE AND WRITE",
      { name: "compareAndWrite", protect: 8, dpo: false, fua: false, lba: 0, blocks: 1 },
    ],
    ["a negative protection field", { ...ten, protect: -1 }],
    ["half a protection field", { ...ten, protect: 0.5 }],
    ["a BYTCHK field of three bits", { ...verify, byteCheck: 4 }],
    ["a page code of seven bits", { ...sense, page: 0x40 }],
    ["a PC field of three bits", { ...sense, control: 4 }],
    ["a short MODE SENSE for 256 bytes", { ...sense, allocationBytes: 256 }],
    ["a reporting option of four bits", { ...opcodes, options: 8 }],
    ["a reservation type of five bits", { ...reserve, type: 16 }],
    ["a scope of five bits", { ...reserve, scope: 16 }],
    ["a service action of six bits", { ...reserve, action: 32 }],
    [
      "a service action of six bits, reading",
      { name: "persistentReserveIn", action: 32, allocationBytes: 8 },
    ],
    [
      "a power condition of five bits",
      {
        name: "startStopUnit",
        immediate: false,
        powerCondition: 16,
        noFlush: false,
        loadEject: false,
        start: true,
      },
    ],
    ["a length that the command does not have", { ...verify, cdbBytes: 6 } as unknown as Command],
  ])("%s", (_, command) => {
    expect(() => encodeCdb(command)).toThrow(RangeError);
  });

  test("the largest values of a field are said", () => {
    for (const [command, hex] of [
      [{ ...six, lba: 0x1f_ffff, blocks: 256 }, "08 1f ff ff 00 00"],
      [{ ...ten, protect: 7, lba: 0xffff_ffff, blocks: 0xffff }, "28 e0 ffffffff 00 ffff 00"],
      [{ ...ten, cdbBytes: 16, lba: 2 ** 53 - 1 }, "88 00 001fffffffffffff 00000001 00 00"],
      [{ ...reserve, action: 31, scope: 15, type: 15 }, "5f 1f ff 0000 00000018 00"],
    ] as const)
      expect(encodeCdb(command)).toEqual(padded(hex));
  });
});

describe("what a command moves on a disk of 512 byte blocks", () => {
  const verify = (byteCheck: number, count: number): Command => ({
    name: "verify",
    cdbBytes: 10,
    protect: 0,
    dpo: false,
    byteCheck,
    lba: 0,
    blocks: count,
  });
  const range = { lba: 0, blocks: 3 };

  test.each<readonly [string, Command, number, number]>([
    ["READ: its blocks, from the disk", { ...read, ...range }, 0, 1536],
    ["WRITE: its blocks, to the disk", { ...read, name: "write", ...range }, 1536, 0],
    [
      "COMPARE AND WRITE: what is compared and what is written (SBC-3 5.2)",
      { name: "compareAndWrite", protect: 0, dpo: false, fua: false, ...range },
      3072,
      0,
    ],
    ["WRITE SAME: one block, however many it fills (SBC-3 5.42)", same, 512, 0],
    ["WRITE SAME with NDOB: nothing (SBC-3 5.43)", { ...same, noData: true }, 0, 0],
    ["VERIFY without BYTCHK: nothing (SBC-3 5.29)", verify(0, 3), 0, 0],
    ["VERIFY with BYTCHK 01b: as much as it verifies", verify(1, 3), 1536, 0],
    ["VERIFY with BYTCHK 10b, which is reserved: nothing", verify(2, 3), 0, 0],
    ["VERIFY with BYTCHK 11b: one block", verify(3, 3), 512, 0],
    ["VERIFY of one block with BYTCHK 11b: that block", verify(3, 1), 512, 0],
    ["VERIFY of no block with BYTCHK 11b: nothing", verify(3, 0), 0, 0],
    ["UNMAP: its parameter list", { name: "unmap", anchor: false, parameterBytes: 24 }, 24, 0],
    [
      "PERSISTENT RESERVE OUT: its parameter list",
      { name: "persistentReserveOut", action: 0, scope: 0, type: 0, parameterBytes: 24 },
      24,
      0,
    ],
    ["READ CAPACITY (10): eight bytes (SBC-3 5.15.2)", { name: "readCapacity10" }, 0, 8],
    ["TEST UNIT READY: nothing", { name: "testUnitReady" }, 0, 0],
    [
      "START STOP UNIT: nothing",
      {
        name: "startStopUnit",
        immediate: false,
        powerCondition: 0,
        noFlush: false,
        loadEject: false,
        start: true,
      },
      0,
      0,
    ],
    [
      "SYNCHRONIZE CACHE: nothing, whatever its range",
      { name: "synchronizeCache", cdbBytes: 10, immediate: false, ...range },
      0,
      0,
    ],
    [
      "PRE-FETCH: nothing, whatever its range",
      { name: "prefetch", cdbBytes: 10, immediate: false, ...range },
      0,
      0,
    ],
    ["INQUIRY: what it has room for", { name: "inquiry", page: null, allocationBytes: 36 }, 0, 36],
    ["MODE SENSE: what it has room for", sense, 0, 0xc0],
  ])("%s", (_, command, out, from) => {
    expect(transferOf(command, 512)).toEqual({ out, in: from });
  });
});
