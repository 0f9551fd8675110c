/** The records of the common volume on one coordinator disk: reading all of them, and writing one. The format is wire/common-volume's. */
import type { RecordWritten, VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import { type Fault, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  coordinatorBytesMin,
  decodePair,
  decodeStamps,
  encodeRecord,
  pairBytes,
  pairOffsetBytes,
  type SlotPair,
  slotBytes,
  slotToWrite,
  stampOf,
  volumeBytes,
  volumeOffsetBytes,
} from "../../firmware-ts/wire/common-volume.ts";
import type { BlockDevice } from "./device.ts";

interface Device extends Pick<BlockDevice, "sizeBytes" | "read"> {
  /** `isWanted` is asked before each time that it is sent; what is not wanted any more is refused. */
  write(
    offset: number,
    data: Buffer,
    how: { readonly fua: boolean; readonly isWanted: () => boolean },
  ): Promise<Outcome>;
}

/** A coordinator disk of a pair. */
export interface VolumeDisk {
  readonly device: Device;
  readonly serial: string;
  /** Pair id. */
  readonly pair: number;
}

/** What is read at once: eight numbers. Less memory than all of it, and few commands. */
const pieceBytes = 8 * pairBytes;

/** Fault `diskError` when the disk has no room for the volume; said in the words of whoever has to replace it. */
export function hasRoom({ device: { sizeBytes }, serial }: VolumeDisk): Outcome {
  if (sizeBytes >= coordinatorBytesMin) return good(undefined);
  const text = (bytes: number) => bytes.toLocaleString("en-US");
  return failed(
    "diskError",
    "common volume",
    `coordinator disk ${serial} has ${text(sizeBytes)} bytes and needs at least ${text(coordinatorBytesMin)}`,
  );
}

/** Every number that has something in a slot. Faults: those of the device, and `hasRoom`. */
export async function readPairs(disk: VolumeDisk): Promise<Outcome<ReadonlyMap<number, SlotPair>>> {
  const room = hasRoom(disk);
  if (!room.ok) return room;
  const { device, pair } = disk;
  const pairs = new Map<number, SlotPair>();
  for (let from = 0; from < volumeBytes; from += pieceBytes) {
    const piece = await device.read(volumeOffsetBytes + from, pieceBytes);
    if (!piece.ok) return piece;
    for (let at = 0; at < pieceBytes; at += pairBytes) {
      const number = (from + at) / pairBytes;
      const slots = decodePair({ number, pair }, piece.value.subarray(at, at + pairBytes));
      if (slots.some(({ kind }) => kind !== "empty")) pairs.set(number, slots);
    }
  }
  return good(pairs);
}

/** What a record is on a disk: made once for all disks to which it goes. */
const encoded = new WeakMap<VolumeRecord, Outcome<Buffer>>();

function slotOf(record: VolumeRecord, pair: number): Outcome<Buffer> {
  const slot = encoded.get(record) ?? encodeRecord(record, pair);
  encoded.set(record, slot);
  return slot;
}

/**
 * Looks at what the disk holds of this number, and writes the record beside its newest one. Settles when nothing of it can happen any more. Who may write
 * can change while it is read, or between two tries: `isWanted` is asked before each.
 */
export async function writeRecord(
  disk: VolumeDisk,
  record: VolumeRecord,
  isWanted: () => boolean,
): Promise<RecordWritten> {
  const { device, pair } = disk;
  const slot = slotOf(record, pair);
  if (!slot.ok || !hasRoom(disk).ok) return "failed";
  const { number } = record.definition;
  const offset = pairOffsetBytes(number);
  const held = await device.read(offset, pairBytes);
  if (!held.ok) return refusalOf(held.fault);
  const index = slotToWrite(decodeStamps({ number, pair }, held.value), stampOf(record));
  if (index === "overtaken") return "overtaken";
  const written = await device.write(offset + index * slotBytes, slot.value, {
    fua: true,
    isWanted,
  });
  return written.ok ? "accepted" : refusalOf(written.fault);
}

const refusalOf = ({ code }: Fault): RecordWritten => (code === "fenced" ? "refused" : "failed");
