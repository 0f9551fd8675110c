/** Sense data in both formats of SPC-4 4.5, byte by byte, and the names of what it says. */
import { describe, expect, test } from "vitest";
import { ascName, senseKeyName, statusName } from "../../firmware-ts/wire/scsi/codes.ts";
import {
  decodeSense,
  encodeSense,
  type Sense,
  senseText,
} from "../../firmware-ts/wire/scsi/sense.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

const invalidField: Sense = { key: 5, code: 0x2400 };
const miscompare: Sense = { key: 0xe, code: 0x1d00, information: 0x01020304 };
const deferredWrite: Sense = { key: 3, code: 0x0c00, deferred: true };

describe("fixed format (SPC-4 4.5.3)", () => {
  test.each([
    ["an error of this command", invalidField, "70 00 05 00000000 0a 00000000 2400 00 000000"],
    ["a deferred error (4.5.6)", deferredWrite, "71 00 03 00000000 0a 00000000 0c00 00 000000"],
    [
      "information, which VALID announces",
      miscompare,
      "f0 00 0e 01020304 0a 00000000 1d00 00 000000",
    ],
    [
      "information of zero, which is valid as well",
      { ...miscompare, information: 0 },
      "f0 00 0e 00000000 0a 00000000 1d00 00 000000",
    ],
    [
      "the largest information",
      { ...miscompare, information: 0xffff_ffff },
      "f0 00 0e ffffffff 0a 00000000 1d00 00 000000",
    ],
  ])("%s", (_, sense, hex) => {
    expect(encodeSense(sense)).toEqual(bytes(hex));
    expect(encodeSense(sense, "fixed")).toEqual(bytes(hex));
    expect(decodeSense(bytes(hex))).toEqual({ ok: true, value: sense });
  });

  test("information that does not fit in 32 bits is not shown as valid", () => {
    expect(encodeSense({ ...miscompare, information: 2 ** 32 })).toEqual(
      bytes("70 00 0e 00000000 0a 00000000 1d00 00 000000"),
    );
  });

  test("a device may stop early: eight bytes are sense, and the code counts when both of its bytes came", () => {
    const whole = bytes("70 00 05 00000000 0a 00000000 2401 00 000000");
    expect(decodeSense(whole.subarray(0, 7)).ok).toBe(false);
    for (const length of [8, 12, 13])
      expect(decodeSense(whole.subarray(0, length))).toEqual({
        ok: true,
        value: { key: 5, code: 0 },
      });
    expect(decodeSense(whole.subarray(0, 14))).toEqual({
      ok: true,
      value: { key: 5, code: 0x2401 },
    });
  });

  test("the bits beside the sense key are none of it", () => {
    expect(decodeSense(bytes("70 00 e5 00000000 0a 00000000 2400 00 000000"))).toEqual({
      ok: true,
      value: invalidField,
    });
  });
});

describe("descriptor format (SPC-4 4.5.2)", () => {
  const information = "00 0a 80 00 0000000001020304";

  test.each([
    ["an error of this command", invalidField, "72 05 2400 000000 00"],
    ["a deferred error (4.5.6)", deferredWrite, "73 03 0c00 000000 00"],
    ["information in a descriptor (4.5.2.2)", miscompare, `72 0e 1d00 000000 0c ${information}`],
    [
      "information of 64 bits",
      { ...miscompare, information: 2 ** 40 + 1 },
      "72 0e 1d00 000000 0c 00 0a 80 00 0000010000000001",
    ],
  ])("%s", (_, sense, hex) => {
    expect(encodeSense(sense, "descriptor")).toEqual(bytes(hex));
    expect(decodeSense(bytes(hex))).toEqual({ ok: true, value: sense });
  });

  test.each([
    ["a descriptor of another type and the same length", "0c 01 0a 80 00 0000000001020304"],
    ["an information descriptor of another length", "0a 00 08 80 00 000000000102"],
    ["information without its VALID bit", "0c 00 0a 00 00 0000000001020304"],
    ["information behind the additional length", `00 ${information}`],
    ["one byte, which is no descriptor", "01 00"],
  ])("%s says nothing", (_, descriptors) => {
    expect(decodeSense(bytes(`72 0e 1d00 000000 ${descriptors}`))).toEqual({
      ok: true,
      value: { key: 0xe, code: 0x1d00 },
    });
  });

  test("information is found behind descriptors that say nothing to us", () => {
    const others = "02 06 0000 80 0004 00 06 00";
    expect(decodeSense(bytes(`72 0e 1d00 000000 16 ${others} ${information}`))).toEqual({
      ok: true,
      value: miscompare,
    });
  });

  test.each([
    ["less than its header", "72 05 2400 000000"],
    ["a descriptor that exceeds the additional length", `72 0e 1d00 000000 0b ${information}`],
    ["the head of a descriptor and nothing of it", "72 0e 1d00 000000 02 00 0a"],
    ["a descriptor that exceeds the data", "72 0e 1d00 000000 0c 00 0a 80 00 00000000010203"],
  ])("is refused with %s", (_, hex) => {
    expect(decodeSense(bytes(hex)).ok).toBe(false);
  });

  test("the bits beside the sense key are none of it", () => {
    expect(decodeSense(bytes("72 f5 2400 000000 00"))).toEqual({ ok: true, value: invalidField });
  });
});

test("no other response code is sense data (SPC-4 4.5.1)", () => {
  const known = Array.from({ length: 0x80 }, (_, code) => code).filter(
    (code) => decodeSense(Buffer.alloc(18).fill(code, 0, 1)).ok,
  );
  expect(known).toEqual([0x70, 0x71, 0x72, 0x73]);
  expect(decodeSense(Buffer.alloc(0)).ok).toBe(false);
});

describe("names", () => {
  test("are those of the standard, and a number where it has none", () => {
    expect([0x00, 0x02, 0x18, 0x22].map(statusName)).toEqual([
      "GOOD",
      "CHECK CONDITION",
      "RESERVATION CONFLICT",
      "0x22",
    ]);
    expect([0x6, 0xc].map(senseKeyName)).toEqual(["UNIT ATTENTION", "0xc"]);
    expect([0x2a05, 0x0102].map(ascName)).toEqual(["REGISTRATIONS PREEMPTED", "0x0102"]);
  });

  test("tell a deferred error from one of this command", () => {
    expect(senseText(invalidField)).toBe("ILLEGAL REQUEST, INVALID FIELD IN CDB");
    expect(senseText(deferredWrite)).toBe("MEDIUM ERROR, WRITE ERROR (deferred)");
  });
});
