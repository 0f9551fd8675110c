/**
 * PDUs on a byte stream (RFC 7143 11.2): writing them, and an incremental parser with a limit on everything.
 *
 * Glossary: a PDU is a basic header segment of 48 bytes, additional header segments, an optional header digest, a
 * data segment padded to four bytes, and an optional data digest.
 *
 * Obligations: the parser accepts the stream in any pieces; after a problem it stays failed, because a stream
 * that lost its framing cannot be trusted again (RFC 7143 7.7 allows closing). The `header` and `ahs` of a
 * delivered PDU are valid only until the sink returns.
 */
import { crc32c } from "../crc32c.ts";
import { HEADER_BYTES } from "./pdu.ts";

const DIGEST_BYTES = 4;
const EMPTY = Buffer.alloc(0);
/** Below this size one copy is cheaper than a second entry in the write vector. */
const MERGE_BYTES_MAX = 1024;

/** Which digests the connection negotiated. */
export interface Digests {
  readonly header: boolean;
  readonly data: boolean;
}

export const NO_DIGESTS: Digests = { header: false, data: false };

const paddingOf = (bytes: number) => (4 - (bytes & 3)) & 3;

/**
 * The PDU as buffers to be written in this order. The data is not copied when it is large.
 * `header` is completed in place with the data segment's length.
 */
export const framePdu = (header: Buffer, data: Buffer, digests: Digests): readonly Buffer[] => {
  header.writeUIntBE(data.length, 5, 3);
  if (data.length === 0 && !digests.header) return [header];
  const padding = paddingOf(data.length);
  const headBytes = HEADER_BYTES + (digests.header ? DIGEST_BYTES : 0);
  const tailBytes = padding + (digests.data && data.length > 0 ? DIGEST_BYTES : 0);
  const merge = data.length <= MERGE_BYTES_MAX;
  const head = Buffer.alloc(merge ? headBytes + data.length + tailBytes : headBytes);
  header.copy(head);
  if (digests.header) head.writeUInt32LE(crc32c(header), HEADER_BYTES);
  const tail = merge ? head.subarray(headBytes + data.length) : Buffer.alloc(tailBytes);
  if (digests.data && data.length > 0) {
    const digest = crc32c(tail.subarray(0, padding), crc32c(data));
    tail.writeUInt32LE(digest, padding);
  }
  if (merge) {
    data.copy(head, headBytes);
    return [head];
  }
  return tailBytes > 0 ? [head, data, tail] : [head, data];
};

/** What the parser accepts at most. */
export interface PduLimits {
  readonly dataBytesMax: number;
  readonly ahsBytesMax: number;
}

/** One PDU as it came. */
export interface RawPdu {
  readonly header: Buffer;
  readonly ahs: Buffer;
  readonly data: Buffer;
}

/** Why a stream cannot be read on. */
export type FramingProblem = "dataTooLong" | "ahsTooLong" | "headerDigest" | "dataDigest";

/**
 * May name a buffer of exactly `bytes` bytes where the data segment shall go, so that a payload lands in its
 * final place; undefined lets the parser choose.
 */
export type Placement = (header: Buffer, bytes: number) => Buffer | undefined;

/** States: reading the header; the rest of the header (segments, digest); data; padding and digest. */
type Stage = "header" | "extension" | "data" | "trailer";

/** Cuts a byte stream into PDUs. */
export class PduParser {
  readonly #limits: PduLimits;
  readonly #place: Placement | undefined;
  readonly #head: Buffer;
  readonly #trailer = Buffer.alloc(3 + DIGEST_BYTES);
  #digests: Digests = NO_DIGESTS;
  #stage: Stage = "header";
  #need = HEADER_BYTES;
  #have = 0;
  #ahsBytes = 0;
  #dataBytes = 0;
  #data: Buffer = EMPTY;
  #problem: FramingProblem | null = null;
  #stopped = false;

  /** `place` is asked once for each PDU with data. */
  constructor(limits: PduLimits, place?: Placement) {
    this.#limits = limits;
    this.#place = place;
    this.#head = Buffer.alloc(HEADER_BYTES + limits.ahsBytesMax + DIGEST_BYTES);
  }

  /** Digests count from the next PDU on; a sink may call this for the PDU it was given. */
  useDigests(digests: Digests): void {
    this.#digests = digests;
  }

  /** Deliver nothing more, for a connection that is being closed. */
  stop(): void {
    this.#stopped = true;
  }

