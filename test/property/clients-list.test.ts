/** Packed lists of clients: whatever is told arrives, within the room of a message, and nothing is believed that cannot be. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { messageBytesMax, virtualServersMax } from "../../firmware-ts/schema/beat.ts";
import {
  clientsCharsMax,
  decodeMessage,
  encodeMessage,
} from "../../firmware-ts/schema/messages.ts";
import { type Client, packClients, unpackClients } from "../../firmware-ts/wire/clients.ts";

const addresses = ["10.77.0.100", "fd77::100", "10.77.0.20"];
const remotePort = fc.integer({ min: 1, max: 65_535 });
const localPort = fc.constantFrom(2049, 445);
const client = fc.oneof(
  fc.record({
    localAddress: fc.constantFrom("10.77.0.100", "10.77.0.20"),
    localPort,
    remoteAddress: fc.ipV4(),
    remotePort,
  }),
  fc.record({
    localAddress: fc.constant("fd77::100"),
    localPort,
    remoteAddress: fc
      .nat(0xffff)
      .map((last) => (last === 0 ? "fd77::" : `fd77::${last.toString(16)}`)),
    remotePort,
  }),
);
const unlimited = 1_000_000;

describe("a packed list of clients", () => {
  test("is the same list on a controller whose configuration names the addresses in another order", () => {
    fc.assert(
      fc.property(fc.array(client), (clients) => {
        const { text, left } = packClients(clients, addresses, unlimited);
        expect(left).toBe(0);
        expect(unpackClients(text, addresses.toReversed())).toEqual(clients);
      }),
    );
  });

  test("that is too long is cut, counted, and fits a message of the beats", () => {
    const many = fc.array(client, { minLength: 20, maxLength: 200, size: "max" });
    fc.assert(
      fc.property(many, (clients) => {
        const { text, left } = packClients(clients, addresses, clientsCharsMax);
        const told = unpackClients(text, addresses);
        expect(told.length + left).toBe(clients.length);
        const go = { type: "go", server: virtualServersMax - 1, clients: text } as const;
        expect(encodeMessage(go).length).toBeLessThanOrEqual(messageBytesMax);
        expect(decodeMessage(encodeMessage(go))).toEqual(go);
      }),
    );
  });

  test("holds thirty clients of IPv4", () => {
    const clients: Client[] = Array.from({ length: 31 }, (_, i) => ({
      localAddress: "10.77.0.100",
      localPort: 2049,
      remoteAddress: `10.77.1.${i}`,
      remotePort: 700 + i,
    }));
    expect(packClients(clients, addresses, clientsCharsMax).left).toBe(1);
  });

  test("leaves out what is no client of these addresses", () => {
    const at = { localAddress: "10.77.0.100", localPort: 2049, remotePort: 700 };
    const strange: Client[] = [
      { ...at, localAddress: "10.77.0.99", remoteAddress: "10.77.0.11" },
      { ...at, remoteAddress: "fd77::1" },
      { ...at, remoteAddress: "x" },
    ];
    expect(packClients(strange, addresses, unlimited)).toEqual({ text: "", left: 3 });
  });

  test("of any other bytes is read without harm", () => {
    // Bytes whose first is a service and the index of an address get further than others do.
    const any = fc
      .tuple(
        fc.constantFrom(0, 1, 2, 3, 16, 17, 18, 19, 32),
        fc.uint8Array({ maxLength: 200, size: "max" }),
      )
      .map(([index, bytes]) => Buffer.from([index, ...bytes]).toString("base64"));
    fc.assert(
      fc.property(fc.oneof(any, fc.string({ maxLength: clientsCharsMax, size: "max" })), (text) => {
        for (const { localAddress, remotePort: port } of unpackClients(text, addresses)) {
          expect(addresses).toContain(localAddress);
          expect(port).toBeGreaterThan(0);
        }
      }),
    );
  });
});
