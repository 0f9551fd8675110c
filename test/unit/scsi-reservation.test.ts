/** Parameter data of PERSISTENT RESERVE IN and OUT byte by byte (SPC-4 6.15, 6.16), and what is refused of it. */
import { describe, expect, test } from "vitest";
import {
  decodeCapabilities,
  decodeFullStatus,
  decodeReadKeys,
  decodeReadReservation,
  decodeReserveOut,
  decodeTransportId,
  encodeCapabilities,
  encodeFullStatus,
  encodeReadKeys,
  encodeReadReservation,
  encodeReserveOut,
  encodeTransportId,
  FULL_STATUS_ENTRIES_MAX,
  type FullStatusEntry,
  isAllRegistrants,
  isExclusiveAccess,
  isForRegistrants,
  isReservationType,
  ReservationType,
} from "../../firmware-ts/wire/scsi/reservation.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");
const key = 0x0102_0304_0506_0708n;

describe("a type of reservation (SPC-4 table 217)", () => {
  const all = Object.values(ReservationType);

  test("is one of six codes", () => {
    expect(all).toEqual([1, 3, 5, 6, 7, 8]);
    expect(Array.from({ length: 16 }, (_, code) => code).filter(isReservationType)).toEqual(all);
  });

  test("says who may do what", () => {
    expect(all.filter(isExclusiveAccess)).toEqual([3, 6, 8]);
    expect(all.filter(isForRegistrants)).toEqual([5, 6, 7, 8]);
    expect(all.filter(isAllRegistrants)).toEqual([7, 8]);
  });
});

describe("the parameter list of PERSISTENT RESERVE OUT (SPC-4 6.16.3)", () => {
  const none = {
    key,
    serviceActionKey: 9n,
    specifyInitiatorPorts: false,
    allTargetPorts: false,
    aptpl: false,
  };

  test.each([
    ["two keys", none, "00"],
    ["SPEC_I_PT", { ...none, specifyInitiatorPorts: true }, "08"],
    ["ALL_TG_PT", { ...none, allTargetPorts: true }, "04"],
    ["APTPL", { ...none, aptpl: true }, "01"],
  ])("has 24 bytes: %s", (_, value, flags) => {
    const list = bytes(`0102030405060708 0000000000000009 00000000 ${flags} 000000`);
    expect(encodeReserveOut(value)).toEqual(list);
    expect(decodeReserveOut(list)).toEqual({ ok: true, value });
    expect(decodeReserveOut(list.subarray(0, 23)).ok).toBe(false);
    expect(decodeReserveOut(Buffer.concat([list, Buffer.alloc(8, 1)]))).toEqual({
      ok: true,
      value,
    });
  });
});

describe("READ KEYS (SPC-4 6.15.2)", () => {
  const data = bytes("00000007 00000010 0102030405060708 0000000000000009");

  test("is generation, length, and the keys", () => {
    expect(encodeReadKeys({ generation: 7, keys: [key, 9n] })).toEqual(data);
    expect(encodeReadKeys({ generation: 7, keys: [] })).toEqual(bytes("00000007 00000000"));
  });

  test("says by its length when the allocation length has cut it, in a key or between two", () => {
    const read = (length: number) => decodeReadKeys(data.subarray(0, length));
    const value = { generation: 7, keys: [key, 9n], complete: true };
    expect(read(24)).toEqual({ ok: true, value });
    for (const length of [23, 16])
      expect(read(length)).toEqual({ ok: true, value: { ...value, keys: [key], complete: false } });
    expect(read(8)).toEqual({ ok: true, value: { ...value, keys: [], complete: false } });
    expect(read(7).ok).toBe(false);
  });

  test("ends where it says, whatever follows", () => {
    const read = decodeReadKeys(Buffer.concat([data, Buffer.alloc(8, 1)]));
    expect(read).toEqual({ ok: true, value: { generation: 7, keys: [key, 9n], complete: true } });
  });
});

describe("READ RESERVATION (SPC-4 6.15.3)", () => {
  const held = bytes("00000007 00000010 0102030405060708 00000000 00 05 0000");

  test("is a header alone when nobody holds one", () => {
    const value = { generation: 7, reservation: null };
    expect(encodeReadReservation(value)).toEqual(bytes("00000007 00000000"));
    expect(decodeReadReservation(bytes("00000007 00000000"))).toEqual({ ok: true, value });
  });

  test("is the holder's key, scope and type otherwise", () => {
    const value = { generation: 7, reservation: { key, scope: 0, type: 5 } } as const;
    expect(encodeReadReservation(value)).toEqual(held);
    expect(decodeReadReservation(held)).toEqual({ ok: true, value });
    const scoped = encodeReadReservation({ ...value, reservation: { key, scope: 2, type: 8 } });
    expect(scoped[21]).toBe(0x28);
    expect(decodeReadReservation(scoped)).toMatchObject({
      value: { reservation: { scope: 2, type: 8 } },
    });
  });

  test("is refused when it was cut, or says less than it must", () => {
    for (let length = 0; length < 24; length++)
      expect(decodeReadReservation(held.subarray(0, length)).ok).toBe(false);
    const short = Buffer.from(held);
    short[7] = 15;
    expect(decodeReadReservation(short).ok).toBe(false);
  });

  test("is refused with a type that there is not", () => {
    const unknown = Buffer.from(held);
    unknown[21] = 0x02;
    expect(decodeReadReservation(unknown).ok).toBe(false);
  });
});

