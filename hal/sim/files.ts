/** What the works of one controller mean for data: mounted volumes with their page caches, and the file services that use them. */
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { FileService } from "./file-service.ts";
import type { Kernel } from "./kernel.ts";
import type { Lan, Station } from "./lan.ts";
import { Pages, type PagesSetup } from "./pages.ts";
import type { Process } from "./process.ts";

/** Time in which a new file service takes back the sessions of the last one; a tenth of what is usual, like the lease. */
const graceMs = 1000;
/** A client that was not heard for so long is forgotten, here and on the volume. */
const leaseMs = 1000;

/** An address is announced as often as by the daemon, and with its waits (hal/linux/announcing). */
const announcements = 12;
const announceWaitMs = 50;
const announceWaitMsMax = 1000;

export interface FilesSetup extends Omit<PagesSetup, "disk" | "send" | "fenced"> {
  readonly kernel: Kernel;
  readonly lan: Lan;
  readonly files: Process;
  /** Announces. */
  readonly main: Process;
  readonly way: (disk: string) => (arrive: () => void) => void;
  /** Sessions that the volume of a virtual server remembers. */
  readonly known: (server: string) => Set<number>;
  readonly newInstance: () => number;
  readonly readBarrier: boolean;
  /** Told of each announcement; absent where nobody asks. */
  readonly told: ((text: string) => void) | undefined;
}

/** An announcement under way. */
interface Announcing {
  /** Clients of the last owner. */
  readonly clients: readonly Station[];
  left: number;
  waitMs: number;
}

export class Files {
  readonly #setup: FilesSetup;
  /** By the names of their virtual servers, and by the addresses at which they answer. */
  readonly #services = new Map<string, FileService>();
  readonly #listening = new Map<string, FileService>();
  readonly #fenced = new Set<string>();
  /** Volumes that still name the connections of their last owner. */
  readonly #unread = new Set<string>();
  readonly #announcing = new Map<string, Announcing>();

  constructor(setup: FilesSetup) {
    this.#setup = setup;
  }

  service(address: string): FileService | undefined {
    return this.#listening.get(address);
  }

  /** The disk was verified to be ours: its I/O flows again. */
  attached(disk: string): void {
    this.#fenced.delete(disk);
  }

  /** The block service has heard that the disk is another's, or is told to refuse. */
  refuse(disk: string): void {
    this.#fenced.add(disk);
  }

  isFenced(disk: string): boolean {
    return this.#fenced.has(disk);
  }

  mounted(disk: string): void {
    this.#unread.add(disk);
    const { kernel, way } = this.#setup;
    kernel.pages.get(disk)?.drop("abandoned");
    kernel.pages.set(
      disk,
      new Pages({ ...this.#setup, disk, send: way(disk), fenced: this.#fenced }),
    );
  }

  flushed(disk: string): void {
    this.#setup.kernel.pages.get(disk)?.syncAll();
  }

  /** Everything is on the disk, and nothing is written any more; who still uses it gets errors. */
  sealed(disk: string): void {
    this.flushed(disk);
    this.#setup.kernel.pages.get(disk)?.drop("sealed");
  }

  /** The mount ends; one that was not sealed loses what was not written before. */
  gone(disk: string): void {
    this.#setup.kernel.pages.get(disk)?.drop("abandoned");
    this.#setup.kernel.pages.delete(disk);
  }

  started(server: VirtualServerConfig, addresses: readonly string[]): void {
    const { kernel, timeline, known, newInstance, files, readBarrier } = this.#setup;
    const pages = kernel.pages.get(server.volumes[0]?.disk ?? "");
    if (!pages) throw new Error(`files: ${server.name} has no mounted volume`);
    if (this.#services.get(server.name)?.alive) return;
    const service = new FileService({
      instance: newInstance(),
      process: files,
      pages,
      known: known(server.name),
      graceMs,
      leaseMs,
      timeline,
      readBarrier,
    });
    this.#services.set(server.name, service);
    for (const address of addresses) this.#listening.set(address, service);
  }

  /** The service of a virtual server ended by itself. */
  died(server: string): void {
    for (const address of this.#addressesOf(server)) this.#resetAll(address);
    this.stopped(server);
  }

  #addressesOf(server: string): string[] {
    const service = this.#services.get(server);
    const listening = [...this.#listening].filter(([, each]) => each === service);
    return listening.map(([address]) => address);
  }

  /** The service of a virtual server lives on, and answers nothing any more. */
  muted(server: string): void {
    this.#services.get(server)?.mute();
  }

  /** Every process of this controller is gone. */
  killed(): void {
    for (const address of this.#listening.keys()) this.#resetAll(address);
  }

  /** The kernel resets the connections of a process that has ended, as far as the gate lets it. */
  #resetAll(address: string): void {
    const { lan, me } = this.#setup;
    const service = this.#listening.get(address);
    if (!service?.alive) return;
    const { instance } = service;
    for (const station of lan.stations)
      if (station.connectedTo === instance) lan.reset(me, address, station, instance);
  }

  stopped(server: string): void {
    for (const address of this.#addressesOf(server)) this.#listening.delete(address);
    this.#services.get(server)?.stop();
    this.#services.delete(server);
  }

  /** The clients of the last owner are those whom the volume names when it is read for the first time since its mount. */
  announced({ name, volumes }: VirtualServerConfig, addresses: readonly string[]): void {
    const { known, lan } = this.#setup;
    const clients = this.#unread.delete(volumes[0]?.disk ?? "")
      ? lan.stations.filter(({ id }) => known(name).has(id))
      : [];
    for (const address of addresses) {
      const announcing = { clients, left: announcements, waitMs: announceWaitMs };
      this.#announcing.set(address, announcing);
      this.#announce(address, announcing);
    }
  }

  #announce(address: string, announcing: Announcing): void {
    const { lan, me, timeline, main, kernel, told } = this.#setup;
    // Stopped with the address, or by a newer announcement.
    if (this.#announcing.get(address) !== announcing || !kernel.addresses.has(address)) return;
    const isRepeated = announcing.left < announcements;
    if (lan.announce(me, address, isRepeated)) told?.(`announces ${address}`);
    for (const station of announcing.clients) lan.tickle(me, address, station);
    announcing.left -= 1;
    if (announcing.left === 0) return;
    timeline.after(announcing.waitMs, () => main.give(() => this.#announce(address, announcing)));
    announcing.waitMs = Math.min(announceWaitMsMax, 2 * announcing.waitMs);
  }
}
