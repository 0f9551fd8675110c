/**
 * The journal: every event that reached the decisions and every effect that came out, one JSON object per line, append-only. Fed
 * again to `core`, the events give the same effects: the field's log is the test's input. Ticks that changed nothing
 * are left out (core/controller). Written in the background: the journal serves the reader, never safety.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";
import type { Effect } from "../core/effects.ts";
import type { ControllerEvent } from "../core/events.ts";

/** Size at which a new file is begun, and how many old ones are kept. */
const fileBytesMax = 16 * 1024 * 1024;
const filesMax = 4;

export interface JournalHeader {
  readonly version: 1;
  readonly startedAt: string;
  readonly config: unknown;
  readonly configuration: number;
}

export interface Journal {
  write(event: ControllerEvent, effects: readonly Effect[]): void;
  flush(): void;
  close(): void;
}

/** Bytes survive JSON as {"$bytes": base64}. */
export function journalLine(entry: unknown): string {
  return JSON.stringify(entry, function (this: Record<string, unknown>, key, value: unknown) {
    // A Buffer has turned itself into an object by the time it is seen here.
    const original = this[key];
    return original instanceof Uint8Array
      ? { $bytes: Buffer.from(original).toString("base64") }
      : value;
  });
}

/** The reverse of `journalLine`. */
export function readJournalLine(line: string): unknown {
  return JSON.parse(line, (_key, value: unknown) => {
    if (typeof value !== "object" || value === null || !("$bytes" in value)) return value;
    return new Uint8Array(Buffer.from(String(value.$bytes), "base64"));
  });
}

/** Opens the journal for appending; a header line tells where a process began. */
export function openJournal(path: string, header: JournalHeader): Journal {
  let file = openSync(path, "a", 0o600);
  let size = fstatSync(file).size;
  let waiting: string[] = [];
  let timer: NodeJS.Timeout | undefined;
  const rotate = () => {
    closeSync(file);
    for (let i = filesMax - 1; i >= 1; i -= 1) moveIfThere(`${path}.${i}`, `${path}.${i + 1}`);
    moveIfThere(path, `${path}.1`);
    file = openSync(path, "a", 0o600);
    size = 0;
    size += writeSync(file, `${journalLine({ header })}\n`);
  };
  const flush = () => {
    if (timer) clearTimeout(timer);
    timer = undefined;
    if (waiting.length === 0) return;
    const text = waiting.join("");
    waiting = [];
    size += writeSync(file, text);
    if (size >= fileBytesMax) rotate();
  };
  const add = (entry: unknown) => {
    waiting.push(`${journalLine(entry)}\n`);
    timer ??= setTimeout(flush, 200);
  };
  add({ header });
  return {
    write: (event, effects) => add({ at: new Date().toISOString(), event, effects }),
    flush,
    close() {
      flush();
      closeSync(file);
    },
  };
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
