/**
 * The handshake of an NBD client (proto.md, "Newstyle negotiation"): bytes of the server in, steps out. With TLS it asks for that first
 * and tells nothing else, the name of the export least of all, before the channel is protected.
 *
 * Obligations: the caller performs each step before it asks for the next. After `startTls` it upgrades the connection and calls
 * `tlsStarted`; after `ready`, `refused` or `violation` the handshake is over and says nothing more.
 */
import { ByteQueue } from "./byte-queue.ts";
import {
  greetingMagic,
  handshakeFlag,
  infoType,
  maxNameBytes,
  maxOptionReplies,
  maxOptionReplyBytes,
  maxPayloadBytes,
  option,
  optionMagic,
  optionReply,
  optionReplyMagic,
  transmissionFlag,
} from "./protocol.ts";

/** Why a server is not worth talking to. A short, closed list, for counters. */
export type ServerViolation =
  | "badGreeting"
  | "notFixedNewstyle"
  | "badOptionReply"
  | "optionReplyTooLong"
  | "tooManyOptionReplies"
  | "badExportInfo"
  | "badBlockSizes"
  | "bytesBeforeTls"
  | "bytesUnasked"
  | "badReplyMagic"
  | "unknownCookie";

/** Why a server said no. */
export type ServerRefusal =
  | "tlsRequired"
  | "tlsUnsupported"
  | "unknownExport"
  | "policy"
  | "shuttingDown"
  | "other";

/** What a server tells of the export that it serves from now on. */
export interface ServerFacts {
  readonly sizeBytes: number;
  /** Bits of `transmissionFlag`. */
  readonly flags: number;
  /** Granularity of offsets and lengths, a power of two. */
  readonly blockSizeBytes: number;
  /** The largest read or write that may be asked for. */
  readonly maxPayloadBytes: number;
}

export interface Violation {
  readonly kind: "violation";
  readonly reason: ServerViolation;
  readonly detail: string;
}

export type HandshakeStep =
  | { readonly kind: "send"; readonly bytes: Buffer }
  | { readonly kind: "startTls" }
  | { readonly kind: "ready"; readonly facts: ServerFacts }
  | { readonly kind: "refused"; readonly refusal: ServerRefusal; readonly message: string }
  | Violation;

interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

const greetingBytes = 18;
const replyHeaderBytes = 20;
const empty = Buffer.alloc(0);

