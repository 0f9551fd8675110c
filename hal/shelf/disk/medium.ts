/**
 * What a disk keeps its data on: an interface, and the one in memory.
 *
 * Obligations of an implementation: it calls `done` exactly once for each call, at once or later; a call's effect
 * is complete when `done` runs, and nothing of it happens afterwards. It need not order calls: the disk never has
 * two of them at work on overlapping bytes if one of them writes.
 */

/** Why the medium failed, for the log; the initiator sees MEDIUM ERROR. */
export type MediumError = Error | null;
export type MediumDone = (error: MediumError) => void;

export interface Medium {
  readonly sizeBytes: number;
  /** Fills `target` from `offset`. */
  read(offset: number, target: Buffer, done: MediumDone): void;
  /** Writes all of `data`, which the caller leaves unchanged until `done`. */
  write(offset: number, data: Buffer, done: MediumDone): void;
  /** Makes a range read as zeros, releasing storage where it can. */
  zero(offset: number, bytes: number, done: MediumDone): void;
  /** Everything whose `done` has run survives a loss of power once this is done. */
  flush(done: MediumDone): void;
}

/** A medium without a volatile cache (WCE = 0, SBC-3 6.4.6): each write is on stable storage when it is done. */
export function writeThrough(medium: Medium): Medium {
  const stable =
    (done: MediumDone): MediumDone =>
    (error) => {
      if (error === null) medium.flush(done);
      else done(error);
    };
  return {
    sizeBytes: medium.sizeBytes,
    read: (offset, target, done) => medium.read(offset, target, done),
    write: (offset, data, done) => medium.write(offset, data, stable(done)),
    zero: (offset, bytes, done) => medium.zero(offset, bytes, stable(done)),
    flush: (done) => medium.flush(done),
  };
}

/** A medium in memory, which completes every call at once. */
export class MemoryMedium implements Medium {
  readonly sizeBytes: number;
  readonly #bytes: Buffer;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#bytes = Buffer.alloc(sizeBytes);
  }

  read(offset: number, target: Buffer, done: MediumDone): void {
    this.#bytes.copy(target, 0, offset, offset + target.length);
    done(null);
  }

  write(offset: number, data: Buffer, done: MediumDone): void {
    data.copy(this.#bytes, offset);
    done(null);
  }

  zero(offset: number, bytes: number, done: MediumDone): void {
    this.#bytes.fill(0, offset, offset + bytes);
    done(null);
  }

  flush(done: MediumDone): void {
    done(null);
  }
}
