/** IP addresses as text: the forms of RFC 4291 2.2 at their edges, and the canonical one of RFC 5952. */
import { describe, expect, test } from "vitest";
import { formatAddress, parseAddress } from "../../firmware-ts/schema/ip-address.ts";

const hexOf = (text: string) => {
  const parsed = parseAddress(text);
  return parsed && Buffer.from(parsed.bytes).toString("hex");
};

describe("an address as text", () => {
  test.each([
    ["IPv4", "10.0.0.255", "0a0000ff"],
    ["eight groups", "1:2:3:4:5:6:7:89ab", "000100020003000400050006000789ab"],
    [
      "IPv4 in place of the last two groups",
      "1:2:3:4:5:6:1.2.3.4",
      "00010002000300040005000601020304",
    ],
    ["IPv4 behind two colons", "::1.2.3.4", "00000000000000000000000001020304"],
    ["two colons for a single group", "1:2:3:4:5:6:7::", "00010002000300040005000600070000"],
    [
      "two colons in the middle for a single group",
      "1::3:4:5:6:7:8",
      "00010000000300040005000600070008",
    ],
    ["capital letters", "ABCD::", "abcd0000000000000000000000000000"],
  ])("%s", (_, text, hex) => {
    expect(hexOf(text)).toBe(hex);
    expect(parseAddress(text)?.family).toBe(hex.length === 8 ? 4 : 6);
  });

  test.each([
    ["IPv4 before two colons", "1.2.3.4::"],
    ["IPv4 before two colons and groups", "1:1.2.3.4::5"],
    ["IPv4 in the middle", "1:2:3:4:5:1.2.3.4:8"],
    ["IPv4 first behind two colons, but not last", "::1.2.3.4:5"],
    ["two colons for no group at all", "1:2:3:4::5:6:7:8"],
    ["two colons behind eight groups", "1:2:3:4:5:6:7:8::"],
    ["two colons and more than eight groups", "1:2:3:4:5::6:7:8:9"],
    ["seven groups", "1:2:3:4:5:6:7"],
    ["nine groups", "1:2:3:4:5:6:7:8:9"],
    ["two colons twice", "1::2::3"],
    ["three colons", "1:::2"],
    ["a colon before the first group", ":1:2:3:4:5:6:7:8"],
    ["a colon behind the last group", "1:2:3:4:5:6:7:8:"],
    ["a group of five digits", "12345::"],
    ["a group that is no number", "g::"],
    ["a zone", "fe80::1%eth0"],
    ["three parts", "1.2.3"],
    ["five parts", "1.2.3.4.5"],
    ["a part above 255", "1.2.3.256"],
    ["a part with a leading zero", "1.2.3.04"],
    ["white space", " 1.2.3.4"],
    ["a prefix", "10.0.0.1/24"],
    ["nothing", ""],
  ])("is not one with %s", (_, text) => {
    expect(parseAddress(text)).toBeUndefined();
  });
});

describe("the canonical text (RFC 5952)", () => {
  test.each([
    ["groups without leading zeros, in small letters (4.1, 4.3)", "2001:0DB8::0001", "2001:db8::1"],
    ["one group of zeros is written out (4.2.2)", "1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"],
    ["the longest run is shortened (4.2.3)", "1:0:0:2:0:0:0:3", "1:0:0:2::3"],
    ["of two runs the first (4.2.3)", "1:0:0:2:3:0:0:4", "1::2:3:0:0:4"],
    ["a run at the end", "1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"],
    ["a run at the beginning", "0:0:3:4:5:6:7:8", "::3:4:5:6:7:8"],
    ["nothing but zeros", "0:0:0:0:0:0:0:0", "::"],
    ["IPv4", "10.0.0.1", "10.0.0.1"],
  ])("%s", (_, text, canonical) => {
    expect(formatAddress(parseAddress(text)?.bytes ?? new Uint8Array())).toBe(canonical);
  });

  test("reads bytes out of the middle of a buffer", () => {
    const buffer = Uint8Array.from({ length: 32 }, (_, index) => index);
    expect(formatAddress(buffer.subarray(8, 12))).toBe("8.9.10.11");
    expect(formatAddress(buffer.subarray(8, 24))).toBe("809:a0b:c0d:e0f:1011:1213:1415:1617");
  });
});
