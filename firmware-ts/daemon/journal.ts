/**
 * The journal: every event that reached the decisions and every effect that came out, one JSON object per line, append-only. Fed
 * again to `core`, the events give the same effects: the field's log is the test's input. Ticks that changed nothing
 * are left out (core/controller). Written in the background: the journal serves the reader, never safety, and nothing that befalls it ends the
 * controller.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from "node:fs";
import type { Effect } from "../core/effects.ts";
import type { ControllerEvent } from "../core/events.ts";
import type { Definition } from "../schema/definition.ts";

/** Size at which a new file is begun, and how many old ones are kept. */
const fileBytesMax = 16 * 1024 * 1024;
const filesMax = 4;

export interface JournalHeader {
  readonly version: 1;
  readonly startedAt: string;
  readonly config: unknown;
  readonly configuration: number;
  /** With which it began. */
  readonly definitions: readonly Definition[];
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

export interface JournalOptions {
  readonly log: (message: string) => void;
  /** Of node:fs; another one only to see it fail. */
  readonly append?: (file: number, text: string) => number;
}

/**
 * Opens the journal for appending; a header line tells where a process began. What the disk does not take (a full one) is dropped, which is told
 * once, and a line says where entries are missing; a replay ends there.
 */
export function openJournal(
  path: string,
  header: JournalHeader,
  { log, append = writeSync }: JournalOptions,
): Journal {
  let file = openSync(path, "a", 0o600);
  let size = fstatSync(file).size;
  let waiting: string[] = [];
  let dropped = 0;
  let timer: NodeJS.Timeout | undefined;
  const rotate = () => {
    closeSync(file);
    for (let i = filesMax - 1; i >= 1; i -= 1) moveIfThere(`${path}.${i}`, `${path}.${i + 1}`);
    moveIfThere(path, `${path}.1`);
    file = openSync(path, "a", 0o600);
    size = append(file, `${journalLine({ header })}\n`);
  };
  const write = (entries: readonly string[]) => {
    // What was written of an entry that failed half-way has no end of line.
    const gap = dropped > 0 ? `\n${journalLine({ dropped })}\n` : "";
    size += append(file, gap + entries.join(""));
    if (dropped > 0) log(`journal ${path}: written again, ${dropped} entries are missing`);
    dropped = 0;
    if (size >= fileBytesMax) rotate();
  };
  const flush = () => {
    if (timer) clearTimeout(timer);
    timer = undefined;
    if (waiting.length === 0) return;
    const entries = waiting;
    waiting = [];
    try {
      write(entries);
    } catch (error) {
      if (dropped === 0) log(`journal ${path}: not written, entries are dropped: ${String(error)}`);
      dropped += entries.length;
    }
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
