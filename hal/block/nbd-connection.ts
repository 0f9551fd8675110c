/**
 * One NBD client: handshake, then requests, pipelined. A reply is sent only after the device has answered, with the
 * device's answer. What a client may occupy is bounded: commands and bytes in flight, replies it does not read.
 */
import type { Socket } from "node:net";
import {
  decodeInfoRequest,
  decodeName,
  encodeExportNameAnswer,
  encodeGreeting,
  encodeInfoReplies,
  encodeOptionReply,
  encodeServerEntry,
} from "../../firmware-ts/wire/nbd/handshake.ts";
import {
  type ClientRequest,
  NbdClientParser,
  type ViolationReason,
} from "../../firmware-ts/wire/nbd/parser.ts";
import { handshakeFlag, option, optionReply } from "../../firmware-ts/wire/nbd/protocol.ts";
import type { NbdExport } from "./nbd-export.ts";
import { NbdOutput } from "./nbd-output.ts";
import { answer, execute } from "./nbd-requests.ts";

/** Why the server ended a connection, beyond what the parser finds. */
export type NbdFaultReason =
  | ViolationReason
  | "badClientFlags"
  | "unknownExport"
  | "handshakeTimeout"
  | "truncated"
  | "tooManyConnections";

export interface NbdConnectionLimits {
  readonly handshakeTimeoutMs: number;
  readonly maxCommandsInFlight: number;
  readonly maxBytesInFlight: number;
}

export interface NbdConnectionHost {
  readonly limits: NbdConnectionLimits;
  /** All exports, for LIST. */
  exports(): Iterable<NbdExport>;
  find(name: string): NbdExport | undefined;
  fault(reason: NbdFaultReason, detail: string): void;
}

const empty = Buffer.alloc(0);

export class NbdConnection {
  readonly #socket: Socket;
  readonly #host: NbdConnectionHost;
  readonly #parser = new NbdClientParser();
  readonly #output: NbdOutput;
  readonly #handshakeTimer: NodeJS.Timeout;
  #noZeroes = false;
  #structured = false;
  #export: NbdExport | undefined;
  #inFlight = 0;
  #bytesInFlight = 0;
  #stalled = false;
  #ending = false;

  constructor(socket: Socket, host: NbdConnectionHost) {
    this.#socket = socket;
    this.#host = host;
    this.#output = new NbdOutput(socket);
    this.#handshakeTimer = setTimeout(
      () => this.#fault("handshakeTimeout", `${host.limits.handshakeTimeoutMs} ms`),
      host.limits.handshakeTimeoutMs,
    );
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("drain", () => this.#resume());
    socket.on("error", () => socket.destroy());
    socket.on("end", () => {
      if (this.#parser.bufferedBytes > 0 && !this.#stalled && !this.#ending)
        this.#fault("truncated", `${this.#parser.bufferedBytes} bytes of a message`);
    });
    socket.on("close", () => clearTimeout(this.#handshakeTimer));
    socket.write(encodeGreeting());
  }

  /** The export this client uses, once it has chosen. */
  get export(): NbdExport | undefined {
    return this.#export;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    if (this.#ending) return;
    this.#parser.push(chunk);
    this.#pump();
  }

  #pump(): void {
    while (!this.#ending && !this.#socket.destroyed) {
      if (this.#full()) {
        this.#stalled = true;
        this.#socket.pause();
        return;
      }
      const message = this.#parser.next();
      if (message === undefined) return;
      switch (message.kind) {
        case "request":
          this.#request(message);
          break;
        case "option":
          this.#option(message.option, message.data);
          break;
        case "flags":
          this.#flags(message.flags);
          break;
        case "violation":
          this.#fault(message.reason, message.detail);
          break;
      }
    }
  }

  #full(): boolean {
    const { maxCommandsInFlight, maxBytesInFlight } = this.#host.limits;
    return (
      this.#inFlight >= maxCommandsInFlight ||
      this.#bytesInFlight + this.#output.pendingBytes >= maxBytesInFlight
    );
  }

  #resume(): void {
    if (!this.#stalled || this.#full()) return;
    this.#stalled = false;
    this.#socket.resume();
    this.#pump();
  }

  #flags(flags: number): void {
    // proto.md: a server MUST drop a client that sets a flag which it does not know.
    if ((flags & ~(handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes)) !== 0) {
      this.#fault("badClientFlags", `0x${flags.toString(16)}`);
      return;
    }
    this.#noZeroes = (flags & handshakeFlag.noZeroes) !== 0;
  }

