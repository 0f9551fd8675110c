/**
 * Names and addresses of one world, all derived from its prefix, so that a later run finds by name what an earlier one
 * left behind.
 *
 *     data LAN     10.77.0.0/24  eth0   a .1  b .2  broker .5  clients .11 and on, floating .100 and on
 *     interconnect 10.78.0.0/24  ic0    a .1  b .2
 *     storage LAN  10.79.0.0/24  san0   a .1  b .2  shelf .100
 *     customers    192.168.7.0/24       each behind a router of its own, whose address on the data LAN is .61 and on: in each of
 *                                these LANs the same addresses, router .1 and client .2, as private networks have them
 *
 * All three are bridges in the switch's namespace, whose ports carry the name of LAN and machine (`d-a`, `i-a`, `s-a`):
 * there a cable is pulled (port down: both ends see it) or a port disabled (nobody sees anything).
 */

import { resolve } from "node:path";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { BenchError } from "./error.ts";

/** Where the programs of this repository lie. */
export const repoDir = resolve(import.meta.dirname, "../..");

/** Most clients of one world: their addresses stay below the floating ones. */
const clientsMax = 32;
/** As many as a pair may have. */
const serversMax = 64;
/** Addresses of their routers stay below the floating ones. */
const customersMax = 16;

export const controllerIds: readonly ControllerId[] = ["a", "b"];

/** A virtual server of a world, with one disk and one address; with a share, SMB clients may come as guests. */
export interface PlannedServer {
  readonly name: string;
  readonly home: ControllerId;
  readonly address: string;
  readonly disk: string;
  readonly export: string;
  /** Its way to clients outside the data LAN. */
  readonly gateway?: string;
  /** As SMB clients find its volume. */
  readonly share?: string;
}

/**
 * `pair`: clients are on the data LAN, and virtual servers at home on each controller by turns. `customers`: all at home on a, and each has a
 * client of its own, behind a router of its own.
 */
export type WorldKind = "pair" | "customers";

export interface LayoutOptions {
  /** Two if not given. */
  readonly clientCount?: number | undefined;
  /** Two if not given. */
  readonly serverCount?: number | undefined;
  /** Virtual servers whose disks are there, to be created while the world runs; none if not given. */
  readonly spareCount?: number | undefined;
  readonly kind?: WorldKind | undefined;
  /** Whether volumes are offered by SMB, too. */
  readonly shares?: boolean | undefined;
}

/** The part of a world that may be talked about without it running. */
export interface Layout {
  readonly prefix: string;
  /** Everything the world writes: keys, configurations, logs, state, disks. In memory, gone after a boot. */
  readonly baseDir: string;
  readonly logDir: string;
  readonly cgroupName: string;
  readonly namespaces: {
    readonly switch: string;
    readonly shelf: string;
    readonly broker: string;
    readonly controllers: { readonly [id in ControllerId]: string };
    readonly clients: readonly string[];
    /** Of each client's customer, in a world of customers. */
    readonly routers: readonly string[];
  };
  readonly clientCount: number;
  readonly servers: readonly PlannedServer[];
  /** Those that may come later: their disks are there, and nobody knows them. */
  readonly spares: readonly PlannedServer[];
}

const numberOf = { a: 1, b: 2 } as const;

export function dataAddress(id: ControllerId): string {
  return `10.77.0.${numberOf[id]}`;
}

export function interconnectAddress(id: ControllerId): string {
  return `10.78.0.${numberOf[id]}`;
}

export function storageAddress(id: ControllerId): string {
  return `10.79.0.${numberOf[id]}`;
}

export function clientAddress(index: number): string {
  return `10.77.0.${11 + index}`;
}

export function gatewayAddress(index: number): string {
  return `10.77.0.${61 + index}`;
}

/** The same for every customer. */
export const customerRouter = "192.168.7.1";
export const customerClient = "192.168.7.2";

export const shelfAddress = "10.79.0.100";
export const shelfPort = 3260;
export const brokerAddress = "10.77.0.5";

/** The LANs by the first letter of their switch ports, which is also the letter of the bridge. */
export type Lan = "d" | "i" | "s";

export function portName(lan: Lan, machine: string): string {
  return `${lan}-${machine}`;
}

function serverOf(index: number, kind: WorldKind, hasShare: boolean): PlannedServer {
  const number = index + 1;
  return {
    name: `vs${number}`,
    home: kind === "customers" || index % 2 === 0 ? "a" : "b",
    address: `10.77.0.${100 + index}`,
    disk: `D${number}`,
    export: `/vol${number}`,
    ...(kind === "customers" ? { gateway: gatewayAddress(index) } : {}),
    ...(hasShare ? { share: `vol${number}` } : {}),
  };
}

function demandCount(what: string, count: number, max: number): void {
  if (Number.isInteger(count) && count >= 1 && count <= max) return;
  throw new BenchError("badInput", what, `expected 1 to ${max}, not ${count}`);
}

/** Throws `badInput`, for a prefix that could not become part of a namespace's or a cgroup's name, too. */
export function layoutOf(prefix: string, options: LayoutOptions = {}): Layout {
  const {
    clientCount = 2,
    serverCount = 2,
    spareCount = 0,
    kind = "pair",
    shares = false,
  } = options;
  if (!/^[a-z][a-z0-9]{0,9}$/.test(prefix))
    throw new BenchError(
      "badInput",
      "prefix",
      `expected 1 to 10 lower-case letters or digits, a letter first, not "${prefix}"`,
    );
  demandCount("clients", clientCount, clientsMax);
  demandCount("virtual servers", serverCount, serversMax - spareCount);
  if (kind === "customers")
    demandCount("customers", serverCount, Math.min(clientCount, customersMax));
  const baseDir = `/dev/shm/dyad-bench-${prefix}`;
  return {
    prefix,
    baseDir,
    logDir: `${baseDir}/log`,
    cgroupName: `dyad-bench-${prefix}`,
    namespaces: {
      switch: `${prefix}-sw`,
      shelf: `${prefix}-shelf`,
      broker: `${prefix}-mq`,
      controllers: { a: `${prefix}-a`, b: `${prefix}-b` },
      clients: Array.from({ length: clientCount }, (_, i) => `${prefix}-c${i + 1}`),
      routers:
        kind === "pair" ? [] : Array.from({ length: clientCount }, (_, i) => `${prefix}-r${i + 1}`),
    },
    clientCount,
    servers: Array.from({ length: serverCount }, (_, index) => serverOf(index, kind, shares)),
    spares: Array.from({ length: spareCount }, (_, index) =>
      serverOf(serverCount + index, kind, shares),
    ),
  };
}

/** Whether a namespace belongs to a world with this prefix, however many clients that world had. */
export function ownsNamespace(prefix: string, name: string): boolean {
  return (
    name.startsWith(`${prefix}-`) &&
    /^(sw|shelf|mq|a|b|[cr]\d+)$/.test(name.slice(prefix.length + 1))
  );
}
