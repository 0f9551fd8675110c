/**
 * External Data Representation (RFC 4506), the few types that ONC RPC, MOUNT and NFS version 3 need.
 *
 * Obligations: pure; every variable-length item is read with a bound named by the caller; anything short, oversize or
 * malformed throws an `XdrError`, which the RPC layer turns into a fault of that one call or connection.
 */

/** Bytes that are not a well-formed XDR item within its bound. */
export class XdrError extends Error {
  override readonly name = "XdrError";
}

/** Builds one message. Grows as needed; `finish` returns a view of the bytes written. */
export class XdrWriter {
  #bytes: Buffer;
  #length = 0;

  constructor(initialBytes = 256) {
    this.#bytes = Buffer.allocUnsafe(initialBytes);
  }

  #reserve(count: number): number {
    const start = this.#length;
    const needed = start + count;
    if (needed > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2));
      this.#bytes.copy(grown, 0, 0, start);
      this.#bytes = grown;
    }
    this.#length = needed;
    return start;
  }

  uint32(value: number): this {
    const start = this.#reserve(4);
    this.#bytes.writeUInt32BE(value, start);
    return this;
  }

  uint64(value: bigint): this {
    const start = this.#reserve(8);
    this.#bytes.writeBigUInt64BE(value, start);
    return this;
  }

  /** RFC 4506 4.9: fixed-length opaque, padded with zeros to a multiple of four. */
  fixed(data: Uint8Array): this {
    const padded = (data.length + 3) & ~3;
    const start = this.#reserve(padded);
    this.#bytes.set(data, start);
    this.#bytes.fill(0, start + data.length, start + padded);
    return this;
  }

  /** RFC 4506 4.10: variable-length opaque. */
  opaque(data: Uint8Array): this {
    return this.uint32(data.length).fixed(data);
  }

  /** RFC 4506 4.11: a string is an opaque; UTF-8 here. */
  string(text: string): this {
    return this.opaque(Buffer.from(text, "utf8"));
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

/** Reads one message from front to back. */
export class XdrReader {
  readonly #bytes: Buffer;
  #offset = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  #take(count: number, what: string): number {
    if (count > this.remaining) {
      throw new XdrError(`${what}: ${count} bytes expected, ${this.remaining} left`);
    }
    const start = this.#offset;
    this.#offset += count;
    return start;
  }

  uint32(): number {
    return this.#bytes.readUInt32BE(this.#take(4, "uint32"));
  }

  uint64(): bigint {
    return this.#bytes.readBigUInt64BE(this.#take(8, "uint64"));
  }

  /** RFC 4506 4.4: a boolean is 0 or 1 and nothing else. */
  bool(): boolean {
    const value = this.uint32();
    if (value > 1) throw new XdrError(`bool: ${value}`);
    return value === 1;
  }

  /** A view of `length` bytes; the padding after it is skipped (its content is not checked, as RFC 4506 allows). */
  fixed(length: number): Buffer {
    const start = this.#take((length + 3) & ~3, "opaque");
    return this.#bytes.subarray(start, start + length);
  }

  opaque(maxBytes: number): Buffer {
    const length = this.uint32();
    if (length > maxBytes) throw new XdrError(`opaque: ${length} bytes, at most ${maxBytes}`);
    return this.fixed(length);
  }

  string(maxBytes: number): string {
    return this.opaque(maxBytes).toString("utf8");
  }

  skip(count: number): void {
    this.#take(count, "skip");
  }
}
