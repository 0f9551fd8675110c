/**
 * The announcement of one address, in rounds over some seconds: frames for the network (`announce.ts`) and tickles for the clients of
 * the last owner (`tickle.ts`).
 *
 * Why rounds: a switch may drop a burst of broadcasts, or not yet forward from a port whose cable has just come. Whoever then goes on
 * to send to the old owner does so until its own entry is doubted, which takes a client about half a minute.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { formatAddress, type IpAddress } from "../../firmware-ts/schema/ip-address.ts";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Connection } from "../port/addresses.ts";
import { announcement } from "./announce.ts";
import { PacketSocket } from "./packet-socket.ts";
import { closeDescriptor, errorName, openSocket, SOCK_RAW, sendTo } from "./syscalls.ts";
import { type TicklePacket, ticklePacket } from "./tickle.ts";

/** RFC 791 and 8200 raw sockets with our own headers: IPPROTO_RAW implies IP_HDRINCL (raw(7)). */
const rawDomain = { 4: 2, 6: 10 } as const;
const IPPROTO_RAW = 255;

/** Waits between rounds: each is twice the one before, so nobody waits for much more than twice the time that the switch takes. */
const waitMsMin = 50;
const waitMsMax = 1000;

/** Tickles in one turn of the event loop, some 10 µs each. */
const ticklesPerTurn = 256;

export interface Announcing {
  /** Tickles these now and in every round to come. The first fault is the outcome; the others are tickled all the same. */
  tickle(clients: readonly Connection[]): Promise<Outcome>;
  stop(): void;
  /** Settles when it has been stopped or everything is said. */
  readonly ended: Promise<void>;
}

/** Speaks once before it returns, which the outcome is about, and `rounds` times in all. Fault `addressFailed`. */
export function beginAnnouncing(
  nic: string,
  mac: Uint8Array,
  address: IpAddress,
  rounds: number,
): Outcome<Announcing> {
  const socket = PacketSocket.open(nic, { listen: false });
  const operation = `announce ${formatAddress(address.bytes)}`;
  if (!socket.ok) return failed("addressFailed", operation, nic, socket.fault);
  const frames = announcement(address, mac);
  const sent = sendAll(socket.value, frames);
  if (sent.ok) return good(new Rounds(socket.value, frames, rounds - 1));
  socket.value.close();
  return failed("addressFailed", operation, nic, sent.fault);
}

class Rounds implements Announcing {
  readonly ended: Promise<void>;
  readonly #socket: PacketSocket;
  readonly #frames: readonly Uint8Array[];
  #clients: TickleSockets | undefined;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;
  #noteEnd: () => void = () => undefined;

  constructor(socket: PacketSocket, frames: readonly Uint8Array[], rounds: number) {
    this.#socket = socket;
    this.#frames = frames;
    this.ended = new Promise((resolve) => {
      this.#noteEnd = resolve;
    });
    this.#again(rounds, waitMsMin);
  }

  async tickle(clients: readonly Connection[]): Promise<Outcome> {
    if (this.#stopped) return await tickleOnce(clients);
    this.#clients?.close();
    this.#clients = new TickleSockets(clients);
    return await this.#clients.send();
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket.close();
    this.#clients?.close();
    this.#noteEnd();
  }

  #again(left: number, waitMs: number): void {
    if (this.#stopped) return;
    if (left === 0) return this.stop();
    this.#timer = setTimeout(async () => {
      // A refusal here is the gate's: the address went elsewhere meanwhile.
      if (sendAll(this.#socket, this.#frames).ok) await this.#clients?.send();
      this.#again(left - 1, Math.min(waitMsMax, waitMs * 2));
    }, waitMs).unref();
  }
}

/** Connections to tickle, and the raw sockets for it: opened at once, in the network namespace of whoever asked. */
class TickleSockets {
  readonly #packets: readonly TicklePacket[];
  readonly #sockets = new Map<4 | 6, number>();
  #first: Outcome = done;
  #closed = false;

  constructor(clients: readonly Connection[]) {
    const packets: TicklePacket[] = [];
    for (const client of clients) {
      const made = ticklePacket(client);
      if (made.ok) packets.push(made.value);
      else this.#note(made);
    }
    this.#packets = packets;
    for (const family of new Set(packets.map((each) => each.family))) {
      const socket = openSocket(rawDomain[family], SOCK_RAW, IPPROTO_RAW);
      if (socket >= 0) this.#sockets.set(family, socket);
      else this.#note(failed("addressFailed", "tickle", `raw socket: ${errorName(socket)}`));
    }
  }

  /** Sends to all, though some may fail: each client that is spared its timer is a gain. */
  async send(): Promise<Outcome> {
    for (const [i, { family, packet, destination }] of this.#packets.entries()) {
      if (i > 0 && i % ticklesPerTurn === 0) await nextTurn();
      const socket = this.#sockets.get(family);
      if (socket === undefined) continue;
      const sent = sendTo(socket, packet, destination);
      if (sent < 0) this.#note(failed("addressFailed", "tickle", errorName(sent)));
    }
    return this.#first;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const socket of this.#sockets.values()) closeDescriptor(socket);
    this.#sockets.clear();
  }

  #note(outcome: Outcome<unknown>): void {
    if (this.#first.ok && !outcome.ok) this.#first = outcome;
  }
}

/** Tickles without an announcement. The first fault is the outcome; the others are tickled all the same. */
export async function tickleOnce(clients: readonly Connection[]): Promise<Outcome> {
  const sockets = new TickleSockets(clients);
  const outcome = await sockets.send();
  sockets.close();
  return outcome;
}

function sendAll(socket: PacketSocket, frames: readonly Uint8Array[]): Outcome {
  for (const frame of frames) {
    const sent = socket.send(frame);
    if (!sent.ok) return sent;
  }
  return done;
}
