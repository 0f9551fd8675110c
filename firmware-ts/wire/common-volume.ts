/**
 * The common volume on a coordinator disk: a record of each virtual server, in two slots, of which the newer whole one counts
 * (docs/common-volume.md is this format for somebody who writes a tool).
 *
 *     slot s of number n is a front of 4,096 bytes from byte 32,768 + (2 n + s) × 4,096 on, and a rest of 12,288 from
 *     557,056 + (2 n + s) × 12,288 on. All fronts lie together, so that whoever looks for what there is reads few bytes. Big-endian:
 *
 *     offset size                       offset size
 *        0    8  magic "DYADVOL\n"         16    4  epoch
 *        8    2  format                    20    4  generation
 *       10    2  pair id                   24    4  bytes of the body
 *       12    1  number                    28    4  CRC-32 of all but these four bytes
 *       13    1  owner, 1 = a, 2 = b       32   ..  body: JSON, UTF-8: { sequence, wanted, server, state }
 *       14    2  zeros                     ..       zeros
 *
 *     A body that fits the front is there, and the rest means nothing; a longer one goes on in the rest, and the checksum is of both.
 *
 * Obligations. No bytes make a reader throw. The head is the same in every format, so that a firmware knows what is newer than what it
 * understands. A slot is valid as a whole or not at all: a write that the power cut short is no record, and the other slot is untouched.
 */
import { crc32 } from "node:zlib";
import { virtualServersMax } from "../schema/beat.ts";
import { compareWritings, type VolumeRecord, volumeRecordSchema } from "../schema/definition.ts";
import type { ControllerId } from "../schema/ids.ts";
import { failed, good, type Outcome } from "../schema/outcome.ts";

/** A whole slot: front and rest. */
export const slotBytes = 16 * 1024;
export const frontBytes = 4096;
export const restBytes = slotBytes - frontBytes;
/** Behind the beats, which have sectors 8 and 16 (hal/linux/disk-link). */
export const volumeOffsetBytes = 32_768;
/** The fronts of all numbers. */
export const frontsBytes = 2 * virtualServersMax * frontBytes;
const restsOffsetBytes = volumeOffsetBytes + frontsBytes;
/** A coordinator disk has to be at least so large. */
export const coordinatorBytesMin = restsOffsetBytes + 2 * virtualServersMax * restBytes;

export type SlotIndex = 0 | 1;

/** Where on the disk the front of a slot begins; that of the second slot follows that of the first. */
export function frontOffsetBytes(number: number, slot: SlotIndex): number {
  return volumeOffsetBytes + (2 * number + slot) * frontBytes;
}

/** Where on the disk the rest of a slot begins. */
export function restOffsetBytes(number: number, slot: SlotIndex): number {
  return restsOffsetBytes + (2 * number + slot) * restBytes;
}

/** The format that is written. This one and the one before it are read; there is none before it yet. */
const formatNow = 1;

const magic = Buffer.from("DYADVOL\n", "latin1");
const headBytes = 32;
const at = {
  format: 8,
  pair: 10,
  number: 12,
  owner: 13,
  epoch: 16,
  generation: 20,
  bodyBytes: 24,
  crc: 28,
} as const;
const crcEnd = at.crc + 4;
/** What a body may take; the rest of the slot is the head. */
export const bodyBytesMax = slotBytes - headBytes;

/** How many bytes a slot with such a body has: its front alone, or both. */
const lengthOf = (bodyBytes: number) =>
  bodyBytes <= frontBytes - headBytes ? frontBytes : slotBytes;

/** Which of two records is newer: what epoch, generation and owner say, in this order. */
export interface Stamp {
  readonly epoch: number;
  readonly generation: number;
  /** As on the disk: 1 is controller a, 2 is b. */
  readonly owner: number;
}

/** Where a slot is: records of another pair are not ours, nor are those that belong elsewhere. */
export interface SlotPlace {
  readonly number: number;
  /** Pair id; undefined: whichever it is, for whoever only looks. */
  readonly pair: number | undefined;
}

