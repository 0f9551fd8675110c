/** The places of all virtual servers of a controller: made when a virtual server is defined, whoever serves it. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { canonicalAddress } from "../../firmware-ts/schema/config-routes.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { parsePrefix } from "../../firmware-ts/schema/ip-address.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Carriers } from "../linux/carriers.ts";
import { type ControlGroups, openControlGroups } from "../linux/control-groups/groups.ts";
import { expediteGracePeriods, raiseGracePeriods } from "../linux/grace-periods.ts";
import { PlacesFolder } from "../linux/place/folder.ts";
import { Place, placeNic } from "../linux/place/place.ts";
import type { Readiness } from "../linux/readiness.ts";
import type { MachineHandlers, ServerPlace } from "../port/machine.ts";
import { macOf } from "./numbering.ts";
import { priorities } from "./priorities.ts";

export interface Places {
  /** Where volumes are mounted, a folder for each virtual server. */
  readonly folder: PlacesFolder;
  /** What their programs may take. */
  readonly groups: ControlGroups;
  /** Virtual servers of an earlier life that are no more, whose programs and volumes may still be there. Nobody reaches them any more. */
  readonly forgotten: readonly string[];
  of(name: string): Place;
  server(name: string): ServerPlace;
  /**
   * Makes the place, or changes it beside what runs in it: limits hold from now on, addresses that it has no more are taken off, routes and rules are put right
   * where its addresses are. Idempotent. Faults: `ioError`, `addressFailed`, `badInput`.
   */
  define(definition: Definition): Promise<Outcome>;
  /** Ends what runs in it and removes it; its folder must be empty of mounts (`stillMounted`). Idempotent. Faults: `timeout`, `ioError`, `addressFailed`. */
  forget(name: string): Promise<Outcome>;
}

interface Entry {
  readonly place: Place;
  server: Definition["server"];
  /** Which of its limits were refused, as it was told. */
  told?: string;
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

/**
 * Opens the control groups of a controller, before it has children: in version 2 this process changes its own here. Their programs of an earlier life are in
 * them still.
 */
export function openGroups(config: Config): ControlGroups {
  return openControlGroups(controlGroupOf(config));
}

/** Where their networks are held. */
const networksOf = ({ controller }: Config) => join(controller.runDir, "networks");

/**
 * Silences what an earlier life left, before the gate is set up anew: the old one knows every address of that life, and its leases have ended
 * or do so by themselves; the new one knows only the addresses of today. Its programs end, too. Faults: `ioError`, `addressFailed`.
 */
export async function silenceEarlierLife(
  config: Config,
  groups: ControlGroups,
  { log }: Pick<MachineHandlers, "log">,
): Promise<Outcome> {
  // First, because every interface of an earlier life waits for one.
  for (const hurried of [expediteGracePeriods(), raiseGracePeriods(priorities.gracePeriods)])
    if (!hurried.ok) log(explain(hurried.fault));
  const [silenced, emptied] = await Promise.all([
    silenceAll(networksOf(config)),
    groups.emptyAll(emptyMs),
  ]);
  // What does not die waits for a disk: nobody reaches it any more, and its volume is abandoned like any other.
  if (!emptied.ok) log(explain(emptied.fault));
  return silenced;
}

/**
 * What places need of the rest of the machine: what interfaces are made on, what programs may take, and who hears of addresses that are lost and of limits that
 * have no effect.
 */
export interface PlaceParts extends Pick<MachineHandlers, "warning" | "log"> {
  readonly groups: ControlGroups;
  readonly carriers: Carriers;
  readonly readiness: Readiness;
  readonly addressLost: MachineHandlers["addressLost"];
}

/** Makes them anew, where `silenceEarlierLife` has been, and takes away those of others. Faults: `ioError`, `addressFailed`. */
export async function openPlaces(
  config: Config,
  definitions: readonly Definition[],
  parts: PlaceParts,
): Promise<Outcome<Places>> {
  const folder = new PlacesFolder(join(config.controller.runDir, "places"));
  const prepared = folder.prepare();
  if (!prepared.ok) return prepared;
  const seen = namesIn(folder.path);
  if (!seen.ok) return seen;
  const names = new Set(definitions.map(({ server }) => server.name));
  const released = await silenceAll(networksOf(config), (name) => !names.has(name));
  if (!released.ok) return released;
  const forgotten = seen.value.filter((name) => !names.has(name));
  const { groups, warning, log } = parts;
  for (const { keys, why } of groups.without)
    warning("limits.unsupported", `${keys.join(" and ")} of virtual servers: no effect: ${why}`);
  const places = new BenchPlaces(config, folder, forgotten, parts);
  for (const definition of definitions) {
    const made = await places.define(definition);
    if (!made.ok) return made;
  }
  await groups.prune();
  groups.watch((name, isYielding) => {
    if (isYielding)
      warning(
        "limits.yields",
        `${name}: its programs are refused new processes again and again: it is put behind all others, with 5 % of a processor, until that is over`,
      );
    else
      log(
        `${name}: its programs are not refused new processes any more; it has its share of the processors again`,
      );
  });
  return good(places);
}

class BenchPlaces implements Places {
  readonly folder: PlacesFolder;
  readonly groups: ControlGroups;
  readonly forgotten: readonly string[];
  readonly #config: Config;
  readonly #parts: PlaceParts;
  readonly #entries = new Map<string, Entry>();

