/** The places of all virtual servers of a controller: made when the controller starts, whoever serves them. */
import { join } from "node:path";
import type { Config, VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { PlacesFolder } from "../linux/place/folder.ts";
import { Place, placeNic } from "../linux/place/place.ts";
import type { ServerPlace } from "../port/machine.ts";

export interface Places {
  /** Where volumes are mounted, a folder for each virtual server. */
  readonly folder: PlacesFolder;
  of(name: string): Place;
  server(name: string): ServerPlace;
}

/** Makes them, or finds those of an earlier life. Faults: `ioError`, `addressFailed`. */
export function openPlaces(config: Config): Outcome<Places> {
  const folder = new PlacesFolder(join(config.controller.runDir, "places"));
  const prepared = folder.prepare();
  if (!prepared.ok) return prepared;
  const places = new Map<string, Place>();
  for (const [index, { name }] of config.virtualServers.entries()) {
    const made = folder.make(name);
    if (!made.ok) return made;
    const opened = Place.open({
      name,
      nic: config.data.nic,
      mac: macOf(config, index),
      holdPath: join(config.controller.runDir, "networks", name),
    });
    if (!opened.ok) return opened;
    places.set(name, opened.value);
  }
  const of = (name: string): Place => {
    const place = places.get(name);
    if (!place) throw new Error(`places: no virtual server ${name}`);
    return place;
  };
  return good({
    folder,
    of,
    server: (name) => serverPlace(of(name), serverOf(config, name)),
  });
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
    route: () => Promise.resolve(place.route(routes, rules)),
  };
}

/** Locally administered, and of one controller: a standby that says something by itself must not move the other's port in the switch. */
function macOf({ pair, controller }: Config, index: number): Uint8Array {
  const side = controller.id === "a" ? 1 : 2;
  return Uint8Array.of(0x02, 0xdd, pair.id >> 8, pair.id & 0xff, side, index + 1);
}
