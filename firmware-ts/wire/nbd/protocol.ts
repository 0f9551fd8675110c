/**
 * NBD on the wire: the numbers of the protocol (NetworkBlockDevice/nbd, doc/proto.md) and the limits we put on everything
 * that a client may send, and a server answer.
 *
 * Glossary: *option*: a request of the handshake ("option haggling"); *cookie*: the 8 bytes by which a client matches a
 * reply to its request; *export*: a named device on offer; *chunk*: one message of a structured reply.
 */

/** `NBDMAGIC` and `IHAVEOPT`, as two 32-bit halves each: no BigInt on the fast path. */
export const greetingMagic = { high: 0x4e42444d, low: 0x41474943 } as const;
export const optionMagic = { high: 0x49484156, low: 0x454f5054 } as const;
export const optionReplyMagic = { high: 0x0003e889, low: 0x045565a9 } as const;
export const requestMagic = 0x25609513;
export const simpleReplyMagic = 0x67446698;
export const structuredReplyMagic = 0x668e33ef;

/** Handshake flags; server and client use the same two bits. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
} as const;

export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  errorUnsupported: 0x80000001,
  errorPolicy: 0x80000002,
  errorInvalid: 0x80000003,
  errorTlsRequired: 0x80000005,
  errorUnknown: 0x80000006,
  errorShutdown: 0x80000007,
} as const;

export const infoType = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const transmissionFlag = {
  hasFlags: 1,
  readOnly: 2,
  sendFlush: 4,
  sendFua: 8,
  sendTrim: 32,
  sendWriteZeroes: 64,
  sendDontFragment: 128,
  canMultiConn: 256,
  sendCache: 1024,
} as const;

export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
} as const;

export const commandFlag = { fua: 1, noHole: 2, dontFragment: 4 } as const;

/** Error values of the protocol; numerically those of Linux. */
export const nbdError = {
  none: 0,
  notPermitted: 1,
  io: 5,
  invalid: 22,
  noSpace: 28,
  overflow: 75,
  shutdown: 108,
} as const;
export type NbdError = (typeof nbdError)[keyof typeof nbdError];

/** A name, as every NBD string, may have 4096 bytes (proto.md, "Values", "string"). */
export const maxNameBytes = 4096;
/** The longest option that we answer: a name and 256 information requests. */
export const maxOptionBytes = 4 + maxNameBytes + 2 + 2 * 256;
/** Options of one handshake. Real clients send fewer than ten; LIST and INFO can be asked for ever. */
export const maxOptions = 128;
/** The payload that every client may assume (proto.md, "Block size constraints"). */
export const maxPayloadBytes = 32 * 1024 * 1024;
/** The longest reply to an option that a client of ours reads: an information number and a string. */
export const maxOptionReplyBytes = 2 + maxNameBytes;
/** Replies to one option. A server may tell more than it was asked, but not for ever. */
export const maxOptionReplies = 32;
export const requestHeaderBytes = 28;
export const simpleReplyBytes = 16;
export const structuredHeaderBytes = 20;
