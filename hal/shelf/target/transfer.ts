/**
 * Collecting a command's data: immediate, unsolicited, then asked for by R2T (RFC 7143 4.2.4.2, 11.7, 11.8).
 *
 * Obligations: bytes are taken in order only, each once; anything else is a protocol error that ends the
 * connection (error recovery level 0). What the initiator sends beyond the command's need is dropped.
 */
import { type DataOut, RESERVED_TAG } from "../../../firmware-ts/wire/iscsi/pdu.ts";

/** What to ask the initiator for next. */
export interface DataWanted {
  readonly transferTag: number;
  readonly r2tSn: number;
  readonly offset: number;
  readonly bytes: number;
}

/** What became of a Data-Out PDU. */
export type Taken =
  | { readonly kind: "more" }
  | { readonly kind: "want"; readonly want: DataWanted }
  | { readonly kind: "complete" }
  | { readonly kind: "violation"; readonly problem: string };

export interface TransferTerms {
  /** Bytes the command needs. */
  readonly bytes: number;
  /** Unsolicited data may reach up to here. */
  readonly unsolicitedEnd: number;
  readonly burstBytesMax: number;
  readonly newTag: () => number;
}

const more: Taken = { kind: "more" };
const violation = (problem: string): Taken => ({ kind: "violation", problem });

/** The data of one command on its way in. */
export class Transfer {
  readonly buffer: Buffer;
  readonly #terms: TransferTerms;
  #received = 0;
  #dataSn = 0;
  #r2tSn = 0;
  #tag = RESERVED_TAG;
  #burstEnd: number;

  /** `immediate` came with the command. */
  constructor(terms: TransferTerms, immediate: Buffer) {
    this.#terms = terms;
    this.#burstEnd = terms.unsolicitedEnd;
    const kept = immediate.subarray(0, terms.bytes);
    this.#received = immediate.length;
    // Everything came with the command, as small writes do: keep it where the parser put it.
    this.buffer = kept.length === terms.bytes ? kept : Buffer.allocUnsafe(terms.bytes);
    if (this.buffer !== kept) kept.copy(this.buffer);
  }

  /** After the command PDU: what to do next. `isFinal` is its F bit; without it unsolicited data follows. */
  begin(isFinal: boolean): Taken {
    return isFinal ? this.#next() : more;
  }

  /** Where the parser may put this data, if it lies wholly in the buffer and is what comes next. */
  place(header: { readonly transferTag: number; readonly offset: number }, bytes: number) {
    const isNext = header.transferTag === this.#tag && header.offset === this.#received;
    const end = header.offset + bytes;
    return isNext && end <= this.buffer.length
      ? this.buffer.subarray(header.offset, end)
      : undefined;
  }

  take(header: DataOut, data: Buffer): Taken {
    if (header.transferTag !== this.#tag) return violation("Data-Out with a foreign transfer tag");
    if (header.dataSn !== this.#dataSn) return violation("Data-Out out of sequence");
    if (header.offset !== this.#received) return violation("Data-Out at the wrong offset");
    const end = header.offset + data.length;
    if (end > this.#burstEnd) return violation("Data-Out beyond its burst");
    this.#dataSn += 1;
    this.#received = end;
    const isPlaced =
      data.buffer === this.buffer.buffer &&
      data.byteOffset === this.buffer.byteOffset + header.offset;
    if (!isPlaced && header.offset < this.buffer.length) {
      data.copy(this.buffer, header.offset, 0, this.buffer.length - header.offset);
    }
    if (!header.final) {
      return end === this.#burstEnd && this.#tag !== RESERVED_TAG
        ? violation("Data-Out without the final bit at the end of its burst")
        : more;
    }
    if (this.#tag !== RESERVED_TAG && end !== this.#burstEnd) {
      return violation("Data-Out ends its burst short");
    }
    return this.#next();
  }

  #next(): Taken {
    const { bytes, burstBytesMax, newTag } = this.#terms;
    if (this.#received >= bytes) return { kind: "complete" };
    const burst = Math.min(bytes - this.#received, burstBytesMax);
    this.#tag = newTag();
    this.#dataSn = 0;
    this.#burstEnd = this.#received + burst;
    const want = {
      transferTag: this.#tag,
      r2tSn: this.#r2tSn,
      offset: this.#received,
      bytes: burst,
    };
    this.#r2tSn += 1;
    return { kind: "want", want };
  }
}
