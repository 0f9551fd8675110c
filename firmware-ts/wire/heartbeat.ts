/**
 * The beat on the wire: one fixed big-endian layout for every link, authenticated with the pair's key.
 *
 *     offset size                         offset size
 *        0   2  magic 0x44D7                 27   4  epoch
 *        2   1  version                      31   4  configuration
 *        3   1  flags                        35   2  progress age, ms
 *        4   2  pair id                      37   4  message acknowledged
 *        6   1  mode                         41   1  n, bytes of a set of virtual servers, 0 to 8
 *        7   4  session                      42   n  owned: bit i of byte i / 8, lowest first, is server i
 *       11   6  sequence                     ..   n  serving
 *       17   4  acknowledged session         ..  (4  message id, 2 body length, body: when flagged)
 *       21   6  acknowledged sequence        ..  16  HMAC-SHA-256 of all before it, cut to 128 bits
 *
 * A beat of up to eight virtual servers without a message is 60 bytes: 5.4 ms of a line of 115,200 baud once framed.
 *
 * Sequences have 48 bits: 32 would be used up by 497 days of beats every 10 ms, 48 last for 90,000 years. A session therefore
 * never wraps, and "newer" is simply "greater". Version 1 had 32 bits, version 2 sets of 16 servers; no release spoke them.
 *
 * Glossary. *pair id*: tells two pairs on one wire apart before any cryptography. *reflection*: our own beat
 * coming back, through a loop on a serial plug or an attacker; it carries our key and must not count as the partner.
 *
 * Obligations. Nothing of a frame is believed before its code has been verified. A replayed frame is authentic:
 * session and sequence tell the decisions (core/links) that it is old.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from "node:crypto";
import { type Beat, messageBytesMax, modes, virtualServersMax } from "../schema/beat.ts";
import type { ControllerId } from "../schema/ids.ts";
import { type ServerSet, setHas, setOf } from "../schema/server-set.ts";

/** What both controllers of one pair share. */
export interface Pair {
  /** 16 bits. */
  readonly pairId: number;
  /** The pair's secret; its bytes do not change. */
  readonly key: Uint8Array;
}

const magic = 0x44d7;
const version = 3;
/** Up to and including the length of the sets. */
const headBytes = 42;
const setBytesMax = virtualServersMax / 8;
const messageHeadBytes = 6;
/** NIST SP 800-107r1 5.3.3 wants at least 32 bits of a truncated HMAC; 128 leave guessing hopeless. */
const macBytes = 16;

/** A beat that names no virtual server and carries no message. */
export const beatBytesMin = headBytes + macBytes;
/** A beat with the largest sets and the longest message. It fits a slot of one 512-byte sector on the disk link. */
export const beatBytesMax = beatBytesMin + 2 * setBytesMax + messageHeadBytes + messageBytesMax;

const flags = {
  granting: 1,
  goodbye: 2,
  dyingGasp: 4,
  dataLinkDown: 8,
  message: 16,
  senderIsB: 32,
} as const;
const flagsKnown = 63;

const uint16Max = 0xffff;
const uint32Max = 0xffffffff;
const uint48Max = 2 ** 48 - 1;

/** Why a frame was not a beat of the partner. Each is counted by the caller. */
export type BeatRefusal =
  | "short"
  | "long"
  | "magic"
  | "version" // a partner of another release
  | "pair" // another pair on the same wire
  | "mac" // damaged or forged
  | "sender" // authentic, but ours: a reflection
  | "field"; // authentic, but not what this release may send

export type BeatDecoding =
  | { readonly ok: true; readonly beat: Beat }
  | { readonly ok: false; readonly reason: BeatRefusal };

/** Encodes and signs a beat. A value that does not fit its field is a broken invariant and throws. */
export function encodeBeat(beat: Beat, pair: Pair): Uint8Array {
  const body = beat.message?.body;
  if (body && body.length > messageBytesMax) {
    throw new RangeError(`message body of ${body.length} bytes, the limit is ${messageBytesMax}`);
  }
  const setBytes = Math.ceil(Math.max(beat.owned.length, beat.serving.length) / 8);
  if (setBytes > setBytesMax)
    throw new RangeError(`beat with more than ${virtualServersMax} servers`);
  const fixedBytes = headBytes + 2 * setBytes;
  const signedBytes = fixedBytes + (body ? messageHeadBytes + body.length : 0);
  const out = new Uint8Array(signedBytes + macBytes);
  const view = new DataView(out.buffer);
  view.setUint16(0, magic);
  view.setUint8(2, version);
  view.setUint8(3, flagsOf(beat));
  view.setUint16(4, uint(pair.pairId, uint16Max, "pairId"));
  view.setUint8(6, modes.indexOf(beat.mode));
  view.setUint32(7, uint(beat.session, uint32Max, "session", 1));
  setUint48(view, 11, uint(beat.sequence, uint48Max, "sequence"));
  view.setUint32(17, uint(beat.ack.session, uint32Max, "ack.session"));
  setUint48(view, 21, uint(beat.ack.sequence, uint48Max, "ack.sequence"));
  view.setUint32(27, uint(beat.epoch, uint32Max, "epoch"));
  view.setUint32(31, uint(beat.configuration, uint32Max, "configuration"));
  view.setUint16(35, saturated(beat.progressAgeMs));
  view.setUint32(37, uint(beat.messageAck, uint32Max, "messageAck"));
  view.setUint8(41, setBytes);
  writeSet(out, headBytes, beat.owned);
  writeSet(out, headBytes + setBytes, beat.serving);
  if (beat.message) {
    view.setUint32(fixedBytes, uint(beat.message.id, uint32Max, "message.id", 1));
    view.setUint16(fixedBytes + 4, beat.message.body.length);
    out.set(beat.message.body, fixedBytes + messageHeadBytes);
  }
  out.set(macOf(out.subarray(0, signedBytes), pair.key), signedBytes);
  return out;
}

