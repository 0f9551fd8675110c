/**
 * Files beneath the disks: the medium, and the record of reservations that outlive a loss of power.
 *
 * Obligations: the medium marks what may hold data before it writes, so that zeroing what was never written costs
 * nothing. A record is replaced as a whole: written beside the old one, synced, renamed, and the folder synced.
 */
import * as fs from "node:fs";
import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { type AptplRecord, type AptplStore, parseAptpl } from "../disk/aptpl.ts";
import type { Medium, MediumDone } from "../disk/medium.ts";
import { ShelfError } from "./errors.ts";

/** statfs(2): TMPFS_MAGIC. */
const TMPFS_MAGIC = 0x0102_1994;
const PIECE_BYTES = 64 * 1024;
const ZEROS = Buffer.alloc(1024 * 1024);

const asError = (error: unknown): Error =>
  error instanceof Error ? error : new Error(String(error));

const isInMemory = (path: string): boolean => fs.statfsSync(path).type === TMPFS_MAGIC;

/** A file as medium. On tmpfs it works synchronously: a copy in memory is cheaper than a trip to a thread. */
export class FileMedium implements Medium {
  readonly sizeBytes: number;
  readonly #fd: number;
  readonly #isMemory: boolean;
  /** One byte for each piece that may hold something other than zeros. */
  readonly #written: Uint8Array;

  /** Opens or creates the file and makes it `sizeBytes` long. Throws ShelfError when it cannot. */
  constructor(path: string, sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#written = new Uint8Array(Math.ceil(sizeBytes / PIECE_BYTES));
    try {
      this.#fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
      const before = fs.fstatSync(this.#fd);
      if (before.size !== sizeBytes) fs.ftruncateSync(this.#fd, sizeBytes);
      // A file without blocks holds nothing; of any other we do not know where.
      if (before.blocks > 0) this.#written.fill(1);
      this.#isMemory = isInMemory(path);
    } catch (cause) {
      throw new ShelfError("BACKING_FILE", `open backing file ${path}`, cause);
    }
  }

  read(offset: number, target: Buffer, done: MediumDone): void {
    if (this.#isMemory) this.#now(() => this.#readNow(offset, target), done);
    else this.#transfer("read", offset, target, done);
  }

  write(offset: number, data: Buffer, done: MediumDone): void {
    if (data.length > 0) this.#mark(offset, data.length, 1);
    this.#put(offset, data, done);
  }

  zero(offset: number, bytes: number, done: MediumDone): void {
    const end = offset + bytes;
    const advance = (from: number): void => {
      let at = from;
      while (at < end && this.#written[Math.floor(at / PIECE_BYTES)] === 0) {
        at = (Math.floor(at / PIECE_BYTES) + 1) * PIECE_BYTES;
      }
      if (at >= end) {
        this.#forget(offset, end);
        done(null);
        return;
      }
      const length = Math.min(end - at, ZEROS.length);
      this.#put(at, ZEROS.subarray(0, length), (error) => {
        if (error === null) advance(at + length);
        else done(error);
      });
    };
    advance(offset);
  }

  flush(done: MediumDone): void {
    if (this.#isMemory) done(null);
    else fs.fdatasync(this.#fd, (error) => done(error));
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  #mark(offset: number, bytes: number, value: 0 | 1): void {
    const last = Math.floor((offset + bytes - 1) / PIECE_BYTES);
    this.#written.fill(value, Math.floor(offset / PIECE_BYTES), last + 1);
  }

  /** Pieces that lie wholly in the range hold zeros now. */
  #forget(start: number, end: number): void {
    const first = Math.ceil(start / PIECE_BYTES);
    const last = Math.floor(end / PIECE_BYTES);
    if (first < last) this.#written.fill(0, first, last);
  }

  #put(offset: number, data: Buffer, done: MediumDone): void {
    if (this.#isMemory) this.#now(() => this.#writeNow(offset, data), done);
    else this.#transfer("write", offset, data, done);
  }

  #now(work: () => void, done: MediumDone): void {
    try {
      work();
    } catch (error) {
      done(asError(error));
      return;
    }
    done(null);
  }

  #readNow(offset: number, target: Buffer): void {
    let at = 0;
    while (at < target.length) {
      const count = fs.readSync(this.#fd, target, at, target.length - at, offset + at);
      if (count === 0) throw new Error("backing file is shorter than the disk");
      at += count;
    }
  }

  #writeNow(offset: number, data: Buffer): void {
    let at = 0;
    while (at < data.length) {
      at += fs.writeSync(this.#fd, data, at, data.length - at, offset + at);
    }
  }

  #transfer(kind: "read" | "write", offset: number, data: Buffer, done: MediumDone): void {
    const advance = (at: number): void => {
      const next = (error: Error | null, count: number) => {
        if (error !== null) done(error);
        else if (count === 0) done(new Error(`${kind} of backing file stopped short`));
        else if (at + count === data.length) done(null);
        else advance(at + count);
      };
      if (kind === "read") fs.read(this.#fd, data, at, data.length - at, offset + at, next);
      else fs.write(this.#fd, data, at, data.length - at, offset + at, next);
    };
    if (data.length === 0) done(null);
    else advance(0);
  }
}

/** Keeps a disk's reservations in a file. */
export class AptplFile implements AptplStore {
  readonly #path: string;
  readonly #isMemory: boolean;

  constructor(path: string) {
    this.#path = path;
    try {
      this.#isMemory = isInMemory(dirname(path));
    } catch (cause) {
      throw new ShelfError("APTPL_FILE", `look at the folder of ${path}`, cause);
    }
  }

  save(record: AptplRecord, done: (error: Error | null) => void): void {
    const text = `${JSON.stringify(record, null, 1)}\n`;
    if (this.#isMemory) {
      this.#replaceNow(text, done);
      return;
    }
    this.#replace(text).then(
      () => done(null),
      (error: unknown) => done(asError(error)),
    );
  }

  /** The record, or null when there is none. Throws ShelfError when there is one that cannot be read. */
  async load(): Promise<AptplRecord | null> {
    let text: string;
    try {
      text = await readFile(this.#path, "utf8");
    } catch (cause) {
      if (asError(cause) instanceof Error && (cause as { code?: unknown }).code === "ENOENT") {
        return null;
      }
      throw new ShelfError("APTPL_FILE", `read reservations from ${this.#path}`, cause);
    }
    const parsed = parseAptpl(text);
    // Starting without registrations that were promised to be kept would open the disk to everyone.
    if (!parsed.ok) {
      throw new ShelfError("APTPL_FILE", `read reservations from ${this.#path}: ${parsed.problem}`);
    }
    return parsed.record;
  }

  /** In memory there is nothing to sync, and a rename is all that a reader after a kill can see. */
  #replaceNow(text: string, done: (error: Error | null) => void): void {
    const beside = `${this.#path}.new`;
    try {
      fs.writeFileSync(beside, text, { mode: 0o600 });
      fs.renameSync(beside, this.#path);
    } catch (error) {
      done(asError(error));
      return;
    }
    done(null);
  }

  async #replace(text: string): Promise<void> {
    const beside = `${this.#path}.new`;
    const file = await open(beside, "w", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, this.#path);
    const folder = await open(dirname(this.#path), "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}
