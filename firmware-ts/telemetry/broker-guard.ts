/**
 * Stands between the broker's bytes and the MQTT library. A publisher that subscribes to nothing expects four kinds of
 * short packets; anything else comes from a broker that is broken or no broker at all, and ends the connection here, before
 * it can cost memory, time, or an exception inside the library.
 */
import type { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { Duplex } from "node:stream";

/** A CONNACK with every property, or a PUBACK with a reason string, is far shorter. */
export const inboundPacketBytesMax = 1024;

/** Packet types (MQTT 5.0, 2.1.2) in the upper half of the first byte. */
const connack = 2;
const puback = 4;
const pingresp = 13;
const disconnect = 14;

/** A ping is answered every few seconds; this many packets other than acknowledgements may come within one second. */
export const otherPacketsPerSecondMax = 8;

export interface PacketJudge {
  /** Judges inbound bytes, in pieces of any size; returns a complaint, or undefined while all is well. */
  readonly check: (bytes: Uint8Array, nowMs: number) => string | undefined;
}

/**
 * Each PUBACK must find a publication that waits for it: `takeOwedAck` uses one up, or says no. Together with the lengths
 * that bounds all work a broker can make us do: 10,000 needless acknowledgements cost the library 40 ms.
 */
export function createPacketJudge(takeOwedAck: () => boolean): PacketJudge {
  let seenConnack = false;
  let header: number[] = [];
  let bodyBytesLeft = 0;
  let others = 0;
  let secondStartMs = 0;

  function judgeType(type: number, nowMs: number): string | undefined {
    if (!seenConnack) {
      seenConnack = type === connack;
      return seenConnack ? undefined : `packet type ${type} before CONNACK`;
    }
    if (type === puback)
      return takeOwedAck() ? undefined : "an acknowledgement that nobody waits for";
    if (type !== pingresp && type !== disconnect) return `unexpected packet type ${type}`;
    if (nowMs - secondStartMs >= 1000) [secondStartMs, others] = [nowMs, 0];
    others += 1;
    return others > otherPacketsPerSecondMax ? "more packets than answers need" : undefined;
  }

  /** The remaining length is a variable byte integer of at most 4 bytes (MQTT 5.0, 1.5.5). */
  function takeHeaderByte(byte: number, nowMs: number): string | undefined {
    header.push(byte);
    if (header.length === 1) return judgeType(byte >> 4, nowMs);
    if (byte >= 0x80)
      return header.length > 4 ? "a remaining length of more than 4 bytes" : undefined;
    bodyBytesLeft = header.slice(1).reduceRight((sum, each) => sum * 128 + (each & 0x7f), 0);
    header = [];
    return bodyBytesLeft > inboundPacketBytesMax
      ? `a packet of ${bodyBytesLeft} bytes, expected at most ${inboundPacketBytesMax}`
      : undefined;
  }

  return {
    check(bytes, nowMs) {
      for (let position = 0; position < bytes.length; ) {
        if (bodyBytesLeft > 0) {
          const skipped = Math.min(bodyBytesLeft, bytes.length - position);
          bodyBytesLeft -= skipped;
          position += skipped;
          continue;
        }
        const complaint = takeHeaderByte(bytes[position] ?? 0, nowMs);
        if (complaint !== undefined) return complaint;
        position += 1;
      }
      return undefined;
    },
  };
}

/** Wraps a socket so that only judged bytes come out of it; a complaint destroys both. */
export function guardSocket(socket: Socket, takeOwedAck: () => boolean): Duplex {
  const judge = createPacketJudge(takeOwedAck);
  const guarded = new Duplex({
    read: () => {
      socket.resume();
    },
    write: (chunk, _, done) => {
      if (socket.destroyed) done(new Error("the connection is closed"));
      else socket.write(chunk, () => done());
    },
    final: (done) => {
      socket.end(() => done());
    },
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  socket.on("data", (bytes: Buffer) => {
    const complaint = judge.check(bytes, performance.now());
    if (complaint !== undefined) guarded.destroy(new Error(`the broker sent ${complaint}`));
    else if (!guarded.push(bytes)) socket.pause();
  });
  socket.on("end", () => guarded.push(null));
  socket.on("error", (error) => guarded.destroy(error));
  socket.on("close", () => guarded.destroy());
  return guarded;
}
