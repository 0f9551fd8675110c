import { describe, expect, test } from "vitest";
import { parseReply } from "../../hal/linux/tcp-diag.ts";

/** A struct inet_diag_msg of an established connection: what the kernel (6.18) sent for one, addresses replaced. */
function reply(family: number, source: string, peer: string): Buffer {
  const body = Buffer.alloc(72);
  body[0] = family;
  body[1] = 1;
  body.writeUInt16BE(2049, 4);
  body.writeUInt16BE(41_668, 6);
  body.write(source, 8, "hex");
  body.write(peer, 24, "hex");
  return body;
}

describe("connections of the kernel", () => {
  test("IPv4", () => {
    expect(parseReply(reply(2, "0a090032", "0a090002"))).toEqual({
      localAddress: "10.9.0.50",
      localPort: 2049,
      remoteAddress: "10.9.0.2",
      remotePort: 41_668,
    });
  });

  test("IPv6, and IPv4 seen by a socket of both families", () => {
    const six = reply(10, "fdfd0009000000000000000000000050", "fdfd0009000000000000000000000002");
    expect(parseReply(six).localAddress).toBe("fdfd:9::50");
    const mapped = reply(
      10,
      "00000000000000000000ffff0a090032",
      "00000000000000000000ffff0a090002",
    );
    expect(parseReply(mapped)).toMatchObject({
      localAddress: "10.9.0.50",
      remoteAddress: "10.9.0.2",
    });
  });
});
