/**
 * What the interfaces of virtual servers are made on: the data NIC, or a VLAN of it (IEEE 802.1Q), which all virtual servers of that number share.
 *
 * SAFETY: what carries an interface must have the gate on it, and the gate is put on what is there when the firmware starts (docs/design/0004-address-gate.md).
 * So VLANs are made before the gate is set up, and a carrier is known by its index: one that somebody makes anew under its name is
 * another one. A frame on a VLAN's own device has no tag of that VLAN any more, or not yet, so the gate there is that of any NIC.
 */

import { vlanName } from "../../firmware-ts/schema/config.ts";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import { prepareNic } from "./nic.ts";
import { getLink } from "./rtnetlink.ts";
import { addVlan, listVlans, removeLink, setLink, type VlanLink } from "./rtnetlink-links.ts";
import { interfaceIndex } from "./syscalls.ts";

/** What is said about a VLAN that we have made; another one is somebody else's, and stays when nobody here needs it. */
const ownAlias = "dyad";

/** A device in the controller's namespace. */
export interface Carrier {
  readonly name: string;
  readonly index: number;
}

export interface Carriers {
  /** That of a VLAN, or the data NIC; or why there is none. */
  of(vlan: number | undefined): Outcome<Carrier>;
}

/** Names of those VLANs of a NIC that are there: what the gate has to be put on. */
export function vlansPresent(nic: string, vlans: ReadonlySet<number>): string[] {
  const names = [...vlans].map((vlan) => vlanName(nic, vlan));
  return names.filter((name) => interfaceIndex(name) >= 0);
}

/**
 * Looks up the NIC, and makes the VLANs that are wanted and not there; those of an earlier life that nobody wants any more go. A VLAN that cannot be made is
 * no fault of the others. Fault `addressFailed`: the NIC is not there, or the kernel does not answer.
 */
export async function openCarriers(
  nic: string,
  vlans: ReadonlySet<number>,
): Promise<Outcome<Carriers>> {
  const socket = NetlinkSocket.open(netlinkProtocol.route);
  if (!socket.ok) return socket;
  const opened = await open(socket.value, nic, vlans);
  socket.value.close();
  return opened;
}

async function open(
  socket: NetlinkSocket,
  nic: string,
  wanted: ReadonlySet<number>,
): Promise<Outcome<Carriers>> {
  const link = getLink(socket, nic);
  if (!link.ok) return link;
  const { index } = link.value;
  const listed = listVlans(socket);
  if (!listed.ok) return listed;
  const present = listed.value.filter(({ parent }) => parent === index);
  for (const { name, id, alias } of present) {
    if (alias !== ownAlias || wanted.has(id)) continue;
    const removed = await removeLink(socket, name);
    if (!removed.ok) return removed;
  }
  const made = new Map<number, Outcome<Carrier>>();
  for (const id of wanted) made.set(id, carrierOf(socket, nic, index, id, present));
  return good({
    of(vlan) {
      if (vlan === undefined) return good({ name: nic, index });
      const carrier = made.get(vlan);
      return (
        carrier ?? failed("addressFailed", `VLAN ${vlan}`, "it was not asked for at the start")
      );
    },
  });
}

function carrierOf(
  socket: NetlinkSocket,
  nic: string,
  parent: number,
  id: number,
  present: readonly VlanLink[],
): Outcome<Carrier> {
  const name = vlanName(nic, id);
  const known = present.some((each) => each.id === id && each.name === name);
  const added = known ? good(undefined) : addVlan(socket, { parent, name, id, alias: ownAlias });
  if (!added.ok) return added;
  const prepared = prepareNic(name);
  if (!prepared.ok) return prepared;
  const link = getLink(socket, name);
  if (!link.ok) return link;
  const up = setLink(socket, link.value.index, true);
  return up.ok ? good({ name, index: link.value.index }) : up;
}