describe("REPORT CAPABILITIES (SPC-4 6.15.4)", () => {
  const none = {
    compatibleReservationHandling: false,
    specifyInitiatorPorts: false,
    allTargetPorts: false,
    persistThroughPowerLoss: false,
    persistActivated: false,
    allowCommands: 0,
    types: null,
  };

  test.each([
    ["nothing, and no list of types", none, "00 00 0000"],
    ["CRH", { ...none, compatibleReservationHandling: true }, "10 00 0000"],
    ["SIP_C", { ...none, specifyInitiatorPorts: true }, "08 00 0000"],
    ["ATP_C", { ...none, allTargetPorts: true }, "04 00 0000"],
    ["PTPL_C", { ...none, persistThroughPowerLoss: true }, "01 00 0000"],
    ["PTPL_A", { ...none, persistActivated: true }, "00 01 0000"],
    ["ALLOW COMMANDS", { ...none, allowCommands: 5 }, "00 50 0000"],
    ["an empty list of types (TMV)", { ...none, types: [] }, "00 80 0000"],
    ["WR_EX", { ...none, types: [1] }, "00 80 0200"],
    ["EX_AC", { ...none, types: [3] }, "00 80 0800"],
    ["WR_EX_RO", { ...none, types: [5] }, "00 80 2000"],
    ["EX_AC_RO", { ...none, types: [6] }, "00 80 4000"],
    ["WR_EX_AR", { ...none, types: [7] }, "00 80 8000"],
    ["EX_AC_AR", { ...none, types: [8] }, "00 80 0001"],
    ["all types", { ...none, types: [1, 3, 5, 6, 7, 8] }, "00 80 ea01"],
  ] as const)("%s", (_, value, hex) => {
    const data = bytes(`0008 ${hex} 0000`);
    expect(encodeCapabilities(value)).toEqual(data);
    expect(decodeCapabilities(data)).toEqual({ ok: true, value });
    expect(decodeCapabilities(data.subarray(0, 7)).ok).toBe(false);
  });

  test("without TMV the mask is no list of types", () => {
    expect(decodeCapabilities(bytes("0008 00 00 ea01 0000"))).toEqual({ ok: true, value: none });
  });
});

describe("the TransportID of an iSCSI initiator port (SPC-4 7.6.4.6)", () => {
  const port = { name: "iqn.a:b", isid: "400001370000" };
  const text = "iqn.a:b,i,0x400001370000\0";
  const idOf = (said: string, length = Math.ceil(said.length / 4) * 4) => {
    const data = Buffer.alloc(4 + length);
    data[0] = 0x45;
    data.writeUInt16BE(length, 2);
    data.write(said, 4);
    return data;
  };

  test("is name and ISID as text that ends in zeros, up to a multiple of four bytes", () => {
    expect(encodeTransportId(port)).toEqual(idOf(text, 28));
    expect(decodeTransportId(idOf(text, 28))).toEqual({ ok: true, value: port });
    const whole = { ...port, name: "iqn.a:bcd.f" };
    expect(encodeTransportId(whole)).toHaveLength(4 + 32);
    expect(encodeTransportId({ ...port, name: "iqn.a:bcd." })).toHaveLength(4 + 28);
  });

  test("has at least 20 bytes, however short the name", () => {
    expect(encodeTransportId({ ...port, name: "x" })).toHaveLength(4 + 20);
    expect(encodeTransportId({ ...port, name: "xy" })).toHaveLength(4 + 20);
    expect(encodeTransportId({ ...port, name: "xyz" })).toHaveLength(4 + 24);
  });

  test("holds the longest name of iSCSI (RFC 7143 4.2.7.1) and refuses one that is far longer", () => {
    const longest = { ...port, name: `iqn.${"x".repeat(219)}` };
    expect(decodeTransportId(encodeTransportId(longest))).toEqual({ ok: true, value: longest });
    const most = { ...port, name: "x".repeat(238) };
    expect(decodeTransportId(encodeTransportId(most))).toEqual({ ok: true, value: most });
    expect(() => encodeTransportId({ ...port, name: "x".repeat(239) })).toThrow(RangeError);
    expect(decodeTransportId(idOf(`${"x".repeat(242)},i,0x400001370000\0`)).ok).toBe(false);
  });

  test("may write its ISID in capital letters", () => {
    expect(decodeTransportId(idOf("iqn.a,i,0x4000013700AB\0"))).toEqual({
      ok: true,
      value: { name: "iqn.a", isid: "4000013700ab" },
    });
  });

  test("ends where its length says, whatever follows", () => {
    const data = Buffer.concat([idOf(text, 28), Buffer.alloc(4, 0x41)]);
    expect(decodeTransportId(data)).toEqual({ ok: true, value: port });
  });

  test.each([
    ["nothing", Buffer.alloc(0)],
    ["less than a header", bytes("450000")],
    ["no text", bytes("45000000")],
    ["another protocol", Buffer.from(idOf(text)).fill(0x46, 0, 1)],
    ["the format without an ISID", Buffer.from(idOf(text)).fill(0x05, 0, 1)],
    ["a length past its end", idOf(text, 28).subarray(0, 31)],
    ["no terminating zero", idOf("iqn.a:bcd.f,i,0x400001370000")],
    [
      "a terminating zero behind its length",
      Buffer.concat([idOf("iqn.a:bcd.f,i,0x400001370000"), Buffer.alloc(4)]),
    ],
    ["no separator", idOf("iqn.a:b,j,0x400001370000\0")],
    ["no name", idOf(",i,0x400001370000\0")],
    ["an ISID that is too short", idOf("iqn.a,i,0x40000137000\0")],
    ["an ISID that is too long", idOf("iqn.a,i,0x4000013700001\0")],
    ["an ISID of other letters", idOf("iqn.a,i,0x40000137000g\0")],
  ])("is refused with %s", (_, data) => {
    expect(decodeTransportId(data).ok).toBe(false);
  });

  test("is read with its last byte as the terminating zero", () => {
    const exact = "iqn.a:bcd.,i,0x400001370000\0";
    expect(exact.length % 4).toBe(0);
    expect(decodeTransportId(idOf(exact))).toMatchObject({ value: { name: "iqn.a:bcd." } });
  });
});

