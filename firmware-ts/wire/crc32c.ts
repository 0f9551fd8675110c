/**
 * CRC32C, the digest of iSCSI (RFC 7143 13.1) and of what a mirror keeps on its disks: Castagnoli's polynomial, reflected, eight bytes at a step.
 *
 * On the wire the digest's bytes are in the order of the reflected register, least significant first, which is
 * what the RFC's examples show.
 */

const POLYNOMIAL = 0x82f6_3b78;
const SLICES = 8;

const buildTables = (): Uint32Array => {
  const tables = new Uint32Array(SLICES * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc >>> 0;
  }
  for (let slice = 1; slice < SLICES; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const previous = tables[(slice - 1) * 256 + byte] ?? 0;
      tables[slice * 256 + byte] = (previous >>> 8) ^ (tables[previous & 0xff] ?? 0);
    }
  }
  return tables;
};

const tables = buildTables();
const at = (slice: number, byte: number): number => tables[slice * 256 + byte] ?? 0;

/** CRC32C of the bytes; `seed` continues an earlier result, so that a segment and its padding need no joining. */
export const crc32c = (bytes: Uint8Array, seed = 0): number => {
  let crc = ~seed;
  let index = 0;
  const wide = bytes.length - 7;
  for (; index < wide; index += 8) {
    const low = crc ^ word(bytes, index);
    const high = word(bytes, index + 4);
    crc =
      at(7, low & 0xff) ^
      at(6, (low >>> 8) & 0xff) ^
      at(5, (low >>> 16) & 0xff) ^
      at(4, low >>> 24) ^
      at(3, high & 0xff) ^
      at(2, (high >>> 8) & 0xff) ^
      at(1, (high >>> 16) & 0xff) ^
      at(0, high >>> 24);
  }
  for (; index < bytes.length; index++) {
    crc = (crc >>> 8) ^ at(0, (crc ^ (bytes[index] ?? 0)) & 0xff);
  }
  return ~crc >>> 0;
};

const word = (bytes: Uint8Array, index: number): number =>
  (bytes[index] ?? 0) |
  ((bytes[index + 1] ?? 0) << 8) |
  ((bytes[index + 2] ?? 0) << 16) |
  ((bytes[index + 3] ?? 0) << 24);
