/**
 * The network between clients and controllers, with the caches that make a moved address interesting: who answered last for an address,
 * and announcements that are late or lost. A kernel lets a request in, and its answer out, only while the gate is open.
 */
import { type ControllerId, controllerIdSchema } from "../../firmware-ts/schema/ids.ts";
import type { FileReply, FileRequest, FileService } from "./file-service.ts";
import type { Kernel } from "./kernel.ts";
import type { Timeline } from "./timeline.ts";

const ids = controllerIdSchema.options;

export interface Station {
  /** An answer or an announcement says that `who` has the address. */
  learn(address: string, who: ControllerId): void;
}

export interface LanSetup {
  readonly timeline: Timeline;
  readonly random: () => number;
  readonly kernels: Readonly<Record<ControllerId, Kernel>>;
  readonly dataLinks: Readonly<Record<ControllerId, boolean>>;
  readonly service: (who: ControllerId, address: string) => FileService | undefined;
}

const wayMs = 0.1;

export class Lan {
  readonly #setup: LanSetup;
  readonly stations: Station[] = [];
  /** Announcements come later than they should by up to this. */
  announceLateMs = 0;
  /** Part of all frames of clients that are lost. */
  loss = 0;

  constructor(setup: LanSetup) {
    this.#setup = setup;
  }

  #carry(arrive: () => void): void {
    const { timeline, random } = this.#setup;
    if (this.loss > 0 && random() < this.loss) return;
    timeline.after(wayMs * (0.5 + random()), arrive);
  }

  #hears(who: ControllerId, address: string): boolean {
    const { kernels, dataLinks, timeline } = this.#setup;
    const kernel = who === "a" ? kernels.a : kernels.b;
    return (who === "a" ? dataLinks.a : dataLinks.b) && kernel.isOpen(address, timeline.nowMs);
  }

  /** ARP: whoever has an open gate answers. */
  ask(station: Station, address: string): void {
    for (const who of ids)
      this.#carry(() => {
        if (this.#hears(who, address)) this.#carry(() => station.learn(address, who));
      });
  }

  /** Gratuitous ARP of a controller: leaves through its gate, and reaches each client on its own. */
  announce(who: ControllerId, addresses: readonly string[]): void {
    const { timeline, random } = this.#setup;
    for (const address of addresses) {
      if (!this.#hears(who, address)) continue;
      for (const station of this.stations) {
        const lateMs = this.announceLateMs * random();
        timeline.after(lateMs, () => this.#carry(() => station.learn(address, who)));
      }
    }
  }

  /** A request to the controller that the client's cache names. `refused`: nobody listens there (a reset). */
  send(
    to: ControllerId,
    address: string,
    request: FileRequest,
    answer: (reply: FileReply | { readonly kind: "refused" }) => void,
  ): void {
    const back = (reply: FileReply | { readonly kind: "refused" }) => {
      if (this.#hears(to, address)) this.#carry(() => answer(reply));
    };
    this.#carry(() => {
      if (!this.#hears(to, address)) return;
      const service = this.#setup.service(to, address);
      if (service?.alive) service.receive(request, back);
      else back({ kind: "refused" });
    });
  }
}
