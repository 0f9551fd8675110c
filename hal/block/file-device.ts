/**
 * A block device in a regular file.
 *
 * Reads and writes go through the page cache. `io: "inline"` performs them on the event loop: a microsecond each
 * instead of the thirty of a trip through the thread pool, right for a file in memory or a service process of its own, wrong
 * where other work must go on while a slow disk throttles writers. What waits for the disk by nature (flush, FUA) never is inline.
 */
import { fstatSync, readSync, writeSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { type BlockDevice, inRange } from "./device.ts";
import { fallocate, fallocMode } from "./syscall.ts";

export interface FileDeviceOptions {
  readonly io?: "inline" | "threads";
  readonly readOnly?: boolean;
  /** Default 1: a file has no sectors. */
  readonly blockSizeBytes?: number;
}

/** One buffer of zeroes to write from, where the file system cannot zero a range itself. */
const zeroes = Buffer.alloc(1024 * 1024);

export class FileDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockSizeBytes: number;
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #inline: boolean;
  #closing: Promise<void> | undefined;
  readonly #pending = new Set<Promise<unknown>>();

  private constructor(file: FileHandle, path: string, size: number, options: FileDeviceOptions) {
    this.#file = file;
    this.#path = path;
    this.#inline = options.io === "inline";
    this.blockSizeBytes = options.blockSizeBytes ?? 1;
    this.sizeBytes = size - (size % this.blockSizeBytes);
  }

  /** Opens an existing regular file; its size is the device's. */
  static async open(path: string, options: FileDeviceOptions = {}): Promise<Outcome<FileDevice>> {
    try {
      const file = await open(path, options.readOnly ? "r" : "r+");
      const stat = fstatSync(file.fd);
      if (!stat.isFile()) {
        await file.close();
        return failed("badInput", "open file device", `${path} is not a regular file`);
      }
      return good(new FileDevice(file, path, stat.size, options));
    } catch (cause) {
      return failed("ioError", "open file device", path, cause);
    }
  }

  async read(offset: number, length: number): Promise<Outcome<Buffer>> {
    const refused = this.#refuse("read", offset, length);
    if (refused) return refused;
    const buffer = Buffer.allocUnsafe(length);
    try {
      let filled = 0;
      while (filled < length) {
        const got = this.#inline
          ? readSync(this.#file.fd, buffer, filled, length - filled, offset + filled)
          : (await this.#track(this.#file.read(buffer, filled, length - filled, offset + filled)))
              .bytesRead;
        if (got === 0) return failed("ioError", "read", `${this.#path} was truncated`);
        filled += got;
      }
      return good(buffer);
    } catch (cause) {
      return failed("ioError", "read", `${this.#path} at ${offset}`, cause);
    }
  }

  async write(offset: number, data: Buffer, options: { readonly fua: boolean }): Promise<Outcome> {
    const refused = this.#refuse("write", offset, data.length);
    if (refused) return refused;
    try {
      let written = 0;
      while (written < data.length) {
        written += this.#inline
          ? writeSync(this.#file.fd, data, written, data.length - written, offset + written)
          : (
              await this.#track(
                this.#file.write(data, written, data.length - written, offset + written),
              )
            ).bytesWritten;
      }
    } catch (cause) {
      return failed("ioError", "write", `${this.#path} at ${offset}`, cause);
    }
    return options.fua ? this.flush() : done;
  }

  async flush(): Promise<Outcome> {
    if (this.#closing) return failed("refused", "flush", `${this.#path} is closed`);
    try {
      await this.#track(this.#file.datasync());
      return done;
    } catch (cause) {
      return failed("ioError", "flush", this.#path, cause);
    }
  }

  async trim(offset: number, length: number): Promise<Outcome> {
    const refused = this.#refuse("trim", offset, length);
    if (refused) return refused;
    if (length === 0) return done;
    // Trim is a hint: a file system that cannot punch a hole has still done what was asked.
    await this.#allocate(fallocMode.punchHole | fallocMode.keepSize, offset, length);
    return done;
  }

  async writeZeroes(
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly mayTrim: boolean },
  ): Promise<Outcome> {
    const refused = this.#refuse("write zeroes", offset, length);
    if (refused) return refused;
    if (length === 0) return done;
    const mode = options.mayTrim
      ? fallocMode.punchHole | fallocMode.keepSize
      : fallocMode.zeroRange | fallocMode.keepSize;
    if (!(await this.#allocate(mode, offset, length))) {
      for (let at = 0; at < length; at += zeroes.length) {
        const part = zeroes.subarray(0, Math.min(zeroes.length, length - at));
        const answer = await this.write(offset + at, part, { fua: false });
        if (!answer.ok) return answer;
      }
    }
    return options.fua ? this.flush() : done;
  }

  close(): Promise<void> {
    this.#closing ??= Promise.allSettled([...this.#pending]).then(() => this.#file.close());
    return this.#closing;
  }

  async #allocate(mode: number, offset: number, length: number): Promise<boolean> {
    return (await this.#track(fallocate(this.#file.fd, mode, offset, length))).ok;
  }

  #refuse(operation: string, offset: number, length: number) {
    if (this.#closing) return failed("refused", operation, `${this.#path} is closed`);
    if (inRange(this, offset, length)) return undefined;
    return failed("badInput", operation, `${length} bytes at ${offset} lie outside the device`);
  }

  /** Keeps the file open under an operation on another thread: a closed descriptor may already be another file. */
  #track<T>(operation: Promise<T>): Promise<T> {
    this.#pending.add(operation);
    const forget = () => this.#pending.delete(operation);
    operation.then(forget, forget);
    return operation;
  }
}
