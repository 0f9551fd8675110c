/**
 * Who is connected to a virtual server that is served here. Its volume knows, so that the next owner can tickle them: a client whose
 * request the old kernel has acknowledged waits for the answer without a word, for as long as its own timers are (a minute is usual).
 *
 * What is on the volume is the last owner's until it has been read, ours from then on. When the volume cannot be written any more (its
 * path is lost), what it does not know goes to the partner with the word that hands the virtual server over.
 */
import type { Connection } from "../../hal/port/addresses.ts";
import type { Machine } from "../../hal/port/machine.ts";
import { bareAddresses, type VirtualServerConfig } from "../schema/config.ts";
import { clientsCharsMax } from "../schema/messages.ts";
import { packClients, unpackClients } from "../wire/clients.ts";

/** Connections kept for tickling; beyond that clients must wait for their own timers. */
const connectionsMax = 4096;

export class ClientList {
  readonly #machine: Machine;
  readonly #server: string;
  #addresses: readonly string[] = [];
  #ports: readonly number[] = [];
  #path: string | undefined;
  readonly #log: (message: string) => void;
  #serving = false;
  /** What the volume knows; undefined as long as that is the last owner's. */
  #saved: ReadonlySet<string> | undefined;
  /** Who was connected when we looked last: a service that is being stopped cannot be asked any more. */
  #found: readonly Connection[] = [];
  /** Whose connections ended here behind a closed gate. */
  #cut: readonly Connection[] = [];
  #saving: Promise<void> | undefined;

  constructor(machine: Machine, server: VirtualServerConfig, log: (message: string) => void) {
    this.#machine = machine;
    this.#server = server.name;
    this.#log = (message) => log(`${server.name}: ${message}`);
    this.change(server);
  }

  /** It has other addresses from now on or, while it is not mounted, another volume. */
  change(server: VirtualServerConfig): void {
    this.#addresses = bareAddresses(server);
    this.#ports = this.#machine.servicePorts(server);
    const disk = server.volumes[0]?.disk;
    this.#path = disk === undefined ? undefined : this.#machine.mountPath(server, disk);
  }

  /** A volume that has just been mounted tells of the last owner's clients. */
  mounted(): void {
    this.#saved = undefined;
    this.#found = [];
    this.#cut = [];
  }

  /**
   * The service ends while its gate is closed, and may be started again in place: nobody hears that the connections have ended. To be asked before they do.
   */
  async cutOff(): Promise<void> {
    const before = this.#found;
    if (this.#serving) await this.#look();
    this.#cut = union([this.#cut, before, this.#found]).slice(-connectionsMax);
    this.#serving = false;
  }

  /** Clients come and go while the service runs. */
  serve(on: boolean): void {
    this.#serving = on;
  }

  /**
   * Clients that wait for an answer from a service that is no more: the last owner's, from the volume and from its last word, unless they have been read since the
   * mount; and those that were cut off here. Each is told once.
   */
  async inherit(lastWord: string | undefined): Promise<readonly Connection[]> {
    const told = union([unpackClients(lastWord ?? "", this.#addresses), this.#cut]);
    this.#cut = [];
    if (this.#path === undefined || this.#saved !== undefined) return told;
    const { state, note } = await this.#machine.states.load(this.#path);
    if (note !== undefined) this.#log(`service state: ${note}`);
    this.#saved = new Set();
    return [...told, ...state.connections];
  }

  /** Brings the volume up to date; does nothing while that is being done. Never rejects. */
  save(): Promise<void> {
    if (!this.#serving || this.#saved === undefined) return Promise.resolve();
    this.#saving ??= this.#saveNow().finally(() => {
      this.#saving = undefined;
    });
    return this.#saving;
  }

  /** The volume is given up while the service still answers: it learns everything, and nothing is written afterwards. */
  async finish(): Promise<void> {
    await this.#saving;
    await this.save();
    this.#serving = false;
  }

  /** Settles when nothing is being written, or after `limitMs`: an open file would keep the volume. */
  async idle(limitMs: number): Promise<void> {
    this.#serving = false;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, limitMs);
    });
    await Promise.race([this.#saving, late]);
    clearTimeout(timer);
  }

  /** Clients that the volume does not know, for the partner; to be asked before their connections are ended. */
  async unsaved(): Promise<string | undefined> {
    if (this.#serving) await this.#look();
    const fresh = this.#found.filter((each) => !this.#saved?.has(keyOf(each)));
    const { text, left } = packClients(fresh, this.#addresses, clientsCharsMax);
    if (left > 0) this.#log(`${left} clients came too late to be told to the partner`);
    return text === "" ? undefined : text;
  }

  /** Asks the kernel who is connected; false when it does not say. */
  async #look(): Promise<boolean> {
    const { addresses } = this.#machine.place(this.#server);
    const found: Connection[] = [];
    for (const port of this.#ports) {
      const some = await addresses.connections(this.#addresses, port);
      if (!some.ok) return false;
      found.push(...some.value);
    }
    this.#found = found;
    return true;
  }

  async #saveNow(): Promise<void> {
    const { states } = this.#machine;
    const isKnown = await this.#look();
    if (!isKnown || this.#path === undefined || this.#saved === undefined) return;
    const connections = this.#found.slice(0, connectionsMax);
    const keys = new Set(connections.map(keyOf));
    const known = this.#saved;
    if (keys.size === known.size && [...keys].every((key) => known.has(key))) return;
    const saved = await states.save(this.#path, { connections });
    if (saved.ok) this.#saved = keys;
  }
}

function union(lists: readonly (readonly Connection[])[]): Connection[] {
  return [...new Map(lists.flat().map((each) => [keyOf(each), each])).values()];
}

function keyOf({ localAddress, localPort, remoteAddress, remotePort }: Connection): string {
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`;
}
