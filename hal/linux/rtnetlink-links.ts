/** The part of rtnetlink(7) that makes a virtual server's interface: a macvlan on the data NIC or a VLAN of it, in a namespace of its own. */
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  attribute,
  attributesOf,
  makeNew,
  message,
  messageFlag,
  type NetlinkSocket,
  nested,
  textAttribute,
  uint32,
} from "./netlink.ts";
import {
  change,
  changeLater,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_IFNAME,
  linkHeaderBytes,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
} from "./rtnetlink.ts";
import { errno, errorName } from "./syscalls.ts";

/** <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if.h> */
const IFLA_LINK = 5;
const IFLA_IFALIAS = 20;
const IFLA_LINKINFO = 18;
const IFLA_NET_NS_FD = 28;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_MACVLAN_MODE = 1;
const IFLA_VLAN_ID = 1;
/**
 * Macvlans of one NIC do not reach each other: two virtual servers with the same subnet never see each other, and no frame goes from one to
 * the other without having passed the gate, which is on the NIC.
 */
const MACVLAN_MODE_PRIVATE = 1;

/** struct ifinfomsg */
function linkHeader(index: number, flags: number, change: number): Buffer {
  const head = Buffer.alloc(linkHeaderBytes);
  head.writeInt32LE(index, 4);
  head.writeUInt32LE(flags, 8);
  head.writeUInt32LE(change, 12);
  return head;
}

export interface Macvlan {
  /** Index of the NIC that it is made on, in the namespace of the socket. */
  readonly parent: number;
  readonly name: string;
  readonly mac: Uint8Array;
  /** Descriptor of the namespace in which it will be. */
  readonly namespace: number;
}

/** Makes the interface. One of that name in that namespace is a fault: whose NIC is beneath it, nobody knows. Fault `addressFailed`. */
export function addMacvlan(socket: NetlinkSocket, wanted: Macvlan): Outcome {
  const body = Buffer.concat([
    linkHeader(0, 0, 0),
    attribute(IFLA_LINK, uint32(wanted.parent)),
    textAttribute(IFLA_IFNAME, wanted.name),
    attribute(IFLA_ADDRESS, wanted.mac),
    attribute(IFLA_NET_NS_FD, uint32(wanted.namespace)),
    nested(
      IFLA_LINKINFO,
      textAttribute(IFLA_INFO_KIND, "macvlan"),
      nested(IFLA_INFO_DATA, attribute(IFLA_MACVLAN_MODE, uint32(MACVLAN_MODE_PRIVATE))),
    ),
  ]);
  const operation = `make ${wanted.name}`;
  return change(socket, { type: RTM_NEWLINK, flags: makeNew, body, operation });
}

export interface Vlan {
  /** Index of the NIC that it is on. */
  readonly parent: number;
  readonly name: string;
  /** IEEE 802.1Q: 1 to 4094. */
  readonly id: number;
  /** What is said about it, to know it again. */
  readonly alias: string;
}

/** A VLAN that is there. */
export interface VlanLink extends Vlan {
  readonly index: number;
}

/** The body of the message that makes a VLAN, in the namespace of whoever sends it. */
export function vlanBody({ parent, name, id }: Vlan): Buffer {
  const number = Buffer.alloc(2);
  number.writeUInt16LE(id);
  return Buffer.concat([
    linkHeader(0, 0, 0),
    attribute(IFLA_LINK, uint32(parent)),
    textAttribute(IFLA_IFNAME, name),
    nested(
      IFLA_LINKINFO,
      textAttribute(IFLA_INFO_KIND, "vlan"),
      nested(IFLA_INFO_DATA, attribute(IFLA_VLAN_ID, number)),
    ),
  ]);
}

/** Makes a VLAN. Faults: `notSupported` (the kernel has none), `addressFailed`. */
export function addVlan(socket: NetlinkSocket, wanted: Vlan): Outcome {
  const operation = `make ${wanted.name}`;
  const sequence = socket.nextSequence();
  const request = message(RTM_NEWLINK, makeNew, sequence, vlanBody(wanted));
  const answer = socket.transact(request, sequence);
  if (!answer.ok) return failed("addressFailed", operation, "no answer", answer.fault);
  const refusal = answer.value.refusals.get(sequence) ?? 0;
  if (refusal === errno.EOPNOTSUPP)
    return failed("notSupported", operation, "this kernel has no VLANs (8021q)");
  if (refusal !== 0)
    return failed("addressFailed", operation, `kernel says ${errorName(-refusal)}`);
  const alias = Buffer.concat([
    linkHeader(0, 0, 0),
    textAttribute(IFLA_IFNAME, wanted.name),
    textAttribute(IFLA_IFALIAS, wanted.alias),
  ]);
  return change(socket, { type: RTM_NEWLINK, body: alias, operation });
}

/** The VLANs in the namespace of the socket. Fault `addressFailed`. */
export function listVlans(socket: NetlinkSocket): Outcome<VlanLink[]> {
  const operation = "list VLANs";
  const sequence = socket.nextSequence();
  const request = message(RTM_GETLINK, messageFlag.dump, sequence, linkHeader(0, 0, 0));
  const answer = socket.transact(request, sequence);
  if (!answer.ok) return failed("addressFailed", operation, "no answer", answer.fault);
  const refusal = answer.value.refusals.get(sequence);
  if (refusal !== undefined)
    return failed("addressFailed", operation, `kernel says ${errorName(-refusal)}`);
  return good(answer.value.messages.flatMap(({ body }) => vlanIn(body) ?? []));
}

/** What a struct ifinfomsg with its attributes says of a VLAN; undefined when it is of another link. */
export function vlanIn(body: Buffer): VlanLink | undefined {
  const attributes = attributesOf(body.subarray(linkHeaderBytes));
  const text = (from: Map<number, Buffer>, type: number) =>
    from.get(type)?.toString("utf8").replace(/\0$/, "") ?? "";
  const info = attributesOf(attributes.get(IFLA_LINKINFO) ?? Buffer.alloc(0));
  if (text(info, IFLA_INFO_KIND) !== "vlan") return undefined;
  const data = attributesOf(info.get(IFLA_INFO_DATA) ?? Buffer.alloc(0));
  return {
    index: body.readInt32LE(4),
    parent: attributes.get(IFLA_LINK)?.readUInt32LE() ?? 0,
    name: text(attributes, IFLA_IFNAME),
    id: data.get(IFLA_VLAN_ID)?.readUInt16LE() ?? 0,
    alias: text(attributes, IFLA_IFALIAS),
  };
}

/** Sets an interface up or down. Fault `addressFailed`. */
export function setLink(socket: NetlinkSocket, index: number, up: boolean): Outcome {
  const body = linkHeader(index, up ? IFF_UP : 0, IFF_UP);
  return change(socket, { type: RTM_NEWLINK, body, operation: `set link ${index}` });
}

/**
 * Removes an interface, with its addresses and routes; one that is not there is a success. The kernel waits for its readers, 20 ms, hence on
 * another thread. Its hardware address is free again when this settles. Fault `addressFailed`.
 */
export function removeLink(socket: NetlinkSocket, name: string): Promise<Outcome> {
  const body = Buffer.concat([linkHeader(0, 0, 0), textAttribute(IFLA_IFNAME, name)]);
  const operation = `remove ${name}`;
  return changeLater(socket, { type: RTM_DELLINK, body, operation, already: errno.ENODEV });
}
