/** The part of rtnetlink(7) that floating addresses need: links by name, and addresses of a link. */

import { formatAddress, type IpAddress } from "../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { PresentAddress } from "../port/addresses.ts";
import {
  attribute,
  attributesOf,
  makeNew,
  message,
  messageFlag,
  type NetlinkAnswer,
  type NetlinkSocket,
  textAttribute,
  uint32,
} from "./netlink.ts";
import { AF_INET, AF_INET6, errno, errorName } from "./syscalls.ts";

/** <linux/rtnetlink.h>, <linux/if_link.h>, <linux/if_addr.h>, <linux/if.h> */
export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
export const RTM_DELLINK = 17;
export const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
export const IFLA_ADDRESS = 1;
export const IFLA_IFNAME = 3;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
/** Where an address is found: the first of these that is there. */
export const IFA_LOCAL_OR_ADDRESS = [IFA_LOCAL, IFA_ADDRESS] as const;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 0x02;
const RT_SCOPE_UNIVERSE = 0;
export const IFF_UP = 0x1;
const IFF_LOWER_UP = 0x10000;
/** struct ifinfomsg */
export const linkHeaderBytes = 16;
const addressHeaderBytes = 8;

/** The multicast groups that tell of changes of links, and of addresses of both families (RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR). */
export const linkGroup = 1;
export const addressGroups = 0x10 | 0x100;

export interface LinkState {
  readonly index: number;
  readonly mac: Uint8Array;
  /** Administratively up. */
  readonly up: boolean;
  /** That, and the other end is there. */
  readonly carrier: boolean;
}

/** Asks for one link by its name, in the network namespace of the socket. Fault `addressFailed`. */
export function getLink(socket: NetlinkSocket, nic: string): Outcome<LinkState> {
  const sequence = socket.nextSequence();
  return linkIn(socket.transact(linkRequest(nic, sequence), sequence), nic, sequence);
}

/** As `getLink`, on another thread: the kernel may be changing its network, and whoever asks waits until it is done. */
export async function getLinkLater(
  socket: NetlinkSocket,
  nic: string,
): Promise<Outcome<LinkState>> {
  const sequence = socket.nextSequence();
  return linkIn(await socket.transactLater(linkRequest(nic, sequence), sequence), nic, sequence);
}

function linkRequest(nic: string, sequence: number): Buffer {
  const body = Buffer.concat([Buffer.alloc(linkHeaderBytes), textAttribute(IFLA_IFNAME, nic)]);
  return message(RTM_GETLINK, messageFlag.acknowledge, sequence, body);
}

function linkIn(asked: Outcome<NetlinkAnswer>, nic: string, sequence: number): Outcome<LinkState> {
  const operation = `look up NIC ${nic}`;
  const answer = unrefused(asked, operation, sequence);
  if (!answer.ok) return answer;
  const link = answer.value.messages.find(({ type }) => type === RTM_NEWLINK)?.body;
  if (!link) return failed("addressFailed", operation, "the kernel described no link");
  const flags = link.readUInt32LE(8);
  return good({
    index: link.readInt32LE(4),
    mac: Uint8Array.from(attributesOf(link.subarray(linkHeaderBytes)).get(IFLA_ADDRESS) ?? []),
    up: (flags & IFF_UP) !== 0,
    carrier: (flags & IFF_UP) !== 0 && (flags & IFF_LOWER_UP) !== 0,
  });
}

/** An address with its prefix, on the link of that index. */
export interface LinkAddress {
  readonly link: number;
  readonly address: IpAddress;
  readonly prefixLength: number;
}

/** Adds an address; present already is a success. Takes 0.1 ms. Fault `addressFailed`. */
export function addAddress(socket: NetlinkSocket, wanted: LinkAddress): Outcome {
  return change(socket, {
    type: RTM_NEWADDR,
    flags: makeNew,
    body: addressBody(wanted),
    operation: "add address",
    already: errno.EEXIST,
  });
}

/**
 * Removes an address; absent already is a success. The kernel waits for its readers, about 10 ms: not on the
 * caller's thread. Fault `addressFailed`.
 */
export function removeAddress(socket: NetlinkSocket, unwanted: LinkAddress): Promise<Outcome> {
  return changeLater(socket, {
    type: RTM_DELADDR,
    body: addressBody(unwanted),
    operation: "remove address",
    already: errno.EADDRNOTAVAIL,
  });
}