/** Verifies and decodes a frame that should come from `expectedSender`. Never throws, whatever the bytes. */
export function decodeBeat(
  bytes: Uint8Array,
  pair: Pair,
  expectedSender: ControllerId,
): BeatDecoding {
  if (bytes.length < beatBytesMin) return refused("short");
  if (bytes.length > beatBytesMax) return refused("long");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(0) !== magic) return refused("magic");
  if (view.getUint8(2) !== version) return refused("version");
  if (view.getUint16(4) !== pair.pairId) return refused("pair");
  const signedBytes = bytes.length - macBytes;
  const mac = macOf(bytes.subarray(0, signedBytes), pair.key);
  if (!timingSafeEqual(mac, bytes.subarray(signedBytes))) return refused("mac");
  const bits = view.getUint8(3);
  const sender: ControllerId = bits & flags.senderIsB ? "b" : "a";
  if (sender !== expectedSender) return refused("sender");
  return readFields(view, bytes, bits, sender);
}

function readFields(
  view: DataView,
  bytes: Uint8Array,
  bits: number,
  sender: ControllerId,
): BeatDecoding {
  const mode = modes[view.getUint8(6)];
  const session = view.getUint32(7);
  const setBytes = view.getUint8(41);
  const fixedBytes = headBytes + 2 * setBytes;
  if (setBytes > setBytesMax || fixedBytes + macBytes > bytes.length) return refused("field");
  // One way to say it: no set is longer than its last member wants.
  const [ownedEnd, servingEnd] = [bytes[fixedBytes - setBytes - 1], bytes[fixedBytes - 1]];
  if (setBytes > 0 && ownedEnd === 0 && servingEnd === 0) return refused("field");
  const message = readMessage(view, bytes, bits, fixedBytes);
  if (mode === undefined || session === 0 || bits > flagsKnown || message === "invalid") {
    return refused("field");
  }
  return {
    ok: true,
    beat: {
      sender,
      session,
      sequence: getUint48(view, 11),
      ack: { session: view.getUint32(17), sequence: getUint48(view, 21) },
      granting: (bits & flags.granting) !== 0,
      mode,
      epoch: view.getUint32(27),
      configuration: view.getUint32(31),
      progressAgeMs: view.getUint16(35),
      goodbye: (bits & flags.goodbye) !== 0,
      dyingGasp: (bits & flags.dyingGasp) !== 0,
      dataLinkDown: (bits & flags.dataLinkDown) !== 0,
      owned: readSet(bytes, headBytes, setBytes),
      serving: readSet(bytes, headBytes + setBytes, setBytes),
      messageAck: view.getUint32(37),
      ...(message ? { message } : {}),
    },
  };
}

/** The message, undefined when the beat carries none, or `invalid` when lengths or id contradict each other. */
function readMessage(
  view: DataView,
  bytes: Uint8Array,
  bits: number,
  at: number,
): Beat["message"] | undefined | "invalid" {
  const available = bytes.length - macBytes - at;
  if (!(bits & flags.message)) return available === 0 ? undefined : "invalid";
  if (available < messageHeadBytes) return "invalid";
  const id = view.getUint32(at);
  const length = view.getUint16(at + 4);
  if (id === 0 || length !== available - messageHeadBytes) return "invalid";
  const start = at + messageHeadBytes;
  return { id, body: bytes.slice(start, start + length) };
}

function writeSet(out: Uint8Array, at: number, set: ServerSet): void {
  for (let number = 0; number < set.length; number += 1)
    if (setHas(set, number))
      out[at + (number >> 3)] = (out[at + (number >> 3)] ?? 0) | (1 << (number & 7));
}

function readSet(bytes: Uint8Array, at: number, setBytes: number): ServerSet {
  return setOf(
    8 * setBytes,
    (number) => (((bytes[at + (number >> 3)] ?? 0) >> (number & 7)) & 1) === 1,
  );
}

function flagsOf(beat: Beat): number {
  return (
    (beat.granting ? flags.granting : 0) |
    (beat.goodbye ? flags.goodbye : 0) |
    (beat.dyingGasp ? flags.dyingGasp : 0) |
    (beat.dataLinkDown ? flags.dataLinkDown : 0) |
    (beat.message ? flags.message : 0) |
    (beat.sender === "b" ? flags.senderIsB : 0)
  );
}

/** Keys made ready once: making one anew for every beat takes several times as long as the code itself. */
const readyKeys = new WeakMap<Uint8Array, KeyObject>();

function macOf(signed: Uint8Array, key: Uint8Array): Uint8Array {
  const ready = readyKeys.get(key) ?? createSecretKey(key);
  readyKeys.set(key, ready);
  return createHmac("sha256", ready).update(signed).digest().subarray(0, macBytes);
}

function setUint48(view: DataView, at: number, value: number): void {
  view.setUint16(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 2, value % 2 ** 32);
}

function getUint48(view: DataView, at: number): number {
  return view.getUint16(at) * 2 ** 32 + view.getUint32(at + 2);
}

function uint(value: number, max: number, field: string, min = 0): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new RangeError(`beat field ${field} is ${value}, expected ${min} to ${max}`);
}

/** An age may be fractional and of any size; what is too old to count stays "too old". */
function saturated(ageMs: number): number {
  if (!(ageMs >= 0)) throw new RangeError(`beat field progressAgeMs is ${ageMs}`);
  return Math.min(uint16Max, Math.ceil(ageMs));
}

function refused(reason: BeatRefusal): BeatDecoding {
  return { ok: false, reason };
}
