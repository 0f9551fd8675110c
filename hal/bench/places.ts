/** The places of all virtual servers of a controller: made when the controller starts, whoever serves them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Config, VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { type ControlGroups, openControlGroups } from "../linux/control-groups/groups.ts";
import { expediteGracePeriods } from "../linux/grace-periods.ts";
import { PlacesFolder } from "../linux/place/folder.ts";
import { Place, placeNic } from "../linux/place/place.ts";
import type { MachineHandlers, ServerPlace } from "../port/machine.ts";

export interface Places {
  /** Where volumes are mounted, a folder for each virtual server. */
  readonly folder: PlacesFolder;
  /** What their programs may take. */
  readonly groups: ControlGroups;
  /** Virtual servers of an earlier configuration, whose programs and volumes may still be there. Nobody reaches them any more. */
  readonly forgotten: readonly string[];
  of(name: string): Place;
  server(name: string): ServerPlace;
}

/** Time for what an earlier life left in its control groups to die. */
const emptyMs = 2000;

/**
 * The name of the control group of all virtual servers of a controller. Two controllers may run on one kernel; the state directory is what they never
 * share.
 */
export function controlGroupOf({ pair, controller }: Config): string {
  const own = crc32(controller.stateDir).toString(16).padStart(8, "0");
  return `dyad-${pair.id}-${controller.id}-${own}`;
}

/** Where their networks are held. */
const networksOf = ({ controller }: Config) => join(controller.runDir, "networks");
const namesOf = ({ virtualServers }: Config) => new Set(virtualServers.map(({ name }) => name));

/**
 * Silences what an earlier life left, before the gate is set up anew: the old one knows every address of that life, and its leases have ended
 * or do so by themselves; the new one knows only what the configuration names today. Its programs end, too. The value is for `openPlaces`. In
 * version 2 this process changes its control group here, before it has children. Faults: `ioError`, `addressFailed`.
 */
export async function silenceEarlierLife(
  config: Config,
  { log }: Pick<MachineHandlers, "log">,
): Promise<Outcome<ControlGroups>> {
  // First, because every interface of an earlier life waits for one.
  const expedited = expediteGracePeriods();
  if (!expedited.ok) log(explain(expedited.fault));
  const names = namesOf(config);
  const parent = controlGroupOf(config);
  const [silenced, groups] = await Promise.all([
    silenceAll(networksOf(config), names),
    openControlGroups({ parent, names, timeoutMs: emptyMs }),
  ]);
  // What does not die waits for a disk: nobody reaches it any more, and its volume is abandoned like any other.
  if (!groups.left.ok) log(explain(groups.left.fault));
  return silenced.ok ? good(groups) : silenced;
}

/** Makes them anew, where `silenceEarlierLife` has been. Faults: `ioError`, `addressFailed`. */
export function openPlaces(
  config: Config,
  groups: ControlGroups,
  { warning }: Pick<MachineHandlers, "warning">,
): Outcome<Places> {
  const networks = networksOf(config);
  const folder = new PlacesFolder(join(config.controller.runDir, "places"));
  const names = namesOf(config);
  const prepared = folder.prepare();
  if (!prepared.ok) return prepared;
  const seen = namesIn(folder.path);
  if (!seen.ok) return seen;
  const places = new Map<string, Place>();
  for (const [index, { name }] of config.virtualServers.entries()) {
    const made = folder.make(name);
    if (!made.ok) return made;
    const opened = Place.open({
      name,
      nic: config.data.nic,
      mac: macOf(config, index),
      holdPath: join(networks, name),
    });
    if (!opened.ok) return opened;
    places.set(name, opened.value);
  }
  const of = (name: string): Place => {
    const place = places.get(name);
    if (!place) throw new Error(`places: no virtual server ${name}`);
    return place;
  };
  const server = (name: string) => serverPlace(of(name), groups, serverOf(config, name));
  limitAll(config, groups, server, warning);
  return good({
    folder,
    groups,
    forgotten: seen.value.filter((name) => !names.has(name)),
    of,
    server,
  });
}

/** A limit that this kernel does not know is told once; it keeps nobody from being served. */
function limitAll(
  { virtualServers }: Config,
  groups: ControlGroups,
  server: (name: string) => ServerPlace,
  warning: MachineHandlers["warning"],
): void {
  for (const { keys, why } of groups.without)
    warning("limits.unsupported", `${keys.join(" and ")} of virtual servers: no effect: ${why}`);
  for (const { name, limits } of virtualServers) {
    const limited = server(name).limit(limits);
    if (!limited.ok) warning("limits.refused", `${name}: ${explain(limited.fault)}`);
  }
}

/**
 * All of them before the first is made, also those of an earlier configuration: their numbers, and with them their hardware addresses, may be
 * others' by now, and of an address that the configuration does not name the gate knows nothing. Faults: `ioError`, `addressFailed`.
 */
export async function silenceAll(networks: string, names: ReadonlySet<string>): Promise<Outcome> {
  const held = namesIn(networks);
  if (!held.ok) return held;
  const outcomes = await Promise.all(
    held.value.map((name) => Place.silence(join(networks, name), { forever: !names.has(name) })),
  );
  return outcomes.find((each) => !each.ok) ?? done;
}

function namesIn(folder: string): Outcome<string[]> {
  try {
    return good(readdirSync(folder));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return good([]);
    return failed("ioError", `look into ${folder}`, "not read", error);
  }
}

function serverOf(config: Config, name: string): VirtualServerConfig {
  const server = config.virtualServers.find((each) => each.name === name);
  if (!server) throw new Error(`places: no virtual server ${name}`);
  return server;
}

function serverPlace(
  place: Place,
  groups: ControlGroups,
  { name, routes, rules }: VirtualServerConfig,
): ServerPlace {
  return {
    addresses: place.addresses,
    nic: placeNic,
    route: () => Promise.resolve(place.route(routes, rules)),
    limit(limits) {
      const programs = groups.limit(name, limits);
      const traffic = place.limitBandwidth(limits.bandwidthMbit);
      return programs.ok ? traffic : programs;
    },
    usage: () => groups.usage(name),
  };
}

/** Locally administered, and of one controller: a standby that says something by itself must not move the other's port in the switch. */
function macOf({ pair, controller }: Config, index: number): Uint8Array {
  const side = controller.id === "a" ? 1 : 2;
  return Uint8Array.of(0x02, 0xdd, pair.id >> 8, pair.id & 0xff, side, index + 1);
}
