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
    ["information without its VALID bit", "0c 00 0a 7f 00 0000000001020304"],
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
  test.each([
    [0x00, "GOOD"],
    [0x02, "CHECK CONDITION"],
    [0x04, "CONDITION MET"],
    [0x08, "BUSY"],
    [0x18, "RESERVATION CONFLICT"],
    [0x28, "TASK SET FULL"],
    [0x30, "ACA ACTIVE"],
    [0x40, "TASK ABORTED"],
    [0x22, "0x22"],
  ])("status %i is %s (SAM-5 5.3.1)", (status, name) => {
    expect(statusName(status)).toBe(name);
  });

  test.each([
    [0x0, "NO SENSE"],
    [0x1, "RECOVERED ERROR"],
    [0x2, "NOT READY"],
    [0x3, "MEDIUM ERROR"],
    [0x4, "HARDWARE ERROR"],
    [0x5, "ILLEGAL REQUEST"],
    [0x6, "UNIT ATTENTION"],
    [0x7, "DATA PROTECT"],
    [0xb, "ABORTED COMMAND"],
    [0xe, "MISCOMPARE"],
    [0xc, "0xc"],
  ])("sense key %i is %s (SPC-4 table 43)", (key, name) => {
    expect(senseKeyName(key)).toBe(name);
  });

  test.each([
    [0x04, 0x03, "NOT READY, MANUAL INTERVENTION REQUIRED"],
    [0x0c, 0x00, "WRITE ERROR"],
    [0x0e, 0x03, "INVALID FIELD IN COMMAND INFORMATION UNIT"],
    [0x11, 0x00, "UNRECOVERED READ ERROR"],
    [0x1a, 0x00, "PARAMETER LIST LENGTH ERROR"],
    [0x1d, 0x00, "MISCOMPARE DURING VERIFY OPERATION"],
    [0x20, 0x00, "INVALID COMMAND OPERATION CODE"],
    [0x21, 0x00, "LOGICAL BLOCK ADDRESS OUT OF RANGE"],
    [0x24, 0x00, "INVALID FIELD IN CDB"],
    [0x25, 0x00, "LOGICAL UNIT NOT SUPPORTED"],
    [0x26, 0x00, "INVALID FIELD IN PARAMETER LIST"],
    [0x26, 0x04, "INVALID RELEASE OF PERSISTENT RESERVATION"],
    [0x29, 0x00, "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED"],
    [0x29, 0x03, "BUS DEVICE RESET FUNCTION OCCURRED"],
    [0x29, 0x07, "I_T NEXUS LOSS OCCURRED"],
    [0x2a, 0x01, "MODE PARAMETERS CHANGED"],
    [0x2a, 0x03, "RESERVATIONS PREEMPTED"],
    [0x2a, 0x04, "RESERVATIONS RELEASED"],
    [0x2a, 0x05, "REGISTRATIONS PREEMPTED"],
    [0x39, 0x00, "SAVING PARAMETERS NOT SUPPORTED"],
    [0x44, 0x00, "INTERNAL TARGET FAILURE"],
    [0x4b, 0x00, "DATA PHASE ERROR"],
    [0x55, 0x04, "INSUFFICIENT REGISTRATION RESOURCES"],
    [0x01, 0x02, "0x0102"],
  ])("additional sense code %i, %i is %s (SPC-4 annex D.2)", (code, qualifier, name) => {
    expect(ascName((code << 8) | qualifier)).toBe(name);
  });

  test("tell a deferred error from one of this command", () => {
    expect(senseText(invalidField)).toBe("ILLEGAL REQUEST, INVALID FIELD IN CDB");
    expect(senseText(deferredWrite)).toBe("MEDIUM ERROR, WRITE ERROR (deferred)");
  });
});
