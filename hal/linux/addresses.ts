/**
 * Floating addresses on the data NIC by rtnetlink, packet and raw sockets: no process is started, nothing is waited for.
 *
 * Obligations. Announcements and tickles pass the address gate's egress hook: the gate has to be open first. Sockets
 * live in the network namespace in which `createAddresses` was called.
 */

import {
  formatAddress,
  type IpAddress,
  parseAddress,
} from "../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Addresses, Connection, PresentAddress } from "../port/addresses.ts";
import { type Announcing, beginAnnouncing, tickleOnce } from "./announcing.ts";
import { NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import {
  addAddress,
  getLink,
  getLinkLater,
  type LinkState,
  linkGroup,
  listAddresses,
  removeAddress,
} from "./rtnetlink.ts";
import { connectionsTo } from "./tcp-diag.ts";

const roundsMax = 20;
const connectionsMax = 65_536;

/**
 * The kernel tells of a carrier at once, unless it told of some other link within the last second: then it waits for the rest of it
 * (net/core/link_watch.c). Events are therefore no more than the fast way; looking costs 0.03 ms.
 */
const carrierEventsMs = 10;
const carrierLookMs = 20;
/** Looks that must fail in a row before a NIC counts as gone. */
const carrierFailuresMin = 3;

class LinuxAddresses implements Addresses {
  readonly #socket: NetlinkSocket;
  /** Removals take turns on a socket of their own, so that nothing else waits for them. */
  readonly #slowSocket: NetlinkSocket;
  #removal: Promise<unknown> = Promise.resolve();
  /** Lists of connections take turns on theirs. */
  readonly #listSocket: NetlinkSocket;
  #listing: Promise<unknown> = Promise.resolve();
  /** Announcements under way, by canonical address. */
  readonly #announcements = new Map<string, Announcing>();

  constructor(socket: NetlinkSocket, slowSocket: NetlinkSocket, listSocket: NetlinkSocket) {
    this.#socket = socket;
    this.#slowSocket = slowSocket;
    this.#listSocket = listSocket;
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
    this.#announcements.get(formatAddress(wanted.value.bytes))?.stop();
    const link = getLink(this.#socket, nic);
    if (!link.ok) return link;
    const unwanted = { link: link.value.index, address: wanted.value, prefixLength };
    const removal = this.#removal.then(() => removeAddress(this.#slowSocket, unwanted));
    this.#removal = removal;
    const removed = await removal;
    const what = `${address}/${prefixLength} on ${nic}`;
    return removed.ok ? removed : failed("addressFailed", "remove address", what, removed.fault);
  }

  async list(nic: string): Promise<Outcome<readonly PresentAddress[]>> {
    const link = getLink(this.#socket, nic);
    return link.ok ? listAddresses(this.#socket, link.value.index) : link;
  }

  async announce(nic: string, address: string, rounds: number): Promise<Outcome> {
    const operation = "announce address";
    const parsed = parseAddress(address);
    if (!parsed) return failed("badInput", operation, `"${address}" is no IP address`);
    if (!Number.isInteger(rounds) || rounds < 1 || rounds > roundsMax) {
      return failed("badInput", operation, `${rounds} rounds, expected 1 to ${roundsMax}`);
    }
    const link = getLink(this.#socket, nic);
    if (!link.ok) return link;
    const begun = beginAnnouncing(nic, link.value.mac, parsed, rounds);
    if (!begun.ok) return begun;
    const announcing = begun.value;
    const key = formatAddress(parsed.bytes);
    this.#announcements.get(key)?.stop();
    this.#announcements.set(key, announcing);
    void announcing.ended.then(() => {
      if (this.#announcements.get(key) === announcing) this.#announcements.delete(key);
    });
    return done;
  }

  async tickle(_nic: string, connections: readonly Connection[]): Promise<Outcome> {
    if (connections.length > connectionsMax) {
      return failed("badInput", "tickle", `${connections.length} connections`);
    }
    const byAddress = Map.groupBy(connections, (each) => canonical(each.localAddress));
    const outcomes = [...byAddress].map(
      ([address, its]) => this.#announcements.get(address)?.tickle(its) ?? tickleOnce(its),
    );
    return (await Promise.all(outcomes)).find((each) => !each.ok) ?? done;
  }

  async connections(
    addresses: readonly string[],
    port: number,
  ): Promise<Outcome<readonly Connection[]>> {
    const wanted = new Set(addresses.map(canonical));
    const listing = this.#listing.then(() => connectionsTo(this.#listSocket, port));
    this.#listing = listing.catch(() => undefined);
    const found = await listing;
    if (!found.ok) return found;
    const isOurs = ({ remoteAddress }: Connection) => wanted.has(remoteAddress);
    return good(found.value.filter((each) => wanted.has(each.localAddress) && !isOurs(each)));
  }

  close(): void {
    for (const announcing of this.#announcements.values()) announcing.stop();
    for (const socket of [this.#socket, this.#slowSocket, this.#listSocket]) socket.close();
  }

  watchCarrier(nic: string, handler: (up: boolean) => void): () => void {
    const events = NetlinkSocket.open(netlinkProtocol.route, linkGroup);
    // Looks go through a socket of their own, which carries one question at a time.
    const looks = NetlinkSocket.open(netlinkProtocol.route);
    let last: boolean | undefined;
    let watching = true;
    let looking = false;
    let lookAtMs = 0;
    let failures = 0;
    const tell = (link: Outcome<LinkState>) => {
      failures = link.ok ? 0 : failures + 1;
      // One look that fails, for want of memory say, must not move everything to the partner.
      if (last === true && failures > 0 && failures < carrierFailuresMin) return;
      const up = link.ok && link.value.carrier;
      if (up === last || !watching) return;
      last = up;
      handler(up);
    };
    const look = async (socket: NetlinkSocket) => {
      looking = true;
      const link = await getLinkLater(socket, nic);
      looking = false;
      if (watching) tell(link);
      else socket.close();
    };
    const poll = () => {
      const drained = events.ok ? events.value.drain() : undefined;
      // Lost events, or none to be had: look for oneself.
      const due = !drained?.ok || drained.value.length > 0 || performance.now() >= lookAtMs;
      if (!due || looking) return;
      lookAtMs = performance.now() + carrierLookMs;
      if (looks.ok) void look(looks.value);
      else tell(getLink(this.#socket, nic));
    };
    tell(getLink(this.#socket, nic));
    const timer = setInterval(poll, carrierEventsMs);
    return () => {
      clearInterval(timer);
      // A descriptor closed twice may be somebody else's by then.
      if (watching && events.ok) events.value.close();
      if (watching && looks.ok && !looking) looks.value.close();
      watching = false;
    };
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

/** Works in the caller's network namespace. Fault `addressFailed` without netlink. */
export function createAddresses(): Outcome<Addresses> {
  const socket = NetlinkSocket.open(netlinkProtocol.route);
  const slowSocket = NetlinkSocket.open(netlinkProtocol.route);
  const listSocket = NetlinkSocket.open(netlinkProtocol.sockDiag);
  if (socket.ok && slowSocket.ok && listSocket.ok)
    return good(new LinuxAddresses(socket.value, slowSocket.value, listSocket.value));
  const fault = [socket, slowSocket, listSocket].find((opened) => !opened.ok);
  return failed("addressFailed", "create addresses", "no netlink", fault);
}
