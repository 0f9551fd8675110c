/** What the works of one controller mean for data: mounted volumes with their page caches, and the file services that use them. */
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import { FileService } from "./file-service.ts";
import type { Kernel } from "./kernel.ts";
import type { Lan } from "./lan.ts";
import { Pages, type PagesSetup } from "./pages.ts";
import type { Process } from "./process.ts";

/** Time in which a new file service takes back the sessions of the last one. */
const graceMs = 400;

export interface FilesSetup extends Omit<PagesSetup, "disk" | "send" | "fenced"> {
  readonly kernel: Kernel;
  readonly lan: Lan;
  readonly files: Process;
  readonly way: (disk: string) => (arrive: () => void) => void;
  /** Sessions that the volume of a virtual server remembers. */
  readonly known: (server: string) => Set<number>;
  readonly newInstance: () => number;
  readonly readBarrier: boolean;
  readonly addressesOf: (server: string) => readonly string[];
}

export class Files {
  readonly #setup: FilesSetup;
  readonly #services = new Map<string, FileService>();
  readonly #fenced = new Set<string>();

  constructor(setup: FilesSetup) {
    this.#setup = setup;
  }

  service(address: string): FileService | undefined {
    return this.#services.get(address);
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
    const running = this.#services.get(addresses[0] ?? "");
    if (running?.alive) return;
    const service = new FileService({
      instance: newInstance(),
      process: files,
      pages,
      known: known(server.name),
      graceUntilMs: timeline.nowMs + graceMs,
      nowMs: () => timeline.nowMs,
      readBarrier,
    });
    for (const address of addresses) this.#services.set(address, service);
  }

  /** The service of a virtual server ended by itself. */
  died(server: string): void {
    this.stopped(this.#setup.addressesOf(server));
  }

  stopped(addresses: readonly string[]): void {
    for (const address of addresses) {
      this.#services.get(address)?.stop();
      this.#services.delete(address);
    }
  }

  announced(addresses: readonly string[]): void {
    this.#setup.lan.announce(this.#setup.me, addresses);
  }
}
