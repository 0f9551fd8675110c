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

type Volume = Server["volumes"][number];
type Smb = NonNullable<Server["smb"]>;
/** How a volume is offered: what NFS clients mount, or the name that SMB clients find. */
type Way = "export" | "share";

const volumeText = ({ disk, export: path, share }: Volume) =>
  `${[path, share].filter((each) => each !== undefined).join(" and ")} (disk ${disk})`;

/** Offers a disk in one way, or in one more way. */
function addVolume(server: Server, way: Way, disk: string, word: string): Server {
  const known = server.volumes.find(
    (each) => (each.disk === disk && each[way] !== undefined) || each[way] === word,
  );
  if (known) there(`${server.name} has the disk ${known.disk} as ${known[way]} already`);
  if (!server.volumes.some((each) => each.disk === disk))
    return { ...server, volumes: [...server.volumes, { disk, [way]: word }] };
  const volumes = server.volumes.map((each) =>
    each.disk === disk ? { ...each, [way]: word } : each,
  );
  return { ...server, volumes };
}

/**
 * By what it is offered as, or by its disk. What is offered in the other way too stays so, unless the disk is named. The others keep their ids. Without a
 * share there are no settings of SMB.
 */
function removeVolume(server: Server, way: Way, word: string): Server {
  const isIt = (each: Volume) => each.disk === word || each[way] === word;
  if (!server.volumes.some((each) => isIt(each))) {
    const all = server.volumes.map(volumeText).join(", ");
    refuse(`${server.name} has no ${way} ${word}; it has ${all}`);
  }
  const other = way === "export" ? "share" : "export";
  const volumes = server.volumes.flatMap((each) => {
    if (!isIt(each)) return [each];
    if (each.disk === word || each[other] === undefined) return [];
    const { [way]: _gone, ...rest } = each;
    return [rest];
  });
  return withoutIdleSmb({ ...server, volumes });
}

function withoutIdleSmb({ smb, ...server }: Server): Server {
  const isShared = server.volumes.some(({ share }) => share !== undefined);
  return isShared && smb !== undefined ? { ...server, smb } : server;
}

const smbDefaults: Smb = { workgroup: "WORKGROUP", guest: false, users: [], writeThrough: true };

/** Who may come by SMB: guests, or more users. */
function admit<S extends Pick<Server, "name"> & { readonly smb?: Smb | undefined }>(
  server: S,
  isGuest: boolean,
  users: Smb["users"],
): S {
  if (!isGuest && users.length === 0) return server;
  const smb = server.smb ?? smbDefaults;
  const known = users.find(({ name }) => smb.users.some((each) => each.name === name));
  if (known) there(`${server.name} has the user ${known.name} already`);
  const guest = smb.guest || isGuest;
  return { ...server, smb: { ...smb, guest, users: [...smb.users, ...users] } };
}

function removeUser(server: Server, name: string): Server {
  const { smb } = server;
  if (!smb?.users.some((each) => each.name === name)) {
    const all = smb?.users.map((each) => each.name).join(", ");
    refuse(`${server.name} has no user ${name}; it has ${all || "none"}`);
  }
  return { ...server, smb: { ...smb, users: smb.users.filter((each) => each.name !== name) } };
}

/** What the schema says of one key. */
type Nodes = Readonly<Record<string, { readonly type?: string }>>;

/** The keys of a part of a virtual server, as the configuration file has them; none of lists. */
function keysOf(part: "limits" | "smb"): Nodes {
  const nodes = Object.entries(nodeAt(["virtualServers", 0, part])?.properties ?? {});
  const plain = nodes.filter(([, node]) => node.type !== "array");
  return Object.fromEntries(plain.map(([key, node]) => [toSnake(key), node]));
}

/** Settings of SMB by `key=value` words; `key=none` is what it is if nothing is said. */
function setSmb(server: Server, words: readonly string[]): Server {
  const given = changedKeys(server.smb, words, keysOf("smb"));
  return { ...server, smb: { ...smbDefaults, ...given } };
}

/** `key=value` words; `key=none` takes a limit away. */
export function setLimits<S extends Pick<Server, "limits">>(
  server: S,
  words: readonly string[],
  known: Nodes = keysOf("limits"),
): S {
  return { ...server, limits: changedKeys(server.limits, words, known) } as S;
}

function changedKeys(
  former: object | undefined,
  words: readonly string[],
  known: Nodes,
): Record<string, unknown> {
  const changed: Record<string, unknown> = { ...former };
  for (const word of words) {
    const [key = "", value = ""] = word.split(/=(.*)/s);
    const names = Object.keys(known);
    if (!Object.hasOwn(known, key))
      throw new CliError(
        exitCodes.usage,
        "usage",
        `expected one of ${names.map((name) => `${name}=VALUE`).join(", ")}; found ${word}`,
      );
    if (value === "none") delete changed[toCamel(key)];
    else changed[toCamel(key)] = keyValue(value, known[key]?.type);
  }
  return changed;
}

/** A text that is no number stays one, and the daemon says what it expected. */
function keyValue(text: string, type: string | undefined): unknown {
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
  admit,
  removeUser,
  setSmb,
  setLimits,
} as const;
