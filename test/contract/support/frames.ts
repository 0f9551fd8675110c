/** Ethernet frames that a client would send to an address, and what of the answers counts as that address speaking. */
import { parseAddress } from "../../../firmware-ts/schema/ip-address.ts";

const broadcast = Buffer.alloc(6, 0xff);

function bytesOf(address: string): Buffer {
  const parsed = parseAddress(address);
  if (!parsed) throw new Error(`no address: ${address}`);
  return Buffer.from(parsed.bytes);
}

function sum(...parts: readonly Buffer[]): Buffer {
  let total = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) total += (part[i] ?? 0) * 256 + (part[i + 1] ?? 0);
  }
  while (total > 0xffff) total = (total >> 16) + (total & 0xffff);
  const out = Buffer.alloc(2);
  out.writeUInt16BE(~total & 0xffff);
  return out;
}

export interface Host {
  readonly mac: Buffer;
  readonly address: string;
}

export function macOf(text: string): Buffer {
  return Buffer.from(text.trim().replaceAll(":", ""), "hex");
}

/** RFC 826: who has `target`, asked by `from`. */
export function arpRequest(from: Host, target: string): Buffer {
  return Buffer.concat([
    broadcast,
    from.mac,
    Buffer.from("0806" + "0001080006040001", "hex"),
    from.mac,
    bytesOf(from.address),
    Buffer.alloc(6),
    bytesOf(target),
  ]);
}

/** RFC 792: echo request. */
export function echo4(from: Host, toMac: Buffer, target: string): Buffer {
  const icmp = Buffer.from("0800000012340001", "hex");
  sum(icmp).copy(icmp, 2);
  const ip = Buffer.concat([
    Buffer.from("4500001c000040004001" + "0000", "hex"),
    bytesOf(from.address),
    bytesOf(target),
  ]);
  sum(ip).copy(ip, 10);
  return Buffer.concat([toMac, from.mac, Buffer.from("0800", "hex"), ip, icmp]);
}

function icmp6(from: Host, toMac: Buffer, target: string, body: Buffer, hops: number): Buffer {
  const head = Buffer.from("60000000" + "0000" + "3a00", "hex");
  head.writeUInt16BE(body.length, 4);
  head[7] = hops;
  const addresses = Buffer.concat([bytesOf(from.address), bytesOf(target)]);
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(body.length, 0);
  pseudo[7] = 58;
  sum(addresses, pseudo, body).copy(body, 2);
  return Buffer.concat([toMac, from.mac, Buffer.from("86dd", "hex"), head, addresses, body]);
}

/** RFC 4443 4.1. */
export function echo6(from: Host, toMac: Buffer, target: string): Buffer {
  return icmp6(from, toMac, target, Buffer.from("8000000012340001", "hex"), 64);
}

/** RFC 4861 4.3: a neighbour solicitation to the solicited-node multicast address. */
export function solicitation(from: Host, target: string): Buffer {
  const last = bytesOf(target).subarray(13);
  const group = `ff02::1:ff${last[0]?.toString(16).padStart(2, "0")}:${last.subarray(1).toString("hex")}`;
  const groupMac = Buffer.concat([Buffer.from("3333ff", "hex"), last]);
  const body = Buffer.concat([
    Buffer.from("8700000000000000", "hex"),
    bytesOf(target),
    Buffer.from("0101", "hex"),
    from.mac,
  ]);
  return icmp6(from, groupMac, group, body, 255);
}

export type Speech = "arp" | "ip4" | "nd" | "ip6";

/** In what way the frame speaks for the address; undefined when it does not. */
export function speaksFor(frame: Uint8Array, address: string): Speech | undefined {
  const bytes = Buffer.from(frame);
  const own = bytesOf(address);
  const at = (offset: number) => bytes.subarray(offset, offset + own.length).equals(own);
  switch (bytes.readUInt16BE(12)) {
    case 0x0806:
      return at(28) ? "arp" : undefined;
    case 0x0800:
      return at(26) ? "ip4" : undefined;
    case 0x86dd:
      if (bytes[20] === 58 && bytes[54] === 136 && at(62)) return "nd";
      return at(22) ? "ip6" : undefined;
    default:
      return undefined;
  }
}