  constructor(
    config: Config,
    folder: PlacesFolder,
    forgotten: readonly string[],
    parts: PlaceParts,
  ) {
    this.#config = config;
    this.#parts = parts;
    this.folder = folder;
    this.groups = parts.groups;
    this.forgotten = forgotten;
  }

  of(name: string): Place {
    return this.#entry(name).place;
  }

  server(name: string): ServerPlace {
    const { place } = this.#entry(name);
    return {
      addresses: place.addresses,
      nic: placeNic,
      restore: () => place.restore(),
      route: () => Promise.resolve(this.#route(name)),
    };
  }

  async define(definition: Definition): Promise<Outcome> {
    const { server } = definition;
    const entry = this.#entries.get(server.name);
    if (!entry) return await this.#make(definition);
    if (entry.server.vlan !== server.vlan)
      return failed("refused", `define ${server.name}`, "its interface is on another VLAN");
    entry.server = server;
    await this.#limit(entry);
    return await this.#putRight(entry);
  }

  async forget(name: string): Promise<Outcome> {
    const entry = this.#entries.get(name);
    const ended = await this.groups.forget(name, emptyMs);
    if (!ended.ok) return ended;
    const gone = this.folder.remove(name);
    if (!gone.ok) return gone;
    // One that was never made whole may have a network all the same.
    if (!entry) return await Place.silence(this.#holdOf(name), { forever: true });
    const removed = await entry.place.remove();
    if (removed.ok) this.#entries.delete(name);
    return removed;
  }

  async #make({ number, server }: Definition): Promise<Outcome> {
    const { name } = server;
    const made = this.folder.make(name);
    if (!made.ok) return made;
    const holdPath = this.#holdOf(name);
    // What an attempt that failed half-way has left would be in the way.
    const silenced = await Place.silence(holdPath, { forever: false });
    if (!silenced.ok) return silenced;
    const { carriers, readiness, addressLost } = this.#parts;
    const opened = Place.open({
      name,
      carrier: carriers.of(server.vlan),
      mac: macOf(this.#config, number),
      holdPath,
    });
    if (!opened.ok) return opened;
    const entry = { place: opened.value, server };
    this.#entries.set(name, entry);
    await this.#limit(entry);
    return opened.value.watchAddresses(readiness, (reason) => addressLost(name, reason));
  }

  /** What this kernel does not know, or refuses, is told once for each set of limits; it keeps nobody from being served. */
  async #limit(entry: Entry): Promise<void> {
    const { name, limits } = entry.server;
    const programs = await this.groups.limit(name, limits);
    const traffic = entry.place.limitBandwidth(limits.bandwidthMbit);
    const refused = [programs, traffic].flatMap((each) => (each.ok ? [] : [explain(each.fault)]));
    const told = refused.join("; ");
    if (told !== "" && told !== entry.told)
      this.#parts.warning("limits.refused", `${name}: ${told}`);
    entry.told = told;
  }

  /** The gate forgets an address when this has taken it off, not before: what the gate does not know passes. */
  async #putRight({ place, server }: Entry): Promise<Outcome> {
    const present = await place.addresses.list(placeNic);
    if (!present.ok) return present;
    const wanted = new Set(server.addresses.map(withPrefix));
    const isWanted = (each: (typeof present.value)[number]) =>
      wanted.has(withPrefix(`${each.address}/${each.prefixLength}`));
    for (const each of present.value) {
      if (isWanted(each)) continue;
      const removed = await place.addresses.remove(placeNic, each.address, each.prefixLength);
      if (!removed.ok) return removed;
    }
    // With an address that is still to come, gateways may be out of reach; its routes come with it.
    const isComplete = present.value.filter(isWanted).length === wanted.size;
    return isComplete ? place.route(server.routes, server.rules) : done;
  }

  #route(name: string): Outcome {
    const { place, server } = this.#entry(name);
    return place.route(server.routes, server.rules);
  }

  #holdOf(name: string): string {
    return join(networksOf(this.#config), name);
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (!entry) throw new Error(`places: no virtual server ${name}`);
    return entry;
  }
}

const withPrefix = (text: string) => `${canonicalAddress(text)}/${parsePrefix(text)?.length}`;

/**
 * All of them before the first is made, also those of virtual servers that are no more: their numbers, and with them their hardware addresses, may be
 * others' by now, and of an address that no virtual server of today has the gate knows nothing. `isForever`: of which names nothing is to be held
 * there any longer. Faults: `ioError`, `addressFailed`.
 */
export async function silenceAll(
  networks: string,
  isForever: (name: string) => boolean = () => false,
): Promise<Outcome> {
  const held = namesIn(networks);
  if (!held.ok) return held;
  const outcomes = await Promise.all(
    held.value.map((name) => Place.silence(join(networks, name), { forever: isForever(name) })),
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