/** What a slot holds. */
export type Slot =
  /** Never written. */
  | { readonly kind: "empty" }
  | { readonly kind: "record"; readonly record: VolumeRecord }
  /** Whole, and of this number, but not understood: of another format, or with something in it that this one does not have. */
  | { readonly kind: "unknown"; readonly stamp: Stamp; readonly reason: string }
  /** Torn, damaged, or of another place. `ours`: it begins as a record does, and no other pair wrote it: something was here. */
  | { readonly kind: "damaged"; readonly ours: boolean; readonly reason: string };

/** The two slots of a number on one disk. */
export type SlotPair = readonly [Slot, Slot];

export const emptySlot: Spoilt = { kind: "empty" };
export const emptyPair: SlotPair = [emptySlot, emptySlot];

const ownerCode = (owner: ControllerId) => (owner === "a" ? 1 : 2);

export function stampOf({ epoch, generation, owner }: VolumeRecord): Stamp {
  return { epoch, generation, owner: ownerCode(owner) };
}

/** Undefined when nothing whole is there. */
export function slotStamp(slot: Slot): Stamp | undefined {
  if (slot.kind === "record") return stampOf(slot.record);
  return slot.kind === "unknown" ? slot.stamp : undefined;
}

/** What is whole in the two slots of a number: understood or not. */
export type StampPair = readonly [Stamp | undefined, Stamp | undefined];

/**
 * Where a record goes on a disk that holds this: never where the newest whole one is, so that a write that is cut short leaves it. The
 * choice is each disk's own: disks that missed a writing hold other generations, and what a majority holds must outlive any one writing.
 * "overtaken": what is there is newer, and must be read before anybody writes.
 */
export function slotToWrite([first, second]: StampPair, stamp: Stamp): 0 | 1 | "overtaken" {
  const isSecond = second !== undefined && (!first || compareWritings(second, first) > 0);
  const newest = isSecond ? second : first;
  if (newest && compareWritings(newest, stamp) > 0) return "overtaken";
  return newest && !isSecond ? 1 : 0;
}

/** A slot: its front, or front and rest in a row. Fault `badInput`: the record is too large; the definition alone always fits (`withoutState`). */
export function encodeRecord(record: VolumeRecord, pair: number): Outcome<Buffer> {
  const { sequence, wanted, server, number } = record.definition;
  const body = Buffer.from(JSON.stringify({ sequence, wanted, server, state: record.state }));
  if (body.length > bodyBytesMax)
    return failed(
      "badInput",
      `record of ${server.name}`,
      `${body.length} bytes, and a slot of the common volume has room for ${bodyBytesMax}`,
    );
  const slot = Buffer.alloc(lengthOf(body.length));
  magic.copy(slot);
  slot.writeUInt16BE(record.format, at.format);
  slot.writeUInt16BE(pair, at.pair);
  slot.writeUInt8(number, at.number);
  slot.writeUInt8(ownerCode(record.owner), at.owner);
  slot.writeUInt32BE(record.epoch, at.epoch);
  slot.writeUInt32BE(record.generation, at.generation);
  slot.writeUInt32BE(body.length, at.bodyBytes);
  body.copy(slot, headBytes);
  slot.writeUInt32BE(checksum(slot), at.crc);
  return good(slot);
}

/** The record with an empty state: what is written of it when all of it does not fit. The state is only shown, to people. */
export function withoutState(record: VolumeRecord): VolumeRecord {
  return { ...record, state: { mounts: [], routes: [], devices: [] } };
}

/** Whether a slot with this front goes on in its rest, and says nothing without it. */
export function hasRest(front: Uint8Array): boolean {
  const slot = bufferOf(front);
  return slot.length >= frontBytes && beginsAsRecord(slot) && lengthInHead(slot) > frontBytes;
}

/** What a slot holds, from the bytes of its front, or of front and rest in a row. Never throws. */
export function decodeSlot(place: SlotPlace, bytes: Uint8Array): Slot {
  const head = decodeHead(place, bytes);
  return head.kind === "whole" ? decodeBody(head, place.number) : head;
}

