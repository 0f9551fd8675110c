/** The small record that a controller must not forget (schema/journal), kept in two slots so that a torn write leaves the older one. */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { PersistentRecord } from "../schema/journal.ts";
import {
  decodeSlot,
  encodeSlot,
  freshSlot,
  newestSlot,
  recordSlots,
  type Slot,
  slotOf,
} from "../wire/record.ts";

export interface RecordStore {
  read(): PersistentRecord;
  /** Returns when the record is on the disk. Throws when it cannot be: a controller that forgets epochs must not act. */
  write(record: PersistentRecord): void;
}

/** Opens the store in a directory of this controller alone. Without a valid slot the record is that of a new controller. */
export function openRecordStore(directory: string): RecordStore {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const best = newestSlot(recordSlots.map((slot) => readSlot(join(directory, slot))));
  let { generation } = best;
  return {
    read: () => best.record,
    write(record) {
      generation += 1;
      writeDurably(join(directory, slotOf(generation)), encodeSlot({ generation, record }));
    },
  };
}

function writeDurably(path: string, text: string): void {
  const file = openSync(path, "w", 0o600);
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

function readSlot(path: string): Slot {
  try {
    return decodeSlot(readFileSync(path, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return freshSlot;
    throw new Error(`record ${path}: cannot be read`, { cause: error });
  }
}
