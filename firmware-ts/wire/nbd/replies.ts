/** Replies of the transmission phase (proto.md, "Transmission"): written in place, so that a burst is one buffer. */
import {
  simpleReplyBytes,
  simpleReplyMagic,
  structuredHeaderBytes,
  structuredReplyMagic,
} from "./protocol.ts";

export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

const chunkFlagDone = 1;
const chunkType = { offsetData: 1, error: 0x8001 } as const;

/** Bytes before the data of a structured read reply: chunk header and the 8-byte offset. */
export const structuredReadBytes = structuredHeaderBytes + 8;
/** A structured error chunk without message: chunk header, error, empty message. */
export const structuredErrorBytes = structuredHeaderBytes + 6;

/** Writes a simple reply header and returns the position behind it. Read data follows when `error` is 0. */
export function writeSimpleReply(out: Buffer, at: number, cookie: Cookie, error: number): number {
  out.writeUInt32BE(simpleReplyMagic, at);
  out.writeUInt32BE(error, at + 4);
  out.writeUInt32BE(cookie.cookieHigh, at + 8);
  out.writeUInt32BE(cookie.cookieLow, at + 12);
  return at + simpleReplyBytes;
}

/** Writes the header of the only chunk of a read; `length` bytes of data follow. DF is kept by construction. */
export function writeStructuredRead(
  out: Buffer,
  at: number,
  cookie: Cookie,
  offset: number,
  length: number,
): number {
  writeChunkHeader(out, at, cookie, chunkType.offsetData, length + 8);
  out.writeUInt32BE(Math.floor(offset / 0x1_0000_0000), at + 20);
  out.writeUInt32BE(offset % 0x1_0000_0000, at + 24);
  return at + structuredReadBytes;
}

/** Writes a final error chunk. A read must fail this way once structured replies were negotiated. */
export function writeStructuredError(
  out: Buffer,
  at: number,
  cookie: Cookie,
  error: number,
): number {
  writeChunkHeader(out, at, cookie, chunkType.error, 6);
  out.writeUInt32BE(error, at + 20);
  out.writeUInt16BE(0, at + 24);
  return at + structuredErrorBytes;
}

function writeChunkHeader(
  out: Buffer,
  at: number,
  cookie: Cookie,
  type: number,
  length: number,
): void {
  out.writeUInt32BE(structuredReplyMagic, at);
  out.writeUInt16BE(chunkFlagDone, at + 4);
  out.writeUInt16BE(type, at + 6);
  out.writeUInt32BE(cookie.cookieHigh, at + 8);
  out.writeUInt32BE(cookie.cookieLow, at + 12);
  out.writeUInt32BE(length, at + 16);
}