/** A message that changes something, in words for a fault. */
export interface Change {
  readonly type: number;
  readonly flags?: number;
  readonly body: Buffer;
  readonly operation: string;
  /** The refusal that means success: it is so already. */
  readonly already?: number;
}

/** Changes something and waits for the kernel's word. Fault `addressFailed`. */
export function change(socket: NetlinkSocket, wanted: Change): Outcome {
  const sequence = socket.nextSequence();
  return changed(socket.transact(changeMessage(wanted, sequence), sequence), wanted, sequence);
}

/** As `change`, on another thread, where the kernel waits for its readers. */
export async function changeLater(socket: NetlinkSocket, wanted: Change): Promise<Outcome> {
  const sequence = socket.nextSequence();
  const answer = await socket.transactLater(changeMessage(wanted, sequence), sequence);
  return changed(answer, wanted, sequence);
}

const changeMessage = ({ type, flags = messageFlag.acknowledge, body }: Change, sequence: number) =>
  message(type, flags, sequence, body);

/** What became of a change. Fault `addressFailed`. */
export function changed(
  answer: Outcome<NetlinkAnswer>,
  { operation, already }: Pick<Change, "operation" | "already">,
  sequence: number,
): Outcome {
  if (!answer.ok) return failed("addressFailed", operation, "no answer", answer.fault);
  const refusal = answer.value.refusals.get(sequence) ?? 0;
  if (refusal === 0 || refusal === already) return done;
  return failed("addressFailed", operation, `kernel says ${errorName(-refusal)}`);
}

function addressBody({ link, address, prefixLength }: LinkAddress): Buffer {
  const head = Buffer.alloc(addressHeaderBytes);
  head[0] = address.family === 4 ? AF_INET : AF_INET6;
  head[1] = prefixLength;
  head.writeUInt32LE(link, 4);
  // Duplicate address detection would take a second or more; the fence has already shown that nobody else has it.
  const flags = uint32(IFA_F_NODAD);
  return Buffer.concat([
    head,
    attribute(IFA_LOCAL, address.bytes),
    attribute(IFA_ADDRESS, address.bytes),
    ...(address.family === 6 ? [attribute(IFA_FLAGS, flags)] : []),
  ]);
}

/** Addresses of a link in canonical text, IPv4 and IPv6, but those of its link only. Fault `addressFailed`. */
export function listAddresses(socket: NetlinkSocket, link: number): Outcome<PresentAddress[]> {
  const sequence = socket.nextSequence();
  return addressesIn(socket.transact(addressesRequest(sequence), sequence), link, sequence);
}

/** As `listAddresses`, on another thread. */
export async function listAddressesLater(
  socket: NetlinkSocket,
  link: number,
): Promise<Outcome<PresentAddress[]>> {
  const sequence = socket.nextSequence();
  const answer = await socket.transactLater(addressesRequest(sequence), sequence);
  return addressesIn(answer, link, sequence);
}

const addressesRequest = (sequence: number) =>
  message(RTM_GETADDR, messageFlag.dump, sequence, Buffer.alloc(addressHeaderBytes));

function addressesIn(
  asked: Outcome<NetlinkAnswer>,
  link: number,
  sequence: number,
): Outcome<PresentAddress[]> {
  const answer = unrefused(asked, "list addresses", sequence);
  if (!answer.ok) return answer;
  const addresses: PresentAddress[] = [];
  for (const { type, body } of answer.value.messages) {
    if (type !== RTM_NEWADDR || body.readUInt32LE(4) !== link) continue;
    const attributes = attributesOf(body.subarray(addressHeaderBytes));
    const bytes = IFA_LOCAL_OR_ADDRESS.map((each) => attributes.get(each)).find(Boolean);
    // struct ifaddrmsg: family, prefix length, flags, scope.
    const isWide = body[3] === RT_SCOPE_UNIVERSE;
    if (bytes && isWide)
      addresses.push({ address: formatAddress(bytes), prefixLength: body[1] ?? 0 });
  }
  return good(addresses);
}

/** The answer, unless the kernel refused the question. Fault `addressFailed`. */
export function unrefused(
  answer: Outcome<NetlinkAnswer>,
  operation: string,
  sequence: number,
): Outcome<NetlinkAnswer> {
  if (!answer.ok) return failed("addressFailed", operation, "no answer", answer.fault);
  const refusal = answer.value.refusals.get(sequence);
  if (refusal === undefined) return answer;
  return failed("addressFailed", operation, `kernel says ${errorName(-refusal)}`);
}
