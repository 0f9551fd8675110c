/**
 * The mass storage access program: the replica of a volume, offered to the partner and to nobody else, in one generation at a time.
 *
 * Obligations: a connection is served only under the name of the present generation, and only between `admit` and the next
 * `moveGeneration`. When that resolves, nothing that an older generation has asked for is under way on the device, nor will be. The same
 * holds between two *sessions* of the partner: what an older one left in a socket's buffer, to be read when this process runs again, never
 * takes effect behind a write of the next.
 */
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { optionReply } from "../../../firmware-ts/wire/nbd/protocol.ts";
import {
  decodeReplicaName,
  isReplicaNamePart,
  type ReplicaName,
} from "../../../firmware-ts/wire/nbd/replica-name.ts";
import type { BlockDevice } from "../device.ts";
import type { NbdAdmission, NbdExport, NbdRefusal } from "../nbd-export.ts";
import type { NbdServer } from "../nbd-server.ts";

export interface AccessOptions {
  /** It must demand TLS: that is what "the partner only" rests on. Several access programs may share one. */
  readonly server: NbdServer;
  readonly device: BlockDevice;
  readonly volume: string;
  readonly generation: string;
}

export interface AccessStatus {
  readonly generation: string;
  readonly admitting: boolean;
  readonly session: string | undefined;
  /** Sessions that were begun, and askings that were refused for their generation. */
  readonly sessions: number;
  readonly refusedGenerations: number;
}

/** More than there can be connections that wait for their turn. */
const endedSessionsMax = 1024;

export class AccessProgram implements NbdAdmission {
  readonly #server: NbdServer;
  readonly #volume: string;
  readonly #name: string;
  #export: NbdExport | undefined;
  #generation: string;
  #admitting = false;
  /** Moves whose device is not idle yet. */
  #moving = 0;
  #session: string | undefined;
  /** Settles when the session before this one has left the device. */
  #succession: Promise<void> | undefined;
  readonly #ended = new Set<string>();
  #sessions = 0;
  #refusedGenerations = 0;

  private constructor({ server, volume, generation }: AccessOptions) {
    this.#server = server;
    this.#volume = volume;
    this.#generation = generation;
    this.#name = `replica/${volume}`;
  }

  /** Puts a replica on offer; nobody is served before `admit`. Faults: `badInput`, and those of the server. */
  static offer(options: AccessOptions): Outcome<AccessProgram> {
    const { server, device, volume, generation } = options;
    if (!server.demandsTls)
      return failed("badInput", "offer replica", "the server does not demand TLS");
    if (![volume, generation].every(isReplicaNamePart))
      return failed("badInput", "offer replica", `volume "${volume}", generation "${generation}"`);
    const program = new AccessProgram(options);
    const added = server.add({ name: program.#name, device, on: false, admission: program });
    if (!added.ok) return added;
    program.#export = added.value;
    return good(program);
  }

  get status(): AccessStatus {
    return {
      generation: this.#generation,
      admitting: this.#admitting,
      session: this.#session,
      sessions: this.#sessions,
      refusedGenerations: this.#refusedGenerations,
    };
  }

  /** The present generation is on the disk: whoever has it may be served. */
  admit(): void {
    if (this.#moving > 0)
      throw new Error(`access program ${this.#volume}: admitted while it moves`);
    this.#admitting = true;
    this.#export?.turnOn();
  }

  /**
   * Ends every connection, and resolves when nothing is under way on the device. From then on only `next` will be served, once it has been
   * persisted and `admit` is called. Waits as long as the device does.
   */
  async moveGeneration(next: string): Promise<void> {
    if (!isReplicaNamePart(next)) throw new RangeError(`access program: generation "${next}"`);
    this.#admitting = false;
    this.#generation = next;
    this.#endSession();
    this.#moving += 1;
    await this.#leave();
    this.#moving -= 1;
  }

  /** Ends every connection and takes the replica off the server; resolves when nothing is under way on the device, which stays open. */
  async withdraw(): Promise<void> {
    this.#admitting = false;
    await this.#server.remove(this.#name);
  }

  isOurs(name: string): boolean {
    return decodeReplicaName(name)?.volume === this.#volume;
  }

  judge(name: string): NbdRefusal | undefined {
    const asked = decodeReplicaName(name);
    if (asked?.volume !== this.#volume) return { error: optionReply.errorUnknown, message: "" };
    if (asked.generation !== this.#generation) {
      this.#refusedGenerations += 1;
      const message = `this replica has generation ${this.#generation}, not ${asked.generation}`;
      return { error: optionReply.errorPolicy, message };
    }
    return this.#notNow(asked);
  }

  /** The two that another try may find changed. */
  #notNow({ session }: ReplicaName): NbdRefusal | undefined {
    const error = optionReply.errorShutdown;
    if (!this.#admitting) return { error, message: "this replica is not open" };
    return this.#ended.has(session) ? { error, message: "this session has ended" } : undefined;
  }

  succeed(name: string): Promise<void> | undefined {
    const session = decodeReplicaName(name)?.session;
    if (session === undefined || session === this.#session) return this.#succession;
    this.#endSession();
    this.#session = session;
    this.#sessions += 1;
    const succession = this.#leave().then(() => {
      if (this.#succession !== succession) return;
      this.#succession = undefined;
      if (this.#admitting) this.#export?.turnOn();
    });
    this.#succession = succession;
    return succession;
  }

  #endSession(): void {
    const [oldest] = this.#ended;
    if (this.#ended.size >= endedSessionsMax && oldest !== undefined) this.#ended.delete(oldest);
    if (this.#session !== undefined) this.#ended.add(this.#session);
    this.#session = undefined;
    this.#succession = undefined;
  }

  /** Nothing is begun any more from this instant on; resolves when nothing is under way. */
  #leave(): Promise<void> {
    if (this.#export === undefined) return Promise.resolve();
    this.#server.disconnect(this.#export);
    return this.#export.turnOff();
  }
}
