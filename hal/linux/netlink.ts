/**
 * Netlink: messages to and from the kernel (RFC 3549; <linux/netlink.h>), for routes, links, sockets and the packet filter.
 *
 * Glossary. *attribute*: type, length and payload, padded to four bytes. *dump*: an answer of many messages that ends
 * with DONE. *acknowledgement*: an ERROR message whose number is 0.
 *
 * Obligations. The kernel answers a request before sendto(2) returns, so `transact` never waits: a missing
 * answer is a fault, not a reason to block the caller's clock.
 */
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  AF_NETLINK,
  bindSocket,
  closeDescriptor,
  errno,
  errorName,
  openSocket,
  receive,
  SOCK_RAW,
  sendTo,
  sendToLater,
  setSocketOption,
} from "./syscalls.ts";

/** <linux/netlink.h> */
export const netlinkProtocol = { route: 0, sockDiag: 4, netfilter: 12 } as const;
export const messageFlag = {
  request: 0x1,
  acknowledge: 0x4,
  replace: 0x100,
  excl: 0x200,
  dump: 0x300,
  create: 0x400,
  append: 0x800,
} as const;
/** Makes what must not be there yet. */
export const makeNew = messageFlag.acknowledge | messageFlag.create | messageFlag.excl;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;

const headerBytes = 16;
const attributeHeaderBytes = 4;
const receiveBytesMax = 65_536;
/** A dump of more datagrams than this is not one of ours. */
const datagramsMax = 256;

export interface NetlinkMessage {
  readonly type: number;
  readonly sequence: number;
  readonly body: Buffer;
}

/** What the kernel said to one request or batch. */
export interface NetlinkAnswer {
  readonly messages: readonly NetlinkMessage[];
  /** Error number (positive) by sequence number of the refused message. */
  readonly refusals: ReadonlyMap<number, number>;
}

function aligned(length: number): number {
  return (length + 3) & ~3;
}

/** One message; `flags` gets REQUEST by itself. */
export function message(type: number, flags: number, sequence: number, body: Uint8Array): Buffer {
  const out = Buffer.alloc(aligned(headerBytes + body.length));
  out.writeUInt32LE(headerBytes + body.length, 0);
  out.writeUInt16LE(type, 4);
  out.writeUInt16LE(flags | messageFlag.request, 6);
  out.writeUInt32LE(sequence, 8);
  out.set(body, headerBytes);
  return out;
}

export function attribute(type: number, payload: Uint8Array): Buffer {
  const length = attributeHeaderBytes + payload.length;
  const out = Buffer.alloc(aligned(length));
  out.writeUInt16LE(length, 0);
  out.writeUInt16LE(type, 2);
  out.set(payload, attributeHeaderBytes);
  return out;
}

export function nested(type: number, ...children: readonly Uint8Array[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(children));
}