  #option(type: number, data: Buffer): void {
    switch (type) {
      case option.exportName:
        this.#exportName(data);
        return;
      case option.go:
      case option.info:
        this.#info(type, data);
        return;
      case option.list:
        this.#list(data);
        return;
      case option.structuredReply:
        if (data.length > 0) {
          this.#reply(type, optionReply.errorInvalid);
          return;
        }
        this.#structured = true;
        this.#reply(type, optionReply.ack);
        return;
      case option.abort:
        this.#reply(type, optionReply.ack);
        this.#end();
        return;
      default:
        this.#reply(type, optionReply.errorUnsupported);
        return;
    }
  }

  #exportName(data: Buffer): void {
    const name = decodeName(data);
    const found = name === undefined ? undefined : this.#host.find(name);
    // EXPORT_NAME has no way to say no but closing (proto.md, NBD_OPT_EXPORT_NAME).
    if (found === undefined) {
      this.#fault("unknownExport", name ?? "not a string");
      return;
    }
    this.#socket.write(encodeExportNameAnswer(found.facts, this.#noZeroes));
    this.#begin(found);
  }

  #info(type: number, data: Buffer): void {
    const asked = decodeInfoRequest(data);
    if (asked === undefined) {
      this.#reply(type, optionReply.errorInvalid);
      return;
    }
    const found = this.#host.find(asked.name);
    if (found === undefined) {
      this.#reply(type, optionReply.errorUnknown);
      return;
    }
    this.#socket.cork();
    for (const reply of encodeInfoReplies(type, found.facts, asked.asked))
      this.#socket.write(reply);
    this.#reply(type, optionReply.ack);
    this.#socket.uncork();
    if (type === option.go) this.#begin(found);
  }

  #list(data: Buffer): void {
    if (data.length > 0) {
      this.#reply(option.list, optionReply.errorInvalid);
      return;
    }
    this.#socket.cork();
    for (const { facts } of this.#host.exports())
      this.#socket.write(
        encodeOptionReply(option.list, optionReply.server, encodeServerEntry(facts.name)),
      );
    this.#reply(option.list, optionReply.ack);
    this.#socket.uncork();
  }

  #reply(type: number, reply: number): void {
    this.#socket.write(encodeOptionReply(type, reply, empty));
  }

  #begin(found: NbdExport): void {
    clearTimeout(this.#handshakeTimer);
    this.#export = found;
    this.#parser.beginTransmission();
  }

  #request(request: ClientRequest): void {
    const target = this.#export;
    if (target === undefined) throw new Error("NBD connection: a request before the export");
    const work = execute(target, request);
    if (work === "disconnect") {
      this.#end();
      return;
    }
    if (typeof work === "number") {
      answer(this.#output, this.#structured, request, work, undefined);
      return;
    }
    this.#inFlight += 1;
    // A read occupies its length in replies, a write in its payload.
    const bytes = work.bytes;
    this.#bytesInFlight += bytes;
    void work.outcome.then(({ error, data }) => {
      this.#inFlight -= 1;
      this.#bytesInFlight -= bytes;
      if (this.#socket.destroyed) return;
      answer(this.#output, this.#structured, request, error, data);
      if (this.#stalled) this.#resume();
      if (this.#ending && this.#inFlight === 0) this.#finish();
    });
  }

  #end(): void {
    this.#ending = true;
    if (this.#inFlight === 0) this.#finish();
  }

  #finish(): void {
    this.#output.flush();
    this.#socket.end();
  }

  #fault(reason: NbdFaultReason, detail: string): void {
    this.#ending = true;
    this.#host.fault(reason, detail);
    this.#socket.destroy();
  }
}
