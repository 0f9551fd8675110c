/** The small record that a controller must not forget (schema/journal), kept in two slots so that a torn write leaves the older one. */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { type PersistentRecord, persistentRecordSchema } from "../schema/journal.ts";

const slots = ["record.0", "record.1"];
const recordBytesMax = 4096;

export interface RecordStore {
  read(): PersistentRecord;
  /** Returns when the record is on the disk. Throws when it cannot be: a controller that forgets epochs must not act. */
  write(record: PersistentRecord): void;
}

/** Opens the store in a directory of this controller alone. Without a valid slot the record is that of a new controller. */
export function openRecordStore(directory: string): RecordStore {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const found = slots.map((slot) => readSlot(join(directory, slot)));
  const best = found.reduce((one, other) => (other.generation > one.generation ? other : one));
  let { generation } = best;
  return {
    read: () => best.record,
    write(record) {
      generation += 1;
      const body = JSON.stringify({ generation, record });
      const text = `${crc32(body).toString(16).padStart(8, "0")} ${body}\n`;
      writeDurably(join(directory, slots[generation % slots.length] ?? "record.0"), text);
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

const fresh = { generation: 0, record: { version: 1, epoch: 0 } as PersistentRecord };

function readSlot(path: string): typeof fresh {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return fresh;
    throw new Error(`record ${path}: cannot be read`, { cause: error });
  }
  const match = /^([0-9a-f]{8}) (\{.*\})\n$/.exec(text.slice(0, recordBytesMax));
  const body = match?.[2];
  if (body === undefined || crc32(body).toString(16).padStart(8, "0") !== match?.[1]) return fresh;
  const parsed = JSON.parse(body) as { generation: number; record: unknown };
  const record = persistentRecordSchema.safeParse(parsed.record);
  return record.success ? { generation: parsed.generation, record: record.data } : fresh;
}
