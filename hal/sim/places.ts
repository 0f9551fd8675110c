/**
 * What one controller has of each virtual server that is defined there: its configuration, and which of the kernel's disks and addresses it uses. Two that
 * use one disk, or answer at one address, are what definitions have to keep apart, on one controller as well as on two.
 */
import { type VirtualServerConfig, virtualServerSchema } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { bareAddress } from "../../firmware-ts/schema/ip-address.ts";
import { done, failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { Violation } from "./invariants.ts";
import type { Kernel } from "./kernel.ts";
import type { Shelf } from "./shelf.ts";

export interface PlacesSetup {
  readonly me: ControllerId;
  readonly kernel: Kernel;
  readonly shelf: Shelf;
  readonly definitions: readonly Definition[];
}

interface Place {
  readonly number: number;
  server: VirtualServerConfig;
}

export class Places {
  readonly #setup: PlacesSetup;
  readonly #places = new Map<string, Place>();
  /** Who has attached a disk, and on whose interface an address is. */
  readonly #disks = new Map<string, string>();
  readonly #addresses = new Map<string, string>();

  constructor(setup: PlacesSetup) {
    this.#setup = setup;
    // Of two that contradict each other one is made ready, as on the machine (hal/bench/roster): what is to be started first, then by number.
    const rank = ({ wanted, number }: Definition) => number + (wanted === "started" ? 0 : 1000);
    for (const { number, server, wanted } of setup.definitions.toSorted(
      (a, b) => rank(a) - rank(b),
    )) {
      const isTaken = server.volumes.some(({ disk }) => this.#holderOf(disk, "") !== undefined);
      if (wanted !== "deleted" && !this.#places.has(server.name) && !isTaken)
        this.#places.set(server.name, { number, server });
    }
  }

  serverOf(name: string): VirtualServerConfig {
    const place = this.#places.get(name);
    if (!place) throw new Error(`works: no virtual server ${name}`);
    return place.server;
  }

  find(name: string): VirtualServerConfig | undefined {
    return this.#places.get(name)?.server;
  }

  /** As the daemon's machine: what is in use stays, addresses that go are taken off, and everything else is for the next start. */
  define({ number, server }: Definition): Outcome {
    const operation = `define ${server.name}`;
    virtualServerSchema.parse(server);
    const old = this.#places.get(server.name);
    if (old && old.number !== number)
      return failed("refused", operation, `the name is that of number ${old.number}`);
    if (old && old.server.vlan !== server.vlan)
      return failed("refused", operation, "its interface is on another VLAN");
    const disks = server.volumes.map(({ disk }) => disk);
    for (const disk of disks) {
      if (!this.#answers(disk)) return failed("diskLost", operation, `${disk} does not answer`);
      const holder = this.#holderOf(disk, server.name);
      if (holder) return failed("refused", operation, `${disk} is a disk of ${holder}`);
    }
    const goes = old?.server.volumes.find(
      ({ disk }) => !disks.includes(disk) && this.#disks.has(disk),
    );
    if (goes) return failed("stillMounted", operation, `${goes.disk} is in use`);
    this.takeOff(old?.server.addresses.filter((each) => !server.addresses.includes(each)) ?? []);
    this.#places.set(server.name, { number, server });
    return done;
  }

  #answers(disk: string): boolean {
    const { shelf, me } = this.#setup;
    return shelf.has(disk) && shelf.reachable(disk, me);
  }

  #holderOf(disk: string, name: string): string | undefined {
    const holds = ({ server }: Place) =>
      server.name !== name && server.volumes.some((each) => each.disk === disk);
    return [...this.#places.values()].find(holds)?.server.name;
  }

  forget(number: number, name: string): Outcome {
    const place = this.#places.get(name);
    if (!place || place.number !== number) return done;
    const used = place.server.volumes.find(({ disk }) => this.#disks.get(disk) === name);
    if (used) return failed("stillMounted", `forget ${name}`, `${used.disk} is in use`);
    for (const [address, owner] of this.#addresses) if (owner === name) this.takeOff([address]);
    this.#places.delete(name);
    return done;
  }

  attach(name: string, disk: string): void {
    const other = this.#disks.get(disk);
    if (other !== undefined && other !== name)
      throw new Violation(`neverTwoUsers: ${name} attaches ${disk}, which ${other} has attached`);
    this.#disks.set(disk, name);
  }

  detach(disk: string): void {
    this.#disks.delete(disk);
  }

  /** Addresses with their prefix lengths, here as below. */
  putOn(name: string, addresses: readonly string[]): void {
    for (const each of addresses) {
      const address = bareAddress(each);
      const other = this.#addresses.get(address);
      if (other !== undefined && other !== name)
        throw new Violation(`neverTwoUsers: ${name} gets ${address}, which ${other} still has`);
      this.#addresses.set(address, name);
      this.#setup.kernel.addAddress(address);
    }
  }

  takeOff(addresses: readonly string[]): void {
    for (const each of addresses) {
      const address = bareAddress(each);
      this.#addresses.delete(address);
      this.#setup.kernel.removeAddress(address);
    }
  }
}
