/**
 * Consistent Overhead Byte Stuffing (S. Cheshire, M. Baker, IEEE/ACM Transactions on Networking 7(2), 1999): frames
 * on a byte stream, told apart by a zero byte that never occurs inside one.
 *
 * Glossary. *code*: the byte that says how far it is to the next zero of the original data (1–254), or that 254
 * bytes without a zero follow (255). *delimiter*: the zero byte after each frame.
 *
 * Obligations. The decoder never holds more than one frame of `frameBytesMax`, whatever arrives; after garbage it is
 * right again at the next delimiter; every byte run that was not a frame is counted.
 */

const delimiter = 0;
const codeMax = 255;

/** Bytes on the line for a frame of `frameBytes`, delimiter included. */
export function cobsBytesMax(frameBytes: number): number {
  return frameBytes + Math.floor(frameBytes / (codeMax - 1)) + 2;
}

/** Encodes one frame and appends the delimiter. */
export function encodeCobs(frame: Uint8Array): Uint8Array {
  const out = new Uint8Array(cobsBytesMax(frame.length));
  let codeAt = 0;
  let code = 1;
  let length = 1;
  for (const byte of frame) {
    // A full block is closed only when another byte follows, so that 254 bytes do not end in an empty block.
    if (code === codeMax) {
      out[codeAt] = code;
      codeAt = length++;
      code = 1;
    }
    if (byte === delimiter) {
      out[codeAt] = code;
      codeAt = length++;
      code = 1;
    } else {
      out[length++] = byte;
      code++;
    }
  }
  out[codeAt] = code;
  out[length++] = delimiter;
  return out.subarray(0, length);
}

export interface CobsCounters {
  /** Byte runs that ended in the middle of a block. */
  readonly truncated: number;
  /** Byte runs that would have decoded to more than `frameBytesMax`; counted once each. */
  readonly oversize: number;
}

/** Turns a byte stream, split and merged as it happens to arrive, back into frames. */
export class CobsDecoder {
  readonly #frame: Uint8Array;
  #length = 0;
  /** Bytes of the current block that are still to come; 0 means that a code comes next. */
  #left = 0;
  /** The block before this one stands for a zero, unless the frame ends here. */
  #zeroDue = false;
  /** Bytes are thrown away until the next delimiter. */
  #skipping = false;
  #started = false;
  #truncated = 0;
  #oversize = 0;

  constructor(frameBytesMax: number) {
    if (!Number.isInteger(frameBytesMax) || frameBytesMax < 1) {
      throw new RangeError(`frameBytesMax must be a positive integer, not ${frameBytesMax}`);
    }
    this.#frame = new Uint8Array(frameBytesMax);
  }

  /** Frames that are complete with this chunk, each a copy. Runs of delimiters are no frames. */
  push(chunk: Uint8Array): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (const byte of chunk) {
      if (byte === delimiter) {
        const frame = this.#end();
        if (frame) frames.push(frame);
      } else if (!this.#skipping) {
        this.#take(byte);
      }
    }
    return frames;
  }

  /** Forgets a frame that has begun: the stream was closed and opened again. */
  reset(): void {
    this.#length = 0;
    this.#left = 0;
    this.#zeroDue = false;
    this.#skipping = false;
    this.#started = false;
  }

  counters(): CobsCounters {
    return { truncated: this.#truncated, oversize: this.#oversize };
  }

  #take(byte: number): void {
    this.#started = true;
    if (this.#left > 0) {
      this.#left--;
      this.#append(byte);
      return;
    }
    if (this.#zeroDue) this.#append(0);
    this.#left = byte - 1;
    this.#zeroDue = byte !== codeMax;
  }

  #append(byte: number): void {
    if (this.#length === this.#frame.length) {
      this.#oversize++;
      this.#skipping = true;
      return;
    }
    this.#frame[this.#length++] = byte;
  }

  #end(): Uint8Array | undefined {
    if (!this.#skipping && this.#left > 0) this.#truncated++;
    const whole = this.#started && !this.#skipping && this.#left === 0;
    const frame = whole ? this.#frame.slice(0, this.#length) : undefined;
    this.reset();
    return frame;
  }
}
