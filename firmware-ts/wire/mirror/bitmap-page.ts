/**
 * A page of the dirty bitmap on the disk: 4,096 bytes, 32,640 bits.
 *
 *     offset size                                  big-endian, the bits in bytes of their own order:
 *        0    4  magic "DBM1"                      bit n is bit n % 8 of byte 16 + n / 8
 *        4    4  number of the page
 *        8    4  CRC32C of the volume id
 *       12    4  CRC32C of all but these bytes
 *       16 4080  bits
 *
 * A page that cannot be read, whoever wrote it, is a page whose bits are all set: more is copied than need be, and nothing is forgotten.
 */
import { type GenerationId, pageBits } from "../../schema/mirror.ts";
import { crc32c } from "../crc32c.ts";
import { seal, wholeBlock } from "./block.ts";
import { blockBytes } from "./layout.ts";

const magic = Buffer.from("DBM1", "latin1");
const headBytes = blockBytes - pageBits / 8;
const at = { page: 4, volume: 8, crc: 12 } as const;
const wordBytes = 4;
const kind = { blockBytes, magic, crcAt: at.crc };

/** A page from its 1,020 words, the lowest bit first. */
export function encodeBitmapPage(volume: GenerationId, page: number, words: Uint32Array): Buffer {
  if (words.length * 32 !== pageBits)
    throw new RangeError(`encodeBitmapPage: ${words.length} words are no page`);
  const block = Buffer.alloc(blockBytes);
  magic.copy(block);
  block.writeUInt32BE(page, at.page);
  block.writeUInt32BE(tagOf(volume), at.volume);
  for (const [index, word] of words.entries())
    block.writeUInt32LE(word, headBytes + index * wordBytes);
  return seal(block, at.crc);
}

/** The words of a page; undefined for whatever is not this page of this volume, whole. Never throws. */
export function decodeBitmapPage(
  volume: GenerationId,
  page: number,
  bytes: Uint8Array,
): Uint32Array | undefined {
  const block = wholeBlock(bytes, kind);
  if (block === undefined) return undefined;
  if (block.readUInt32BE(at.page) !== page || block.readUInt32BE(at.volume) !== tagOf(volume))
    return undefined;
  const words = new Uint32Array(pageBits / 32);
  for (let index = 0; index < words.length; index++)
    words[index] = block.readUInt32LE(headBytes + index * wordBytes);
  return words;
}

/** What counts for a page that cannot be read. */
export function spoiltBitmapPage(): Uint32Array {
  return new Uint32Array(pageBits / 32).fill(0xffff_ffff);
}

const tagOf = (volume: GenerationId) => crc32c(Buffer.from(volume, "hex"));
