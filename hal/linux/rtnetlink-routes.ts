/** The part of rtnetlink(7) that a virtual server's routing table needs: routes, and rules that choose a table by the source address. */

import { formatAddress, type IpAddress, type Prefix } from "../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  attribute,
  attributesOf,
  makeNew,
  message,
  messageFlag,
  type NetlinkMessage,
  type NetlinkSocket,
  uint32,
} from "./netlink.ts";
import { change, changed, unrefused } from "./rtnetlink.ts";
import { AF_INET, AF_INET6, errno } from "./syscalls.ts";

/** <linux/rtnetlink.h>, <linux/fib_rules.h> */
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_TABLE = 15;
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;
const FRA_SRC = 2;
const FRA_PRIORITY = 6;
const FRA_TABLE = 15;
const FR_ACT_TO_TBL = 1;
const tableMain = 254;
/** Local and broadcast addresses: the kernel's own business. */
const tableLocal = 255;
/** struct rtmsg */
const routeHeaderBytes = 12;
/** More rules than this at one priority are not ours. */
const rulesMax = 1024;

export interface Route {
  /** Undefined: the default route. */
  readonly to: Prefix | undefined;
  readonly family: 4 | 6;
  /** Undefined: the destination is on the link itself. */
  readonly via: IpAddress | undefined;
  /** Index of the interface. */
  readonly link: number;
  readonly table: number | undefined;
}

export interface Rule {
  readonly from: Prefix;
  readonly table: number;
  readonly priority: number;
}

const familyOf = (family: 4 | 6) => (family === 4 ? AF_INET : AF_INET6);

/** struct rtmsg, which struct fib_rule_hdr resembles: family, lengths, tos, table, and four bytes more. */
function header(
  family: 4 | 6,
  destinationLength: number,
  sourceLength: number,
  table: number,
  tail: readonly number[],
): Buffer {
  // Tables above 255 are named by the attribute alone.
  const short = table > 255 ? 0 : table;
  return Buffer.from([
    familyOf(family),
    destinationLength,
    sourceLength,
    0,
    short,
    ...tail,
    ...[0, 0, 0, 0],
  ]);
}

/** Adds a route; one to the same destination in that table is a success. Fault `addressFailed`. */
export function addRoute(socket: NetlinkSocket, route: Route): Outcome {
  const [body, operation, already] = [routeBody(route), "add route", errno.EEXIST];
  return change(socket, { type: RTM_NEWROUTE, flags: makeNew, body, operation, already });
}

/** Removes a route; one that is not there, or by another gateway, is a success. Fault `addressFailed`. */
export function removeRoute(socket: NetlinkSocket, route: Route): Outcome {
  const [body, operation, already] = [routeBody(route), "remove route", errno.ESRCH];
  return change(socket, { type: RTM_DELROUTE, body, operation, already });
}

function routeBody({ to, family, via, link, table = tableMain }: Route): Buffer {
  const scope = via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
  return Buffer.concat([
    header(family, to?.length ?? 0, 0, table, [RTPROT_STATIC, scope, RTN_UNICAST]),
    ...(to ? [attribute(RTA_DST, to.address.bytes)] : []),
    ...(via ? [attribute(RTA_GATEWAY, via.bytes)] : []),
    attribute(RTA_OIF, uint32(link)),
    attribute(RTA_TABLE, uint32(table)),
  ]);
}

/** Adds a rule; one that is there already is a success. Fault `addressFailed`. */
export function addRule(socket: NetlinkSocket, rule: Rule): Outcome {
  const [body, operation, already] = [ruleBody(rule), "add rule", errno.EEXIST];
  return change(socket, { type: RTM_NEWRULE, flags: makeNew, body, operation, already });
}

/** Removes a rule; one that is not there is a success. Fault `addressFailed`. */
export function removeRule(socket: NetlinkSocket, rule: Rule): Outcome {
  const [body, operation, already] = [ruleBody(rule), "remove rule", errno.ENOENT];
  return change(socket, { type: RTM_DELRULE, body, operation, already });
}

function ruleBody({ from, table, priority }: Rule): Buffer {
  const { family } = from.address;
  return Buffer.concat([
    header(family, 0, from.length, table, [0, 0, FR_ACT_TO_TBL]),
    attribute(FRA_SRC, from.address.bytes),
    attribute(FRA_PRIORITY, uint32(priority)),
    attribute(FRA_TABLE, uint32(table)),
  ]);
}

/** Removes every rule of a priority, of both families. Fault `addressFailed`. */
export function removeRules(socket: NetlinkSocket, priority: number): Outcome {
  for (const family of [4, 6] as const)
    for (let count = 0; ; count += 1) {
      const removed = removeOne(socket, family, priority);
      if (!removed.ok) return removed;
      if (!removed.value) break;
      if (count >= rulesMax) return failed("addressFailed", "remove rules", "they do not end");
    }
  return done;
}

/** Value: whether there was one. */
function removeOne(socket: NetlinkSocket, family: 4 | 6, priority: number): Outcome<boolean> {
  const sequence = socket.nextSequence();
  const body = Buffer.concat([
    header(family, 0, 0, 0, [0, 0, 0]),
    attribute(FRA_PRIORITY, uint32(priority)),
  ]);
  const request = message(RTM_DELRULE, messageFlag.acknowledge, sequence, body);
  const answer = socket.transact(request, sequence);
  const refusal = answer.ok ? answer.value.refusals.get(sequence) : undefined;
  // A kernel without IPv6 has no rules of it.
  if (refusal === errno.ENOENT || refusal === errno.EAFNOSUPPORT) return good(false);
  const removed = changed(answer, { operation: "remove rule" }, sequence);
  return removed.ok ? good(true) : removed;
}

/**
 * The routes of all tables, in the network namespace of the socket, each in the words of ip-route(8): what the kernel has, not what it was told.
 * `nic` is the name of the interface of index `link`. Fault `addressFailed`.
 */
export function listRoutes(
  socket: NetlinkSocket,
  { link, nic }: { readonly link: number; readonly nic: string },
): Outcome<string[]> {
  const sequence = socket.nextSequence();
  const body = Buffer.alloc(routeHeaderBytes);
  const request = message(RTM_GETROUTE, messageFlag.dump, sequence, body);
  const answer = unrefused(socket.transact(request, sequence), "list routes", sequence);
  if (!answer.ok) return answer;
  const routes = answer.value.messages.filter(({ type }) => type === RTM_NEWROUTE);
  return good(routes.flatMap((route) => routeWords(route, link, nic) ?? []));
}

function routeWords({ body }: NetlinkMessage, link: number, nic: string): string | undefined {
  const attributes = attributesOf(body.subarray(routeHeaderBytes));
  const table = attributes.get(RTA_TABLE)?.readUInt32LE() ?? body[4];
  const interfaceIndex = attributes.get(RTA_OIF)?.readUInt32LE();
  if (table === tableLocal || interfaceIndex !== link || body[7] !== RTN_UNICAST) return undefined;
  const to = attributes.get(RTA_DST);
  const via = attributes.get(RTA_GATEWAY);
  return [
    to ? `${formatAddress(to)}/${body[1]}` : "default",
    ...(via ? [`via ${formatAddress(via)}`] : []),
    `dev ${nic}`,
    ...(table === tableMain ? [] : [`table ${table}`]),
  ].join(" ");
}
