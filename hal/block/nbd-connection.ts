/**
 * One NBD client: handshake, then requests, pipelined. A reply is sent only after the device has answered, with the
 * device's answer. What a client may occupy is bounded: commands and bytes in flight, replies it does not read. Where the server demands
 * TLS, nothing is answered before it but STARTTLS and ABORT: neither which exports there are nor whether a name is one (proto.md, FORCEDTLS).
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
import type { NbdExport, NbdRefusal } from "./nbd-export.ts";
import { NbdOutput } from "./nbd-output.ts";
import { answer, execute } from "./nbd-requests.ts";
import type { NbdTls } from "./nbd-tls.ts";

/** Why the server ended a connection, beyond what the parser finds. */
export type NbdFaultReason =
  | ViolationReason
  | "badClientFlags"
  | "unknownExport"
  | "handshakeTimeout"
  | "truncated"
  | "tooManyConnections"
  | "plaintextAfterStartTls"
  | "tlsFailed"
  | "withoutTls";

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
  /** What a client must show before anything is answered. */
  readonly tls: NbdTls | undefined;
  fault(reason: NbdFaultReason, detail: string): void;
}

const unknownExport: NbdRefusal = { error: optionReply.errorUnknown, message: "" };

export class NbdConnection {
  /** The protected one, from STARTTLS on. */
  #socket: Socket;
  readonly #host: NbdConnectionHost;
  readonly #parser = new NbdClientParser();
  #output: NbdOutput;
  readonly #handshakeTimer: NodeJS.Timeout;
  #noZeroes = false;
  #structured = false;
  #protected = false;
  #askedWithoutTls = false;
  #export: NbdExport | undefined;
  #inFlight = 0;
  #bytesInFlight = 0;
  #stalled = false;
  /** An option whose answer takes time: those behind it wait, since options are answered in order. */
  #haggling = false;
  /** What comes through TLS is heard there, and not as it arrives. */
  #listenNoMore: () => void = () => {};
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
    socket.on("error", () => socket.destroy());
    socket.on("close", () => clearTimeout(this.#handshakeTimer));
    this.#listen(socket);
    socket.write(encodeGreeting());
  }

  #listen(socket: Socket): void {
    const heard = {
      data: (chunk: Buffer) => this.#receive(chunk),
      drain: () => this.#resume(),
      end: () => {
        if (this.#parser.bufferedBytes > 0 && !this.#stalled && !this.#ending)
          this.#fault("truncated", `${this.#parser.bufferedBytes} bytes of a message`);
      },
    };
    socket.on("data", heard.data).on("drain", heard.drain).on("end", heard.end);
    this.#listenNoMore = () =>
      socket.off("data", heard.data).off("drain", heard.drain).off("end", heard.end);
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
    while (!this.#ending && !this.#haggling && !this.#socket.destroyed) {
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
    if (type === option.startTls && this.#host.tls !== undefined) {
      this.#startTls(this.#host.tls, data);
      return;
    }
    if (this.#host.tls !== undefined && !this.#protected && type !== option.abort) {
      this.#withoutTls(type);
      return;
    }
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

  /** Proto.md, FORCEDTLS: EXPORT_NAME cannot be refused but by closing. A client that goes on asking has been counted. */
  #withoutTls(type: number): void {
    if (type === option.exportName) {
      this.#fault("withoutTls", "an export was asked for");
      return;
    }
    if (!this.#askedWithoutTls) this.#host.fault("withoutTls", `option ${type} was asked for`);
    this.#askedWithoutTls = true;
    this.#reply(type, optionReply.errorTlsRequired);
  }

  #startTls(tls: NbdTls, data: Buffer): void {
    if (data.length > 0 || this.#protected) {
      this.#reply(option.startTls, optionReply.errorInvalid);
      return;
    }
    // Whoever did not wait for the answer is not who will speak behind TLS.
    if (this.#parser.bufferedBytes > 0) {
      this.#fault("plaintextAfterStartTls", `${this.#parser.bufferedBytes} bytes`);
      return;
    }
    const plain = this.#socket;
    this.#listenNoMore();
    this.#reply(option.startTls, optionReply.ack);
    // What was agreed in the clear does not hold behind TLS (proto.md, NBD_OPT_STARTTLS).
    this.#structured = false;
    void tls.accept(plain).then((accepted) => {
      if (this.#ending) return;
      if (!accepted.ok) {
        this.#fault("tlsFailed", accepted.fault.message);
        return;
      }
      if (plain.destroyed) return;
      const socket = accepted.value;
      this.#socket = socket;
      this.#protected = true;
      this.#output = new NbdOutput(socket);
      socket.on("error", () => socket.destroy());
      socket.on("close", () => plain.destroy());
      this.#listen(socket);
    });
  }

  #exportName(data: Buffer): void {
    const name = decodeName(data);
    // EXPORT_NAME has no way to say no but closing (proto.md, NBD_OPT_EXPORT_NAME).
    const refuse = ({ message }: NbdRefusal) =>
      this.#fault("unknownExport", message || (name ?? "not a string"));
    if (name === undefined) refuse(unknownExport);
    else
      this.#admit(name, refuse, (found) => {
        this.#socket.write(encodeExportNameAnswer(found.facts, this.#noZeroes));
        this.#begin(found);
      });
  }

