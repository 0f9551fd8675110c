/** The slots of the persistent record: what a torn, damaged or foreign file is taken for. */
import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  decodeSlot,
  encodeSlot,
  freshSlot,
  newestSlot,
  recordSlots,
  type Slot,
  slotOf,
} from "../../firmware-ts/wire/record.ts";

const slot: Slot = { generation: 3, record: { version: 1, epoch: 7 } };
const text = encodeSlot(slot);
/** Any body with the checksum that belongs to it. */
const sealed = (body: string) => `${crc32(body).toString(16).padStart(8, "0")} ${body}\n`;

describe("a slot of the record", () => {
  test("is a checksum and JSON on one line: every release reads what the one before has written", () => {
    expect(text).toBe('ded0731f {"generation":3,"record":{"version":1,"epoch":7}}\n');
    expect(decodeSlot(text)).toEqual(slot);
  });

  test("is read back whatever its checksum looks like", () => {
    for (let generation = 0; generation < 200; generation++) {
      const written = encodeSlot({ ...slot, generation });
      expect(written).toMatch(/^[0-9a-f]{8} /);
      expect(decodeSlot(written)).toEqual({ ...slot, generation });
    }
  });

  test("that was cut anywhere counts as never written", () => {
    for (let length = 0; length < text.length; length++) {
      expect(decodeSlot(text.slice(0, length))).toEqual(freshSlot);
      if (length > 0) expect(decodeSlot(text.slice(length))).toEqual(freshSlot);
    }
  });

  test("with one character changed counts as never written", () => {
    for (let at = 0; at < text.length; at++) {
      const other = text[at] === "0" ? "1" : "0";
      expect(decodeSlot(text.slice(0, at) + other + text.slice(at + 1))).toEqual(freshSlot);
    }
  });

  test.each([
    ["something before it", ` ${text}`],
    ["something after it", `${text}x`],
    ["a second record after it", text + text],
    ["a record of another release", sealed('{"generation":9,"record":{"version":2,"epoch":8}}')],
    ["an epoch that there is not", sealed('{"generation":9,"record":{"version":1,"epoch":-1}}')],
    ["no record at all", sealed('{"generation":9}')],
    [
      "more than a slot holds",
      sealed(
        JSON.stringify({ generation: 9, padding: "x".repeat(4096), record: freshSlot.record }),
      ),
    ],
  ])("with %s counts as never written", (_, found) => {
    expect(decodeSlot(found)).toEqual(freshSlot);
  });

  test("that was never written is generation 0 of a controller that has seen no epoch", () => {
    expect(freshSlot).toEqual({ generation: 0, record: { version: 1, epoch: 0 } });
  });
});

describe("two slots in turn", () => {
  test("a writing never touches the slot that holds the newest record", () => {
    for (let generation = 0; generation < 6; generation++) {
      expect(recordSlots).toContain(slotOf(generation));
      expect(slotOf(generation + 1)).not.toBe(slotOf(generation));
    }
    expect(slotOf(1)).toBe("record.1");
  });

  test("the newest counts, in whichever slot it is", () => {
    const newer: Slot = { generation: 4, record: { version: 1, epoch: 8 } };
    expect(newestSlot([slot, newer])).toBe(newer);
    expect(newestSlot([newer, slot])).toBe(newer);
    expect(newestSlot([freshSlot, slot])).toBe(slot);
    expect(newestSlot([])).toBe(freshSlot);
  });
});
