/**
 * The activity log on the disk: eight blocks of 4,096 bytes, written in turn. Each names all active extents, so that the newest whole one
 * is the log, and a torn one was never written: nothing has been written to the extents that only it names. A new replica begins with eight
 * blocks of zeros: what somebody left there before would be taken for a log that is lost.
 *
 *     offset size                                  big-endian
 *        0    4  magic "DAL1"                       16    8  volume id
 *        4    4  extents in it, at most 1,000       24    4  zeros
 *        8    8  sequence                           28    4  CRC32C of all but these four bytes
 *                                                   32   ..  extents, 4 bytes each, ascending; zeros
 */
import { activeExtentsMax, type GenerationId } from "../../schema/mirror.ts";
import { seal, wholeBlock } from "./block.ts";
import { activityBlocks, blockBytes } from "./layout.ts";

const magic = Buffer.from("DAL1", "latin1");
const at = { count: 4, sequence: 8, volume: 16, crc: 28, extents: 32 } as const;
const extentSize = 4;
const kind = { blockBytes, magic, crcAt: at.crc };

/** What the log says: extents of `extentBytes` (schema/mirror) that may have been written to. */
export interface ActivityRecord {
  readonly sequence: number;
  readonly extents: readonly number[];
}

/** One block. Extents: whole numbers below 2^32, at most 1,000. */
export function encodeActivity(
  volume: GenerationId,
  { sequence, extents }: ActivityRecord,
): Buffer {
  if (extents.length > activeExtentsMax)
    throw new RangeError(`encodeActivity: ${extents.length} extents`);
  const block = Buffer.alloc(blockBytes);
  magic.copy(block);
  block.writeUInt32BE(extents.length, at.count);
  block.writeBigUInt64BE(BigInt(sequence), at.sequence);
  block.write(volume, at.volume, "hex");
  for (const [index, extent] of extents.entries())
    block.writeUInt32BE(extent, at.extents + index * extentSize);
  return seal(block, at.crc);
}

/** Which of the blocks a transaction is written to: the one after the last. */
export function activityBlockOf(sequence: number): number {
  return sequence % activityBlocks;
}

/** What is known of the extents that may have been written to. */
export type ActivityReplay =
  | ({ readonly kind: "log" } & ActivityRecord)
  /** All zeros: nothing was ever written by it. */
  | { readonly kind: "empty" }
  /** There is something, and none of it is a whole block of this log: every extent may have been written to. */
  | { readonly kind: "lost" };

/** What the blocks of a log say together. Never throws. */
export function replayActivity(
  volume: GenerationId,
  blocks: readonly Uint8Array[],
): ActivityReplay {
  let newest: ActivityRecord | undefined;
  for (const [index, bytes] of blocks.entries()) {
    const record = decodeBlock(volume, index, bytes);
    if (record && (!newest || record.sequence > newest.sequence)) newest = record;
  }
  if (newest) return { kind: "log", ...newest };
  const isBlank = blocks.every((bytes) => bytes.every((byte) => byte === 0));
  return { kind: isBlank ? "empty" : "lost" };
}

function decodeBlock(
  volume: GenerationId,
  index: number,
  bytes: Uint8Array,
): ActivityRecord | undefined {
  const block = wholeBlock(bytes, kind);
  if (block === undefined) return undefined;
  const sequence = Number(block.readBigUInt64BE(at.sequence));
  const count = block.readUInt32BE(at.count);
  // Of another volume, or of another place: left there by whoever had this disk before.
  const isOurs = block.toString("hex", at.volume, at.volume + 8) === volume;
  if (!isOurs || !Number.isSafeInteger(sequence) || activityBlockOf(sequence) !== index)
    return undefined;
  if (count > activeExtentsMax) return undefined;
  const extents = Array.from({ length: count }, (_, each) =>
    block.readUInt32BE(at.extents + each * extentSize),
  );
  return { sequence, extents };
}