  /** Feeds bytes; calls `sink` for each complete PDU; returns the problem that ended the stream, or null. */
  push(chunk: Buffer, sink: (pdu: RawPdu) => void): FramingProblem | null {
    let at = 0;
    while (at < chunk.length && this.#problem === null && !this.#stopped) {
      at = this.#take(chunk, at, sink);
    }
    return this.#problem;
  }

  /** Moves as many bytes as the present stage needs; returns the new position. */
  #take(chunk: Buffer, at: number, sink: (pdu: RawPdu) => void): number {
    const missing = this.#need - this.#have;
    const end = Math.min(chunk.length, at + missing);
    const isWhole = end - at === this.#need;
    if (this.#stage === "data" && isWhole && this.#data === EMPTY) {
      this.#data = chunk.subarray(at, end);
    } else {
      if (this.#stage === "data" && this.#data === EMPTY) {
        this.#data = Buffer.allocUnsafe(this.#dataBytes);
      }
      chunk.copy(this.#target(), this.#offset() + this.#have, at, end);
    }
    this.#have += end - at;
    if (this.#have === this.#need) this.#advance(sink);
    return end;
  }

  #target(): Buffer {
    if (this.#stage === "data") return this.#data;
    return this.#stage === "trailer" ? this.#trailer : this.#head;
  }

  #offset(): number {
    return this.#stage === "extension" ? HEADER_BYTES : 0;
  }

  #enter(stage: Stage, need: number): boolean {
    this.#stage = stage;
    this.#need = need;
    this.#have = 0;
    return need > 0;
  }

  /** A stage is full: go through the following ones until one needs bytes. */
  #advance(sink: (pdu: RawPdu) => void): void {
    switch (this.#stage) {
      case "header": {
        if (!this.#readLengths()) return;
        const digestBytes = this.#digests.header ? DIGEST_BYTES : 0;
        if (!this.#enter("extension", this.#ahsBytes + digestBytes)) this.#headComplete(sink);
        return;
      }
      case "extension":
        this.#headComplete(sink);
        return;
      case "data": {
        const digestBytes = this.#digests.data ? DIGEST_BYTES : 0;
        if (!this.#enter("trailer", paddingOf(this.#dataBytes) + digestBytes)) this.#deliver(sink);
        return;
      }
      case "trailer":
        this.#deliver(sink);
    }
  }

  #readLengths(): boolean {
    this.#ahsBytes = this.#head.readUInt8(4) * 4;
    this.#dataBytes = this.#head.readUIntBE(5, 3);
    if (this.#ahsBytes > this.#limits.ahsBytesMax) this.#problem = "ahsTooLong";
    else if (this.#dataBytes > this.#limits.dataBytesMax) this.#problem = "dataTooLong";
    return this.#problem === null;
  }

  #headComplete(sink: (pdu: RawPdu) => void): void {
    const bytes = HEADER_BYTES + this.#ahsBytes;
    if (this.#digests.header) {
      const sent = this.#head.readUInt32LE(bytes);
      if (crc32c(this.#head.subarray(0, bytes)) !== sent) {
        this.#problem = "headerDigest";
        return;
      }
    }
    this.#data = EMPTY;
    if (this.#dataBytes === 0) {
      this.#deliver(sink);
      return;
    }
    const placed = this.#place?.(this.#head.subarray(0, HEADER_BYTES), this.#dataBytes);
    if (placed !== undefined) {
      if (placed.length !== this.#dataBytes) throw new RangeError("placement of the wrong length");
      this.#data = placed;
    }
    this.#enter("data", this.#dataBytes);
  }

  #deliver(sink: (pdu: RawPdu) => void): void {
    if (this.#dataBytes > 0 && this.#digests.data) {
      const padding = paddingOf(this.#dataBytes);
      const digest = crc32c(this.#trailer.subarray(0, padding), crc32c(this.#data));
      if (digest !== this.#trailer.readUInt32LE(padding)) {
        this.#problem = "dataDigest";
        return;
      }
    }
    const pdu = {
      header: this.#head.subarray(0, HEADER_BYTES),
      ahs: this.#head.subarray(HEADER_BYTES, HEADER_BYTES + this.#ahsBytes),
      data: this.#data,
    };
    this.#data = EMPTY;
    this.#enter("header", HEADER_BYTES);
    sink(pdu);
  }
}
