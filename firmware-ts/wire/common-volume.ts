/**
 * The common volume on a coordinator disk: a record of each virtual server, in two slots, of which the newer whole one counts
 * (docs/common-volume.md is this format for somebody who writes a tool).
 *
 *     slot s of number n begins at byte 32,768 + (2 n + s) × 16,384, and is, big-endian:
 *
 *     offset size                       offset size
 *        0    8  magic "DYADVOL\n"         16    4  generation
 *        8    2  format                    20    4  bytes of the body
 *       10    1  number                    24    4  CRC-32 of the whole slot but these four bytes
 *       11    1  owner, 1 = a, 2 = b       28   ..  body: JSON, UTF-8: { sequence, wanted, server, state }
 *       12    4  epoch                     ..       zeros
 *
 * Obligations. No bytes make a reader throw. The head is the same in every format, so that a firmware knows what is newer than what it
 * understands. A slot is valid as a whole or not at all: a write that the power cut short is no record, and the other slot is untouched.
 */
import { crc32 } from "node:zlib";
import { virtualServersMax } from "../schema/beat.ts";
import { type VolumeRecord, volumeRecordSchema } from "../schema/definition.ts";
import type { ControllerId } from "../schema/ids.ts";
import { failed, good, type Outcome } from "../schema/outcome.ts";

export const slotBytes = 16 * 1024;
/** Both slots of a number: what is read before one of them is written. */
export const pairBytes = 2 * slotBytes;
/** Behind the beats, which have sectors 8 and 16 (hal/linux/disk-link). */
export const volumeOffsetBytes = 32_768;
export const volumeBytes = virtualServersMax * pairBytes;
/** A coordinator disk has to be at least so large. */
export const coordinatorBytesMin = volumeOffsetBytes + volumeBytes;

/** Where on the disk the slots of a number begin. */
export function pairOffsetBytes(number: number): number {
  return volumeOffsetBytes + number * pairBytes;
}

/** The format that is written. This one and the one before it are read; there is none before it yet. */
const formatNow = 1;

const magic = Buffer.from("DYADVOL\n", "latin1");
const headBytes = 28;
const at = {
  format: 8,
  number: 10,
  owner: 11,
  epoch: 12,
  generation: 16,
  bodyBytes: 20,
  crc: 24,
} as const;
const crcEnd = at.crc + 4;
/** What a body may take; the rest of the slot is the head. */
export const bodyBytesMax = slotBytes - headBytes;

/** Which of two records is newer: what epoch, generation and owner say, in this order. */
export interface Stamp {
  readonly epoch: number;
  readonly generation: number;
  /** As on the disk: 1 is controller a, 2 is b. */
  readonly owner: number;
}

/** What a slot holds. */
export type Slot =
  /** Never written. */
  | { readonly kind: "empty" }
  | { readonly kind: "record"; readonly record: VolumeRecord }
  /** Whole, and of this number, but not understood: of another format, or with something in it that this one does not have. */
  | { readonly kind: "unknown"; readonly stamp: Stamp; readonly reason: string }
  /** Torn, damaged, or of another place. `ours`: it begins as a record does; what does not was never one of a slot that was empty before. */
  | { readonly kind: "damaged"; readonly ours: boolean; readonly reason: string };

/** The two slots of a number on one disk. */
export type SlotPair = readonly [Slot, Slot];

export const emptySlot: Slot = { kind: "empty" };
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

/** Positive when `one` is newer than `other`, 0 when they are the same writing. */
export function compareStamps(one: Stamp, other: Stamp): number {
  return one.epoch - other.epoch || one.generation - other.generation || one.owner - other.owner;
}

/** The whole slot with the newest stamp; undefined when neither is whole. */
export function newestOf([first, second]: SlotPair): 0 | 1 | undefined {
  const [one, other] = [slotStamp(first), slotStamp(second)];
  if (!one) return other ? 1 : undefined;
  return other && compareStamps(other, one) > 0 ? 1 : 0;
}

/**
 * Where a record goes on a disk that holds this pair: never where the newest whole one is, so that a write that is cut short leaves it. The
 * choice is each disk's own: disks that missed a writing hold other generations, and what a majority holds must outlive any one writing.
 * "overtaken": what is there is newer, and must be read before anybody writes.
 */
export function slotToWrite(pair: SlotPair, record: VolumeRecord): 0 | 1 | "overtaken" {
  const newest = newestOf(pair);
  if (newest === undefined) return 0;
  const held = slotStamp(pair[newest]);
  if (held && compareStamps(held, stampOf(record)) > 0) return "overtaken";
  return newest === 0 ? 1 : 0;
}

/** One slot. Fault `badInput`: the record is too large; the definition alone always fits (`withoutState`). */
export function encodeRecord(record: VolumeRecord): Outcome<Uint8Array> {
  const { sequence, wanted, server, number } = record.definition;
  const body = Buffer.from(JSON.stringify({ sequence, wanted, server, state: record.state }));
  if (body.length > bodyBytesMax)
    return failed(
      "badInput",
      `record of ${server.name}`,
      `${body.length} bytes, and a slot of the common volume has room for ${bodyBytesMax}`,
    );
  const slot = Buffer.alloc(slotBytes);
  magic.copy(slot);
  slot.writeUInt16BE(record.format, at.format);
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

/** What the bytes of a slot of this number hold. Never throws. */
export function decodeSlot(number: number, bytes: Uint8Array): Slot {
  const slot = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (slot.length !== slotBytes) return damaged(false, `${slot.length} bytes are no slot`);
  if (!slot.subarray(0, magic.length).equals(magic))
    return slot.equals(zeros) ? emptySlot : damaged(false, "no record");
  if (slot.readUInt32BE(at.crc) !== checksum(slot)) return damaged(true, "torn or damaged");
  const found = slot.readUInt8(at.number);
  if (found !== number) return damaged(true, `a record of number ${found}`);
  return decodeBody(slot, number);
}

/** Both slots of a number from the bytes of the pair. */
export function decodePair(number: number, bytes: Uint8Array): SlotPair {
  return [
    decodeSlot(number, bytes.subarray(0, slotBytes)),
    decodeSlot(number, bytes.subarray(slotBytes)),
  ];
}

const zeros = Buffer.alloc(slotBytes);

const damaged = (ours: boolean, reason: string): Slot => ({ kind: "damaged", ours, reason });

/** Everything but the place of the checksum itself. */
function checksum(slot: Buffer): number {
  return crc32(slot.subarray(crcEnd), crc32(slot.subarray(0, at.crc)));
}

/** A slot that is whole: from here on it is either understood or kept. */
function decodeBody(slot: Buffer, number: number): Slot {
  const format = slot.readUInt16BE(at.format);
  const stamp = {
    epoch: slot.readUInt32BE(at.epoch),
    generation: slot.readUInt32BE(at.generation),
    owner: slot.readUInt8(at.owner),
  };
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
