/**
 * The place of one virtual server on a controller (US 7,200,622, claim 1: each virtual file server comprises a network processing unit, a
 * routing table, a mount table): a network namespace with its interface, its addresses and its routes, and for each of its programs
 * a mount namespace in which only its own volumes are.
 *
 * A place is made on both controllers when the virtual server is known, and stays; it is silent as long as no address is there, and an
 * address is silent as long as its gate, on the data NIC beneath, is closed.
 */
import { writeFileSync } from "node:fs";
import { parseAddress, parsePrefix } from "../../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { Addresses } from "../../port/addresses.ts";
import { createAddresses } from "../addresses.ts";
import type { Carrier } from "../carriers.ts";
import { NetlinkSocket, netlinkProtocol } from "../netlink.ts";
import { NetworkNamespace } from "../network-namespace.ts";
import { prepareNic } from "../nic.ts";
import type { Readiness } from "../readiness.ts";
import { getLink } from "../rtnetlink.ts";
import { addMacvlan, removeLink, setLink } from "../rtnetlink-links.ts";
import {
  addRoute,
  addRule,
  listRoutes,
  removeRoute,
  removeRule,
  removeRules,
} from "../rtnetlink-routes.ts";
import { AddressWatch } from "./address-watch.ts";
import { limitBandwidth } from "./bandwidth.ts";

/** The interface of every virtual server, in its own namespace. */
export const placeNic = "data0";

/** Rules of a virtual server come before the kernel's own (ip-rule(8): main is 32766). */
const rulePriority = 1000;

const settings6 = [
  // Routes and addresses are those of its record, not what somebody on the wire advertises.
  ["accept_ra", "0"],
  // No address of the link itself (addr_gen_mode of ip-sysctl): no gate rules over that one, and whatever listens at all addresses would answer.
  ["addr_gen_mode", "1"],
] as const;

export interface RouteSpec {
  /** A prefix, or `default`. */
  readonly to: string;
  /** The gateway; absent: the destination is on the link. */
  readonly via?: string | undefined;
  readonly table?: number | undefined;
}

export interface RuleSpec {
  readonly from: string;
  readonly table: number;
}

export interface PlaceSpec {
  /** Of the virtual server: letters, digits, dashes. */
  readonly name: string;
  /** What its interface is made on, in the controller's namespace; or why there is nothing. */
  readonly carrier: Outcome<Carrier>;
  readonly mac: Uint8Array;
  /** Where the namespace is held. */
  readonly holdPath: string;
}

export class Place {
  readonly #spec: PlaceSpec;
  readonly #namespace: NetworkNamespace;
  readonly #socket: NetlinkSocket;
  readonly #watch: AddressWatch;
  /** What `route` has put there, in the order in which it was asked for. */
  #routes: readonly RouteSpec[] = [];
  #rules: readonly RuleSpec[] = [];
  /** What `limitBandwidth` has put there; undefined: nobody knows, as when an earlier life may have left something. */
  #bandwidth: { readonly mbit: number | undefined } | undefined;
  #isClosed = false;
  /** Everything about addresses, in this place. */
  readonly addresses: Addresses;

  private constructor(spec: PlaceSpec, made: Made) {
    this.#spec = spec;
    this.#namespace = made.namespace;
    this.#socket = made.socket;
    this.#watch = new AddressWatch(placeNic);
    this.addresses = this.#watch.around(inside(made.namespace, made.addresses));
  }

  /**
   * Silences what an earlier life left at `holdPath`, if there is something: its interface is gone when this settles, with its addresses and
   * routes. It may be on another NIC than today's, where no gate is, or have the hardware address that today is another's.
   * `forever`: nothing is held there any more, either. Faults: `ioError`, `addressFailed`.
   */
  static async silence(holdPath: string, { forever }: { forever: boolean }): Promise<Outcome> {
    const found = NetworkNamespace.find(holdPath);
    if (!found.ok) return found;
    const namespace = found.value;
    if (!namespace) return done;
    const socket = namespace.inside(() => NetlinkSocket.open(netlinkProtocol.route));
    if (!socket.ok) {
      namespace.close();
      return socket;
    }
    const removed = await removeLink(socket.value, placeNic);
    socket.value.close();
    if (forever && removed.ok) return namespace.remove();
    namespace.close();
    return removed;
  }

