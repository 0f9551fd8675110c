/** Clients packed for the partner, byte by byte: what cannot be is left out, or ends the reading. */
import { describe, expect, test } from "vitest";
import { type Client, packClients, unpackClients } from "../../firmware-ts/wire/clients.ts";

const addresses = ["fd00::9", "10.0.0.9"];
const four: Client = {
  localAddress: "10.0.0.9",
  localPort: 2049,
  remoteAddress: "10.0.0.11",
  remotePort: 0x0102,
};
const six: Client = {
  localAddress: "fd00::9",
  localPort: 445,
  remoteAddress: "fd00::b",
  remotePort: 0x03ff,
};
const fourHex = "00 0102 0a00000b";
const sixHex = "11 03ff fd00000000000000000000000000000b";
const packed = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex").toString("base64");

describe("a packed list of clients", () => {
  test("is for each the service, the index of its address in sorted order, its port and its address, in base64", () => {
    const text = packed(fourHex + sixHex);
    expect(packClients([four, six], addresses, 1000)).toEqual({ text, left: 0 });
    expect(unpackClients(text, addresses)).toEqual([four, six]);
  });

  test("takes addresses in any spelling for the same", () => {
    const spelt = { ...six, localAddress: "FD00:0::9", remoteAddress: "fd00:0:0:0:0:0:0:b" };
    const { text } = packClients([spelt], ["10.0.0.9", "fd00:0:0::9"], 1000);
    expect(text).toBe(packed(sixHex));
    expect(unpackClients(text, ["10.0.0.9", "fd00:0:0::9"])).toEqual([six]);
  });

  test("counts an address that is none as no address of the server", () => {
    const strange = { ...four, localAddress: "alpha" };
    expect(packClients([strange, six], ["beta", ...addresses], 1000)).toEqual({
      text: packed(sixHex),
      left: 1,
    });
    expect(unpackClients(packed(sixHex), ["beta", ...addresses])).toEqual([six]);
  });

  test("counts a port that is no file service's as no client", () => {
    expect(packClients([{ ...four, localPort: 22 }, six], addresses, 1000)).toEqual({
      text: packed(sixHex),
      left: 1,
    });
  });

  test("holds what its room holds to the last character, and later clients that are smaller", () => {
    const text = packed(fourHex + fourHex);
    const whole = text.length;
    expect(packClients([four, four], addresses, whole)).toEqual({ text, left: 0 });
    expect(packClients([four, four], addresses, whole - 1).left).toBe(1);
    expect(packClients([six, four], addresses, 12)).toEqual({ text: packed(fourHex), left: 1 });
    expect(packClients([four], addresses, 11)).toEqual({ text: "", left: 1 });
  });
});

describe("reading ends at the first thing that cannot be", () => {
  test.each([
    ["a client that was cut in its address", `${fourHex} 00 0102 0a0000`],
    ["a client that was cut in its port", `${fourHex} 00 01`],
    ["a client of IPv6 with the length of IPv4", `${fourHex} 01 0102 0a00000b`],
    ["a service that there is not", `${fourHex} 20 0102 0a00000b ${fourHex}`],
    ["an address that the server does not have", `${fourHex} 02 0102 0a00000b ${fourHex}`],
    ["port 0", `${fourHex} 00 0000 0a00000b ${fourHex}`],
  ])("%s", (_, hex) => {
    expect(unpackClients(packed(hex), addresses)).toEqual([four]);
  });

  test("nothing is no client", () => {
    expect(unpackClients("", addresses)).toEqual([]);
    expect(unpackClients(packed(fourHex), [])).toEqual([]);
  });
});
