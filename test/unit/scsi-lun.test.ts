/** Logical unit numbers on the wire (SAM-5 4.7) and the list of them (SPC-4 6.33). */
import { describe, expect, test } from "vitest";
import {
  decodeReportLuns,
  encodeReportLuns,
  REPORT_LUNS_MAX,
  readLun,
  writeLun,
} from "../../firmware-ts/wire/scsi/lun.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

describe("a logical unit number", () => {
  test.each([
    ["unit 0", 0, "0000"],
    ["the last of the peripheral device method", 255, "00ff"],
    ["the first of the flat space method", 256, "4100"],
    ["the last of all", 16_383, "7fff"],
  ])("%s", (_, lun, hex) => {
    const target = Buffer.alloc(24, 0xee);
    writeLun(target, 8, lun);
    expect(target).toEqual(bytes(`${"ee".repeat(8)} ${hex} 000000000000 ${"ee".repeat(8)}`));
    expect(readLun(target, 8)).toBe(lun);
  });

  test("may be written by the flat space method although it is small", () => {
    expect(readLun(bytes("4007000000000000"), 0)).toBe(7);
  });

  test.each([
    ["a bus below the device", "0107000000000000"],
    ["the first unit of the first bus below", "0100000000000000"],
    ["a unit of the logical unit method", "8007000000000000"],
    ["a well known unit", "c101000000000000"],
    ["a second level", "0007000100000000"],
    ["a second level of another method", "0007410000000000"],
    ["a third level", "0007000000010000"],
    ["a fourth level", "4007000000000001"],
  ])("%s is none that we address", (_, hex) => {
    expect(readLun(bytes(hex), 0)).toBeUndefined();
    // What stands before and behind the eight bytes does not matter.
    expect(
      readLun(Buffer.concat([Buffer.alloc(8), bytes(hex), Buffer.alloc(8)]), 8),
    ).toBeUndefined();
    expect(readLun(Buffer.concat([bytes(hex), Buffer.alloc(8), bytes(hex)]), 8)).toBe(0);
  });

  test.each([-1, 0.5, 16_384, Number.NaN])("%d is a broken invariant", (lun) => {
    const target = Buffer.alloc(8, 0xee);
    expect(() => writeLun(target, 0, lun)).toThrow(RangeError);
    expect(target).toEqual(Buffer.alloc(8, 0xee));
  });
});

describe("REPORT LUNS data (SPC-4 6.33)", () => {
  const list = "00000010 00000000 0003000000000000 4100000000000000";

  test("is a header with the length of the list, and eight bytes for each unit", () => {
    expect(encodeReportLuns([3, 256])).toEqual(bytes(list));
    expect(encodeReportLuns([])).toEqual(Buffer.alloc(8));
  });

  test("says by its length when the allocation length has cut it, in a unit or between two", () => {
    const whole = bytes(list);
    const read = (length: number) => decodeReportLuns(whole.subarray(0, length));
    expect(read(24)).toEqual({ ok: true, value: { luns: [3, 256], complete: true } });
    expect(read(23)).toEqual({ ok: true, value: { luns: [3], complete: false } });
    expect(read(16)).toEqual({ ok: true, value: { luns: [3], complete: false } });
    expect(read(8)).toEqual({ ok: true, value: { luns: [], complete: false } });
    expect(read(7).ok).toBe(false);
  });

  test("ends where it says, whatever follows", () => {
    const data = Buffer.concat([bytes(list), Buffer.alloc(8, 1)]);
    expect(decodeReportLuns(data)).toEqual({ ok: true, value: { luns: [3, 256], complete: true } });
  });

  test("is read without the units that we cannot address", () => {
    const data = bytes("00000018 00000000 c101000000000000 0003000000000000 0103000000000000");
    expect(decodeReportLuns(data)).toEqual({ ok: true, value: { luns: [3], complete: true } });
  });

  test("is refused when it lists more units than anybody has", () => {
    const most = Array.from({ length: REPORT_LUNS_MAX }, (_, lun) => lun);
    expect(decodeReportLuns(encodeReportLuns(most))).toMatchObject({ value: { luns: most } });
    expect(decodeReportLuns(encodeReportLuns([...most, 0])).ok).toBe(false);
  });
});
