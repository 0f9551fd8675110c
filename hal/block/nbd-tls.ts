/**
 * TLS on an NBD connection (proto.md, NBD_OPT_STARTTLS), for both ends. Two controllers know each other by a key that both hold, or by
 * certificates of one authority that name them; either way both prove who they are, and nothing older than TLS 1.3 is spoken.
 */
import { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import {
  type ConnectionOptions,
  connect,
  createSecureContext,
  createServer,
  type TLSSocket,
  type TlsOptions,
} from "node:tls";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

export type NbdTlsOptions =
  | {
      readonly kind: "key";
      /** The id of this controller: told, in the clear, when it asks. */
      readonly identity: string;
      /** The id of the other one: only who asks under it is answered. One key serves both ways, so nothing else tells us from the partner. */
      readonly peerIdentity: string;
      /** 32 bytes that only the two have. */
      readonly key: Buffer;
    }
  | {
      readonly kind: "certificate";
      /** PEM: the authority that both trust, our certificate, and its key. */
      readonly authority: string;
      readonly certificate: string;
      readonly key: string;
      /** The name that the other's certificate must bear as a subject alternative name (RFC 6125); its common name counts for nothing. */
      readonly peerName: string;
    };

const keyBytes = 32;
const versions = { minVersion: "TLSv1.3", maxVersion: "TLSv1.3" } as const;
/** A key that is handed over from outside TLS goes with the hash of its suite, which is SHA-256 here (RFC 8446 4.2.11). */
const keyed = { ...versions, ciphers: "TLS_AES_128_GCM_SHA256" } as const;

/** How one controller and its partner know each other. */
export class NbdTls {
  readonly #server: TlsOptions;
  readonly #client: ConnectionOptions;
  /** Why the one at the other end is not the partner; undefined when it is. */
  readonly #judge: (socket: TLSSocket) => string | undefined;

  private constructor(
    server: TlsOptions,
    client: ConnectionOptions,
    judge: (socket: TLSSocket) => string | undefined,
  ) {
    this.#server = server;
    this.#client = client;
    this.#judge = judge;
  }

  /** Fault `badInput` for a key or a certificate that no connection could be made with. */
  static create(options: NbdTlsOptions): Outcome<NbdTls> {
    return options.kind === "key" ? NbdTls.#ofKey(options) : NbdTls.#ofCertificates(options);
  }

  static #ofKey(options: NbdTlsOptions & { kind: "key" }): Outcome<NbdTls> {
    const { identity, peerIdentity, key } = options;
    if (key.length !== keyBytes)
      return failed("badInput", "NBD TLS", `a key of ${key.length} bytes, not ${keyBytes}`);
    if (identity === "" || peerIdentity === "" || identity === peerIdentity)
      return failed(
        "badInput",
        "NBD TLS",
        `"${identity}" and "${peerIdentity}" as two controllers`,
      );
    const server: TlsOptions = {
      ...keyed,
      pskIdentityHint: "",
      pskCallback: (_, asking) => (asking === peerIdentity ? key : null),
    };
    // Nobody's certificate counts, not that of an authority which the machine trusts either.
    const client = { ...keyed, ca: [], pskCallback: () => ({ psk: key, identity }) };
    return good(new NbdTls(server, client, holdsTheKey));
  }

  static #ofCertificates(options: NbdTlsOptions & { kind: "certificate" }): Outcome<NbdTls> {
    const { authority, certificate, key, peerName } = options;
    const shown = { ...versions, ca: authority, cert: certificate, key };
    try {
      // A text that is no authority would be read as "none", without a word.
      new X509Certificate(authority);
      const client = { secureContext: createSecureContext(shown), servername: "" };
      const server = { ...shown, requestCert: true, rejectUnauthorized: true };
      return good(new NbdTls(server, client, (socket) => bears(socket, peerName)));
    } catch (cause) {
      return failed("badInput", "NBD TLS", "the certificates cannot be used", cause);
    }
  }

  /** The server's side, over a connection whose client was told to begin. The caller bounds the time by destroying `plain`. */
  accept(plain: Socket): Promise<Outcome<TLSSocket>> {
    // One for each connection: the events of a server that several share would not tell whose they are.
    const server = createServer(this.#server);
    return new Promise((resolve) => {
      const refuse = (cause: Error | string) => resolve(refused(cause));
      server.once("secureConnection", (socket) => resolve(this.#judged(socket)));
      server.once("tlsClientError", refuse);
      plain.once("close", () => refuse("the connection ended"));
      server.emit("connection", plain);
    });
  }

  /** The client's side, after the server's ACK. The caller bounds the time by destroying `plain`. */
  begin(plain: Socket): Promise<Outcome<TLSSocket>> {
    return new Promise((resolve) => {
      // Who the other one is, is checked in the same way at both ends.
      const checkServerIdentity = () => undefined;
      const socket = connect({ ...this.#client, socket: plain, checkServerIdentity });
      socket.once("secureConnect", () => resolve(this.#judged(socket)));
      socket.once("error", (cause) => resolve(refused(cause)));
      plain.once("close", () => resolve(refused("the connection ended")));
    });
  }

  #judged(socket: TLSSocket): Outcome<TLSSocket> {
    const wrong = this.#judge(socket);
    if (wrong === undefined) return good(socket);
    socket.destroy();
    return refused(wrong);
  }
}

/**
 * A server may pass over the key that a client offers, and prove itself by a certificate (RFC 8446 4.2.11). OpenSSL counts a session as
 * reused when the key was taken, and then there is no certificate.
 */
function holdsTheKey(socket: TLSSocket): string | undefined {
  if (socket.isSessionReused() && socket.getPeerX509Certificate() === undefined) return undefined;
  return "the other end has not used the key";
}

/** Whoever has a certificate of the authority is somebody; the partner is the one that it names. */
function bears(socket: TLSSocket, peerName: string): string | undefined {
  if (!socket.authorized) return String(socket.authorizationError ?? "not authorized");
  const shown = socket.getPeerX509Certificate();
  if (shown?.checkHost(peerName, { subject: "never", wildcards: false }) !== undefined)
    return undefined;
  return `the certificate does not name ${peerName} as a subject alternative name`;
}

function refused(cause: Error | string) {
  const message = typeof cause === "string" ? cause : cause.message;
  return failed("refused", "NBD TLS", message.split("\n", 1)[0] ?? "");
}