  /**
   * Makes the place, in the namespace that an earlier life left if there is one; that has to be silent. Where there is nothing to make an interface
   * on, it is a place without one: nobody reaches it, and whoever wants to put an address there is told why. Faults: `ioError`, `addressFailed`.
   */
  static open(spec: PlaceSpec): Outcome<Place> {
    const namespace = NetworkNamespace.make(spec.holdPath);
    if (!namespace.ok) return namespace;
    const linked = spec.carrier.ok ? addLink(spec, spec.carrier.value, namespace.value) : done;
    if (!linked.ok) return linked;
    return namespace.value.inside((): Outcome<Place> => {
      const socket = NetlinkSocket.open(netlinkProtocol.route);
      if (!socket.ok) return socket;
      const prepared = prepare(socket.value, spec.carrier.ok);
      if (!prepared.ok) return prepared;
      // Rules are of the namespace, not of its interface: those of an earlier life are still there.
      const cleared = removeRules(socket.value, rulePriority);
      if (!cleared.ok) return cleared;
      const addresses = createAddresses();
      if (!addresses.ok) return addresses;
      const made = { namespace: namespace.value, socket: socket.value, addresses: addresses.value };
      return good(new Place(spec, made));
    });
  }

  /**
   * Tells when an address that was added is gone, or its interface is; and again as long as that is so. Fault `ioError`.
   */
  watchAddresses(readiness: Readiness, lost: (reason: string) => void): Outcome {
    return this.inside(() => this.#watch.listen(readiness, lost));
  }

  /**
   * Makes its interface what it was, should somebody have set it down or taken it away. Fault `addressFailed`.
   *
   * SAFETY: one that is made anew must be on the NIC that it was made on. Another one of that name has no gate.
   */
  restore(): Outcome {
    const { carrier } = this.#spec;
    if (!carrier.ok) return carrier;
    // Every start asks for this, and a question costs as much as everybody else who is changing a network takes.
    if (this.#watch.isSure) return done;
    const isGone = !getLink(this.#socket, placeNic).ok;
    if (isGone) {
      const linked = addLink(this.#spec, carrier.value, this.#namespace);
      if (!linked.ok) return linked;
    }
    const prepared = this.inside(() => prepare(this.#socket, true));
    if (!prepared.ok) return prepared;
    this.#watch.restored();
    if (isGone) this.#limitAnew();
    return done;
  }

  /** Does something synchronous in its network: sockets and processes that are made there stay there. */
  inside<T>(action: () => T): T {
    return this.#namespace.inside(action);
  }

  /**
   * Makes its routing table and its rules what they are to be, as far as its addresses are there: a gateway is found by one of them. What is there already is
   * left alone, what is no longer wanted is taken out. Of IPv4, a route stays when the address has gone by which its gateway was found. Faults: `badInput`,
   * `addressFailed`.
   */
  route(routes: readonly RouteSpec[], rules: readonly RuleSpec[]): Outcome {
    // Most have none. A question to the kernel takes its turn with all who change a network, and this is asked in every takeover.
    if ([routes, rules, this.#routes, this.#rules].every(({ length }) => length === 0)) return done;
    const link = getLink(this.#socket, placeNic);
    if (!link.ok) return link;
    const { index } = link.value;
    // The old ones first: a route to the same place by another gateway would be in the way. The last is first, for it may need one before it.
    const olds = this.#routes.filter((old) => !routes.some((each) => isSame(each, old)));
    for (const old of olds.toReversed()) {
      const removed = this.#changeRoute(removeRoute, old, index);
      if (!removed.ok) return removed;
      this.#routes = this.#routes.filter((each) => each !== old);
    }
    for (const old of this.#rules.filter((each) => !rules.some((rule) => isSame(rule, each)))) {
      const removed = this.#changeRule(removeRule, old);
      if (!removed.ok) return removed;
      this.#rules = this.#rules.filter((each) => each !== old);
    }
    for (const rule of rules) {
      const added = this.#changeRule(addRule, rule);
      if (!added.ok) return added;
      this.#rules = [...this.#rules.filter((each) => !isSame(each, rule)), rule];
    }
    for (const route of routes) {
      const added = this.#changeRoute(addRoute, route, index);
      if (!added.ok) return added;
      this.#routes = [...this.#routes.filter((each) => !isSame(each, route)), route];
    }
    return done;
  }

  /** Its routing table as the kernel has it now, a line for each route. Fault `addressFailed`. */
  routes(): Outcome<readonly string[]> {
    const link = getLink(this.#socket, placeNic);
    if (!link.ok) return link;
    return listRoutes(this.#socket, { link: link.value.index, nic: placeNic });
  }

  /**
   * Limits what its interface sends and receives; undefined: no more. Asks the kernel only for what it has not done yet. Faults: `addressFailed`,
   * `refused`.
   */
  limitBandwidth(mbit: number | undefined): Outcome {
    if (this.#bandwidth && this.#bandwidth.mbit === mbit) return done;
    const link = getLink(this.#socket, placeNic);
    if (!link.ok) return link;
    const nic = { name: placeNic, index: link.value.index };
    this.#bandwidth = undefined;
    const limited = this.inside(() => limitBandwidth(this.#socket, nic, mbit));
    if (limited.ok) this.#bandwidth = { mbit };
    return limited;
  }

  /** An interface that was made anew is without limit. What the kernel has taken once it takes again; if not, it keeps nobody from being served. */
  #limitAnew(): void {
    const former = this.#bandwidth;
    this.#bandwidth = undefined;
    if (former) this.limitBandwidth(former.mbit);
  }

  #changeRule(change: typeof addRule, { from: text, table }: RuleSpec): Outcome {
    const from = parsePrefix(text);
    if (!from) return failed("badInput", "change rule", `"${text}" is no prefix`);
    return change(this.#socket, { from, table, priority: rulePriority });
  }

  #changeRoute(change: typeof addRoute, { to, via, table }: RouteSpec, link: number): Outcome {
    const gateway = via === undefined ? undefined : parseAddress(via);
    const prefix = to === "default" ? undefined : parsePrefix(to);
    const family = gateway?.family ?? prefix?.address.family;
    const what = `${to} via ${via}`;
    if ((via !== undefined && !gateway) || (to !== "default" && !prefix) || family === undefined)
      return failed("badInput", "change route", what);
    const changed = change(this.#socket, { to: prefix, family, via: gateway, link, table });
    return changed.ok ? changed : failed("addressFailed", "change route", what, changed.fault);
  }

  /**
   * Ends it: its interface is gone when this settles, the rest with the last process in it. May be called again after a fault
   * (`addressFailed`, `ioError`).
   */
  async remove(): Promise<Outcome> {
    if (!this.#isClosed) {
      this.#watch.close();
      const removed = await removeLink(this.#socket, placeNic);
      if (!removed.ok) return removed;
      this.addresses.close();
      this.#socket.close();
      this.#isClosed = true;
    }
    return this.#namespace.remove();
  }
}

/** Both are plain values, and keys in one order. */
function isSame<T extends RouteSpec | RuleSpec>(one: T, other: T): boolean {
  return JSON.stringify(inOrder(one)) === JSON.stringify(inOrder(other));
}

const inOrder = (value: object) => Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));

interface Made {
  readonly namespace: NetworkNamespace;
  readonly socket: NetlinkSocket;
  readonly addresses: Addresses;
}

/** From the controller's namespace, where the carrier is. */
function addLink({ mac }: PlaceSpec, carrier: Carrier, { descriptor }: NetworkNamespace): Outcome {
  const socket = NetlinkSocket.open(netlinkProtocol.route);
  if (!socket.ok) return socket;
  const added = addLinkOn(socket.value, carrier, (parent) =>
    addMacvlan(socket.value, { parent, name: placeNic, mac, namespace: descriptor }),
  );
  socket.value.close();
  return added;
}

function addLinkOn(
  socket: NetlinkSocket,
  { name, index }: Carrier,
  add: (parent: number) => Outcome,
): Outcome {
  const found = getLink(socket, name);
  if (!found.ok) return found;
  if (found.value.index === index) return add(index);
  const why = `${name} is another one than at the start of the firmware, and has no gate`;
  return failed("addressFailed", `make ${placeNic}`, why);
}

/** Inside: settings first, so that the interface never speaks without them; then it is up, and so is the loopback. */
function prepare(socket: NetlinkSocket, hasNic: boolean): Outcome {
  const settings = hasNic ? prepareInterface() : done;
  if (!settings.ok) return settings;
  for (const name of hasNic ? ["lo", placeNic] : ["lo"]) {
    const link = getLink(socket, name);
    if (!link.ok) return link;
    const up = setLink(socket, link.value.index, true);
    if (!up.ok) return up;
  }
  return done;
}

function prepareInterface(): Outcome {
  const settings = prepareNic(placeNic);
  if (!settings.ok) return settings;
  for (const [name, setting] of settings6) {
    try {
      writeFileSync(`/proc/sys/net/ipv6/conf/${placeNic}/${name}`, setting);
    } catch (error) {
      // A kernel without IPv6.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT")
        return failed("addressFailed", `prepare ${placeNic}`, `${name} not set`, error);
    }
  }
  return done;
}

/** Every call of these enters the place for as long as it is synchronous, which is when sockets are opened. */
function inside(namespace: NetworkNamespace, addresses: Addresses): Addresses {
  return {
    add: (...words) => namespace.inside(() => addresses.add(...words)),
    remove: (...words) => namespace.inside(() => addresses.remove(...words)),
    list: (...words) => namespace.inside(() => addresses.list(...words)),
    announce: (...words) => namespace.inside(() => addresses.announce(...words)),
    tickle: (...words) => namespace.inside(() => addresses.tickle(...words)),
    connections: (...words) => namespace.inside(() => addresses.connections(...words)),
    close: () => addresses.close(),
    watchCarrier: (...words) => namespace.inside(() => addresses.watchCarrier(...words)),
  };
}
