/**
 * Where a replica keeps what on its disk: the data first, from byte 0 on, so that they can be read without us; everything else at the end.
 *
 *     0 ... data ... | gap | bitmap | activity log | slot 0 | slot 1 | end of the disk
 *
 * The slots (wire/mirror/superblock) are the last 8,192 bytes of the disk, found from its size alone. All begins are multiples of 4,096 from
 * the beginning of the disk. The gap is less than one piece of the granularity.
 */
import { bitsMax, pageBits } from "../../schema/mirror.ts";
import { failed, good, type Outcome } from "../../schema/outcome.ts";

/** The unit of everything but the data: what a disk with sectors of 4,096 bytes writes at once. */
export const blockBytes = 4096;
/** Transactions are written in turn: the newest is never overwritten by the next. */
export const activityBlocks = 8;
const slots = 2;

export const granularityBytesMin = 4 * 1024;
export const granularityBytesMax = 1024 * 1024;
export const granularityBytesDefault = 64 * 1024;

export interface MirrorLayout {
  /** What the volume has, a multiple of the granularity. */
  readonly dataBytes: number;
  readonly granularityBytes: number;
  readonly bits: number;
  readonly bitmapPages: number;
  readonly bitmapOffsetBytes: number;
  readonly activityOffsetBytes: number;
  readonly slotOffsetsBytes: readonly [number, number];
}

/** Where the slots are on a disk of this size; undefined on one that is too small for anything. */
export function slotOffsetsBytes(diskBytes: number): readonly [number, number] | undefined {
  if (!Number.isSafeInteger(diskBytes)) return undefined;
  const end = diskBytes - (diskBytes % blockBytes);
  const first = end - slots * blockBytes;
  return first < 0 ? undefined : [first, first + blockBytes];
}

/**
 * The layout of a disk of this size. `granularityBytes`: a power of two from 4 KiB to 1 MiB.
 * Fault `badInput`: no such granularity, too small a disk, or a bitmap of more than 2^28 bits.
 */
export function layOut(diskBytes: number, granularityBytes: number): Outcome<MirrorLayout> {
  const no = (message: string) => failed("badInput", "layout of a replica", message);
  if (!isGranularity(granularityBytes))
    return no(`a granularity of ${granularityBytes} bytes is none of 4 KiB to 1 MiB, doubled`);
  const offsets = slotOffsetsBytes(diskBytes);
  if (!offsets) return no(`a disk of ${diskBytes} bytes has no room for metadata`);
  const activityOffsetBytes = offsets[0] - activityBlocks * blockBytes;
  // As many pages as pieces would need if there were no bitmap: at most one page more than there need be.
  const piecesMost = Math.floor(Math.max(0, activityOffsetBytes) / granularityBytes);
  const bitmapPages = Math.ceil(piecesMost / pageBits);
  const bitmapOffsetBytes = activityOffsetBytes - bitmapPages * blockBytes;
  const bits = Math.floor(Math.max(0, bitmapOffsetBytes) / granularityBytes);
  if (bits < 1) return no(`a disk of ${diskBytes} bytes has no room for data`);
  if (bits > bitsMax)
    return no(`${bits} pieces are more than ${bitsMax}: choose a coarser granularity`);
  return good({
    dataBytes: bits * granularityBytes,
    granularityBytes,
    bits,
    bitmapPages,
    bitmapOffsetBytes,
    activityOffsetBytes,
    slotOffsetsBytes: offsets,
  });
}

function isGranularity(bytes: number): boolean {
  if (!(bytes >= granularityBytesMin && bytes <= granularityBytesMax)) return false;
  return Number.isInteger(Math.log2(bytes));
}
