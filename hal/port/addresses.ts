/** Floating addresses on the data NIC. Adding one is harmless while its gate is closed. */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";

/** One established connection of a client to a floating address: what a tickle needs. */
export interface Connection {
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
}

export interface PresentAddress {
  readonly address: string;
  readonly prefixLength: number;
}

export interface Addresses {
  /** Adds `address/prefix`; present already is a success. Never waits for duplicate address detection. */
  add(nic: string, address: string, prefixLength: number): Promise<Outcome>;
  /** Removes it; absent already is a success. */
  remove(nic: string, address: string, prefixLength: number): Promise<Outcome>;
  /** Addresses on the NIC that reach further than its link. */
  list(nic: string): Promise<Outcome<readonly PresentAddress[]>>;
  /**
   * Sends gratuitous ARP (or an unsolicited neighbour advertisement) in `rounds`: the first leaves before the call returns, the others
   * follow within seconds, until the address is removed.
   */
  announce(nic: string, address: string, rounds: number): Promise<Outcome>;
  /**
   * Makes clients of a lost server notice at once: an ACK out of window draws their true ACK, which our kernel resets. Repeated with
   * the rounds of an announcement of their address that is under way.
   */
  tickle(nic: string, connections: readonly Connection[]): Promise<Outcome>;
  /** Established connections to any of the addresses on the given local port; but for those from one of them, which are our own questions. */
  connections(addresses: readonly string[], port: number): Promise<Outcome<readonly Connection[]>>;
  /** Calls back with the carrier state now and at each change, until the returned function is called. */
  watchCarrier(nic: string, handler: (up: boolean) => void): () => void;
  /** Ends announcements and lets go of everything; addresses stay. */
  close(): void;
}
