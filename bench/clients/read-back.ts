/** Reading back what was written, every byte of it. */
import type { Engine, EngineFile } from "./engine.ts";
import { logRecordBytes } from "./protocol.ts";
import { type DecodedRecord, decodeRecord } from "./record.ts";

const recordsPerRead = 128;
/** A record that is whole on a later try was being overwritten while it was read; one that never is, is damaged. */
const triesMax = 5;

/** Reads one register until its record is whole. `torn`: tries that were not. */
export async function readRegister(
  engine: Engine,
  file: EngineFile,
  key: string,
  bytes: number,
): Promise<{ record: DecodedRecord; torn: number }> {
  for (let torn = 0; ; torn += 1) {
    const record = decodeRecord(key, await engine.read(file, 0, bytes), bytes);
    if (record.ok || torn === triesMax) return { record, torn };
  }
}

/** How many of the first `records` log records are whole and in order. */
export async function countGoodRecords(
  engine: Engine,
  file: EngineFile,
  key: string,
  records: number,
): Promise<number> {
  let good = 0;
  let first: number | undefined;
  for (let from = 0; from < records; from += recordsPerRead) {
    const count = Math.min(recordsPerRead, records - from);
    const data = await readFully(engine, file, from * logRecordBytes, count * logRecordBytes);
    for (let i = 0; i < count; i += 1) {
      const piece = data.subarray(i * logRecordBytes, (i + 1) * logRecordBytes);
      const record = decodeRecord(key, piece, logRecordBytes);
      if (!record.ok || record.seq === 0) continue;
      first ??= record.seq - (from + i);
      if (record.seq === first + from + i) good += 1;
    }
  }
  return good;
}

/** A server may return less than asked (RFC 1813 3.3.6): asks on until the end of the file. */
async function readFully(
  engine: Engine,
  file: EngineFile,
  offset: number,
  length: number,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let have = 0;
  while (have < length) {
    const piece = await engine.read(file, offset + have, length - have);
    if (piece.length === 0) break;
    pieces.push(Buffer.from(piece));
    have += piece.length;
  }
  return Buffer.concat(pieces);
}
