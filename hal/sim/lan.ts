/**
 * The network between clients and controllers, with the caches that make a moved address interesting: who answered last for an address,
 * and announcements that are late or lost. A kernel lets a request in, and its answer out, only while the gate is open; and a switch may
 * keep a port shut whose cable has a carrier.
 */
import { type ControllerId, controllerIdSchema } from "../../firmware-ts/schema/ids.ts";
import type { FileReply, FileRequest, FileService } from "./file-service.ts";
import type { Kernel } from "./kernel.ts";
import type { Timeline } from "./timeline.ts";

const ids = controllerIdSchema.options;

export interface Station {
  readonly id: number;
  /** An answer or an announcement says that `who` has the address. */
  learn(address: string, who: ControllerId): void;
  /** Where it sends what is for the address. */
  entry(address: string): ControllerId | undefined;
  /** The file service instance that its connection leads to; 0 when it has none. */
  readonly connectedTo: number;
  /** A reset for that connection. */
  reset(instance: number): void;
}

/** An announcement on its way to one station, kept back by the network. */
interface Kept {
  readonly address: string;
  readonly station: Station;
}

export interface LanSetup {
  readonly timeline: Timeline;
  readonly random: () => number;
  readonly kernels: Readonly<Record<ControllerId, Kernel>>;
  readonly dataLinks: Readonly<Record<ControllerId, boolean>>;
  readonly service: (who: ControllerId, address: string) => FileService | undefined;
}

const wayMs = 0.1;
const longestWayMs = 1.5 * wayMs;

export class Lan {
  readonly #setup: LanSetup;
  readonly stations: Station[] = [];
  /** Announcements come later than they should by up to this. */
  announceLateMs = 0;
  /** Part of all frames of clients that are lost. */
  loss = 0;
  /** Switch ports that forward; one that has just got a carrier may not. */
  readonly ports: Record<ControllerId, boolean> = { a: true, b: true };
  /** Announcements of a controller that the network keeps back until it is told to let them go. */
  readonly #kept: Record<ControllerId, Kept[] | undefined> = { a: undefined, b: undefined };

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
    const isThere = kernel.addresses.has(address);
    return isThere && this.#isLinked(dataLinks, who) && kernel.isOpen(address, timeline.nowMs);
  }

  #isLinked({ a, b }: Readonly<Record<ControllerId, boolean>>, who: ControllerId): boolean {
    return who === "a" ? a && this.ports.a : b && this.ports.b;
  }

  /** ARP: whoever has an open gate answers. */
  ask(station: Station, address: string): void {
    for (const who of ids)
      this.#carry(() => {
        if (this.#hears(who, address)) this.#carry(() => station.learn(address, who));
      });
  }

  /**
   * Gratuitous ARP of a controller: leaves through its gate, and reaches each client on its own. A repetition is carried only to those for
   * whom it is news. False when nothing left the kernel.
   */
  announce(who: ControllerId, address: string, isRepeated: boolean): boolean {
    if (!this.#hears(who, address)) return false;
    const { timeline, random } = this.#setup;
    const kept = who === "a" ? this.#kept.a : this.#kept.b;
    for (const station of this.stations) {
      if (kept) {
        kept.push({ address, station });
        continue;
      }
      if (isRepeated && this.announceLateMs === 0 && station.entry(address) === who) continue;
      const lateMs = this.announceLateMs * random();
      timeline.after(lateMs, () => this.#carry(() => station.learn(address, who)));
    }
    return true;
  }

  /** From now on the network keeps the announcements of a controller; or lets go what it has kept, as late as that is. */
  keep(who: ControllerId, on: boolean): void {
    const kept = this.#kept[who];
    this.#kept[who] = on ? (kept ?? []) : undefined;
    if (on) return;
    for (const { address, station } of kept ?? []) this.#carry(() => station.learn(address, who));
  }

  /**
   * An ACK that is out of the window (hal/linux/tickle): the client's stack answers with its true one, to where it believes the address to
   * be. If that is here, and our kernel knows no such connection, it is reset.
   */
  tickle(who: ControllerId, address: string, station: Station): void {
    if (!this.#hears(who, address)) return;
    if (this.loss > 0 && this.#setup.random() < this.loss) return;
    // It is sent behind the announcement, and does not overtake it.
    this.#setup.timeline.after(longestWayMs, () => {
      const instance = station.connectedTo;
      if (instance === 0 || station.entry(address) !== who) return;
      this.#carry(() => {
        if (this.#setup.service(who, address)?.instance !== instance)
          this.reset(who, address, station, instance);
      });
    });
  }

  /** A kernel ends a connection that it has nobody for. */
  reset(who: ControllerId, address: string, station: Station, instance: number): void {
    if (this.#hears(who, address)) this.#carry(() => station.reset(instance));
  }

  /**
   * A request to the controller that the client's cache names. `refused`: nobody listens there (a reset). `taken`: the kernel has it and
   * says so, whatever becomes of the process that is to answer.
   */
  send(
    to: ControllerId,
    address: string,
    request: FileRequest,
    answer: (reply: FileReply | { readonly kind: "refused" }) => void,
    taken?: () => void,
  ): void {
    const back = (reply: FileReply | { readonly kind: "refused" }) => {
      if (this.#hears(to, address)) this.#carry(() => answer(reply));
    };
    this.#carry(() => {
      if (!this.#hears(to, address)) return;
      const service = this.#setup.service(to, address);
      if (!service?.alive) return back({ kind: "refused" });
      if (taken) this.#carry(taken);
      service.receive(request, back);
    });
  }
}
