/**
 * The address gate in the kernel: one nf_tables table on the data NIC, ingress and egress, whose sets decide. An
 * address that is not in an `open` set gets no ARP or ND answer, receives no packet and sends none, not
 * even a retransmission of a connection that a frozen controller still holds. See docs/design/0004-address-gate.md.
 *
 * Glossary. *lease*: the time after which the kernel itself stops matching an element. *floating set*: every
 * address that the gate rules over; what is in no floating set passes.
 *
 * Obligations. SAFETY "address safety": leases are counted by the kernel; a renewal is one transaction of delete and
 * add, and the kernel refuses the delete of an expired element, so a process that slept cannot reopen a gate; a process
 * that slept for less, between deciding and doing, finds out and cuts the lease. The
 * table must not belong to our socket (NFT_TABLE_F_OWNER): it has to outlive us.
 */

import { type IpAddress, parseAddress } from "../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Gate } from "../port/gate.ts";
import { attributeList, attributesOf, NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import * as nft from "./nftables.ts";
import { errno, errorName, interfaceIndex } from "./syscalls.ts";

/** Sets by address family. Ids name them inside the batch that makes them; key types are nft's datatypes. */
const sets = {
  4: {
    floating: { name: "floating4", id: 1, keyBytes: 4, keyType: 7, expires: false },
    open: { name: "open4", id: 2, keyBytes: 4, keyType: 7, expires: true },
  },
  6: {
    floating: { name: "floating6", id: 3, keyBytes: 16, keyType: 8, expires: false },
    open: { name: "open6", id: 4, keyBytes: 16, keyType: 8, expires: true },
  },
} as const;
const families = [4, 6] as const;

/** First on the way in, last on the way out. */
const ingressPriority = -500;
const egressPriority = 500;

/** Longest lease and most addresses that make sense: a mistake must not open a gate for a day. */
const leaseMsMax = 60_000;
const addressesMax = 1024;
/** A renewal takes 0.02 ms; after this long it was interrupted, and its lease has to be cut. */
const lateMsMax = 1;

const { network, transport } = nft.payloadBase;
/** RFC 826: sender and target protocol address of an ARP packet for IPv4 over Ethernet. */
const arpSender = { base: network, offset: 14, length: 4 };
const arpTarget = { base: network, offset: 24, length: 4 };
/** RFC 791 3.1, RFC 8200 3. */
const ip4Source = { base: network, offset: 12, length: 4 };
const ip4Destination = { base: network, offset: 16, length: 4 };
const ip6Source = { base: network, offset: 8, length: 16 };
const ip6Destination = { base: network, offset: 24, length: 16 };
/** RFC 4861 4.3, 4.4: ICMPv6 type, and the target address of a solicitation or advertisement. */
const icmpType = { base: transport, offset: 0, length: 1 };
const neighborTarget = { base: transport, offset: 8, length: 16 };

const etherType = (value: number) =>
  nft.metaIs(nft.metaKey.protocol, Uint8Array.of(value >> 8, value & 0xff));
const isArp = () => etherType(0x0806);
const isIp4 = () => etherType(0x0800);
const isIp6 = () => etherType(0x86dd);
const isNeighbor = (type: number) => [
  ...isIp6(),
  ...nft.metaIs(nft.metaKey.layer4Protocol, Uint8Array.of(58)),
  ...nft.fieldIs(icmpType, Uint8Array.of(type)),
];
const neighborSolicitation = 135;
const neighborAdvertisement = 136;

/**
 * IEEE 802.1Q and 802.1ad. Here the kernel has taken the outermost tag off, so a frame of this type had two. With priority tags (VLAN 0) it would pass
 * as something unknown, and be an ordinary packet to whoever gets it, for the kernel takes them all off.
 */
const tagTypes = [0x8100, 0x88a8];

const accept = nft.verdictIs(nft.verdict.accept);
const drop = nft.verdictIs(nft.verdict.drop);

/** Matches a field that holds a floating address whose gate is closed. */
function isClosed(field: nft.Field, family: 4 | 6): Buffer[] {
  return [
    ...nft.fieldIn(field, sets[family].floating),
    ...nft.fieldIn(field, sets[family].open, false),
  ];
}

/**
 * Service packets are the many, so theirs is the short way: one lookup when open. The partner's gratuitous ARP,
 * whose sender is floating itself, passes a closed gate: our own kernel may have to learn where the address went.
 */
const ingressRules = [
  ...tagTypes.map((type) => [...etherType(type), drop]),
  [...isIp4(), ...nft.fieldIn(ip4Destination, sets[4].open), accept],
  [...isIp4(), ...nft.fieldIn(ip4Destination, sets[4].floating), drop],
  [...isArp(), ...isClosed(arpTarget, 4), ...nft.fieldIn(arpSender, sets[4].floating, false), drop],
  [...isNeighbor(neighborSolicitation), ...isClosed(neighborTarget, 6), drop],
  [...isIp6(), ...nft.fieldIn(ip6Destination, sets[6].open), accept],
  [...isIp6(), ...nft.fieldIn(ip6Destination, sets[6].floating), drop],
];

const unspecified = new Uint8Array(16);
const egressRules = [
  [...isIp4(), ...nft.fieldIn(ip4Source, sets[4].open), accept],
  [...isIp4(), ...nft.fieldIn(ip4Source, sets[4].floating), drop],
  [...isArp(), ...isClosed(arpSender, 4), drop],
  [...isNeighbor(neighborAdvertisement), ...isClosed(neighborTarget, 6), drop],
  // Duplicate address detection asks for the address without naming a source (RFC 4862 5.4.2).
  [
    ...isNeighbor(neighborSolicitation),
    ...nft.fieldIs(ip6Source, unspecified),
    ...isClosed(neighborTarget, 6),
    drop,
  ],
  [...isIp6(), ...nft.fieldIn(ip6Source, sets[6].open), accept],
  [...isIp6(), ...nft.fieldIn(ip6Source, sets[6].floating), drop],
];

type Keys = ReadonlyMap<4 | 6, readonly Uint8Array[]>;

class NetfilterGate implements Gate {
  readonly #socket: NetlinkSocket;
  readonly #table: string;
  readonly #now: () => number;
  #nic = "";
  #vlans: readonly string[] = [];
  /** The spelling under which the caller knows an address, by its bytes. */
  #spelling = new Map<string, string>();
  /** Of these the kernel has not said whether it rules over them. Where it does not, an element that expires would leave the address open. */
  #unsure: ReadonlySet<string> = new Set();

  constructor(socket: NetlinkSocket, table: string, now: () => number) {
    this.#socket = socket;
    this.#table = table;
    this.#now = now;
  }

  setUp(nic: string, floating: readonly string[], vlans: readonly string[] = []): Outcome {
    const operation = "set up address gate";
    const keys = parseAll(floating, operation);
    if (!keys.ok) return keys;
    for (const name of [nic, ...vlans]) {
      const index = interfaceIndex(name);
      if (index < 0) return failed("gateFailed", operation, `no NIC ${name}: ${errorName(index)}`);
    }
    this.#nic = nic;
    this.#vlans = vlans;
    this.#spelling = spellings(floating);
    // Add, delete, add: whatever was there is replaced in the one transaction, and the gate is never absent.
    const made = this.#commit(operation, [
      nft.addTable(this.#table),
      nft.deleteTable(this.#table),
      nft.addTable(this.#table),
      ...families.flatMap((family) => this.#setCommands(family, keys.value)),
      ...[nic, ...vlans].flatMap((device) => [
        ...this.#chainCommands("ingress", device, ingressPriority, ingressRules),
        ...this.#chainCommands("egress", device, egressPriority, egressRules),
      ]),
    ]);
    if (made.ok) this.#unsure = new Set();
    return made;
  }

  know(floating: readonly string[]): Outcome {
    const operation = "change address gate";
    const parsed = parseAll(floating, operation);
    if (!parsed.ok) return parsed;
    const wanted = spellings(floating);
    const changed = (from: Map<string, string>, isSame: (key: string) => boolean) =>
      [...from].filter(([key]) => !isSame(key)).map(([, text]) => text);
    const gone = changed(this.#spelling, (key) => wanted.has(key));
    const added = changed(wanted, (key) => this.#spelling.has(key) && !this.#unsure.has(key));
    const leases = this.read();
    if (!leases.ok) return leases;
    const closed = this.close(gone.filter((text) => leases.value.has(text)));
    if (!closed.ok) return closed;
    // What is on its way in or out is ruled over until the kernel says otherwise, and not to be opened.
    this.#unsure = new Set([...gone, ...added].map(keyOf));
    this.#spelling = new Map([...this.#spelling, ...wanted]);
    const made = this.#members(operation, added, gone);
    if (!made.ok) return made;
    this.#spelling = wanted;
    this.#unsure = new Set();
    return done;
  }

  /** Puts addresses into the floating sets, and takes others out; what is so already is none of the kernel's concern. */
  #members(operation: string, added: readonly string[], gone: readonly string[]): Outcome {
    const [more, fewer] = [parseAll(added, operation), parseAll(gone, operation)];
    if (!more.ok) return more;
    if (!fewer.ok) return fewer;
    const adding = [...more.value].map(([family, list]) =>
      nft.ensureElements(this.#table, sets[family].floating.name, list),
    );
    return this.#without(operation, this.#deleteEach(fewer.value, "floating"), adding);
  }

  open(addresses: readonly string[], leaseMs: number, decidedAtMs?: number): Outcome {
    const operation = "open address gate";
    return this.#lease(operation, addresses, leaseMs, decidedAtMs, (keys) =>
      this.#commit(operation, this.#add(keys, leaseMs)),
    );
  }

  renew(addresses: readonly string[], leaseMs: number, decidedAtMs?: number): Outcome {
    const operation = "renew address gate";
    return this.#lease(operation, addresses, leaseMs, decidedAtMs, (keys) =>
      this.#replace(operation, keys, leaseMs),
    );
  }

  seal(): Outcome {
    // Over a VLAN that is gone nobody speaks; it must not keep the others from being closed.
    const vlans = this.#vlans.filter((name) => interfaceIndex(name) >= 0);
    return this.setUp(this.#nic, [...this.#spelling.values()], vlans);
  }

  close(addresses: readonly string[]): Outcome {
    const operation = "close address gate";
    const keys = parseAll(addresses, operation);
    if (!keys.ok) return keys;
    return this.#without(operation, this.#deleteEach(keys.value));
  }

  /**
   * Performs deletions of elements, whether the elements are there or not, and other commands in the same transaction. The kernel refuses a batch with an absent
   * element as a whole and names all that are absent; the rest is tried again. An element may expire in between, hence a loop, which
   * ends as every round leaves fewer.
   */
  #without(
    operation: string,
    deletions: readonly nft.Command[],
    others: readonly nft.Command[] = [],
  ): Outcome {
    let left = deletions;
    while (left.length + others.length > 0) {
      const refusals = this.#refusals(operation, [...left, ...others]);
      if (!refusals.ok) return refusals;
      if (refusals.value.size === 0) break;
      const other = [...refusals.value].find(
        ([index, number]) => index >= left.length || number !== errno.ENOENT,
      );
      if (other) return failed("gateFailed", operation, `kernel says ${errorName(-other[1])}`);
      left = left.filter((_, index) => !refusals.value.has(index));
    }
    // Absent elements look the same to the kernel when their sets are absent, and then nothing is closed.
    const standing = left.length < deletions.length ? this.read() : done;
    return standing.ok ? done : standing;
  }

  read(): Outcome<ReadonlyMap<string, number>> {
    const leases = new Map<string, number>();
    for (const family of families) {
      const sequence = this.#socket.nextSequence();
      const request = nft.getElements(this.#table, sets[family].open.name, sequence);
      const answer = this.#socket.transact(request, sequence);
      if (!answer.ok) return failed("gateFailed", "read address gate", "no answer", answer.fault);
      for (const number of answer.value.refusals.values()) {
        return failed("gateFailed", "read address gate", `kernel says ${errorName(-number)}`);
      }
      for (const { body } of answer.value.messages) this.#readElements(body, leases);
    }
    return good(leases);
  }

  #setCommands(family: 4 | 6, keys: Keys): nft.Command[] {
    const { floating, open } = sets[family];
    const members = keys.get(family) ?? [];
    return [
      nft.addSet(this.#table, floating),
      nft.addSet(this.#table, open),
      ...(members.length > 0 ? [nft.addElements(this.#table, floating.name, members)] : []),
    ];
  }

  /** A chain for each device; they share the sets. */
  #chainCommands(
    direction: "ingress" | "egress",
    device: string,
    priority: number,
    rules: readonly (readonly Buffer[])[],
  ): nft.Command[] {
    const hook = nft.netdevHook[direction];
    const name = device === this.#nic ? direction : `${direction}-${device}`;
    return [
      nft.addNetdevChain(this.#table, { name, device, hook, priority }),
      ...rules.map((rule) => nft.addRule(this.#table, name, rule)),
    ];
  }

  /**
   * Checks, performs, and corrects: had the process been stopped between the decision and the kernel's start of counting,
   * the lease would end that much too late, though every step of it succeeded.
   */
  #lease(
    operation: string,
    addresses: readonly string[],
    leaseMs: number,
    decidedAtMs = this.#now(),
    perform: (keys: Keys) => Outcome,
  ): Outcome {
    if (!Number.isInteger(leaseMs) || leaseMs < 1 || leaseMs > leaseMsMax) {
      return failed("badInput", operation, `lease of ${leaseMs} ms, expected 1 to ${leaseMsMax}`);
    }
    const keys = parseAll(addresses, operation);
    if (!keys.ok) return keys;
    // For any other address the gate would not exist.
    const stranger = addresses.find((text) => !this.#spelling.has(keyOf(text)));
    if (stranger) return failed("badInput", operation, `${stranger} is not the gate's to open`);
    const unsure = addresses.find((text) => this.#unsure.has(keyOf(text)));
    if (unsure) return failed("gateFailed", operation, `${unsure} may not be ruled by the gate`);
    let outcome = perform(keys.value);
    for (let fromMs = decidedAtMs; outcome.ok; ) {
      const nowMs = this.#now();
      if (nowMs - fromMs <= lateMsMax) return outcome;
      const leftMs = Math.floor(decidedAtMs + leaseMs - nowMs);
      fromMs = nowMs;
      outcome = leftMs >= 1 ? this.#replace(operation, keys.value, leftMs) : this.#over(addresses);
    }
    return outcome;
  }

  #over(addresses: readonly string[]): Outcome {
    const closed = this.close(addresses);
    if (!closed.ok) return closed;
    return failed("gateExpired", "lease address gate", "the lease was over before it began");
  }

  #replace(operation: string, keys: Keys, leaseMs: number): Outcome {
    const deletions = this.#deleteEach(keys);
    return this.#commit(operation, [...deletions, ...this.#add(keys, leaseMs)], deletions.length);
  }

  #add(keys: Keys, leaseMs: number): nft.Command[] {
    return [...keys].map(([family, list]) =>
      nft.addElements(this.#table, sets[family].open.name, list, leaseMs),
    );
  }

  /** One command for each address, so that a refusal tells which. */
  #deleteEach(keys: Keys, of: "open" | "floating" = "open"): nft.Command[] {
    return [...keys].flatMap(([family, list]) =>
      list.map((key) => nft.deleteElements(this.#table, sets[family][of].name, [key])),
    );
  }

  /** The first `renewals` commands delete elements: what is absent there has expired. */
  #commit(operation: string, commands: readonly nft.Command[], renewals = 0): Outcome {
    if (commands.length === 0) return done;
    const refusals = this.#refusals(operation, commands);
    if (!refusals.ok) return refusals;
    const first = refusals.value.entries().next().value;
    if (!first) return done;
    const [index, number] = first;
    if (index < renewals && number === errno.ENOENT) {
      return failed("gateExpired", operation, "the lease had run out before the renewal");
    }
    return failed("gateFailed", operation, `kernel says ${errorName(-number)} to step ${index}`);
  }

  /** Performs a batch; error numbers by the index of the refused command, none when it was committed. */
  #refusals(
    operation: string,
    commands: readonly nft.Command[],
  ): Outcome<ReadonlyMap<number, number>> {
    const { bytes, sequences } = nft.batch(commands, () => this.#socket.nextSequence());
    const answer = this.#socket.transact(bytes, sequences.at(-1) ?? 0);
    if (!answer.ok) return failed("gateFailed", operation, "no answer", answer.fault);
    const entries = [...answer.value.refusals].map(
      ([sequence, number]) => [sequences.indexOf(sequence), number] as const,
    );
    return good(new Map(entries.sort(([a], [b]) => a - b)));
  }

  #readElements(body: Buffer, leases: Map<string, number>): void {
    const list = attributesOf(body.subarray(nft.generationHeaderBytes)).get(
      nft.elementListElements,
    );
    for (const [type, item] of attributeList(list ?? Buffer.alloc(0))) {
      if (type !== nft.listElement) continue;
      const fields = attributesOf(item);
      const data = fields.get(nft.elementAttribute.key);
      const key = data && attributesOf(data).get(nft.dataValue);
      const left = fields.get(nft.elementAttribute.expiration);
      const text = key && this.#spelling.get(key.toString("hex"));
      if (text && left) leases.set(text, Number(left.readBigUInt64BE()));
    }
  }
}

interface Parsed extends IpAddress {
  readonly key: string;
}

/** The same few are renewed for ever, a hundred times a second. */
const parsed = new Map<string, Parsed>();

/** Undefined: no IP address. */
function parse(text: string): Parsed | undefined {
  const known = parsed.get(text);
  if (known) return known;
  const address = parseAddress(text);
  if (!address) return undefined;
  if (parsed.size >= addressesMax) parsed.clear();
  const entry = { ...address, key: Buffer.from(address.bytes).toString("hex") };
  parsed.set(text, entry);
  return entry;
}

function parseAll(addresses: readonly string[], operation: string): Outcome<Keys> {
  if (addresses.length > addressesMax) {
    return failed("badInput", operation, `${addresses.length} addresses, limit ${addressesMax}`);
  }
  const keys = new Map<4 | 6, Uint8Array[]>();
  const seen = new Set<string>();
  for (const text of addresses) {
    const address = parse(text);
    if (!address) return failed("badInput", operation, `"${text}" is no IP address`);
    if (seen.has(address.key)) continue;
    seen.add(address.key);
    const list = keys.get(address.family);
    if (list) list.push(address.bytes);
    else keys.set(address.family, [address.bytes]);
  }
  return good(keys);
}

/** How the caller spells each address, by its bytes. */
function spellings(addresses: readonly string[]): Map<string, string> {
  return new Map(addresses.map((text) => [keyOf(text), text]));
}

function keyOf(text: string): string {
  return parse(text)?.key ?? "";
}

/**
 * A gate in the caller's network namespace. `table` sets several apart in one namespace; `now` is the clock that leases
 * are measured by. Fault `gateFailed`.
 */
export function createGate(table = "dyad-gate", now = () => performance.now()): Outcome<Gate> {
  const socket = NetlinkSocket.open(netlinkProtocol.netfilter);
  if (!socket.ok) return failed("gateFailed", "create address gate", "no netlink", socket.fault);
  return good(new NetfilterGate(socket.value, table, now));
}
