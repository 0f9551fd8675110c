/** What the blocks of a replica's metadata have in common: a magic of four bytes or more, and a CRC32C of all but its own four bytes. */
import { crc32c } from "../crc32c.ts";

/** Of a block whose checksum is at `crcAt`. */
export function checksumOf(block: Buffer, crcAt: number): number {
  return crc32c(block.subarray(crcAt + 4), crc32c(block.subarray(0, crcAt)));
}

/** Puts the checksum in, last of all. */
export function seal(block: Buffer, crcAt: number): Buffer {
  block.writeUInt32BE(checksumOf(block, crcAt), crcAt);
  return block;
}

/** The bytes as a block of this size, kind and checksum; undefined: torn, damaged, or something else's. */
export function wholeBlock(
  bytes: Uint8Array,
  { blockBytes, magic, crcAt }: { blockBytes: number; magic: Buffer; crcAt: number },
): Buffer | undefined {
  const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isOfKind = block.length === blockBytes && block.subarray(0, magic.length).equals(magic);
  return isOfKind && block.readUInt32BE(crcAt) === checksumOf(block, crcAt) ? block : undefined;
}
