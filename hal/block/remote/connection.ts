/**
 * One connection of a remote device: handshake, TLS, then requests, pipelined. It ends once, for one reason, and gives back what was
 * under way: whether that has happened at the server is then unknown.
 */
import { connect, type Socket } from "node:net";
import { type Fault, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import {
  type HandshakeStep,
  NbdClientHandshake,
  type ServerFacts,
  type ServerRefusal,
} from "../../../firmware-ts/wire/nbd/client-handshake.ts";
import { command, nbdError, requestHeaderBytes } from "../../../firmware-ts/wire/nbd/protocol.ts";
import {
  NbdReplyParser,
  type ServerReply,
  writeRequest,
} from "../../../firmware-ts/wire/nbd/reply-parser.ts";
import { NbdOutput } from "../nbd-output.ts";
import type { NbdAddress } from "../nbd-server.ts";
import type { NbdTls } from "../nbd-tls.ts";
import type { RemoteTiming } from "./options.ts";

export interface RemoteRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** The payload of a write. */
  readonly data: Buffer | undefined;
  /** Called once. */
  readonly settle: (outcome: Outcome<Buffer>) => void;
}

interface RemoteConnectionHost {
  readonly address: NbdAddress;
  readonly exportName: string;
  readonly tls: NbdTls | undefined;
  readonly timing: RemoteTiming;
  ready(facts: ServerFacts): void;
  /** Once. `lost` are the requests without an answer; whoever is told settles them. */
  ended(fault: Fault, lost: readonly RemoteRequest[]): void;
  /** A request was answered, and there may be room for another. */
  answered(): void;
}

const flushNowBytes = 64 * 1024;

interface Slot {
  request: RemoteRequest | undefined;
  /** Counts the uses of the slot, so that an answer to an earlier one is found out. */
  use: number;
  sentMs: number;
}

