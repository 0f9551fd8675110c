/**
 * Sense data (SPC-4 4.5): why a command ended in CHECK CONDITION, in both formats of the standard.
 *
 * Glossary: `code` is the additional sense code and its qualifier in one number (`asc << 8 | ascq`);
 * `information` is command specific, for a miscompare the offset of the first differing byte (SBC-3 5.2).
 */
import { ascName, senseKeyName } from "./codes.ts";
import { type Decoded, decoded, malformed } from "./decoded.ts";

/** What went wrong. `deferred` says that an earlier command failed, not this one (SPC-4 4.5.6). */
export interface Sense {
  readonly key: number;
  readonly code: number;
  readonly information?: number;
  readonly deferred?: boolean;
}

const FIXED_BYTES = 18;
const DESCRIPTOR_HEADER_BYTES = 8;
const INFORMATION_DESCRIPTOR_BYTES = 12;
const INFORMATION_DESCRIPTOR = 0x00;
const UINT32_MAX = 0xffff_ffff;

const responseCode = (sense: Sense, descriptor: boolean) =>
  (descriptor ? 0x72 : 0x70) | (sense.deferred === true ? 1 : 0);

const encodeFixed = (sense: Sense): Buffer => {
  const data = Buffer.alloc(FIXED_BYTES);
  // The fixed format has 32 bits for the information; a larger value must not be shown as valid (SPC-4 4.5.3).
  const valid = sense.information !== undefined && sense.information <= UINT32_MAX;
  data[0] = responseCode(sense, false) | (valid ? 0x80 : 0);
  data[2] = sense.key & 0x0f;
  if (valid) data.writeUInt32BE(sense.information ?? 0, 3);
  data[7] = FIXED_BYTES - 8;
  data.writeUInt16BE(sense.code, 12);
  return data;
};

const encodeDescriptor = (sense: Sense): Buffer => {
  const extra = sense.information === undefined ? 0 : INFORMATION_DESCRIPTOR_BYTES;
  const data = Buffer.alloc(DESCRIPTOR_HEADER_BYTES + extra);
  data[0] = responseCode(sense, true);
  data[1] = sense.key & 0x0f;
  data.writeUInt16BE(sense.code, 2);
  data[7] = extra;
  if (sense.information !== undefined) {
    data[8] = INFORMATION_DESCRIPTOR;
    data[9] = INFORMATION_DESCRIPTOR_BYTES - 2;
    data[10] = 0x80;
    data.writeBigUInt64BE(BigInt(sense.information), 12);
  }
  return data;
};

/** Sense data in the fixed (18 bytes) or the descriptor format (8 bytes and descriptors). */
export const encodeSense = (
  sense: Sense,
  format: "fixed" | "descriptor" = "fixed",
): Buffer<ArrayBuffer> =>
  (format === "fixed" ? encodeFixed(sense) : encodeDescriptor(sense)) as Buffer<ArrayBuffer>;

const decodeFixed = (data: Buffer, deferred: boolean): Decoded<Sense> => {
  // SPC-4 allows a device to stop early; without byte 13 there is no code, and that reads as zero.
  if (data.length < 8) return malformed("fixed sense data is shorter than 8 bytes");
  const valid = (data.readUInt8(0) & 0x80) !== 0;
  return decoded({
    key: data.readUInt8(2) & 0x0f,
    code: data.length >= 14 ? data.readUInt16BE(12) : 0,
    ...(valid ? { information: data.readUInt32BE(3) } : {}),
    ...(deferred ? { deferred } : {}),
  });
};

const decodeDescriptors = (data: Buffer, deferred: boolean): Decoded<Sense> => {
  if (data.length < DESCRIPTOR_HEADER_BYTES) return malformed("sense data is shorter than 8 bytes");
  const end = Math.min(data.length, DESCRIPTOR_HEADER_BYTES + data.readUInt8(7));
  let information: number | undefined;
  let at = DESCRIPTOR_HEADER_BYTES;
  while (at + 2 <= end) {
    const bytes = 2 + data.readUInt8(at + 1);
    if (at + bytes > end) return malformed("a sense descriptor exceeds the sense data");
    if (data[at] === INFORMATION_DESCRIPTOR && bytes === INFORMATION_DESCRIPTOR_BYTES) {
      if ((data.readUInt8(at + 2) & 0x80) !== 0) {
        information = Number(data.readBigUInt64BE(at + 4));
      }
    }
    at += bytes;
  }
  return decoded({
    key: data.readUInt8(1) & 0x0f,
    code: data.readUInt16BE(2),
    ...(information === undefined ? {} : { information }),
    ...(deferred ? { deferred } : {}),
  });
};

/** Reads sense data of either format; fails on unknown response codes and truncated data. */
export const decodeSense = (data: Buffer): Decoded<Sense> => {
  const response = (data[0] ?? 0) & 0x7f;
  if (response === 0x70 || response === 0x71) return decodeFixed(data, response === 0x71);
  if (response === 0x72 || response === 0x73) return decodeDescriptors(data, response === 0x73);
  return malformed(`unknown sense response code 0x${response.toString(16)}`);
};

/** Sense in the standard's words, for logs and errors. */
export const senseText = (sense: Sense): string =>
  `${senseKeyName(sense.key)}, ${ascName(sense.code)}${sense.deferred === true ? " (deferred)" : ""}`;
