/**
 * Floating addresses on the data NIC by rtnetlink, packet and raw sockets: no process is started, nothing is waited for.
 *
 * Obligations. Announcements and tickles pass the address gate's egress hook: the gate has to be open first. Sockets
 * live in the network namespace in which `createAddresses` was called.
 */
import { closeSync, existsSync, openSync, readFile } from "node:fs";
import { promisify } from "node:util";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Addresses, Connection } from "../port/addresses.ts";
import { announcement } from "./announce.ts";
import { formatAddress, type IpAddress, parseAddress } from "./ip-address.ts";
import { NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import { PacketSocket } from "./packet-socket.ts";
import { parseProcTcp } from "./proc-tcp.ts";
import { addAddress, getLink, linkGroup, listAddresses, removeAddress } from "./rtnetlink.ts";
import { closeDescriptor, errorName, openSocket, SOCK_RAW, sendTo } from "./syscalls.ts";
import { ticklePacket } from "./tickle.ts";

/** RFC 791 and 8200 raw sockets with our own headers: IPPROTO_RAW implies IP_HDRINCL (raw(7)). */
const rawDomain = { 4: 2, 6: 10 } as const;
const IPPROTO_RAW = 255;

/** Waiting times of repeated announcements: doubled each time, for switches that drop a burst of broadcasts. */
const repeatMsMin = 50;
const repeatMsMax = 1000;
const announcementsMax = 20;
const connectionsMax = 65_536;
const carrierPollMs = 10;

class LinuxAddresses implements Addresses {
  readonly #socket: NetlinkSocket;
  /** Removals take turns on a socket of their own, so that nothing else waits for them. */
  readonly #slowSocket: NetlinkSocket;
  #removal: Promise<unknown> = Promise.resolve();
  /** Announcements still to be repeated, by canonical address. */
  readonly #repeats = new Map<string, () => void>();

  constructor(socket: NetlinkSocket, slowSocket: NetlinkSocket) {
    this.#socket = socket;
    this.#slowSocket = slowSocket;
  }

  async add(nic: string, address: string, prefixLength: number): Promise<Outcome> {
    const wanted = parse(address, prefixLength, "add address");
    if (!wanted.ok) return wanted;
    const link = getLink(this.#socket, nic);
    if (!link.ok) return link;
    const { index } = link.value;
    const added = addAddress(this.#socket, { link: index, address: wanted.value, prefixLength });
    const what = `${address}/${prefixLength} on ${nic}`;
    return added.ok ? added : failed("addressFailed", "add address", what, added.fault);
  }

  async remove(nic: string, address: string, prefixLength: number): Promise<Outcome> {
    const wanted = parse(address, prefixLength, "remove address");
    if (!wanted.ok) return wanted;
    this.#stopRepeats(wanted.value);
    const link = getLink(this.#socket, nic);
    if (!link.ok) return link;
    const unwanted = { link: link.value.index, address: wanted.value, prefixLength };
    const removal = this.#removal.then(() => removeAddress(this.#slowSocket, unwanted));
    this.#removal = removal;
    const removed = await removal;
    const what = `${address}/${prefixLength} on ${nic}`;
    return removed.ok ? removed : failed("addressFailed", "remove address", what, removed.fault);
  }

  async list(nic: string): Promise<Outcome<readonly string[]>> {
    const link = getLink(this.#socket, nic);
    return link.ok ? listAddresses(this.#socket, link.value.index) : link;
  }

  async announce(nic: string, address: string, count: number): Promise<Outcome> {
    const operation = "announce address";
    const parsed = parseAddress(address);
    if (!parsed) return failed("badInput", operation, `"${address}" is no IP address`);
    if (!Number.isInteger(count) || count < 1 || count > announcementsMax) {
      return failed("badInput", operation, `count ${count}, expected 1 to ${announcementsMax}`);
    }
    const link = getLink(this.#socket, nic);
    if (!link.ok) return link;
    const opened = PacketSocket.open(nic, { listen: false });
    if (!opened.ok) return failed("addressFailed", operation, address, opened.fault);
    const frames = announcement(parsed, link.value.mac);
    const first = sendAll(opened.value, frames);
    if (!first.ok || count === 1) opened.value.close();
    if (!first.ok) return failed("addressFailed", operation, address, first.fault);
    this.#stopRepeats(parsed);
    if (count > 1) this.#repeat(parsed, opened.value, frames, count - 1);
    return done;
  }

  async tickle(_nic: string, connections: readonly Connection[]): Promise<Outcome> {
    if (connections.length > connectionsMax) {
      return failed("badInput", "tickle", `${connections.length} connections`);
    }
    const sockets = new Map<4 | 6, number>();
    try {
      return tickleAll(connections, sockets);
    } finally {
      for (const descriptor of sockets.values()) closeDescriptor(descriptor);
    }
  }

  async connections(
    addresses: readonly string[],
    port: number,
  ): Promise<Outcome<readonly Connection[]>> {
    const wanted = new Set(addresses.map(canonical));
    try {
      // A kernel without IPv6 has no tcp6.
      const tables = ["tcp", "tcp6"].map(procNet).filter((path) => existsSync(path));
      const texts = await Promise.all(tables.map(readTable));
      const all = texts.flatMap(parseProcTcp);
      return good(all.filter((item) => item.localPort === port && wanted.has(item.localAddress)));
    } catch (error) {
      return failed("ioError", "list connections", "cannot read /proc/net/tcp", error);
    }
  }

  watchCarrier(nic: string, handler: (up: boolean) => void): () => void {
    // The kernel tells of changes; reading an empty queue a hundred times a second costs less than 0.1 % of a core.
    const events = NetlinkSocket.open(netlinkProtocol.route, linkGroup);
    let last: boolean | undefined;
    const look = () => {
      const link = getLink(this.#socket, nic);
      const up = link.ok && link.value.carrier;
      if (up === last) return;
      last = up;
      handler(up);
    };
    const poll = () => {
      const drained = events.ok ? events.value.drain() : undefined;
      // Lost events, or none to be had: look for oneself.
      if (!drained?.ok || drained.value.length > 0) look();
    };
    look();
    const timer = setInterval(poll, carrierPollMs);
    let watching = true;
    return () => {
      clearInterval(timer);
      // A descriptor closed twice may be somebody else's by then.
      if (watching && events.ok) events.value.close();
      watching = false;
    };
  }

  /** Goes on in the background until done, or until another call concerns the same address. */
  #repeat(address: IpAddress, socket: PacketSocket, frames: readonly Uint8Array[], count: number) {
    const key = formatAddress(address.bytes);
    let timer: NodeJS.Timeout;
    const stop = () => {
      clearTimeout(timer);
      socket.close();
      this.#repeats.delete(key);
    };
    const again = (left: number, waitMs: number) => {
      timer = setTimeout(() => {
        // A refusal here is the gate's: the address went elsewhere meanwhile.
        sendAll(socket, frames);
        if (left <= 1) stop();
        else again(left - 1, Math.min(repeatMsMax, waitMs * 2));
      }, waitMs).unref();
    };
    this.#repeats.set(key, stop);
    again(count, repeatMsMin);
  }

  #stopRepeats(address: IpAddress): void {
    this.#repeats.get(formatAddress(address.bytes))?.();
  }
}

function parse(address: string, prefixLength: number, operation: string): Outcome<IpAddress> {
  const parsed = parseAddress(address);
  if (!parsed) return failed("badInput", operation, `"${address}" is no IP address`);
  const longest = parsed.bytes.length * 8;
  if (Number.isInteger(prefixLength) && prefixLength > 0 && prefixLength <= longest) {
    return good(parsed);
  }
  return failed("badInput", operation, `prefix length ${prefixLength}, expected 1 to ${longest}`);
}

function canonical(address: string): string {
  const parsed = parseAddress(address);
  return parsed ? formatAddress(parsed.bytes) : address;
}

function sendAll(socket: PacketSocket, frames: readonly Uint8Array[]): Outcome {
  for (const frame of frames) {
    const sent = socket.send(frame);
    if (!sent.ok) return sent;
  }
  return done;
}

const procNet = (name: string) => `/proc/thread-self/net/${name}`;

/**
 * Reads a table of the caller's network namespace, which is settled when the file is opened, on this thread. Reading
 * walks the kernel's whole hash table, some ms however few connections there are: not on this thread.
 */
async function readTable(path: string): Promise<string> {
  const descriptor = openSync(path, "r");
  try {
    return await promisify(readFile)(descriptor, "latin1");
  } finally {
    closeSync(descriptor);
  }
}

/** Sends all, though some may fail: each client that is spared its timer is a gain. Opens raw sockets into `sockets`. */
function tickleAll(connections: readonly Connection[], sockets: Map<4 | 6, number>): Outcome {
  let first: Outcome = done;
  for (const connection of connections) {
    const sent = tickleOne(connection, sockets);
    if (!sent.ok && first.ok) first = sent;
  }
  return first;
}

function tickleOne(connection: Connection, sockets: Map<4 | 6, number>): Outcome {
  const made = ticklePacket(connection);
  if (!made.ok) return made;
  const { family, packet, destination } = made.value;
  const descriptor = sockets.get(family) ?? openSocket(rawDomain[family], SOCK_RAW, IPPROTO_RAW);
  if (descriptor < 0) {
    return failed("addressFailed", "tickle", `raw socket: ${errorName(descriptor)}`);
  }
  sockets.set(family, descriptor);
  const sent = sendTo(descriptor, packet, destination);
  if (sent >= 0) return done;
  const peer = `${connection.remoteAddress} port ${connection.remotePort}`;
  return failed("addressFailed", "tickle", `${peer}: ${errorName(sent)}`);
}

/** Works in the caller's network namespace. Fault `addressFailed` without netlink. */
export function createAddresses(): Outcome<Addresses> {
  const socket = NetlinkSocket.open(netlinkProtocol.route);
  const slowSocket = NetlinkSocket.open(netlinkProtocol.route);
  if (socket.ok && slowSocket.ok) return good(new LinuxAddresses(socket.value, slowSocket.value));
  const fault = [socket, slowSocket].find((opened) => !opened.ok);
  return failed("addressFailed", "create addresses", "no netlink", fault);
}
