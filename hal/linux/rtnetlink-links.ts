/** The part of rtnetlink(7) that makes a virtual server's interface: a macvlan on the data NIC, in a namespace of its own. */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  attribute,
  makeNew,
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
  RTM_NEWLINK,
} from "./rtnetlink.ts";
import { errno } from "./syscalls.ts";

/** <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if.h> */
const IFLA_LINK = 5;
const IFLA_LINKINFO = 18;
const IFLA_NET_NS_FD = 28;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_MACVLAN_MODE = 1;
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