export class NbdClientHandshake {
  readonly #exportName: string;
  readonly #tls: boolean;
  readonly #queue = new ByteQueue();
  #phase: "greeting" | "startTls" | "upgrading" | "go" | "over" = "greeting";
  #replies = 0;
  #export: Pick<ServerFacts, "sizeBytes" | "flags"> | undefined;
  /** What a client may assume that was told nothing (proto.md, "Block size constraints"). */
  #sizes: Pick<ServerFacts, "blockSizeBytes" | "maxPayloadBytes"> = {
    blockSizeBytes: 1,
    maxPayloadBytes,
  };

  constructor(exportName: string, options: { readonly tls: boolean }) {
    if (Buffer.byteLength(exportName) > maxNameBytes)
      throw new RangeError(`NBD handshake: an export's name of more than ${maxNameBytes} bytes`);
    this.#exportName = exportName;
    this.#tls = options.tls;
  }

  push(chunk: Buffer): void {
    if (this.#phase !== "over") this.#queue.push(chunk);
  }

  /** The connection is protected from here on. Returns what is to be sent. */
  tlsStarted(): Buffer {
    if (this.#phase !== "upgrading") throw new Error(`NBD handshake: TLS while ${this.#phase}`);
    this.#phase = "go";
    return encodeGo(this.#exportName);
  }

  /** The next step, or undefined until more bytes arrive. */
  next(): HandshakeStep | undefined {
    switch (this.#phase) {
      case "greeting":
        return this.#greeting();
      case "startTls":
        return this.#afterStartTls();
      case "go":
        return this.#afterGo();
      case "upgrading":
      case "over":
        return undefined;
    }
  }

  #greeting(): HandshakeStep | undefined {
    const bytes = this.#queue.take(greetingBytes);
    if (bytes === undefined) return undefined;
    const isGreeting =
      bytes.readUInt32BE(0) === greetingMagic.high &&
      bytes.readUInt32BE(4) === greetingMagic.low &&
      bytes.readUInt32BE(8) === optionMagic.high &&
      bytes.readUInt32BE(12) === optionMagic.low;
    if (!isGreeting) return this.#violation("badGreeting", bytes.toString("hex"));
    const offered = bytes.readUInt16BE(16);
    if ((offered & handshakeFlag.fixedNewstyle) === 0)
      return this.#violation("notFixedNewstyle", `flags 0x${offered.toString(16)}`);
    const flags = Buffer.alloc(4);
    flags.writeUInt32BE(offered & (handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes));
    this.#phase = this.#tls ? "startTls" : "go";
    const first = this.#tls ? encodeOption(option.startTls, empty) : encodeGo(this.#exportName);
    return { kind: "send", bytes: Buffer.concat([flags, first]) };
  }

  #afterStartTls(): HandshakeStep | undefined {
    const reply = this.#reply(option.startTls);
    if (reply === undefined || "kind" in reply) return reply;
    if (reply.type !== optionReply.ack) {
      // Whoever stands in between can say this, too: nothing is sent without protection (proto.md, "TLS versions").
      const refused = this.#refused(reply);
      return refused.kind === "refused" ? { ...refused, refusal: "tlsUnsupported" } : refused;
    }
    // What arrives in the same breath was written by somebody who did not wait for TLS, and must not be taken for what comes through it.
    if (this.#queue.length > 0)
      return this.#violation("bytesBeforeTls", `${this.#queue.length} bytes`);
    this.#phase = "upgrading";
    this.#replies = 0;
    return { kind: "startTls" };
  }

  #afterGo(): HandshakeStep | undefined {
    for (;;) {
      const reply = this.#reply(option.go);
      if (reply === undefined || "kind" in reply) return reply;
      if (reply.type === optionReply.ack) return this.#ready();
      if (reply.type !== optionReply.info) return this.#refused(reply);
      const wrong = this.#info(reply.data);
      if (wrong) return wrong;
    }
  }

  #reply(asked: number): OptionReply | Violation | undefined {
    const header = this.#queue.peek(replyHeaderBytes);
    if (header === undefined) return undefined;
    const isReply =
      header.readUInt32BE(0) === optionReplyMagic.high &&
      header.readUInt32BE(4) === optionReplyMagic.low &&
      header.readUInt32BE(8) === asked;
    if (!isReply) return this.#violation("badOptionReply", header.toString("hex", 0, 12));
    const length = header.readUInt32BE(16);
    if (length > maxOptionReplyBytes)
      return this.#violation("optionReplyTooLong", `${length} bytes`);
    if (this.#queue.length < replyHeaderBytes + length) return undefined;
    this.#replies += 1;
    if (this.#replies > maxOptionReplies)
      return this.#violation("tooManyOptionReplies", `more than ${maxOptionReplies}`);
    const type = header.readUInt32BE(12);
    this.#queue.skip(replyHeaderBytes);
    return { type, data: this.#queue.take(length) ?? empty };
  }

  /** One INFO reply; those that we do not know are passed over (proto.md, NBD_REP_INFO). */
  #info(data: Buffer): Violation | undefined {
    if (data.length < 2) return this.#violation("badExportInfo", `${data.length} bytes`);
    const type = data.readUInt16BE(0);
    if (type === infoType.export) {
      if (data.length !== 12) return this.#violation("badExportInfo", `${data.length} bytes`);
      const sizeBytes = data.readUInt32BE(2) * 0x1_0000_0000 + data.readUInt32BE(6);
      const flags = data.readUInt16BE(10);
      if (!Number.isSafeInteger(sizeBytes) || (flags & transmissionFlag.hasFlags) === 0)
        return this.#violation("badExportInfo", data.toString("hex"));
      this.#export = { sizeBytes, flags };
    } else if (type === infoType.blockSize) {
      if (data.length !== 14) return this.#violation("badBlockSizes", `${data.length} bytes`);
      const [least, most] = [data.readUInt32BE(2), data.readUInt32BE(10)];
      // Proto.md: a power of two of at most 64 KiB, and a maximum that is a multiple of it, or no bound.
      const isBound = most === 0xffff_ffff || (most >= least && most % least === 0);
      const isRight = isPowerOfTwo(least) && least <= 65_536 && isBound;
      if (!isRight) return this.#violation("badBlockSizes", data.toString("hex"));
      const bounded = Math.min(most, maxPayloadBytes);
      this.#sizes = { blockSizeBytes: least, maxPayloadBytes: bounded - (bounded % least) };
    }
    return undefined;
  }

  #ready(): HandshakeStep {
    if (this.#export === undefined) return this.#violation("badExportInfo", "none before ACK");
    // A server speaks only when it is asked, and nothing was asked yet.
    if (this.#queue.length > 0)
      return this.#violation("bytesUnasked", `${this.#queue.length} bytes`);
    this.#phase = "over";
    return { kind: "ready", facts: { ...this.#export, ...this.#sizes } };
  }

  #refused({ type, data }: OptionReply): HandshakeStep {
    if (type < 0x80000000) return this.#violation("badOptionReply", `type ${type}`);
    this.#phase = "over";
    return { kind: "refused", refusal: refusalOf(type), message: readable(data) };
  }

  #violation(reason: ServerViolation, detail: string): Violation {
    this.#phase = "over";
    return { kind: "violation", reason, detail };
  }
}

function refusalOf(type: number): ServerRefusal {
  switch (type) {
    case optionReply.errorTlsRequired:
      return "tlsRequired";
    case optionReply.errorUnknown:
      return "unknownExport";
    case optionReply.errorPolicy:
      return "policy";
    case optionReply.errorShutdown:
      return "shuttingDown";
    default:
      return "other";
  }
}

const isPowerOfTwo = (value: number) => value > 0 && (value & (value - 1)) === 0;

/** A server's sentence for people, fit for a log: one line of printable characters, and not a long one. */
const readable = (data: Buffer) =>
  data
    .toString("utf8")
    .replace(/\p{C}+/gu, " ")
    .slice(0, 200);

/** One option of a client (proto.md, "Newstyle negotiation"). */
function encodeOption(type: number, data: Buffer): Buffer {
  const out = Buffer.allocUnsafe(16 + data.length);
  out.writeUInt32BE(optionMagic.high, 0);
  out.writeUInt32BE(optionMagic.low, 4);
  out.writeUInt32BE(type, 8);
  out.writeUInt32BE(data.length, 12);
  data.copy(out, 16);
  return out;
}

/** GO with a request for the block sizes, without which a server may insist on 512 bytes (proto.md, NBD_OPT_GO). */
function encodeGo(exportName: string): Buffer {
  const name = Buffer.from(exportName, "utf8");
  const data = Buffer.allocUnsafe(4 + name.length + 4);
  data.writeUInt32BE(name.length, 0);
  name.copy(data, 4);
  data.writeUInt16BE(1, 4 + name.length);
  data.writeUInt16BE(infoType.blockSize, 6 + name.length);
  return encodeOption(option.go, data);
}
