/** The places of all virtual servers of a controller: made when the controller starts, whoever serves them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type Config, type VirtualServerConfig, vlansOf } from "../../firmware-ts/schema/config.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { type Carriers, openCarriers } from "../linux/carriers.ts";
import { expediteGracePeriods } from "../linux/grace-periods.ts";
import { PlacesFolder } from "../linux/place/folder.ts";
import { Place, placeNic } from "../linux/place/place.ts";
import type { Readiness } from "../linux/readiness.ts";
import type { MachineHandlers, ServerPlace } from "../port/machine.ts";

export interface Places {
  /** Where volumes are mounted, a folder for each virtual server. */
  readonly folder: PlacesFolder;
  /** Virtual servers of an earlier configuration, whose programs and volumes may still be there. Nobody reaches them any more. */
  readonly forgotten: readonly string[];
  of(name: string): Place;
  server(name: string): ServerPlace;
}

/** Where their networks are held. */
const networksOf = ({ controller }: Config) => join(controller.runDir, "networks");
const namesOf = ({ virtualServers }: Config) => new Set(virtualServers.map(({ name }) => name));

/**
 * Silences what an earlier life left, before the gate is set up anew: the old one knows every address of that life, and its leases have ended
 * or do so by themselves; the new one knows only what the configuration names today. Value: what interfaces are made on today, which is there
 * before the gate is. Faults: `ioError`, `addressFailed`.
 */
export async function silenceEarlierLife(
  config: Config,
  { log }: Pick<MachineHandlers, "log">,
): Promise<Outcome<Carriers>> {
  // First, because every interface of an earlier life waits for one.
  const expedited = expediteGracePeriods();
  if (!expedited.ok) log(explain(expedited.fault));
  const silenced = await silenceAll(networksOf(config), namesOf(config));
  return silenced.ok ? await openCarriers(config.data.nic, vlansOf(config)) : silenced;
}

/** Makes them anew, where `silenceEarlierLife` has been. Faults: `ioError`, `addressFailed`. */
export function openPlaces(
  config: Config,
  carriers: Carriers,
  readiness: Readiness,
  { addressLost }: Pick<MachineHandlers, "addressLost">,
): Outcome<Places> {
  const networks = networksOf(config);
  const folder = new PlacesFolder(join(config.controller.runDir, "places"));
  const names = namesOf(config);
  const prepared = folder.prepare();
  if (!prepared.ok) return prepared;
  const seen = namesIn(folder.path);
  if (!seen.ok) return seen;
  const places = new Map<string, Place>();
  for (const [index, { name, vlan }] of config.virtualServers.entries()) {
    const made = folder.make(name);
    if (!made.ok) return made;
    const opened = Place.open({
      name,
      carrier: carriers.of(vlan),
      mac: macOf(config, index),
      holdPath: join(networks, name),
    });
    if (!opened.ok) return opened;
    const watched = opened.value.watchAddresses(readiness, (reason) => addressLost(name, reason));
    if (!watched.ok) return watched;
    places.set(name, opened.value);
  }
  const of = (name: string): Place => {
    const place = places.get(name);
    if (!place) throw new Error(`places: no virtual server ${name}`);
    return place;
  };
  return good({
    folder,
    forgotten: seen.value.filter((name) => !names.has(name)),
    of,
    server: (name) => serverPlace(of(name), serverOf(config, name)),
  });
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

function serverPlace(place: Place, { routes, rules }: VirtualServerConfig): ServerPlace {
  return {
    addresses: place.addresses,
    nic: placeNic,
    restore: () => place.restore(),
    route: () => Promise.resolve(place.route(routes, rules)),
  };
}

/** Locally administered, and of one controller: a standby that says something by itself must not move the other's port in the switch. */
function macOf({ pair, controller }: Config, index: number): Uint8Array {
  const side = controller.id === "a" ? 1 : 2;
  return Uint8Array.of(0x02, 0xdd, pair.id >> 8, pair.id & 0xff, side, index + 1);
}
