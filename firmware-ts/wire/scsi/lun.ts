/**
 * Logical unit numbers as they travel: eight bytes (SAM-5 4.7), and the REPORT LUNS list of them (SPC-4 6.33).
 *
 * Obligations: we address at most 16384 logical units, by the peripheral device method up to 255 and by the flat
 * space method above, as SAM-5 4.7.4 asks of a device without a hierarchy.
 */
import { type Decoded, decoded, malformed } from "./decoded.ts";

export const LUN_BYTES = 8;
export const LUN_MAX = 0x3fff;
/** A bound for what an initiator reads from a target, far above any shelf. */
export const REPORT_LUNS_MAX = 4096;

/** Writes a logical unit number into eight bytes at `offset`. Throws RangeError above LUN_MAX. */
export const writeLun = (target: Buffer, offset: number, lun: number): void => {
  if (!Number.isInteger(lun) || lun < 0 || lun > LUN_MAX) throw new RangeError(`lun ${lun}`);
  target.fill(0, offset, offset + LUN_BYTES);
  target.writeUInt16BE(lun <= 0xff ? lun : 0x4000 | lun, offset);
};

/** Reads eight bytes at `offset`; undefined for well known units, hierarchies and other methods. */
export const readLun = (source: Buffer, offset: number): number | undefined => {
  const first = source.readUInt16BE(offset);
  const rest = source.readUInt16BE(offset + 2) | source.readUInt32BE(offset + 4);
  if (rest !== 0) return undefined;
  if (first >>> 14 === 1) return first & LUN_MAX;
  return first <= 0xff ? first : undefined;
};

/** The parameter data of REPORT LUNS: an eight byte header and one entry for each unit. */
export const encodeReportLuns = (luns: readonly number[]): Buffer => {
  const data = Buffer.alloc(8 + luns.length * LUN_BYTES);
  data.writeUInt32BE(luns.length * LUN_BYTES, 0);
  for (const [index, lun] of luns.entries()) writeLun(data, 8 + index * LUN_BYTES, lun);
  return data;
};

/** Reads REPORT LUNS data; `complete` is false when the allocation length cut the list. */
export const decodeReportLuns = (
  data: Buffer,
): Decoded<{ readonly luns: readonly number[]; readonly complete: boolean }> => {
  if (data.length < 8) return malformed("REPORT LUNS data is shorter than its header");
  const listBytes = data.readUInt32BE(0);
  const count = Math.floor(Math.min(listBytes, data.length - 8) / LUN_BYTES);
  if (count > REPORT_LUNS_MAX) return malformed(`more than ${REPORT_LUNS_MAX} logical units`);
  const luns: number[] = [];
  for (let index = 0; index < count; index++) {
    const lun = readLun(data, 8 + index * LUN_BYTES);
    if (lun !== undefined) luns.push(lun);
  }
  return decoded({ luns, complete: listBytes <= data.length - 8 });
};
