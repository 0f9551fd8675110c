/**
 * Replies on their way out. All that complete in one turn of the event loop leave in one writev: header and data in
 * one segment, and one system call for many small replies.
 */
import type { Socket } from "node:net";

/** Data up to this size is copied behind its header; a copy costs less than one more entry of a writev. */
const copyUpToBytes = 8192;
const slabBytes = 128 * 1024;

export class NbdOutput {
  readonly #socket: Socket;
  #slab = Buffer.allocUnsafeSlow(slabBytes);
  /** The slab is filled up to `#filled` and handed out up to `#sent`. */
  #filled = 0;
  #sent = 0;
  #parts: Buffer[] = [];
  #queuedBytes = 0;
  #scheduled = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Bytes that the socket has not taken yet. */
  get pendingBytes(): number {
    return this.#queuedBytes + this.#socket.writableLength;
  }

  /** Queues one reply: `write` puts at most `headerBytes` into the buffer and returns where it ended. */
  reply(
    headerBytes: number,
    write: (out: Buffer, at: number) => number,
    data: Buffer | undefined,
  ): void {
    const copied = data !== undefined && data.length <= copyUpToBytes ? data.length : 0;
    if (this.#filled + headerBytes + copied > slabBytes) this.#newSlab();
    const from = this.#filled;
    this.#filled = write(this.#slab, from);
    if (data !== undefined) {
      if (copied > 0) {
        this.#filled += data.copy(this.#slab, this.#filled);
      } else if (data.length > 0) {
        this.#cut();
        this.#parts.push(data);
        this.#queuedBytes += data.length;
      }
    }
    this.#queuedBytes += this.#filled - from;
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => this.flush());
    }
  }

  /** Hands everything to the socket now. */
  flush(): void {
    this.#scheduled = false;
    this.#cut();
    const parts = this.#parts;
    this.#parts = [];
    this.#queuedBytes = 0;
    if (!this.#socket.writable || parts.length === 0) return;
    this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    this.#socket.uncork();
  }

  #cut(): void {
    if (this.#filled > this.#sent) this.#parts.push(this.#slab.subarray(this.#sent, this.#filled));
    this.#sent = this.#filled;
  }

  #newSlab(): void {
    this.#cut();
    // The old slab lives on until the socket has sent its parts, so it cannot be used again.
    this.#slab = Buffer.allocUnsafeSlow(slabBytes);
    this.#filled = 0;
    this.#sent = 0;
  }
}