/** The bytes of both slots of a number, each as for `decodeSlot`. */
export type PairBytes = readonly [Uint8Array, Uint8Array];

/** Both slots of a number. */
export function decodePair(place: SlotPlace, [first, second]: PairBytes): SlotPair {
  return [decodeSlot(place, first), decodeSlot(place, second)];
}

/** The same for whoever writes, without a look at what the records say. */
export function decodeStamps(place: SlotPlace, [first, second]: PairBytes): StampPair {
  const stamp = (slot: Uint8Array) => {
    const head = decodeHead(place, slot);
    return head.kind === "whole" ? head.stamp : undefined;
  };
  return [stamp(first), stamp(second)];
}

const zeros = Buffer.alloc(frontBytes);

const bufferOf = (bytes: Uint8Array) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const beginsAsRecord = (slot: Buffer) => slot.subarray(0, magic.length).equals(magic);
const lengthInHead = (slot: Buffer) => lengthOf(slot.readUInt32BE(at.bodyBytes));

const damaged = (ours: boolean, reason: string): Spoilt => ({ kind: "damaged", ours, reason });

/** Everything but the place of the checksum itself. */
function checksum(slot: Buffer): number {
  return crc32(slot.subarray(crcEnd), crc32(slot.subarray(0, at.crc)));
}

interface WholeSlot {
  readonly kind: "whole";
  readonly slot: Buffer;
  readonly stamp: Stamp;
}

type Spoilt = Extract<Slot, { kind: "empty" | "damaged" }>;

function decodeHead({ number, pair }: SlotPlace, bytes: Uint8Array): WholeSlot | Spoilt {
  const all = bufferOf(bytes);
  const noSlot = () => damaged(false, `${all.length} bytes are no slot`);
  if (all.length < frontBytes) return noSlot();
  if (!beginsAsRecord(all))
    return all.subarray(0, frontBytes).equals(zeros) ? emptySlot : damaged(false, "no record");
  const length = lengthInHead(all);
  if (all.length < length) return noSlot();
  const slot = all.subarray(0, length);
  if (slot.readUInt32BE(at.crc) !== checksum(slot)) return damaged(true, "torn or damaged");
  const foundPair = slot.readUInt16BE(at.pair);
  if (pair !== undefined && foundPair !== pair)
    return damaged(false, `a record of pair ${foundPair}`);
  const foundNumber = slot.readUInt8(at.number);
  if (foundNumber !== number) return damaged(true, `a record of number ${foundNumber}`);
  const stamp = {
    epoch: slot.readUInt32BE(at.epoch),
    generation: slot.readUInt32BE(at.generation),
    owner: slot.readUInt8(at.owner),
  };
  return { kind: "whole", slot, stamp };
}

/** A slot that is whole: from here on it is either understood or kept. */
function decodeBody({ slot, stamp }: WholeSlot, number: number): Slot {
  const format = slot.readUInt16BE(at.format);
  const unknown = (reason: string): Slot => ({ kind: "unknown", stamp, reason });
  if (format > formatNow) return unknown(`written by a newer firmware (format ${format})`);
  if (format !== 1) return unknown(`of format ${format}, which this firmware does not read`);
  const bodyBytes = slot.readUInt32BE(at.bodyBytes);
  if (bodyBytes > bodyBytesMax) return unknown(`a body of ${bodyBytes} bytes`);
  const body = parseJson(slot.subarray(headBytes, headBytes + bodyBytes));
  const owner = stamp.owner === 1 ? "a" : stamp.owner === 2 ? "b" : undefined;
  const parsed = volumeRecordSchema.safeParse(recordOf(body, { ...stamp, owner, format }, number));
  if (parsed.success) return { kind: "record", record: parsed.data };
  const [issue] = parsed.error.issues;
  const where = issue?.path.join(".") || "body";
  return unknown(`not understood at ${where}: ${issue?.message ?? "unknown"}`);
}

/** The parts where the schema of format 1 has them. */
function recordOf(body: unknown, head: object, number: number): unknown {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return body;
  const { state, ...definition } = body as Record<string, unknown>;
  return { ...head, state, definition: { ...definition, number } };
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}