  #info(type: number, data: Buffer): void {
    const asked = decodeInfoRequest(data);
    if (asked === undefined) {
      this.#reply(type, optionReply.errorInvalid);
      return;
    }
    const refuse = ({ error, message }: NbdRefusal) => this.#reply(type, error, message);
    const tell = (found: NbdExport) => {
      this.#socket.cork();
      for (const reply of encodeInfoReplies(type, found.facts, asked.asked))
        this.#socket.write(reply);
      this.#reply(type, optionReply.ack);
      this.#socket.uncork();
    };
    if (type === option.go) {
      this.#admit(asked.name, refuse, (found) => {
        tell(found);
        this.#begin(found);
      });
      return;
    }
    const found = this.#host.find(asked.name);
    const refusal = found ? found.admission?.judge(asked.name) : unknownExport;
    if (found === undefined || refusal !== undefined) refuse(refusal ?? unknownExport);
    else tell(found);
  }

  /** Finds the export for transmission. `use` runs in the turn in which the name was judged: nothing can move between the two. */
  #admit(
    name: string,
    refuse: (refusal: NbdRefusal) => void,
    use: (found: NbdExport) => void,
  ): void {
    const found = this.#host.find(name);
    if (found === undefined) {
      refuse(unknownExport);
      return;
    }
    const refusal = found.admission?.judge(name);
    if (refusal) {
      refuse(refusal);
      return;
    }
    const others = found.admission?.succeed(name);
    if (others === undefined) {
      use(found);
      return;
    }
    this.#haggling = true;
    void others.then(() => {
      this.#haggling = false;
      if (this.#ending || this.#socket.destroyed) return;
      const since = found.admission?.judge(name);
      if (since) refuse(since);
      else use(found);
      this.#pump();
    });
  }

  #list(data: Buffer): void {
    if (data.length > 0) {
      this.#reply(option.list, optionReply.errorInvalid);
      return;
    }
    this.#socket.cork();
    for (const { facts, admission } of this.#host.exports()) {
      // The names of one with an admission are for who knows them.
      if (admission) continue;
      const entry = encodeServerEntry(facts.name);
      this.#socket.write(encodeOptionReply(option.list, optionReply.server, entry));
    }
    this.#reply(option.list, optionReply.ack);
    this.#socket.uncork();
  }

  #reply(type: number, reply: number, message = ""): void {
    this.#socket.write(encodeOptionReply(type, reply, Buffer.from(message, "utf8")));
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
