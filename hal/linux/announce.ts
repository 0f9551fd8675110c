/**
 * Frames that tell a network segment where an address is now: gratuitous ARP (RFC 5227 section 3, and RFC 5944
 * 4.6 for the reply form) and unsolicited neighbour advertisements (RFC 4861 7.2.6).
 */

import type { IpAddress } from "../../firmware-ts/schema/ip-address.ts";
import { internetChecksum } from "./checksum.ts";

const macBytes = 6;
const broadcast = Buffer.alloc(macBytes, 0xff);
const allNodesMac = Buffer.from("333300000001", "hex");
const allNodes = Buffer.from("ff020000000000000000000000000001", "hex");

/** All frames of one announcement: some stacks learn from ARP requests only, some from replies only. */
export function announcement(address: IpAddress, mac: Uint8Array): Buffer[] {
  if (mac.length !== macBytes) throw new RangeError(`MAC address of ${mac.length} bytes`);
  if (address.family === 4) {
    return [
      gratuitousArp(1, address.bytes, mac, Buffer.alloc(macBytes)),
      gratuitousArp(2, address.bytes, mac, broadcast),
    ];
  }
  return [neighborAdvertisement(address.bytes, mac)];
}

function gratuitousArp(
  operation: 1 | 2,
  address: Uint8Array,
  mac: Uint8Array,
  targetMac: Uint8Array,
): Buffer {
  return Buffer.concat([
    broadcast,
    mac,
    Buffer.from(`0806000108000604000${operation}`, "hex"),
    mac,
    address,
    targetMac,
    address,
  ]);
}

function neighborAdvertisement(address: Uint8Array, mac: Uint8Array): Buffer {
  const override = 0x20;
  const body = Buffer.concat([
    Uint8Array.of(136, 0, 0, 0, override, 0, 0, 0),
    address,
    Uint8Array.of(2, 1), // target link-layer address option
    mac,
  ]);
  const pseudoTail = Buffer.alloc(8);
  pseudoTail.writeUInt32BE(body.length, 0);
  pseudoTail[7] = 58;
  body.writeUInt16BE(internetChecksum(address, allNodes, pseudoTail, body), 2);
  const head = Buffer.from("6000000000003aff", "hex");
  head.writeUInt16BE(body.length, 4);
  return Buffer.concat([
    allNodesMac,
    mac,
    Buffer.from("86dd", "hex"),
    head,
    address,
    allNodes,
    body,
  ]);
}
