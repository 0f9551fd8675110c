/**
 * A slot of the persistent record (schema/journal) as text: a checksum, then the record with the generation of its writing. There are
 * two slots, written in turn, so that a torn write leaves the older one.
 */
import { crc32 } from "node:zlib";
import { type PersistentRecord, persistentRecordSchema } from "../schema/journal.ts";

/** Names of the two slots. */
export const recordSlots = ["record.0", "record.1"] as const;

/** What is looked at of a slot; the rest cannot be ours. */
const recordBytesMax = 4096;

/** A record with the number of its writing; 0 is that of a new controller. */
export interface Slot {
  readonly generation: number;
  readonly record: PersistentRecord;
}

/** What a controller remembers that has never written anything. */
export const freshSlot: Slot = { generation: 0, record: { version: 1, epoch: 0 } };

/** The slot that a generation is written to: never the one that holds the newest. */
export function slotOf(generation: number): (typeof recordSlots)[number] {
  return generation % recordSlots.length === 0 ? recordSlots[0] : recordSlots[1];
}

export function encodeSlot(slot: Slot): string {
  const body = JSON.stringify(slot);
  return `${checksum(body)} ${body}\n`;
}

/** A slot that is torn, damaged or empty counts as never written. */
export function decodeSlot(text: string): Slot {
  const match = /^([0-9a-f]{8}) (\{.*\})\n$/.exec(text.slice(0, recordBytesMax));
  const body = match?.[2];
  if (body === undefined || checksum(body) !== match?.[1]) return freshSlot;
  const parsed = JSON.parse(body) as { generation: number; record: unknown };
  const record = persistentRecordSchema.safeParse(parsed.record);
  return record.success ? { generation: parsed.generation, record: record.data } : freshSlot;
}

/** The newest of the slots. */
export function newestSlot(slots: readonly Slot[]): Slot {
  return slots.reduce((one, other) => (other.generation > one.generation ? other : one), freshSlot);
}

const checksum = (body: string) => crc32(body).toString(16).padStart(8, "0");
