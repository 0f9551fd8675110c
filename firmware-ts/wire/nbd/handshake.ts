/** The handshake of an NBD server: what it sends, and the option data it receives (proto.md, "Handshake phase"). */
import {
  greetingMagic,
  handshakeFlag,
  infoType,
  maxNameBytes,
  optionMagic,
  optionReply,
  optionReplyMagic,
  transmissionFlag,
} from "./protocol.ts";

/** The first 18 bytes of a connection: fixed newstyle, and no need for 124 zeroes after EXPORT_NAME. */
export function encodeGreeting(): Buffer {
  const out = Buffer.allocUnsafe(18);
  out.writeUInt32BE(greetingMagic.high, 0);
  out.writeUInt32BE(greetingMagic.low, 4);
  out.writeUInt32BE(optionMagic.high, 8);
  out.writeUInt32BE(optionMagic.low, 12);
  out.writeUInt16BE(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes, 16);
  return out;
}

/** One reply to an option. Options are answered in order, `ack` or an error last. */
export function encodeOptionReply(option: number, type: number, data: Buffer): Buffer {
  const out = Buffer.allocUnsafe(20 + data.length);
  out.writeUInt32BE(optionReplyMagic.high, 0);
  out.writeUInt32BE(optionReplyMagic.low, 4);
  out.writeUInt32BE(option, 8);
  out.writeUInt32BE(type, 12);
  out.writeUInt32BE(data.length, 16);
  data.copy(out, 20);
  return out;
}

/** The payload of one SERVER reply to LIST. */
export function encodeServerEntry(name: string): Buffer {
  const bytes = Buffer.from(name, "utf8");
  const out = Buffer.allocUnsafe(4 + bytes.length);
  out.writeUInt32BE(bytes.length, 0);
  bytes.copy(out, 4);
  return out;
}

/** What a client is told about an export. */
export interface ExportFacts {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  /** Granularity of offsets and lengths. */
  readonly blockSizeBytes: number;
  readonly preferredBlockSizeBytes: number;
  readonly maxPayloadBytes: number;
  readonly readOnly: boolean;
  /** A flush on one connection covers the writes acknowledged on all of them. */
  readonly multiConn: boolean;
}

export function transmissionFlags(facts: ExportFacts): number {
  const flag = transmissionFlag;
  return (
    flag.hasFlags |
    flag.sendFlush |
    flag.sendDontFragment |
    flag.sendCache |
    (facts.readOnly ? flag.readOnly : flag.sendFua | flag.sendTrim | flag.sendWriteZeroes) |
    (facts.multiConn ? flag.canMultiConn : 0)
  );
}

/** The answer to EXPORT_NAME, which has no framing of its own; the zeroes are left out when the client agreed. */
export function encodeExportNameAnswer(facts: ExportFacts, noZeroes: boolean): Buffer {
  const out = Buffer.alloc(noZeroes ? 10 : 134);
  writeSize(out, facts.sizeBytes, 0);
  out.writeUInt16BE(transmissionFlags(facts), 8);
  return out;
}

/** The INFO replies for GO or INFO: the export always, the others when asked for. */
export function encodeInfoReplies(
  option: number,
  facts: ExportFacts,
  asked: readonly number[],
): Buffer[] {
  const replies = [infoExport(facts)];
  // Size constraints are worth telling unasked: proto.md lets a server send information that was not requested.
  replies.push(infoBlockSize(facts));
  if (asked.includes(infoType.name)) replies.push(infoText(infoType.name, facts.name));
  if (asked.includes(infoType.description) && facts.description !== "")
    replies.push(infoText(infoType.description, facts.description));
  return replies.map((data) => encodeOptionReply(option, optionReply.info, data));
}

function infoExport(facts: ExportFacts): Buffer {
  const out = Buffer.allocUnsafe(12);
  out.writeUInt16BE(infoType.export, 0);
  writeSize(out, facts.sizeBytes, 2);
  out.writeUInt16BE(transmissionFlags(facts), 10);
  return out;
}

function infoBlockSize(facts: ExportFacts): Buffer {
  const out = Buffer.allocUnsafe(14);
  out.writeUInt16BE(infoType.blockSize, 0);
  out.writeUInt32BE(facts.blockSizeBytes, 2);
  out.writeUInt32BE(facts.preferredBlockSizeBytes, 6);
  out.writeUInt32BE(facts.maxPayloadBytes, 10);
  return out;
}

function infoText(type: number, text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  const out = Buffer.allocUnsafe(2 + bytes.length);
  out.writeUInt16BE(type, 0);
  bytes.copy(out, 2);
  return out;
}

function writeSize(out: Buffer, sizeBytes: number, at: number): void {
  out.writeUInt32BE(Math.floor(sizeBytes / 0x1_0000_0000), at);
  out.writeUInt32BE(sizeBytes % 0x1_0000_0000, at + 4);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** An export name as sent by EXPORT_NAME, or undefined when it is no valid string. */
export function decodeName(data: Buffer): string | undefined {
  if (data.length > maxNameBytes || data.includes(0)) return undefined;
  try {
    return utf8.decode(data);
  } catch {
    return undefined;
  }
}

/** The data of GO and INFO: name and information requests; undefined when lengths disagree. */
export function decodeInfoRequest(
  data: Buffer,
): { readonly name: string; readonly asked: readonly number[] } | undefined {
  if (data.length < 6) return undefined;
  const nameLength = data.readUInt32BE(0);
  if (nameLength > data.length - 6) return undefined;
  const name = decodeName(data.subarray(4, 4 + nameLength));
  const count = data.readUInt16BE(4 + nameLength);
  const start = 6 + nameLength;
  if (name === undefined || data.length !== start + 2 * count) return undefined;
  const asked = Array.from({ length: count }, (_, i) => data.readUInt16BE(start + 2 * i));
  return { name, asked };
}
