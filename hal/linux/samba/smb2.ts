/**
 * As much of SMB 2 as it takes to ask a server whether it serves its shares: NEGOTIATE, a null session, TREE_CONNECT ([MS-SMB2], whose sections are
 * named; NTLM messages are [MS-NLMP] 2.2.1). Pure; answers are read within their bounds.
 */

/** [MS-SMB2] 2.1: before each message one zero byte and three of its length. */
const transportBytes = 4;
/** What is read of an answer; those that are asked for here have some hundred bytes. */
export const messageBytesMax = 64 * 1024;

/** [MS-SMB2] 2.2.1.2 */
const head = {
  bytes: 64,
  statusAt: 8,
  commandAt: 12,
  creditsAt: 14,
  flagsAt: 16,
  messageAt: 24,
  treeAt: 36,
  sessionAt: 40,
} as const;
const protocolId = 0xfe534d42;
const fromServer = 1;

export const command = { negotiate: 0, sessionSetup: 1, treeConnect: 3 } as const;

/** [MS-ERREF] 2.3.1 */
export const ntStatus = {
  success: 0,
  moreProcessing: 0xc0000016,
  accessDenied: 0xc0000022,
  badNetworkName: 0xc00000cc,
} as const;

/** 2.2.3: 2.0.2 and 2.1, which every server of today speaks and which need nothing more to be said. */
const dialects = [0x0202, 0x0210] as const;
const signingEnabled = 1;

/** What all requests of one connection have in common. */
export interface Request {
  readonly messageId: number;
  /** As the server named it; 0 before. */
  readonly sessionId: bigint;
}

export interface Reply {
  readonly command: number;
  readonly messageId: number;
  readonly status: number;
  readonly sessionId: bigint;
  readonly body: Buffer;
}

export function encodeNegotiate(clientGuid: Uint8Array): Buffer {
  const body = Buffer.alloc(36 + 2 * dialects.length);
  body.writeUInt16LE(36, 0);
  body.writeUInt16LE(dialects.length, 2);
  body.writeUInt16LE(signingEnabled, 4);
  body.set(clientGuid.subarray(0, 16), 12);
  dialects.forEach((dialect, i) => void body.writeUInt16LE(dialect, 36 + 2 * i));
  return framed(command.negotiate, { messageId: 0, sessionId: 0n }, body);
}

/** 2.2.5, with a token of NTLM. */
export function encodeSessionSetup(request: Request, token: Uint8Array): Buffer {
  const fixedBytes = 24;
  const body = Buffer.alloc(fixedBytes + token.length);
  body.writeUInt16LE(25, 0);
  body[3] = signingEnabled;
  body.writeUInt16LE(head.bytes + fixedBytes, 12);
  body.writeUInt16LE(token.length, 14);
  body.set(token, fixedBytes);
  return framed(command.sessionSetup, request, body);
}

/** 2.2.9 */
export function encodeTreeConnect(request: Request, server: string, share: string): Buffer {
  const fixedBytes = 8;
  const path = Buffer.from(`\\\\${server}\\${share}`, "utf16le");
  const body = Buffer.alloc(fixedBytes + path.length);
  body.writeUInt16LE(9, 0);
  body.writeUInt16LE(head.bytes + fixedBytes, 4);
  body.writeUInt16LE(path.length, 6);
  body.set(path, fixedBytes);
  return framed(command.treeConnect, request, body);
}

/** Unicode, request target, NTLM, anonymous, always sign, extended session security, 128 bits ([MS-NLMP] 2.2.2.5). */
const ntlmFlags = 0x1 | 0x4 | 0x200 | 0x800 | 0x8000 | 0x80000 | 0x20000000;
const ntlmSignature = Buffer.from("NTLMSSP\0", "latin1");

/** [MS-NLMP] 2.2.1.1: nobody in particular wants to come. */
export function ntlmNegotiate(): Buffer {
  const message = Buffer.alloc(32);
  message.set(ntlmSignature);
  message.writeUInt32LE(1, 8);
  message.writeUInt32LE(ntlmFlags, 12);
  return message;
}

