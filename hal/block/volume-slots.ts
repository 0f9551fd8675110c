/** The records of the common volume on one coordinator disk: reading all of them, and writing one. The format is wire/common-volume's. */
import type { RecordWritten, VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import { type Fault, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  coordinatorBytesMin,
  decodePair,
  encodeRecord,
  pairBytes,
  pairOffsetBytes,
  type SlotPair,
  slotBytes,
  slotToWrite,
  volumeBytes,
  volumeOffsetBytes,
} from "../../firmware-ts/wire/common-volume.ts";
import type { BlockDevice } from "./device.ts";

type Device = Pick<BlockDevice, "sizeBytes" | "read" | "write">;

/** What is read at once: eight numbers. Less memory than all of it, and few commands. */
const pieceBytes = 8 * pairBytes;

/** Fault `diskError` when the disk has no room for the volume; said in the words of whoever has to replace it. */
export function hasRoom({ sizeBytes }: Pick<Device, "sizeBytes">, serial: string): Outcome {
  if (sizeBytes >= coordinatorBytesMin) return good(undefined);
  const text = (bytes: number) => bytes.toLocaleString("en-US");
  return failed(
    "diskError",
    "common volume",
    `coordinator disk ${serial} has ${text(sizeBytes)} bytes and needs at least ${text(coordinatorBytesMin)}`,
  );
}

/** Every number that has something in a slot. Faults: those of the device, and `hasRoom`. */
export async function readPairs(
  device: Device,
  serial: string,
): Promise<Outcome<ReadonlyMap<number, SlotPair>>> {
  const room = hasRoom(device, serial);
  if (!room.ok) return room;
  const pairs = new Map<number, SlotPair>();
  for (let from = 0; from < volumeBytes; from += pieceBytes) {
    const piece = await device.read(volumeOffsetBytes + from, pieceBytes);
    if (!piece.ok) return piece;
    for (let at = 0; at < pieceBytes; at += pairBytes) {
      const number = (from + at) / pairBytes;
      const pair = decodePair(number, piece.value.subarray(at, at + pairBytes));
      if (pair.some(({ kind }) => kind !== "empty")) pairs.set(number, pair);
    }
  }
  return good(pairs);
}

/** What a record is on a disk: made once for all disks to which it goes at once. */
let encoded: { readonly record: VolumeRecord; readonly slot: Outcome<Uint8Array> } | undefined;

function slotOf(record: VolumeRecord): Outcome<Uint8Array> {
  if (encoded?.record !== record) encoded = { record, slot: encodeRecord(record) };
  return encoded.slot;
}

/** Looks at what the disk holds of this number, and writes the record beside its newest one. Settles when nothing of it can happen any more. */
export async function writeRecord(
  device: Device,
  serial: string,
  record: VolumeRecord,
): Promise<RecordWritten> {
  const slot = slotOf(record);
  if (!slot.ok || !hasRoom(device, serial).ok) return "failed";
  const { number } = record.definition;
  const offset = pairOffsetBytes(number);
  const held = await device.read(offset, pairBytes);
  if (!held.ok) return refusalOf(held.fault);
  const index = slotToWrite(decodePair(number, held.value), record);
  if (index === "overtaken") return "overtaken";
  const written = await device.write(offset + index * slotBytes, Buffer.from(slot.value), {
    fua: true,
  });
  return written.ok ? "accepted" : refusalOf(written.fault);
}

const refusalOf = ({ code }: Fault): RecordWritten => (code === "fenced" ? "refused" : "failed");