export class RemoteConnection {
  readonly #host: RemoteConnectionHost;
  readonly #plain: Socket;
  #socket: Socket;
  readonly #handshake: NbdClientHandshake;
  #output: NbdOutput | undefined;
  readonly #parser = new NbdReplyParser(({ cookieHigh, cookieLow }) => {
    const slot = this.#slots[cookieLow];
    if (slot?.request === undefined || slot.use !== cookieHigh) return undefined;
    return slot.request.command === command.read ? slot.request.length : 0;
  });
  readonly #slots: Slot[] = [];
  readonly #free: number[] = [];
  #timer: NodeJS.Timeout;
  #ended = false;
  #inFlight = 0;
  #bytesInFlight = 0;

  constructor(host: RemoteConnectionHost) {
    this.#host = host;
    this.#handshake = new NbdClientHandshake(host.exportName, { tls: host.tls !== undefined });
    const { connectTimeoutMs } = host.timing;
    this.#timer = setTimeout(
      () => this.#end("timeout", `no export within ${connectTimeoutMs} ms`),
      connectTimeoutMs,
    );
    const socket = connect({ ...host.address, noDelay: true, keepAlive: true });
    this.#plain = socket;
    this.#socket = socket;
    socket.on("error", (error) => this.#end("diskLost", error.message));
    socket.on("close", () => this.#end("diskLost", "the server closed the connection"));
    socket.on("data", (chunk: Buffer) => this.#haggle(chunk));
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  /** Sends a request of a connection that is ready. */
  send(request: RemoteRequest): void {
    const output = this.#output;
    if (output === undefined || this.#ended) throw new Error("remote: a request before the export");
    const index =
      this.#free.pop() ?? this.#slots.push({ request: undefined, use: 0, sentMs: 0 }) - 1;
    const slot = this.#slots[index];
    if (slot === undefined) throw new Error(`remote: no slot ${index}`);
    slot.request = request;
    slot.use = (slot.use + 1) >>> 0;
    slot.sentMs = performance.now();
    this.#inFlight += 1;
    this.#bytesInFlight += request.length;
    const header = {
      command: request.command,
      flags: request.flags,
      offset: request.offset,
      length: request.length,
      cookieHigh: slot.use,
      cookieLow: index,
    };
    output.reply(requestHeaderBytes, (out, at) => writeRequest(out, at, header), request.data);
    // One that is alone has nobody to share a system call with, and a large one is worth its own: the server begins while we do other work.
    if (this.#inFlight === 1 || request.length >= flushNowBytes) output.flush();
  }

  /** Ends the connection in good order: with nothing under way, the server is told. */
  disconnect(reason: string): void {
    const output = this.#output;
    if (output !== undefined && !this.#ended && this.#inFlight === 0) {
      const header = {
        ...{ command: command.disconnect, flags: 0, offset: 0, length: 0 },
        ...{ cookieHigh: 0, cookieLow: 0 },
      };
      output.reply(requestHeaderBytes, (out, at) => writeRequest(out, at, header), undefined);
      output.flush();
      this.#socket.destroySoon();
    }
    this.#end("diskLost", reason);
  }

  /** Ends the connection now, as if it had been lost. */
  cut(reason: string): void {
    this.#socket.destroy();
    this.#end("diskLost", reason);
  }

  #haggle(chunk: Buffer): void {
    this.#handshake.push(chunk);
    for (let step = this.#handshake.next(); step; step = this.#handshake.next()) {
      if (this.#ended) return;
      this.#perform(step);
    }
  }

  #perform(step: HandshakeStep): void {
    switch (step.kind) {
      case "send":
        this.#socket.write(step.bytes);
        return;
      case "startTls":
        void this.#startTls();
        return;
      case "ready":
        this.#begin(step.facts);
        return;
      case "refused": {
        const { code, text } = refusals[step.refusal];
        this.#end(code, step.message === "" ? text : `${text}: ${step.message}`);
        return;
      }
      case "violation":
        this.#end("refused", `the server broke the protocol: ${step.reason} (${step.detail})`);
        return;
    }
  }

  async #startTls(): Promise<void> {
    const { tls } = this.#host;
    if (tls === undefined) throw new Error("remote: TLS that was not asked for");
    this.#plain.removeAllListeners("data");
    const secured = await tls.begin(this.#plain);
    if (this.#ended) {
      if (secured.ok) secured.value.destroy();
      return;
    }
    if (!secured.ok) {
      this.#end(secured.fault.code, secured.fault.message);
      return;
    }
    const socket = secured.value;
    this.#socket = socket;
    socket.on("error", (error) => this.#end("diskLost", error.message));
    socket.on("close", () => this.#end("diskLost", "the server closed the connection"));
    socket.on("data", (chunk: Buffer) => this.#haggle(chunk));
    socket.write(this.#handshake.tlsStarted());
  }

  #begin(facts: ServerFacts): void {
    clearTimeout(this.#timer);
    this.#output = new NbdOutput(this.#socket);
    this.#socket.removeAllListeners("data");
    this.#socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    const { requestTimeoutMs } = this.#host.timing;
    this.#timer = setInterval(() => this.#checkDeadlines(), Math.max(1, requestTimeoutMs / 8));
    this.#host.ready(facts);
  }

  #checkDeadlines(): void {
    const { requestTimeoutMs } = this.#host.timing;
    const oldest = performance.now() - requestTimeoutMs;
    if (!this.#slots.some(({ request, sentMs }) => request && sentMs <= oldest)) return;
    this.#end("timeout", `a request without an answer for ${requestTimeoutMs} ms`);
  }

  #receive(chunk: Buffer): void {
    this.#parser.push(chunk);
    for (let reply = this.#parser.next(); reply; reply = this.#parser.next()) {
      if (reply.kind === "violation") {
        this.#end("refused", `the server broke the protocol: ${reply.reason} (${reply.detail})`);
        return;
      }
      this.#answered(reply);
      if (this.#ended) return;
    }
  }

  #answered(reply: ServerReply): void {
    const slot = this.#slots[reply.cookieLow];
    const request = slot?.request;
    // The parser yields answers to what is under way, and to nothing else.
    if (slot === undefined || request === undefined) throw new Error("remote: answer to nothing");
    slot.request = undefined;
    this.#free.push(reply.cookieLow);
    this.#inFlight -= 1;
    this.#bytesInFlight -= request.length;
    request.settle(reply.error === 0 ? good(reply.data) : failedAtServer(request, reply.error));
    if (!this.#ended) this.#host.answered();
  }

  #end(code: Fault["code"], message: string): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    // One that was told goodbye ends when that is written.
    if (!this.#socket.writableEnded) {
      this.#socket.destroy();
      this.#plain.destroy();
    }
    const lost: RemoteRequest[] = [];
    for (const { request } of this.#slots) if (request) lost.push(request);
    this.#host.ended({ code, operation: "remote device", message }, lost);
  }
}

const refusals: Readonly<Record<ServerRefusal, { code: Fault["code"]; text: string }>> = {
  policy: { code: "generationRefused", text: "the server does not serve this generation" },
  unknownExport: { code: "refused", text: "the server has no such export" },
  shuttingDown: { code: "diskLost", text: "the server does not serve now" },
  tlsRequired: { code: "refused", text: "the server demands TLS" },
  tlsUnsupported: { code: "refused", text: "the server has no TLS" },
  other: { code: "refused", text: "the server refused" },
};

/** Proto.md, "Error values". `fenced` is not among them: what a disk's reservation is, is its own controller's affair. */
function failedAtServer({ offset, length }: RemoteRequest, error: number) {
  const code =
    error === nbdError.invalid || error === nbdError.overflow
      ? "badInput"
      : error === nbdError.notPermitted
        ? "refused"
        : error === nbdError.shutdown
          ? "diskLost"
          : error === nbdError.noSpace
            ? "diskError"
            : "ioError";
  return failed(code, "remote device", `error ${error} for ${length} bytes at ${offset}`);
}
