/**
 * Requests of an NBD client, and the replies of its server (proto.md, "Transmission phase"). Simple replies only: structured ones are
 * not negotiated, because a read of ours is answered whole or not at all.
 */
import { ByteQueue } from "./byte-queue.ts";
import type { Violation } from "./client-handshake.ts";
import {
  requestHeaderBytes,
  requestMagic,
  simpleReplyBytes,
  simpleReplyMagic,
} from "./protocol.ts";
import type { Cookie } from "./replies.ts";

export interface RequestHeader extends Cookie {
  readonly command: number;
  readonly flags: number;
  /** Bytes, at most 2^53. */
  readonly offset: number;
  readonly length: number;
}

/** Writes the header of a request and returns the position behind it. The payload of a write follows. */
export function writeRequest(out: Buffer, at: number, request: RequestHeader): number {
  out.writeUInt32BE(requestMagic, at);
  out.writeUInt16BE(request.flags, at + 4);
  out.writeUInt16BE(request.command, at + 6);
  out.writeUInt32BE(request.cookieHigh, at + 8);
  out.writeUInt32BE(request.cookieLow, at + 12);
  out.writeUInt32BE(Math.floor(request.offset / 0x1_0000_0000), at + 16);
  out.writeUInt32BE(request.offset % 0x1_0000_0000, at + 20);
  out.writeUInt32BE(request.length, at + 24);
  return at + requestHeaderBytes;
}

export interface ServerReply extends Cookie {
  readonly kind: "reply";
  /** 0, or an errno (proto.md, "Error values"). */
  readonly error: number;
  /** What a read gave; empty for everything else. May alias the chunk it arrived in. */
  readonly data: Buffer;
}

const empty = Buffer.alloc(0);

/**
 * Obligations: after a `violation` the connection must be closed, the parser yields nothing more. What it holds is bounded by the largest
 * read under way and one chunk, because a reply to nothing that was asked is a violation.
 */
export class NbdReplyParser {
  readonly #queue = new ByteQueue();
  readonly #dataBytesOf: (cookie: Cookie) => number | undefined;
  /** A reply whose header was taken, and whose data have not all arrived. */
  #begun: (Cookie & { readonly dataBytes: number }) | undefined;
  #dead = false;

  /** `dataBytesOf` says how much data the answer to this cookie carries if it is a success; undefined when nothing was asked under it. */
  constructor(dataBytesOf: (cookie: Cookie) => number | undefined) {
    this.#dataBytesOf = dataBytesOf;
  }

  /** Bytes that arrived and are not yet part of a reply that was returned. */
  get bufferedBytes(): number {
    return this.#queue.length;
  }

  push(chunk: Buffer): void {
    if (!this.#dead) this.#queue.push(chunk);
  }

  /** The next whole reply, or undefined until more bytes arrive. */
  next(): ServerReply | Violation | undefined {
    if (this.#dead) return undefined;
    if (this.#begun !== undefined) return this.#data();
    const header = this.#queue.peek(simpleReplyBytes);
    if (header === undefined) return undefined;
    if (header.readUInt32BE(0) !== simpleReplyMagic)
      return this.#violation("badReplyMagic", header.toString("hex", 0, 4));
    const error = header.readUInt32BE(4);
    const cookieHigh = header.readUInt32BE(8);
    const cookieLow = header.readUInt32BE(12);
    const dataBytes = this.#dataBytesOf({ cookieHigh, cookieLow });
    if (dataBytes === undefined)
      return this.#violation("unknownCookie", header.toString("hex", 8, 16));
    this.#queue.skip(simpleReplyBytes);
    if (error !== 0 || dataBytes === 0)
      return { kind: "reply", error, cookieHigh, cookieLow, data: empty };
    this.#begun = { cookieHigh, cookieLow, dataBytes };
    return this.#data();
  }

  #data(): ServerReply | undefined {
    if (this.#begun === undefined) return undefined;
    const { cookieHigh, cookieLow, dataBytes } = this.#begun;
    const data = this.#queue.take(dataBytes);
    if (data === undefined) return undefined;
    this.#begun = undefined;
    return { kind: "reply", error: 0, cookieHigh, cookieLow, data };
  }

  #violation(reason: Violation["reason"], detail: string): Violation {
    this.#dead = true;
    return { kind: "violation", reason, detail };
  }
}
