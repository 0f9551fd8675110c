/**
 * The serial link: COBS frames on a tty through `serialport`. A port that vanishes (USB adapter, other end of a
 * pty) is opened again by itself.
 *
 * Obligations. A beat is worth sending only now: the kernel would queue 4 kB, a third of a second at
 * 115,200 baud, so the line's own speed is counted here and a frame that finds it busy is dropped. `serialport` must
 * not run in a worker thread, and `SerialPort.list()` is never called: without udev it ends the process.
 */
import { SerialPort } from "serialport";
import { CobsDecoder, encodeCobs } from "../../firmware-ts/wire/cobs.ts";
import type { Link, LinkCounters, LinkHandlers } from "../port/link.ts";
import { assertFrame, linkFrameBytesMax, type MutableCounters, newCounters } from "./link-frame.ts";
import { Reopening } from "./reopening.ts";

export interface SerialLinkOptions {
  readonly path: string;
  readonly baudRate: number;
  readonly handlers: LinkHandlers;
}

/** Start bit, eight data bits, stop bit. */
const bitsPerByte = 10;
/** A frame may wait for the end of one like it, no longer: two beats in a row are one too many. */
const backlogMsMax = 6;

class SerialLink implements Link {
  readonly name = "serial";
  readonly maxFrameBytes = linkFrameBytesMax;
  readonly #options: SerialLinkOptions;
  readonly #decoder = new CobsDecoder(linkFrameBytesMax);
  readonly #counters: MutableCounters = newCounters();
  #port: SerialPort | undefined;
  readonly #reopening: Reopening;
  #closed = false;
  /** The kernel has not yet taken the last frame: hardware flow control, or a dead driver. */
  #writing = false;
  #lineFreeAtMs = 0;

  constructor(options: SerialLinkOptions) {
    this.#options = options;
    this.#reopening = new Reopening(() => this.#open(), options.handlers.carrier);
    this.#open();
  }

  send(frame: Uint8Array): void {
    assertFrame(frame);
    const now = performance.now();
    const busyMs = Math.max(0, this.#lineFreeAtMs - now);
    const port = this.#port;
    if (!port?.isOpen || this.#writing || busyMs > backlogMsMax) {
      this.#counters.dropped++;
      return;
    }
    const bytes = encodeCobs(frame);
    this.#lineFreeAtMs =
      now + busyMs + (bytes.length * bitsPerByte * 1000) / this.#options.baudRate;
    this.#writing = true;
    this.#counters.sent++;
    port.write(bytes, () => {
      if (port === this.#port) this.#writing = false;
    });
  }

  counters(): LinkCounters {
    const { truncated, oversize } = this.#decoder.counters();
    return { ...this.#counters, malformed: truncated + oversize };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#reopening.close();
    const port = this.#port;
    this.#port = undefined;
    if (!port?.isOpen) return;
    await new Promise<void>((resolve) => port.close(() => resolve()));
  }

  #open(): void {
    const { path, baudRate } = this.#options;
    const port = new SerialPort({ path, baudRate, autoOpen: false });
    this.#port = port;
    this.#writing = false;
    port.on("data", (chunk: Buffer) => this.#received(chunk));
    // Node ends a process whose stream fails unheard; the close that follows says all.
    port.on("error", (error) => this.#lost(port, error.message));
    port.on("close", (error: Error | null) => this.#lost(port, error?.message ?? "closed"));
    port.open((error) => {
      if (error) return this.#lost(port, error.message);
      if (this.#closed) return port.close(() => undefined);
      this.#decoder.reset();
      this.#reopening.opened(`${path} opened`);
    });
  }

  #received(chunk: Buffer): void {
    for (const frame of this.#decoder.push(chunk)) {
      this.#counters.received++;
      this.#options.handlers.frame(frame);
    }
  }

  #lost(port: SerialPort, reason: string): void {
    if (this.#closed || port !== this.#port) return;
    this.#port = undefined;
    // After an error that is not the end of the port, the descriptor would stay open and locked.
    if (port.isOpen) port.close(() => undefined);
    this.#reopening.lost(reason);
  }
}

/** Opens the port now and whenever it comes back; never fails: a port that is not there is a link without carrier. */
export function openSerialLink(options: SerialLinkOptions): Link {
  return new SerialLink(options);
}