describe("READ FULL STATUS (SPC-4 6.15.5)", () => {
  const initiator = { name: "x", isid: "400001370000" };
  const id = `45000014 ${Buffer.from("x,i,0x400001370000\0\0").toString("hex")}`;
  const plain: FullStatusEntry = {
    key,
    allTargetPorts: false,
    held: null,
    targetPort: 0x0102,
    initiator,
  };
  const holder: FullStatusEntry = {
    ...plain,
    allTargetPorts: true,
    held: { scope: 0, type: 6 },
  };
  const data = bytes(
    `00000007 00000060
     0102030405060708 00000000 00 00 00000000 0102 00000018 ${id}
     0102030405060708 00000000 03 06 00000000 0102 00000018 ${id}`.replaceAll("\n", ""),
  );
  const whole = { generation: 7, entries: [plain, holder], complete: true };

  test("is an entry with a TransportID for each registration, scope and type only for holders", () => {
    expect(encodeFullStatus(whole)).toEqual(data);
    expect(decodeFullStatus(data)).toEqual({ ok: true, value: whole });
    const nobody = { generation: 7, entries: [] };
    expect(encodeFullStatus(nobody)).toEqual(bytes("00000007 00000000"));
    expect(decodeFullStatus(bytes("00000007 00000000"))).toEqual({
      ok: true,
      value: { ...nobody, complete: true },
    });
    const all: FullStatusEntry = { ...plain, held: { scope: 3, type: 7 } };
    expect(encodeFullStatus({ generation: 0, entries: [all] }).subarray(20, 22)).toEqual(
      bytes("01 37"),
    );
    expect(decodeFullStatus(encodeFullStatus({ generation: 0, entries: [all] }))).toMatchObject({
      value: { entries: [all] },
    });
  });

  test("says by its length when the allocation length has cut it", () => {
    for (let length = 0; length < data.length; length++) {
      const entries = whole.entries.slice(0, Math.floor((length - 8) / 48));
      expect(decodeFullStatus(data.subarray(0, length))).toEqual(
        length < 8
          ? { ok: false, problem: expect.any(String) }
          : { ok: true, value: { generation: 7, entries, complete: false } },
      );
    }
  });

  test("ends where it says, whatever follows", () => {
    const read = decodeFullStatus(Buffer.concat([data, data.subarray(8)]));
    expect(read).toEqual({ ok: true, value: whole });
  });

  test("scope and type of somebody who holds nothing mean nothing", () => {
    const odd = Buffer.from(data);
    odd[8 + 13] = 0xff;
    expect(decodeFullStatus(odd)).toEqual({ ok: true, value: whole });
  });

  test("is refused with a holder of a type that there is not, or an initiator that cannot be", () => {
    const type = Buffer.from(data);
    type[8 + 48 + 13] = 0x02;
    expect(decodeFullStatus(type).ok).toBe(false);
    const port = Buffer.from(data);
    port[8 + 24] = 0x46;
    expect(decodeFullStatus(port).ok).toBe(false);
    const nobody = Buffer.concat([bytes("00000007 00000018"), Buffer.alloc(24)]);
    expect(decodeFullStatus(nobody).ok).toBe(false);
  });

  test("is refused with more registrations than anybody has", () => {
    const most = Array.from({ length: FULL_STATUS_ENTRIES_MAX }, () => plain);
    expect(decodeFullStatus(encodeFullStatus({ generation: 0, entries: most }))).toMatchObject({
      ok: true,
      value: { complete: true },
    });
    const more = encodeFullStatus({ generation: 0, entries: [...most, plain] });
    expect(decodeFullStatus(more).ok).toBe(false);
  });
});
