/**
 * The tickle, as ctdb has it: an ACK that is out of the client's window makes the client's stack send its own true ACK
 * (RFC 9293 3.10.7.4), for which our kernel has no connection and sends a reset whose sequence number the
 * client accepts. The client then reconnects at once instead of waiting for its retransmission timer.
 */

import { parseAddress } from "../../firmware-ts/schema/ip-address.ts";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Connection } from "../port/addresses.ts";
import { internetChecksum } from "./checksum.ts";
import { AF_INET, AF_INET6 } from "./syscalls.ts";

export interface TicklePacket {
  readonly family: 4 | 6;
  /** IP header and TCP header. */
  readonly packet: Buffer;
  /** The sockaddr for a raw socket; the port in it is 0. */
  readonly destination: Buffer;
}

const protocolTcp = 6;

/** Fault `badInput` when the two addresses are not of one family, or a port is none. */
export function ticklePacket(connection: Connection): Outcome<TicklePacket> {
  const local = parseAddress(connection.localAddress);
  const remote = parseAddress(connection.remoteAddress);
  const ports = [connection.localPort, connection.remotePort];
  if (!local || !remote || local.family !== remote.family || !ports.every(isPort)) {
    return failed("badInput", "tickle", `no TCP connection: ${JSON.stringify(connection)}`);
  }
  const tcp = acknowledgement(connection);
  const addresses = Buffer.concat([local.bytes, remote.bytes]);
  const pseudoTail = Buffer.alloc(4);
  pseudoTail[1] = protocolTcp;
  pseudoTail.writeUInt16BE(tcp.length, 2);
  tcp.writeUInt16BE(internetChecksum(addresses, pseudoTail, tcp), 16);
  const head = local.family === 4 ? head4(addresses, tcp.length) : head6(addresses, tcp.length);
  return good({
    family: local.family,
    packet: Buffer.concat([head, tcp]),
    destination: destination(remote.family, remote.bytes),
  });
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port > 0 && port <= 0xffff;
}

/** Sequence and acknowledgement 0 are outside of the window of all but one connection in some ten thousand. */
function acknowledgement({ localPort, remotePort }: Connection): Buffer {
  const tcp = Buffer.alloc(20);
  tcp.writeUInt16BE(localPort, 0);
  tcp.writeUInt16BE(remotePort, 2);
  tcp[12] = 5 << 4;
  tcp[13] = 0x10; // ACK
  tcp.writeUInt16BE(1024, 14);
  return tcp;
}

function head4(addresses: Buffer, payloadBytes: number): Buffer {
  const head = Buffer.concat([Buffer.from("450000000000400040060000", "hex"), addresses]);
  head.writeUInt16BE(head.length + payloadBytes, 2);
  head.writeUInt16BE(internetChecksum(head), 10);
  return head;
}

function head6(addresses: Buffer, payloadBytes: number): Buffer {
  const head = Buffer.concat([Buffer.from("6000000000000640", "hex"), addresses]);
  head.writeUInt16BE(payloadBytes, 4);
  return head;
}

function destination(family: 4 | 6, bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(family === 4 ? 16 : 28);
  out.writeUInt16LE(family === 4 ? AF_INET : AF_INET6, 0);
  out.set(bytes, family === 4 ? 4 : 8);
  return out;
}
