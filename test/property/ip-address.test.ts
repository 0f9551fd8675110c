import { BlockList, isIP } from "node:net";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatAddress, parseAddress } from "../../firmware-ts/schema/ip-address.ts";

describe("IP addresses", () => {
  test("bytes survive the way through text, and Node reads the text as the same address", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      // Runs of zero groups are where the short forms are.
      fc
        .array(fc.constantFrom(0, 0, 1, 0xab), { minLength: 8, maxLength: 8 })
        .map((groups) => Uint8Array.from(groups.flatMap((group) => [0, group]))),
    );
    fc.assert(
      fc.property(bytes, (address) => {
        const text = formatAddress(address);
        expect(parseAddress(text)?.bytes).toEqual(address);
        const family = address.length === 4 ? "ipv4" : "ipv6";
        const oracle = new BlockList();
        oracle.addAddress(text, family);
        if (family === "ipv6") {
          const long = Buffer.from(address).toString("hex").match(/.{4}/g)?.join(":") ?? "";
          expect(oracle.check(long, "ipv6")).toBe(true);
        }
      }),
      { numRuns: 1000 },
    );
  });

  test.each([
    ["::", "00000000000000000000000000000000"],
    ["::1", "00000000000000000000000000000001"],
    ["fd00::", "fd000000000000000000000000000000"],
    ["fd00::a:0:0:1", "fd00000000000000000a000000000001"],
    ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
    ["::ffff:10.0.0.1", "00000000000000000000ffff0a000001"],
  ])("%s", (text, hex) => {
    expect(Buffer.from(parseAddress(text)?.bytes ?? []).toString("hex")).toBe(hex);
  });

  test("the longest run of zeros is shortened, a single zero is not (RFC 5952)", () => {
    const format = (text: string) => formatAddress(parseAddress(text)?.bytes ?? new Uint8Array(4));
    expect(format("2001:DB8:0:0:1:0:0:1")).toBe("2001:db8::1:0:0:1");
    expect(format("2001:db8:0:1:1:1:1:1")).toBe("2001:db8:0:1:1:1:1:1");
  });

  test("any text is an address for us exactly when it is one for Node, zones aside", () => {
    const text = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.string(),
      fc.stringMatching(/^[0-9a-f:.]{1,20}$/),
      fc.stringMatching(/^[0-9a-f]{0,2}(::?[0-9a-f]{1,5}){0,8}(::?|:1[.]2[.]3[.][0-9]{1,3})?$/),
    );
    fc.assert(
      fc.property(text, (candidate) => {
        const parsed = parseAddress(candidate);
        expect(parsed?.family ?? 0).toBe(candidate.includes("%") ? 0 : isIP(candidate));
        if (parsed) expect(parsed.bytes).toHaveLength(parsed.family === 4 ? 4 : 16);
      }),
    );
    expect(parseAddress("fe80::1%eth0")).toBeUndefined();
    expect(parseAddress("10.0.0.256")).toBeUndefined();
    expect(parseAddress("")).toBeUndefined();
  });
});
