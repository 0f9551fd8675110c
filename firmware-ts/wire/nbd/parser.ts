/**
 * What an NBD client sends, parsed incrementally: bytes in, messages out, in whatever pieces they arrive.
 *
 * Obligations: after a `violation` the connection must be closed, the parser yields nothing more. The caller tells when
 * the handshake is over (`beginTransmission`), because only the server knows whether it accepted GO or EXPORT_NAME.
 */
import { ByteQueue } from "./byte-queue.ts";
import {
  command,
  maxOptionBytes,
  maxOptions,
  maxPayloadBytes,
  optionMagic,
  requestHeaderBytes,
  requestMagic,
} from "./protocol.ts";

/** Why a connection must end. One counter for each: keep the list short and closed. */
export const violationReasons = [
  "badOptionMagic",
  "badRequestMagic",
  "optionTooLong",
  "tooManyOptions",
  "payloadTooLong",
] as const;
export type ViolationReason = (typeof violationReasons)[number];

export interface ClientRequest {
  readonly kind: "request";
  readonly command: number;
  readonly flags: number;
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Bytes. Exact up to 2^53; what is larger is larger than every device and refused as out of range. */
  readonly offset: number;
  readonly length: number;
  /** The payload of a write; empty for every other command. May alias the chunk it arrived in. */
  readonly data: Buffer;
}

export type ClientMessage =
  | { readonly kind: "flags"; readonly flags: number }
  | { readonly kind: "option"; readonly option: number; readonly data: Buffer }
  | ClientRequest
  | { readonly kind: "violation"; readonly reason: ViolationReason; readonly detail: string };

const empty = Buffer.alloc(0);

export class NbdClientParser {
  readonly #queue = new ByteQueue();
  #phase: "flags" | "options" | "transmission" | "dead" = "flags";
  #optionsSeen = 0;

  /** Bytes that arrived and are not yet part of a message that was returned. */
  get bufferedBytes(): number {
    return this.#queue.length;
  }

  push(chunk: Buffer): void {
    if (this.#phase !== "dead") this.#queue.push(chunk);
  }

  /** From here on the client sends requests. */
  beginTransmission(): void {
    if (this.#phase !== "options") throw new Error(`NBD parser: transmission after ${this.#phase}`);
    this.#phase = "transmission";
  }

  /** The next whole message, or undefined until more bytes arrive. */
  next(): ClientMessage | undefined {
    switch (this.#phase) {
      case "flags":
        return this.#nextFlags();
      case "options":
        return this.#nextOption();
      case "transmission":
        return this.#nextRequest();
      case "dead":
        return undefined;
    }
  }

  #nextFlags(): ClientMessage | undefined {
    const bytes = this.#queue.take(4);
    if (bytes === undefined) return undefined;
    this.#phase = "options";
    return { kind: "flags", flags: bytes.readUInt32BE(0) };
  }

  #nextOption(): ClientMessage | undefined {
    const header = this.#queue.peek(16);
    if (header === undefined) return undefined;
    if (header.readUInt32BE(0) !== optionMagic.high || header.readUInt32BE(4) !== optionMagic.low)
      return this.#violation("badOptionMagic", header.toString("hex", 0, 8));
    const length = header.readUInt32BE(12);
    if (length > maxOptionBytes) return this.#violation("optionTooLong", `${length} bytes`);
    if (this.#queue.length < 16 + length) return undefined;
    this.#optionsSeen += 1;
    if (this.#optionsSeen > maxOptions)
      return this.#violation("tooManyOptions", `more than ${maxOptions}`);
    const option = header.readUInt32BE(8);
    this.#queue.skip(16);
    return { kind: "option", option, data: this.#queue.take(length) ?? empty };
  }

  #nextRequest(): ClientMessage | undefined {
    const header = this.#queue.peek(requestHeaderBytes);
    if (header === undefined) return undefined;
    if (header.readUInt32BE(0) !== requestMagic)
      return this.#violation("badRequestMagic", header.toString("hex", 0, 4));
    const type = header.readUInt16BE(6);
    const length = header.readUInt32BE(24);
    const payload = type === command.write ? length : 0;
    if (payload > maxPayloadBytes) return this.#violation("payloadTooLong", `${payload} bytes`);
    if (this.#queue.length < requestHeaderBytes + payload) return undefined;
    const flags = header.readUInt16BE(4);
    const cookieHigh = header.readUInt32BE(8);
    const cookieLow = header.readUInt32BE(12);
    const offset = header.readUInt32BE(16) * 0x1_0000_0000 + header.readUInt32BE(20);
    this.#queue.skip(requestHeaderBytes);
    const data = payload === 0 ? empty : (this.#queue.take(payload) ?? empty);
    return { kind: "request", command: type, flags, cookieHigh, cookieLow, offset, length, data };
  }

  #violation(reason: ViolationReason, detail: string): ClientMessage {
    this.#phase = "dead";
    return { kind: "violation", reason, detail };
  }
}
