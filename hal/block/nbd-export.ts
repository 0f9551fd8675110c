/**
 * One device on offer by NBD. An export that is *off* is there, with its size, so that a client can be connected in
 * advance, and refuses every operation: nothing can be read through it before the disk is owned, nothing written after.
 */
import type { ExportFacts } from "../../firmware-ts/wire/nbd/handshake.ts";
import { maxPayloadBytes } from "../../firmware-ts/wire/nbd/protocol.ts";
import type { BlockDevice } from "./device.ts";

/** Why a name is not served, as NBD says it (proto.md, "Option reply types"). */
export interface NbdRefusal {
  readonly error: number;
  readonly message: string;
}

/** Who may use an export that answers to more names than its own, and when. */
export interface NbdAdmission {
  /** Whether a name is meant for this export, rightly or not. */
  isOurs(name: string): boolean;
  /** Undefined when whoever asks under this name may be served now. */
  judge(name: string): NbdRefusal | undefined;
  /** Makes room for the client of this name. Settles when whoever must be gone before is gone; undefined when that is so already. */
  succeed(name: string): Promise<void> | undefined;
}

export interface NbdExportOptions {
  readonly name: string;
  readonly device: BlockDevice;
  readonly description?: string;
  readonly readOnly?: boolean;
  /** Default true. */
  readonly on?: boolean;
  /** With one, the export is found by the names that it takes for its own, and is not listed. */
  readonly admission?: NbdAdmission;
}

interface NbdExportCounters {
  reads: number;
  writes: number;
  readBytes: number;
  writtenBytes: number;
  /** Operations that the device failed. */
  failed: number;
  /** Operations refused because the export was off. */
  refused: number;
}

export class NbdExport {
  readonly device: BlockDevice;
  readonly facts: ExportFacts;
  readonly admission: NbdAdmission | undefined;
  readonly counters: NbdExportCounters = {
    reads: 0,
    writes: 0,
    readBytes: 0,
    writtenBytes: 0,
    failed: 0,
    refused: 0,
  };
  #on: boolean;
  #inFlight = 0;
  #whenIdle: (() => void)[] = [];

  constructor(options: NbdExportOptions) {
    const { device } = options;
    this.device = device;
    this.#on = options.on ?? true;
    this.admission = options.admission;
    this.facts = {
      name: options.name,
      description: options.description ?? "",
      sizeBytes: device.sizeBytes,
      blockSizeBytes: device.blockSizeBytes,
      preferredBlockSizeBytes: Math.max(4096, device.blockSizeBytes),
      maxPayloadBytes,
      readOnly: options.readOnly ?? false,
      // Nothing is cached per connection: every connection reaches the same device.
      multiConn: true,
    };
  }

  get on(): boolean {
    return this.#on;
  }

  turnOn(): void {
    this.#on = true;
  }

  /** Refuses from this instant; resolves when no operation is left on the device. */
  turnOff(): Promise<void> {
    this.#on = false;
    return this.idle();
  }

  /** Resolves when no operation is under way. */
  idle(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** A read of our own, under the same rules as those of clients: undefined when the export is off, or the device does not give it. */
  async read(offset: number, length: number): Promise<Buffer | undefined> {
    if (!this.#on) {
      this.counters.refused += 1;
      return undefined;
    }
    this.begin();
    this.counters.reads += 1;
    this.counters.readBytes += length;
    try {
      const read = await this.device.read(offset, length);
      if (!read.ok) this.counters.failed += 1;
      return read.ok ? read.value : undefined;
    } finally {
      this.end();
    }
  }

  begin(): void {
    this.#inFlight += 1;
  }

  end(): void {
    this.#inFlight -= 1;
    if (this.#inFlight > 0) return;
    const waiting = this.#whenIdle;
    this.#whenIdle = [];
    for (const resolve of waiting) resolve();
  }
}
