/**
 * One session with an MQTT 5 broker, from dialling to its end. A session that ends is never revived: the publisher opens
 * another one, with nothing left over from this one. Every way to fail ends in exactly one call of `ended`.
 */
import { open } from "node:fs/promises";
import { connect as connectTcp, isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { type IClientOptions, MqttClient } from "mqtt";
import type { Config } from "../schema/config.ts";
import { guardSocket } from "./broker-guard.ts";
import type { OutMessage } from "./outbox.ts";

type BrokerConfig = NonNullable<Config["mqtt"]>;

export interface SessionSettings {
  readonly broker: BrokerConfig;
  readonly clientId: string;
  /** Published by the broker when this session ends without a farewell. */
  readonly will: OutMessage;
  readonly connectTimeoutMs: number;
  readonly keepaliveSeconds: number;
}

export interface SessionListener {
  readonly connected: () => void;
  /** Called once; the session is gone and calls nothing afterwards. */
  readonly ended: (reason: string) => void;
}

/** `refused`: the broker will not have this message, now or later (MQTT 5.0, 3.4.2.1). */
export type PublishResult = "acknowledged" | "refused";

export interface Session {
  /** `settled` is not called when the session ends first. Only after `connected`. */
  readonly publish: (message: OutMessage, settled: (result: PublishResult) => void) => void;
  /** Ends at once, without a farewell. */
  readonly destroy: (reason: string) => void;
  /** Says DISCONNECT, which spares the broker the will, and ends. */
  readonly leave: () => void;
}

/**
 * No pool for small buffers in this process. The library keeps the encoding of every length of a packet that it ever sent, for ever: two
 * bytes each, but as a piece of Node's pool each held 64 kB (docs/design/0015-memory.md).
 */
Buffer.poolSize = 0;

const secretBytesMax = 1024;
const certificateBytesMax = 256 * 1024;

/** Begins to dial. Returns at once; every outcome is told to the listener, and never before this returns. */
export function openSession(settings: SessionSettings, listener: SessionListener): Session {
  let client: MqttClient | undefined;
  let over = false;
  let owedAcks = 0;
  const end = (reason: string) => {
    if (over) return;
    over = true;
    clearTimeout(deadline);
    // We may be inside a callback of the library, which walks its list of unanswered messages and throws when that is emptied
    // under it: it is ended in a turn of its own.
    setImmediate(() => client?.end(true));
    listener.ended(reason);
  };
  // One deadline over name lookup, TCP, TLS and CONNACK: each of them can hang.
  const deadline = setTimeout(
    () => end(`no session within ${settings.connectTimeoutMs} ms`),
    settings.connectTimeoutMs,
  );
  dial(settings).then(
    ({ socket, options }) => {
      if (over) {
        socket.destroy();
        return;
      }
      const stream = guardSocket(socket, () => {
        owedAcks -= 1;
        return owedAcks >= 0;
      });
      let lastError = "the connection was closed";
      stream.on("error", (error) => {
        lastError = describe(error);
      });
      client = new MqttClient(() => stream, options);
      client.on("connect", () => {
        if (over) return;
        clearTimeout(deadline);
        listener.connected();
      });
      client.on("error", (error) => end(describe(error)));
      client.on("disconnect", ({ reasonCode }) => {
        lastError = `the broker disconnected with reason ${reasonCode ?? 0}`;
      });
      client.on("close", () => end(lastError));
    },
    (error: unknown) => end(describe(error)),
  );
  return {
    publish(message, settled) {
      const { topic, payload, retain } = message;
      owedAcks += 1;
      client?.publish(topic, payload, { qos: 1, retain }, (error) => {
        if (over) return;
        if (!error) settled("acknowledged");
        else if ("code" in error && typeof error.code === "number") settled("refused");
        else end(describe(error));
      });
    },
    destroy: end,
    leave() {
      if (client === undefined || over) end("left");
      else client.end(false, () => end("left"));
    },
  };
}

/** Reads what the session needs from files, then starts the connection; each session reads them anew. */
async function dial(
  settings: SessionSettings,
): Promise<{ socket: Socket; options: IClientOptions }> {
  const { broker, clientId, will, connectTimeoutMs, keepaliveSeconds } = settings;
  const url = new URL(broker.url);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const secure = url.protocol === "mqtts:";
  const port = url.port === "" ? (secure ? 8883 : 1883) : Number(url.port);
  const password =
    broker.passwordFile === undefined
      ? undefined
      : (await readBounded(broker.passwordFile, secretBytesMax)).replace(/\r?\n$/, "");
  const ca =
    broker.caFile === undefined ? undefined : await readBounded(broker.caFile, certificateBytesMax);
  const options: IClientOptions = {
    protocolVersion: 5,
    clientId,
    clean: true,
    keepalive: keepaliveSeconds,
    reconnectPeriod: 0,
    connectTimeout: connectTimeoutMs,
    resubscribe: false,
    // The cache holds an encoding of every 16-bit number: 8 MB to save nothing that counts here.
    writeCache: false,
    will: { topic: will.topic, payload: Buffer.from(will.payload), qos: 1, retain: will.retain },
    ...(broker.username === undefined ? {} : { username: broker.username }),
    ...(password === undefined ? {} : { password }),
  };
  const socket = secure
    ? connectTls({
        host,
        port,
        ...(ca === undefined ? {} : { ca }),
        // A server name may not be an address (RFC 6066, 3); the certificate is checked against the host all the same.
        ...(isIP(host) === 0 ? { servername: host } : {}),
      })
    : connectTcp({ host, port });
  socket.setNoDelay(true);
  return { socket, options };
}

async function readBounded(path: string, bytesMax: number): Promise<string> {
  const file = await open(path, "r");
  try {
    const buffer = Buffer.alloc(bytesMax + 1);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    if (bytesRead > bytesMax) throw new Error(`${path}: expected at most ${bytesMax} bytes`);
    return buffer.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? ` [${String(error.code)}]` : "";
  // A failed attempt on several addresses of one name has an empty message and the causes inside.
  const inner = error instanceof AggregateError ? error.errors.map(describe).join("; ") : "";
  return `${error.message || inner || error.name}${code}`;
}