/** A string attribute ends with a zero byte. */
export function textAttribute(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`));
}

/** A number as rtnetlink has it, in the machine's order. */
export function uint32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

/** Attributes by type. Damaged lengths end the walk: the kernel does not send any. */
export function attributesOf(bytes: Buffer): Map<number, Buffer> {
  return new Map(attributeList(bytes));
}

/** As `attributesOf`, for lists that repeat a type. */
export function attributeList(bytes: Buffer): [type: number, payload: Buffer][] {
  const list: [number, Buffer][] = [];
  for (let at = 0; at + attributeHeaderBytes <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < attributeHeaderBytes || at + length > bytes.length) break;
    const type = bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK;
    list.push([type, bytes.subarray(at + attributeHeaderBytes, at + length)]);
    at += aligned(length);
  }
  return list;
}

function messagesOf(datagram: Buffer): NetlinkMessage[] {
  const list: NetlinkMessage[] = [];
  for (let at = 0; at + headerBytes <= datagram.length; ) {
    const length = datagram.readUInt32LE(at);
    if (length < headerBytes || at + length > datagram.length) break;
    list.push({
      type: datagram.readUInt16LE(at + 4),
      sequence: datagram.readUInt32LE(at + 8),
      body: datagram.subarray(at + headerBytes, at + length),
    });
    at += aligned(length);
  }
  return list;
}

function socketAddress(groups: number): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(groups, 8);
  return address;
}

/** A socket to the kernel, in the network namespace in which it was opened. */
export class NetlinkSocket {
  readonly #descriptor: number;
  readonly #buffer = Buffer.alloc(receiveBytesMax);
  #sequence = 0;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** `groups` is the mask of multicast groups to hear. Fault `ioError`. */
  static open(protocol: number, groups = 0): Outcome<NetlinkSocket> {
    const descriptor = openSocket(AF_NETLINK, SOCK_RAW, protocol);
    if (descriptor < 0) {
      return failed("ioError", "open netlink socket", `socket: ${errorName(descriptor)}`);
    }
    // Refusals then carry the header of the refused message only, not all of it.
    setSocketOption(descriptor, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    const bound = bindSocket(descriptor, socketAddress(groups));
    if (bound < 0) {
      closeDescriptor(descriptor);
      return failed("ioError", "open netlink socket", `bind: ${errorName(bound)}`);
    }
    return good(new NetlinkSocket(descriptor));
  }

  /** For whoever waits for messages that come by themselves; it stays ours. */
  get descriptor(): number {
    return this.#descriptor;
  }

  nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0;
    return this.#sequence;
  }

  /**
   * Sends a request or batch and collects answers up to the acknowledgement, refusal or end of dump of message
   * `last`. Fault `ioError` when the kernel takes or says nothing; refusals are part of the answer.
   */
  transact(request: Uint8Array, last: number): Outcome<NetlinkAnswer> {
    return this.#answer(sendTo(this.#descriptor, request, socketAddress(0)), last);
  }

  /** As `transact`, without blocking the caller while the kernel works. One at a time on a socket. */
  async transactLater(request: Uint8Array, last: number): Promise<Outcome<NetlinkAnswer>> {
    return this.#answer(await sendToLater(this.#descriptor, request, socketAddress(0)), last);
  }

  #answer(sent: number, last: number): Outcome<NetlinkAnswer> {
    if (sent < 0) return failed("ioError", "netlink request", `sendto: ${errorName(sent)}`);
    const messages: NetlinkMessage[] = [];
    const refusals = new Map<number, number>();
    for (let datagrams = 0; datagrams < datagramsMax; datagrams++) {
      const datagram = this.#receive();
      if (typeof datagram === "number") {
        // A refused batch may end without a word about its last message.
        if (datagram === -errno.EAGAIN && refusals.size > 0) return good({ messages, refusals });
        return failed("ioError", "netlink request", `recv: ${errorName(datagram)}`);
      }
      if (gather(datagram, last, messages, refusals)) {
        return good({ messages, refusals });
      }
    }
    return failed("ioError", "netlink request", `more than ${datagramsMax} datagrams`);
  }

  /** Messages that came by themselves, without waiting. A fault means that some were lost (ENOBUFS) or the socket is. */
  drain(): Outcome<readonly NetlinkMessage[]> {
    const messages: NetlinkMessage[] = [];
    for (let datagrams = 0; datagrams < datagramsMax; datagrams++) {
      const datagram = this.#receive();
      if (datagram === -errno.EAGAIN) break;
      if (typeof datagram === "number") {
        return failed("ioError", "netlink events", `recv: ${errorName(datagram)}`);
      }
      messages.push(...messagesOf(datagram));
    }
    return good(messages);
  }

  close(): void {
    closeDescriptor(this.#descriptor);
  }

  #receive(): Buffer | number {
    const length = receive(this.#descriptor, this.#buffer);
    return length < 0 ? length : Buffer.from(this.#buffer.subarray(0, length));
  }
}

/** Sorts one datagram's messages; true when the answer is complete. Answers to earlier requests are ignored. */
function gather(
  datagram: Buffer,
  last: number,
  messages: NetlinkMessage[],
  refusals: Map<number, number>,
): boolean {
  let complete = false;
  for (const item of messagesOf(datagram)) {
    const ends = item.type === NLMSG_ERROR || item.type === NLMSG_DONE;
    if (!ends) {
      if (item.sequence === last) messages.push(item);
      continue;
    }
    // Both carry an error number; the end of a dump may leave it out.
    const number = item.body.length >= 4 ? -item.body.readInt32LE(0) : 0;
    if (number !== 0) refusals.set(item.sequence, number);
    if (item.sequence === last) complete = true;
  }
  return complete;
}
