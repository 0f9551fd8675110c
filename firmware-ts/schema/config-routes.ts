/**
 * Rules for a virtual server's addresses and routes that no single key can break. The kernel would refuse such a route, or take it for one that is
 * there already, when the server is started: by then it is too late to ask anybody.
 */
import { bareAddress, formatAddress, parseAddress, parsePrefix } from "./ip-address.ts";

interface RouteText {
  readonly to: string;
  readonly via?: string | undefined;
  readonly table?: number | undefined;
}

interface Prefix {
  readonly family: 4 | 6;
  readonly bits: string;
  readonly length: number;
}

/** One spelling for each address: an IPv6 address has many. */
export function canonicalAddress(text: string): string {
  const parsed = parseAddress(bareAddress(text));
  return parsed ? formatAddress(parsed.bytes) : text;
}

/** Why nobody can be reached at an address; undefined when it is one that a host may have. */
export function addressProblem(text: string): string | undefined {
  const prefix = prefixOf(text);
  if (!prefix) return undefined;
  const { family, bits, length } = prefix;
  const rest = bits.slice(length);
  // RFC 1122 3.2.1.3, RFC 4291 2.4: this host, loopback, multicast and what is reserved; all ones of a subnet is its broadcast address (but RFC 3021).
  const unusable =
    family === 4
      ? ["00000000", "01111111", "111"].some((head) => bits.startsWith(head))
      : /^0{127}[01]$/.test(bits) || bits.startsWith("11111111");
  if (unusable) return "expected an address that a host on a network can have";
  if (family === 6 && isOfLink(bits))
    return "expected an address that reaches further than its link, because the gate does not rule over those of the link";
  if (family === 4 && rest.length > 1 && !/(?=.*0)(?=.*1)/.test(rest))
    return "expected an address of a host, not that of the network or of its broadcasts";
  return undefined;
}

/** fe80::/10 (RFC 4291 2.5.6) is on every link. */
const isOfLink = (bits: string) => bits.startsWith("1111111010");

/** What is wrong with each route that is wrong, by its place in the list. */
export function routeProblems(
  addresses: readonly string[],
  routes: readonly RouteText[],
): ReadonlyMap<number, string> {
  const problems = new Map<number, string>();
  const onLink = addresses.flatMap((text) => prefixOf(text) ?? []);
  const seen = new Set<string>();
  for (const [i, route] of routes.entries()) {
    const problem = problemOf(route, onLink);
    if (problem !== undefined) problems.set(i, problem);
    const to = prefixOf(route.to);
    if (to && route.via === undefined) onLink.push(to);
    const family = (to ?? prefixOf(route.via ?? ""))?.family;
    const key = `${family} ${to?.bits.slice(0, to.length) ?? ""} ${route.table ?? "main"}`;
    if (seen.has(key)) problems.set(i, "expected one route to each destination in each table");
    seen.add(key);
  }
  return problems;
}

function problemOf({ to, via }: RouteText, onLink: readonly Prefix[]): string | undefined {
  const destination = prefixOf(to);
  const gateway = via === undefined ? undefined : prefixOf(via);
  if (!destination && !gateway) return "expected via, because the default route has a gateway";
  if (destination?.bits.slice(destination.length).includes("1"))
    return "expected a destination without bits behind its prefix, as in 10.0.0.0/24";
  if (!gateway) return undefined;
  if (destination && destination.family !== gateway.family)
    return "expected a gateway of the same family as the destination";
  const reached = onLink.some((each) => covers(each, gateway));
  if ((gateway.family === 6 && isOfLink(gateway.bits)) || reached) return undefined;
  return "expected a gateway in the network of one of its addresses, or of a route before it without gateway";
}

const covers = (prefix: Prefix, { family, bits }: Prefix) =>
  prefix.family === family && bits.startsWith(prefix.bits.slice(0, prefix.length));

/** Without a length, that of the whole address. */
function prefixOf(text: string): Prefix | undefined {
  const parsed = parsePrefix(text);
  const address = parsed?.address ?? parseAddress(text);
  if (!address) return undefined;
  const bits = [...address.bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return { family: address.family, bits, length: parsed?.length ?? bits.length };
}
