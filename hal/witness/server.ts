/**
 * The built-in witness's listener: two questions over HTTPS with pre-shared keys, each answered when what it changed is durable. Everything
 * has a limit; whoever has no key gets no further than the handshake.
 */
import { constants } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { answerRequest, listVolumes } from "../../firmware-ts/core/witness/state.ts";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { witnessRequestSchema } from "../../firmware-ts/schema/witness.ts";
import { parseJson } from "./call.ts";
import { pairOfIdentity, pskTls } from "./psk.ts";
import type { StateStore } from "./state-file.ts";
import { strangers } from "./strangers.ts";

export const requestBytesMax = 4096;
/** Of all clients, and of one address: two controllers, their administrators, and whoever only connects. */
const connectionsMax = 64;
const connectionsPerAddressMax = 16;
const handshakeTimeoutMs = 3000;
const requestTimeoutMs = 3000;

export interface ServerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly store: StateStore;
  /** Of each pair, 32 bytes. */
  readonly keys: ReadonlyMap<string, Uint8Array>;
  readonly log: (line: string) => void;
  /** The state could not be kept, and nothing was answered: the process has to end, and to read again what is on the disk. */
  readonly fatal: (error: unknown) => void;
}

export interface WitnessServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Listens, or fails with `ioError`. */
export function serveWitness(options: ServerOptions): Promise<Outcome<WitnessServer>> {
  const { host, port, keys, log } = options;
  const pairs = new WeakMap<TLSSocket, string>();
  let ended = false;
  const once: ServerOptions = {
    ...options,
    fatal(error) {
      ended = true;
      options.fatal(error);
    },
  };
  const server = createServer(
    {
      ...pskTls,
      // RFC 5077: a session that is resumed proves no key again, and nobody would know whose it is. Without tickets, and without a store
      // of sessions, each connection shows its key.
      secureOptions: constants.SSL_OP_NO_TICKET,
      handshakeTimeout: handshakeTimeoutMs,
      requestTimeout: requestTimeoutMs,
      headersTimeout: requestTimeoutMs,
      connectionsCheckingInterval: 500,
      maxHeaderSize: requestBytesMax,
      pskCallback(socket: TLSSocket, identity: string) {
        const pair = pairOfIdentity(identity);
        const key = pair === undefined ? undefined : keys.get(pair);
        if (pair === undefined || key === undefined) return null;
        pairs.set(socket, pair);
        return key;
      },
    },
    (request, response) => {
      const pair = pairs.get(request.socket as TLSSocket);
      // Neither a cipher without a key nor an old session is offered. Whoever finds another way in must not end the witness of all pairs.
      if (pair === undefined) {
        request.socket.destroy();
        return;
      }
      // What is in memory is not what may be on the disk: nothing is answered from it any more.
      receive(request, response, (body) =>
        ended ? undefined : answer(once, pair, request.url ?? "", body),
      );
    },
  );
  server.maxConnections = connectionsMax;
  server.maxRequestsPerSocket = 1;
  const refused = strangers(log);
  watchConnections(server, (address) => refused.admits(address, performance.now()));
  server.on("tlsClientError", (error: NodeJS.ErrnoException, socket) => {
    const why = error.code ?? error.message;
    refused.failed(socket.remoteAddress ?? "?", `no handshake (${why})`, performance.now());
  });
  return new Promise((resolve) => {
    // Also later: a connection that cannot be accepted, for want of memory or descriptors, must not end those that are open.
    let last = "";
    server.on("error", (error) => {
      resolve(failed("ioError", `listen on ${host}:${port}`, error.message));
      if (server.listening && error.message !== last) log(`listener: ${error.message}`);
      last = error.message;
    });
    server.listen(port, host, () => {
      const address = server.address();
      if (address === null || typeof address === "string") throw new Error("witness: no TCP port");
      const close = () =>
        new Promise<void>((closed) => {
          server.close(() => closed());
          server.closeAllConnections();
        });
      resolve(good({ port: address.port, close }));
    });
  });
}

/** Ends connections of an address that has too many, or that has shown too often that it has no key. */
function watchConnections(
  server: ReturnType<typeof createServer>,
  admits: (address: string) => boolean,
): void {
  const open = new Map<string, number>();
  server.prependListener("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "?";
    const count = open.get(address) ?? 0;
    if (count >= connectionsPerAddressMax || !admits(address)) {
      socket.destroy();
      return;
    }
    open.set(address, count + 1);
    socket.once("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
  });
}

interface Reply {
  readonly status: number;
  readonly body: unknown;
}

/** Collects a bounded body, then replies once. */
function receive(
  request: IncomingMessage,
  response: ServerResponse,
  reply: (body: string) => Reply | undefined,
): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const send = ({ status, body }: Reply) =>
    response
      .writeHead(status, { "content-type": "application/json", connection: "close" })
      .end(JSON.stringify(body));
  request.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= requestBytesMax) chunks.push(chunk);
    else if (!response.headersSent) send({ status: 413, body: { error: "too long" } });
  });
  request.on("end", () => {
    if (response.headersSent) return;
    const replied = reply(Buffer.concat(chunks).toString("utf8"));
    if (replied) send(replied);
    else request.socket.destroy();
  });
  // A client that goes away gets no answer; there is nothing to undo.
  request.on("error", () => {});
}

/** Undefined: no answer may be given. */
function answer(
  { store, log, fatal }: ServerOptions,
  pair: string,
  path: string,
  body: string,
): Reply | undefined {
  if (path === "/v1/list") return { status: 200, body: listVolumes(store.state(), pair) };
  if (path !== "/v1/ask") return { status: 404, body: { error: "no such question" } };
  const parsed = witnessRequestSchema.safeParse(parseJson(body)?.value);
  if (!parsed.success) return { status: 400, body: { error: "malformed" } };
  const request = parsed.data;
  const { answer: said, next } = answerRequest(store.state(), pair, request);
  if (next !== undefined) {
    // SAFETY: durable before it is said. Synchronous, so that no other request is decided on a state that may not last.
    try {
      store.keep(next);
    } catch (error) {
      fatal(error);
      return undefined;
    }
  }
  if (request.kind !== "look") log(`${pair} ${requestText(request)}: ${said.result}`);
  return { status: 200, body: said };
}

function requestText(request: { kind: string; volume: string; side?: string; base?: string }) {
  const { kind, volume, side = "administrator", base = "" } = request;
  return `${kind} ${volume} by ${side} from ${base}`;
}
