/** The text of login and text PDUs (RFC 7143 6.1): what is a pair, and what is too much. */
import { describe, expect, test } from "vitest";
import {
  decodeText,
  encodeText,
  TEXT_KEY_BYTES_MAX,
  TEXT_VALUE_BYTES_MAX,
  uniquePairs,
} from "../../firmware-ts/wire/iscsi/text.ts";

const read = (text: string) => decodeText(Buffer.from(text));

describe("text", () => {
  test("is key=value, each ended by a zero byte", () => {
    expect(
      encodeText([
        ["TargetName", "iqn.2026-11.net.example:disk"],
        ["TargetAlias", "größe"],
        ["SendTargets", ""],
      ]),
    ).toEqual(
      Buffer.from("TargetName=iqn.2026-11.net.example:disk\0TargetAlias=größe\0SendTargets=\0"),
    );
    expect(encodeText([])).toHaveLength(0);
  });

  test("keeps order and repetition, as the answers to SendTargets need", () => {
    expect(read("TargetName=a\0TargetAddress=1\0TargetName=b\0")).toEqual({
      ok: true,
      value: [
        ["TargetName", "a"],
        ["TargetAddress", "1"],
        ["TargetName", "b"],
      ],
    });
  });

  test("is read without its last zero byte, and with more of them than needed", () => {
    const value = [["A", "1"]];
    expect(read("A=1")).toEqual({ ok: true, value });
    expect(read("\0A=1\0\0\0")).toEqual({ ok: true, value });
    expect(read("")).toEqual({ ok: true, value: [] });
  });

  test("a value is everything behind the first equals sign, and may be nothing", () => {
    expect(read("A=b=c\0D=\0")).toEqual({
      ok: true,
      value: [
        ["A", "b=c"],
        ["D", ""],
      ],
    });
  });

  test.each([
    ["no equals sign", "Toaster\0"],
    ["no key", "=1\0"],
    ["a space before the key", " A=1\0"],
    ["a space behind the key", "A =1\0"],
    ["a key with a letter that is none of the 6.1 set", "Ä=1\0"],
    ["a bad pair behind a good one", "A=1\0Toaster\0"],
  ])("is refused with %s", (_, text) => {
    expect(read(text)).toMatchObject({ ok: false });
  });

  test("a key has letters, digits and . - + @ _ # (6.1)", () => {
    expect(read("X-net.ex_Ample@9+Z#=1\0")).toEqual({
      ok: true,
      value: [["X-net.ex_Ample@9+Z#", "1"]],
    });
  });

  test("a key has 63 bytes at most (6.1), whatever the length of its value", () => {
    const key = "K".repeat(TEXT_KEY_BYTES_MAX);
    expect(TEXT_KEY_BYTES_MAX).toBe(63);
    expect(read(`${key}=1\0`)).toEqual({ ok: true, value: [[key, "1"]] });
    expect(read(`${key}K=1\0`).ok).toBe(false);
    expect(read(`${key}K=\0`).ok).toBe(false);
  });

  test("a value has 8192 bytes at most, whatever the length of its key", () => {
    const value = "v".repeat(TEXT_VALUE_BYTES_MAX);
    for (const key of ["K", "K".repeat(63)]) {
      expect(read(`${key}=${value}\0`)).toEqual({ ok: true, value: [[key, value]] });
      expect(read(`${key}=${value}v\0`).ok).toBe(false);
    }
  });
});

describe("the keys of a negotiation", () => {
  test("are a map when each is said once", () => {
    const pairs = [
      ["A", "1"],
      ["B", "1"],
    ] as const;
    expect(uniquePairs(pairs)).toEqual({ ok: true, value: new Map(pairs) });
  });

  test("are refused when one is said twice, even with the same value (6.2)", () => {
    const pairs = [
      ["A", "1"],
      ["A", "1"],
    ] as const;
    expect(uniquePairs(pairs).ok).toBe(false);
  });
});