/** [MS-NLMP] 2.2.1.3 and 3.2.5.1.2: of a null session the LM response is one zero byte, and everything else is empty. */
export function ntlmAnonymous(): Buffer {
  const fixedBytes = 64;
  const message = Buffer.alloc(fixedBytes + 1);
  message.set(ntlmSignature);
  message.writeUInt32LE(3, 8);
  message.writeUInt16LE(1, 12);
  message.writeUInt16LE(1, 14);
  message.writeUInt32LE(fixedBytes, 16);
  for (const field of [20, 28, 36, 44, 52]) message.writeUInt32LE(fixedBytes, field + 4);
  message.writeUInt32LE(ntlmFlags, 60);
  return message;
}

/** Whether a server has said in NTLM what a client has to answer ([MS-NLMP] 2.2.1.2). */
export function isChallenge(body: Buffer): boolean {
  const token = securityBuffer(body, 4);
  const at = token?.indexOf(ntlmSignature) ?? -1;
  return token !== undefined && at >= 0 && at + 12 <= token.length && token[at + 8] === 2;
}

/** The dialect that a server has chosen (2.2.4); undefined when that is none that it was offered. */
export function dialectOf(body: Buffer): number | undefined {
  if (body.length < 64 || body.readUInt16LE(0) !== 65) return undefined;
  const dialect = body.readUInt16LE(4);
  return dialects.some((each) => each === dialect) ? dialect : undefined;
}

/** A buffer that offset and length at `at` point to; the offset counts from the head (2.2.6). */
function securityBuffer(body: Buffer, at: number): Buffer | undefined {
  if (body.length < at + 4) return undefined;
  const from = body.readUInt16LE(at) - head.bytes;
  const to = from + body.readUInt16LE(at + 2);
  return from >= at + 4 && to <= body.length ? body.subarray(from, to) : undefined;
}

/** Cuts a stream into messages. Throws on what is no frame of SMB 2, or too long a one. */
export class MessageReader {
  #rest = Buffer.alloc(0);

  push(chunk: Uint8Array): Reply[] {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const replies: Reply[] = [];
    while (this.#rest.length >= transportBytes) {
      const length = this.#rest.readUInt32BE(0);
      if (length > messageBytesMax) throw new Error(`a frame of ${length} bytes`);
      const end = transportBytes + length;
      if (this.#rest.length < end) break;
      replies.push(decode(this.#rest.subarray(transportBytes, end)));
      this.#rest = this.#rest.subarray(end);
    }
    return replies;
  }
}

function decode(message: Buffer): Reply {
  const known = message.length >= head.bytes && message.readUInt32BE(0) === protocolId;
  if (!known) throw new Error("no message of SMB 2");
  if ((message.readUInt32LE(head.flagsAt) & fromServer) === 0) throw new Error("not an answer");
  const messageId = message.readBigUInt64LE(head.messageAt);
  return {
    command: message.readUInt16LE(head.commandAt),
    messageId: messageId <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(messageId) : -1,
    status: message.readUInt32LE(head.statusAt),
    sessionId: message.readBigUInt64LE(head.sessionAt),
    body: message.subarray(head.bytes),
  };
}

function framed(code: number, { messageId, sessionId }: Request, body: Buffer): Buffer {
  const message = Buffer.alloc(transportBytes + head.bytes);
  message.writeUInt32BE(head.bytes + body.length, 0);
  const header = message.subarray(transportBytes);
  header.writeUInt32BE(protocolId, 0);
  header.writeUInt16LE(head.bytes, 4);
  // Each costs one credit and asks for one: a request at a time (3.2.4.1.2). The first has none to pay with.
  header.writeUInt16LE(code === command.negotiate ? 0 : 1, 6);
  header.writeUInt16LE(code, head.commandAt);
  header.writeUInt16LE(1, head.creditsAt);
  header.writeBigUInt64LE(BigInt(messageId), head.messageAt);
  header.writeUInt32LE(0, head.treeAt);
  header.writeBigUInt64LE(sessionId, head.sessionAt);
  return Buffer.concat([message, body]);
}
