/**
 * TLS on an NBD connection (proto.md, NBD_OPT_STARTTLS), for both ends. Two controllers know each other by a key that both hold, or by
 * certificates of one authority that name them; either way both prove who they are, and nothing older than TLS 1.3 is spoken.
 */
import type { Socket } from "node:net";
import {
  type ConnectionOptions,
  checkServerIdentity,
  connect,
  createServer,
  type TLSSocket,
} from "node:tls";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

export type NbdTls =
  | {
      readonly kind: "key";
      /** Names the key, not its holder; told in the clear. */
      readonly identity: string;
      /** 32 bytes that only the two have. */
      readonly key: Buffer;
    }
  | {
      readonly kind: "certificate";
      /** PEM: the authority that both trust, our certificate, and its key. */
      readonly authority: string;
      readonly certificate: string;
      readonly key: string;
      /** The name that the other's certificate must bear as a subject alternative name (RFC 6125). */
      readonly peerName: string;
    };

const versions = { minVersion: "TLSv1.3", maxVersion: "TLSv1.3" } as const;
/** A key that is handed over from outside TLS goes with the hash of its suite, which is SHA-256 here (RFC 8446 4.2.11). */
const keyed = { ...versions, ciphers: "TLS_AES_128_GCM_SHA256" } as const;

/** The server's side, over a connection whose client was told to begin. The caller bounds the time by destroying `plain`. */
export function acceptTls(plain: Socket, tls: NbdTls): Promise<Outcome<TLSSocket>> {
  // One for each connection: the events of a server that several share would not tell whose they are.
  const server =
    tls.kind === "key"
      ? createServer({
          ...keyed,
          pskIdentityHint: "",
          pskCallback: (_, identity) => (identity === tls.identity ? tls.key : null),
        })
      : createServer({ ...versions, ...authenticated(tls), requestCert: true });
  return new Promise((resolve) => {
    const refuse = (cause: Error | string) => resolve(refused(cause));
    server.once("secureConnection", (socket) => resolve(named(socket, tls)));
    server.once("tlsClientError", refuse);
    plain.once("close", () => refuse("the connection ended"));
    server.emit("connection", plain);
  });
}

/** The client's side, after the server's ACK. The caller bounds the time by destroying `plain`. */
export function beginTls(plain: Socket, tls: NbdTls): Promise<Outcome<TLSSocket>> {
  const options: ConnectionOptions =
    tls.kind === "key"
      ? { ...keyed, pskCallback: () => ({ psk: tls.key, identity: tls.identity }) }
      : { ...versions, ...authenticated(tls), servername: "" };
  return new Promise((resolve) => {
    // Who the other one is, is checked in the same way at both ends.
    const socket = connect({ ...options, socket: plain, checkServerIdentity: () => undefined });
    socket.once("secureConnect", () => resolve(named(socket, tls)));
    socket.once("error", (cause) => resolve(refused(cause)));
    plain.once("close", () => resolve(refused("the connection ended")));
  });
}

const authenticated = (tls: NbdTls & { kind: "certificate" }) => ({
  ca: tls.authority,
  cert: tls.certificate,
  key: tls.key,
  rejectUnauthorized: true,
});

/** Whoever has a certificate of the authority is somebody; the partner is the one that it names. */
function named(socket: TLSSocket, tls: NbdTls): Outcome<TLSSocket> {
  if (tls.kind === "key") return good(socket);
  const wrong = socket.authorized
    ? checkServerIdentity(tls.peerName, socket.getPeerCertificate())
    : socket.authorizationError;
  if (!wrong) return good(socket);
  socket.destroy();
  return refused(wrong);
}

function refused(cause: Error | string) {
  const message = typeof cause === "string" ? cause : cause.message;
  return failed("refused", "NBD TLS", message.split("\n", 1)[0] ?? "");
}
