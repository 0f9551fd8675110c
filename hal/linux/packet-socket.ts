/**
 * Link-layer frames on one interface (packet(7)): what announces addresses and nudges clients. Frames pass the
 * address gate's egress hook like any other.
 */
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  bindSocket,
  closeDescriptor,
  errno,
  errorName,
  interfaceIndex,
  openSocket,
  receive,
  SOCK_RAW,
  sendTo,
} from "./syscalls.ts";

/** <bits/socket.h>, <linux/if_ether.h> */
const AF_PACKET = 17;
const ETH_P_ALL = 0x0003;
const frameBytesMax = 65_536;

/** struct sockaddr_ll of <linux/if_packet.h>. Protocol 0: the socket hears nothing and costs nothing. */
function linkAddress(index: number, protocol: number): Buffer {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(protocol, 2);
  address.writeInt32LE(index, 4);
  return address;
}

export class PacketSocket {
  readonly #descriptor: number;
  readonly #address: Buffer;
  readonly #buffer = Buffer.alloc(frameBytesMax);

  private constructor(descriptor: number, address: Buffer) {
    this.#descriptor = descriptor;
    this.#address = address;
  }

  /** `listen`: also queue every frame that the interface sends or receives. Fault `ioError`. */
  static open(nic: string, options: { listen: boolean }): Outcome<PacketSocket> {
    const operation = `open packet socket on ${nic}`;
    const index = interfaceIndex(nic);
    if (index < 0) return failed("ioError", operation, `no such NIC: ${errorName(index)}`);
    // Bound before it listens to anything: a socket made with a protocol hears all interfaces at first.
    const descriptor = openSocket(AF_PACKET, SOCK_RAW, 0);
    if (descriptor < 0) return failed("ioError", operation, `socket: ${errorName(descriptor)}`);
    const address = linkAddress(index, options.listen ? ETH_P_ALL : 0);
    const bound = bindSocket(descriptor, address);
    if (bound < 0) {
      closeDescriptor(descriptor);
      return failed("ioError", operation, `bind: ${errorName(bound)}`);
    }
    return good(new PacketSocket(descriptor, address));
  }

  /** Sends a whole Ethernet frame; never waits. */
  send(frame: Uint8Array): Outcome {
    const sent = sendTo(this.#descriptor, frame, this.#address);
    if (sent >= 0) return good(undefined);
    return failed("ioError", "send frame", errorName(sent));
  }

  /** The next queued frame, or undefined. */
  receive(): Uint8Array | undefined {
    const length = receive(this.#descriptor, this.#buffer);
    if (length >= 0) return Uint8Array.from(this.#buffer.subarray(0, length));
    if (length === -errno.EAGAIN) return undefined;
    throw new Error(`packet socket: ${errorName(length)}`);
  }

  close(): void {
    closeDescriptor(this.#descriptor);
  }
}
