/**
 * Edits of a virtual server's definition, one part at a time: pure functions that throw what they have against it. What the daemon checks is left to
 * the daemon; here is only what no longer would be what was asked for.
 */
import type { VirtualServerInput } from "../schema/config.ts";
import { canonicalAddress } from "../schema/config-routes.ts";
import { nodeAt } from "../schema/config-words.ts";
import { CliError, exitCodes } from "./exit.ts";

type Server = VirtualServerInput;
type Route = Server["routes"][number];

function refuse(message: string): never {
  throw new CliError(exitCodes.failure, "notThere", message);
}

function there(message: string): never {
  throw new CliError(exitCodes.failure, "alreadyThere", message);
}

/** In any spelling, whatever prefix length is said with it. */
const isAddress = (one: string) => (other: string) =>
  canonicalAddress(one) === canonicalAddress(other);

function addAddresses(server: Server, added: readonly string[]): Server {
  const known = added.find((each) => server.addresses.some(isAddress(each)));
  if (known !== undefined) there(`${server.name} has the address ${known} already`);
  return { ...server, addresses: [...server.addresses, ...added] };
}

function removeAddresses(server: Server, removed: readonly string[]): Server {
  const unknown = removed.find((each) => !server.addresses.some(isAddress(each)));
  if (unknown !== undefined)
    refuse(`${server.name} has no address ${unknown}; it has ${server.addresses.join(", ")}`);
  const addresses = server.addresses.filter((each) => !removed.some(isAddress(each)));
  return { ...server, addresses };
}

const isRoute =
  ({ to, via, table }: Route) =>
  (other: Route) =>
    to === other.to &&
    (via === undefined || via === other.via) &&
    (table === undefined || table === other.table);

const routeText = ({ to, via, table }: Route) =>
  `${to}${via === undefined ? "" : ` via ${via}`}${table === undefined ? "" : ` table ${table}`}`;

/** Behind those that are there: a gateway may be reached by a route before it. */
function addRoute(server: Server, route: Route): Server {
  const isThis = (each: Route) => routeText(each) === routeText(route);
  if (server.routes.some(isThis)) there(`${server.name} has the route ${routeText(route)} already`);
  return { ...server, routes: [...server.routes, route] };
}

/** What is not said of the route may be anything, but it has to be one. */
function removeRoute(server: Server, route: Route): Server {
  const found = server.routes.filter(isRoute(route));
  const all = server.routes.map(routeText).join("; ");
  if (found.length === 0)
    refuse(`${server.name} has no route ${routeText(route)}; it has ${all || "none"}`);
  if (found.length > 1)
    refuse(`${routeText(route)} may be any of: ${found.map(routeText).join("; ")}`);
  return { ...server, routes: server.routes.filter((each) => each !== found[0]) };
}

function addRule(server: Server, from: string, table: number): Server {
  if (server.rules.some((each) => each.from === from && each.table === table))
    there(`${server.name} has that rule already`);
  return { ...server, rules: [...server.rules, { from, table }] };
}

function removeRule(server: Server, from: string, table: number | undefined): Server {
  const isIt = (each: Server["rules"][number]) =>
    each.from === from && (table === undefined || each.table === table);
  if (!server.rules.some(isIt)) {
    const all = server.rules.map((each) => `${each.from} table ${each.table}`).join("; ");
    refuse(`${server.name} has no such rule; it has ${all || "none"}`);
  }
  return { ...server, rules: server.rules.filter((each) => !isIt(each)) };
}

function addVolume(server: Server, disk: string, path: string): Server {
  const known = server.volumes.find((each) => each.disk === disk || each.export === path);
  if (known) there(`${server.name} has the disk ${known.disk} as ${known.export} already`);
  return { ...server, volumes: [...server.volumes, { disk, export: path }] };
}

/** By its export, or by its disk. The others keep their ids. */
function removeVolume(server: Server, word: string): Server {
  const isIt = (each: Server["volumes"][number]) => each.disk === word || each.export === word;
  if (!server.volumes.some(isIt)) {
    const all = server.volumes.map((each) => `${each.export} (disk ${each.disk})`).join(", ");
    refuse(`${server.name} has no export ${word}; it has ${all}`);
  }
  return { ...server, volumes: server.volumes.filter((each) => !isIt(each)) };
}

/** What the schema says of one limit. */
type LimitNodes = Readonly<Record<string, { readonly type?: string }>>;

/** The limits that this release knows, by the key as the configuration file has it. */
function knownLimits(): LimitNodes {
  const nodes = nodeAt(["virtualServers", 0, "limits"])?.properties ?? {};
  return Object.fromEntries(Object.entries(nodes).map(([key, node]) => [toSnake(key), node]));
}

/** `key=value` words; `key=none` takes a limit away. */
export function setLimits<S extends Pick<Server, "limits">>(
  server: S,
  words: readonly string[],
  known: LimitNodes = knownLimits(),
): S {
  const limits: Record<string, unknown> = { ...server.limits };
  for (const word of words) {
    const [key = "", value = ""] = word.split(/=(.*)/s);
    const names = Object.keys(known);
    if (!Object.hasOwn(known, key))
      throw new CliError(
        exitCodes.usage,
        "usage",
        `expected one of ${names.map((name) => `${name}=VALUE`).join(", ")}; found ${word}`,
      );
    if (value === "none") delete limits[toCamel(key)];
    else limits[toCamel(key)] = limitValue(value, known[key]?.type);
  }
  return { ...server, limits } as S;
}

/** A text that is no number stays one, and the daemon says what it expected. */
function limitValue(text: string, type: string | undefined): unknown {
  if (type === "boolean" && /^(true|false)$/.test(text)) return text === "true";
  return /^-?\d{1,15}$/.test(text) ? Number(text) : text;
}

const toSnake = (key: string) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const toCamel = (key: string) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

export const edits = {
  addAddresses,
  removeAddresses,
  addRoute,
  removeRoute,
  addRule,
  removeRule,
  addVolume,
  removeVolume,
  setLimits,
} as const;
