/** What a remote device is told: where the server is, how it is known, and how much of us it may occupy. */
import type { NbdAddress } from "../nbd-server.ts";
import type { NbdTls } from "../nbd-tls.ts";

export interface RemoteTiming {
  /** From the first attempt to reach the server to the end of its handshake. */
  readonly connectTimeoutMs: number;
  /** From the sending of a request to its answer. One that is late ends the session: its answer could be taken for nobody's any more. */
  readonly requestTimeoutMs: number;
  /** Pause before the first attempt after a loss; each that fails doubles it, up to the most. */
  readonly backOffMs: number;
  readonly backOffMaxMs: number;
}

export interface RemoteLimits {
  /** Connections, where the server says that they are one (CAN_MULTI_CONN); otherwise one. */
  readonly connections: number;
  /** Sent and not answered, over all connections. What is asked beyond that waits. */
  readonly requestsInFlightMax: number;
  readonly bytesInFlightMax: number;
  /** Asked and not sent. What is asked beyond that is refused. */
  readonly requestsWaitingMax: number;
}

export interface RemoteHandlers {
  /** `session` counts them. */
  readonly up?: (session: number) => void;
  /** Before the first request of that session fails. */
  readonly down?: (reason: string) => void;
  /** The server has another generation. It is not asked again. */
  readonly refused?: (reason: string) => void;
}

export interface RemoteOptions {
  readonly address: NbdAddress;
  /** The export to ask for in a session, whose id is unique for ever. */
  readonly exportName: (session: string) => string;
  readonly tls?: NbdTls;
  readonly timing?: Partial<RemoteTiming>;
  readonly limits?: Partial<RemoteLimits>;
  readonly handlers?: RemoteHandlers;
}

export const defaultRemoteTiming: RemoteTiming = {
  connectTimeoutMs: 2000,
  requestTimeoutMs: 5000,
  backOffMs: 20,
  backOffMaxMs: 1000,
};

export const defaultRemoteLimits: RemoteLimits = {
  connections: 1,
  requestsInFlightMax: 128,
  bytesInFlightMax: 32 * 1024 * 1024,
  requestsWaitingMax: 4096,
};
