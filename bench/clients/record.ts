/**
 * What clients write: records whose every byte is determined by who wrote them and when. Pure.
 *
 *     0  magic "DyRc"      4  bytes in the record      8  key (CRC-32 of its name)
 *    12  sequence number  20  pattern, 8 bytes a word, from key and sequence number …  last 4: CRC-32 of all before
 */
import { crc32 } from "node:zlib";

const magic = 0x4479_5263;
const headerBytes = 20;
const trailerBytes = 4;
/** Smallest record: a header, one word of pattern, the checksum. */
export const recordBytesMin = headerBytes + 8 + trailerBytes;

export type DecodedRecord =
  | { readonly ok: true; readonly seq: number }
  | { readonly ok: false; readonly reason: string };

/** The record of `key` with sequence number `seq`; `bytes` is a multiple of 8 and at least `recordBytesMin`. */
export function encodeRecord(key: string, seq: number, bytes: number): Buffer {
  if (bytes < recordBytesMin || bytes % 8 !== 0) throw new Error(`record of ${bytes} bytes`);
  const record = Buffer.alloc(bytes);
  const keyHash = crc32(key);
  record.writeUInt32BE(magic, 0);
  record.writeUInt32BE(bytes, 4);
  record.writeUInt32BE(keyHash, 8);
  record.writeBigUInt64BE(BigInt(seq), 12);
  fillPattern(record, keyHash, seq);
  record.writeUInt32BE(crc32(record.subarray(0, bytes - trailerBytes)), bytes - trailerBytes);
  return record;
}

/** A generator of the 32-bit xorshift family: cheap, and different in every word for each (key, seq). */
function fillPattern(record: Buffer, keyHash: number, seq: number): void {
  let word = (keyHash ^ Math.imul(seq + 1, 0x9e37_79b1)) | 1;
  for (let at = headerBytes; at + 4 <= record.length - trailerBytes; at += 4) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    record.writeInt32BE(word, at);
  }
}

/** Verifies every byte. All zeros, or nothing at all, is a register before its first write: sequence number 0. */
export function decodeRecord(key: string, data: Buffer, bytes: number): DecodedRecord {
  if (data.every((byte) => byte === 0)) return { ok: true, seq: 0 };
  if (data.length !== bytes) return { ok: false, reason: `${data.length} bytes of ${bytes}` };
  if (data.readUInt32BE(0) !== magic) return { ok: false, reason: "magic" };
  const stored = data.readUInt32BE(bytes - trailerBytes);
  if (stored !== crc32(data.subarray(0, bytes - trailerBytes))) return { ok: false, reason: "crc" };
  if (data.readUInt32BE(8) !== crc32(key)) return { ok: false, reason: "another key" };
  const seq = Number(data.readBigUInt64BE(12));
  if (!encodeRecord(key, seq, bytes).equals(data)) return { ok: false, reason: "pattern" };
  return { ok: true, seq };
}
