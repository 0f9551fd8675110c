/** The records of the common volume on one coordinator disk: reading all of them, and writing one. The format is wire/common-volume's. */
import { virtualServersMax } from "../../firmware-ts/schema/beat.ts";
import type { RecordWritten, VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import { type Fault, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import {
  coordinatorBytesMin,
  decodeSlot,
  decodeStamps,
  encodeRecord,
  frontBytes,
  frontOffsetBytes,
  frontsBytes,
  hasRest,
  type PairBytes,
  restBytes,
  restOffsetBytes,
  type Slot,
  type SlotPair,
  type SlotPlace,
  slotToWrite,
  stampOf,
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
  const fronts = await disk.device.read(volumeOffsetBytes, frontsBytes);
  if (!fronts.ok) return fronts;
  const pairs = new Map<number, SlotPair>();
  for (let number = 0; number < virtualServersMax; number += 1) {
    const from = 2 * number * frontBytes;
    const slots = await slotsOf(disk, number, fronts.value.subarray(from, from + 2 * frontBytes));
    if (!slots.ok) return slots;
    if (slots.value.some(({ kind }) => kind !== "empty")) pairs.set(number, slots.value);
  }
  return good(pairs);
}

interface Decoded {
  readonly pair: number | undefined;
  readonly bytes: Buffer;
  readonly slot: Slot;
}

/** A number has two slots; the next writing of it is a third, and a disk that missed one holds a fourth. */
const decodedMax = 4;
/** What was decoded last of each number: nearly all is the same on the next disk, and at the next look, when a survivor has no time to lose. */
const decoded = new Map<number, readonly Decoded[]>();

function decodeKnown(place: SlotPlace, bytes: Uint8Array): Slot {
  const known = decoded.get(place.number) ?? [];
  const same = known.find((each) => each.pair === place.pair && each.bytes.equals(bytes));
  if (same) return same.slot;
  const slot = decodeSlot(place, bytes);
  // There is nothing to decode in an empty one.
  if (slot.kind === "empty") return slot;
  // What was read is a piece of all that was read, which would stay with it.
  const fresh = { pair: place.pair, bytes: Buffer.from(bytes), slot };
  decoded.set(place.number, [fresh, ...known].slice(0, decodedMax));
  return slot;
}

/** What is in both slots of a number. One that was written over between its front and its rest only looks torn: such a pair is read once more. */
async function slotsOf(
  disk: VolumeDisk,
  number: number,
  fronts: Buffer,
): Promise<Outcome<SlotPair>> {
  const place = { number, pair: disk.pair };
  const bothOf = ([first, second]: PairBytes): SlotPair => [
    decodeKnown(place, first),
    decodeKnown(place, second),
  ];
  const bytes = await wholePair(disk, number, fronts);
  if (!bytes.ok) return bytes;
  const slots = bothOf(bytes.value);
  const isTorn = bytes.value.some((each, at) => hasRest(each) && slots[at]?.kind === "damaged");
  if (!isTorn) return good(slots);
  const again = await readPair(disk, number);
  return again.ok ? good(bothOf(again.value)) : again;
}

async function readPair(disk: VolumeDisk, number: number): Promise<Outcome<PairBytes>> {
  const fronts = await disk.device.read(frontOffsetBytes(number, 0), 2 * frontBytes);
  return fronts.ok ? wholePair(disk, number, fronts.value) : fronts;
}

/** Both slots of a number, of which the fronts have been read: most records need no more. */
async function wholePair(
  { device }: VolumeDisk,
  number: number,
  fronts: Buffer,
): Promise<Outcome<PairBytes>> {
  const slots: [Buffer, Buffer] = [fronts.subarray(0, frontBytes), fronts.subarray(frontBytes)];
  for (const index of [0, 1] as const) {
    if (!hasRest(slots[index])) continue;
    const rest = await device.read(restOffsetBytes(number, index), restBytes);
    if (!rest.ok) return rest;
    slots[index] = Buffer.concat([slots[index], rest.value]);
  }
  return good(slots);
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
  const held = await readPair(disk, number);
  if (!held.ok) return refusalOf(held.fault);
  const index = slotToWrite(decodeStamps({ number, pair }, held.value), stampOf(record));
  if (index === "overtaken") return "overtaken";
  // The front makes it a record, and is written when the rest is there.
  const parts = [
    { at: restOffsetBytes(number, index), bytes: slot.value.subarray(frontBytes) },
    { at: frontOffsetBytes(number, index), bytes: slot.value.subarray(0, frontBytes) },
  ];
  for (const { at, bytes } of parts) {
    if (bytes.length === 0) continue;
    const written = await device.write(at, bytes, { fua: true, isWanted });
    if (!written.ok) return refusalOf(written.fault);
  }
  return "accepted";
}

const refusalOf = ({ code }: Fault): RecordWritten => (code === "fenced" ? "refused" : "failed");
