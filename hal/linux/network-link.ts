/**
 * The network link: one frame in one UDP datagram, between two fixed addresses of the interconnect. Who speaks is
 * proved by the frame itself; the address only keeps strangers from costing us a verification each.
 */
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { isIPv6 } from "node:net";
import type { Link, LinkCounters, LinkHandlers } from "../port/link.ts";
import { assertFrame, linkFrameBytesMax, type MutableCounters, newCounters } from "./link-frame.ts";
import { Reopening } from "./reopening.ts";

export interface NetworkLinkOptions {
  readonly localAddress: string;
  readonly partnerAddress: string;
  /** Both ends use it. */
  readonly port: number;
  readonly handlers: LinkHandlers;
}

/** Datagrams that the kernel may have refused to take for now; more are dropped here. */
const queueMax = 2;

class NetworkLink implements Link {
  readonly name = "network";
  readonly maxFrameBytes = linkFrameBytesMax;
  readonly #options: NetworkLinkOptions;
  readonly #counters: MutableCounters = newCounters();
  #socket: Socket | undefined;
  #bound = false;
  readonly #reopening: Reopening;
  #closed = false;

  constructor(options: NetworkLinkOptions) {
    this.#options = options;
    this.#reopening = new Reopening(() => this.#open(), options.handlers.carrier);
    this.#open();
  }

  send(frame: Uint8Array): void {
    assertFrame(frame);
    const socket = this.#socket;
    if (!socket || !this.#bound || socket.getSendQueueCount() >= queueMax) {
      this.#counters.dropped++;
      return;
    }
    const { port, partnerAddress } = this.#options;
    socket.send(frame, port, partnerAddress, (error) => {
      // No route, no carrier, nobody listening: the beat is lost, the link is not.
      if (error) this.#counters.dropped++;
      else this.#counters.sent++;
    });
  }

  counters(): LinkCounters {
    return { ...this.#counters };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#reopening.close();
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket) await new Promise<void>((resolve) => socket.close(resolve));
  }

  #open(): void {
    const { localAddress, port } = this.#options;
    const socket = createSocket({
      type: isIPv6(localAddress) ? "udp6" : "udp4",
      // Addresses are literal: the resolver's thread has no part in a heartbeat.
      lookup: (host, _options, callback) => callback(null, host, isIPv6(host) ? 6 : 4),
    });
    this.#socket = socket;
    socket.on("message", (frame, from) => this.#received(frame, from));
    socket.on("error", (error) => this.#failed(socket, error.message));
    socket.on("listening", () => {
      this.#bound = true;
      this.#reopening.opened(`bound to ${localAddress} port ${port}`);
    });
    socket.bind({ address: localAddress, port, exclusive: true });
  }

  #received(frame: Buffer, from: RemoteInfo): void {
    const { partnerAddress, port, handlers } = this.#options;
    const stranger = from.address !== partnerAddress || from.port !== port;
    if (stranger || frame.length === 0 || frame.length > linkFrameBytesMax) {
      this.#counters.malformed++;
      return;
    }
    this.#counters.received++;
    handlers.frame(frame);
  }

  /** The address may not be there yet, or have been taken away: bind again later. */
  #failed(socket: Socket, reason: string): void {
    if (this.#closed || socket !== this.#socket) return;
    this.#socket = undefined;
    this.#bound = false;
    socket.close();
    this.#reopening.lost(reason);
  }
}

/** Binds now, or as soon as the address exists; never fails: until then it is a link without carrier. */
export function openNetworkLink(options: NetworkLinkOptions): Link {
  return new NetworkLink(options);
}
