/**
 * Small parameter data of SBC-3 and SPC-4: READ CAPACITY, UNMAP, MODE SENSE, REPORT SUPPORTED OPERATION CODES.
 */
import { type Decoded, decoded, malformed } from "./decoded.ts";

/** A disk's size and provisioning as READ CAPACITY tells it; `blocks` counts, it is not the last address. */
export interface Capacity {
  readonly blocks: number;
  readonly blockBytes: number;
  /** Logical blocks per physical block, as a power of two (SBC-3 5.16.2). */
  readonly physicalExponent: number;
  readonly thin: boolean;
  readonly unmappedReadsZeros: boolean;
}

const UINT32_MAX = 0xffff_ffff;

/** READ CAPACITY (10) data; a disk too large for it shows FFFFFFFFh (SBC-3 5.15.2). */
export const encodeCapacity10 = (capacity: Capacity): Buffer => {
  const data = Buffer.alloc(8);
  data.writeUInt32BE(Math.min(capacity.blocks - 1, UINT32_MAX), 0);
  data.writeUInt32BE(capacity.blockBytes, 4);
  return data;
};

/** READ CAPACITY (10): blocks is null when the disk is too large for the short form. */
export const decodeCapacity10 = (
  data: Buffer,
): Decoded<{ readonly blocks: number | null; readonly blockBytes: number }> => {
  if (data.length < 8) return malformed("READ CAPACITY (10) data is truncated");
  const last = data.readUInt32BE(0);
  return decoded({
    blocks: last === UINT32_MAX ? null : last + 1,
    blockBytes: data.readUInt32BE(4),
  });
};

const CAPACITY_16_BYTES = 32;

export const encodeCapacity16 = (capacity: Capacity): Buffer => {
  const data = Buffer.alloc(CAPACITY_16_BYTES);
  data.writeBigUInt64BE(BigInt(capacity.blocks - 1), 0);
  data.writeUInt32BE(capacity.blockBytes, 8);
  data[13] = capacity.physicalExponent & 0x0f;
  data[14] = (capacity.thin ? 0x80 : 0) | (capacity.unmappedReadsZeros ? 0x40 : 0);
  return data;
};

export const decodeCapacity16 = (data: Buffer): Decoded<Capacity> => {
  if (data.length < 16) return malformed("READ CAPACITY (16) data is truncated");
  const blocks = data.readBigUInt64BE(0) + 1n;
  if (blocks > BigInt(Number.MAX_SAFE_INTEGER)) return malformed("the disk is impossibly large");
  return decoded({
    blocks: Number(blocks),
    blockBytes: data.readUInt32BE(8),
    physicalExponent: data.readUInt8(13) & 0x0f,
    thin: (data.readUInt8(14) & 0x80) !== 0,
    unmappedReadsZeros: (data.readUInt8(14) & 0x40) !== 0,
  });
};

/** A range of logical blocks. */
export interface BlockRange {
  readonly lba: number;
  readonly blocks: number;
}

const UNMAP_HEADER_BYTES = 8;
const UNMAP_DESCRIPTOR_BYTES = 16;

/** The UNMAP parameter list (SBC-3 5.28.2). */
export const encodeUnmap = (ranges: readonly BlockRange[]): Buffer => {
  const bytes = ranges.length * UNMAP_DESCRIPTOR_BYTES;
  const data = Buffer.alloc(UNMAP_HEADER_BYTES + bytes);
  data.writeUInt16BE(data.length - 2, 0);
  data.writeUInt16BE(bytes, 2);
  for (const [index, { lba, blocks }] of ranges.entries()) {
    const at = UNMAP_HEADER_BYTES + index * UNMAP_DESCRIPTOR_BYTES;
    data.writeBigUInt64BE(BigInt(lba), at);
    data.writeUInt32BE(blocks, at + 8);
  }
  return data;
};

/** Reads an UNMAP parameter list; a partial last descriptor is ignored (SBC-3 5.28.2). */
export const decodeUnmap = (data: Buffer): Decoded<readonly BlockRange[]> => {
  if (data.length < UNMAP_HEADER_BYTES) return malformed("UNMAP list is shorter than its header");
  const bytes = data.readUInt16BE(2);
  if (UNMAP_HEADER_BYTES + bytes > data.length) return malformed("UNMAP list is truncated");
  const ranges: BlockRange[] = [];
  const end = UNMAP_HEADER_BYTES + bytes;
  for (let at = UNMAP_HEADER_BYTES; at + UNMAP_DESCRIPTOR_BYTES <= end; at += 16) {
    const lba = data.readUInt32BE(at) * 0x1_0000_0000 + data.readUInt32BE(at + 4);
    ranges.push({
      lba: Math.min(lba, Number.MAX_SAFE_INTEGER),
      blocks: data.readUInt32BE(at + 8),
    });
  }
  return decoded(ranges);
};

/** A mode page: code, subpage (0 for none) and what follows the page's own header (SPC-4 7.5.6). */
export interface ModePage {
  readonly page: number;
  readonly subpage: number;
  readonly body: Buffer;
}

/** MODE SENSE data. For a disk, bit 7 of the device specific parameter is WP and bit 4 DPOFUA (SBC-3 6.4.1). */
export interface ModeData {
  readonly writeProtected: boolean;
  readonly dpoFua: boolean;
  readonly pages: readonly ModePage[];
}

const encodePage = ({ page, subpage, body }: ModePage): Buffer => {
  if (subpage === 0) {
    const short = Buffer.alloc(2);
    short[0] = page;
    short.writeUInt8(body.length, 1);
    return Buffer.concat([short, body]);
  }
  const long = Buffer.alloc(4);
  long[0] = 0x40 | page;
  long[1] = subpage;
  long.writeUInt16BE(body.length, 2);
  return Buffer.concat([long, body]);
};

/** MODE SENSE data with the four or eight byte header and no block descriptors. */
export const encodeModeData = (value: ModeData, cdbBytes: 6 | 10): Buffer => {
  const pages = Buffer.concat(value.pages.map(encodePage));
  const specific = (value.writeProtected ? 0x80 : 0) | (value.dpoFua ? 0x10 : 0);
  const header = Buffer.alloc(cdbBytes === 6 ? 4 : 8);
  if (cdbBytes === 6) {
    header.writeUInt8(header.length - 1 + pages.length, 0);
    header[2] = specific;
  } else {
    header.writeUInt16BE(header.length - 2 + pages.length, 0);
    header[3] = specific;
  }
  return Buffer.concat([header, pages]);
};

const MODE_PAGES_MAX = 256;

/** Reads MODE SENSE data, skipping block descriptors; pages cut by the allocation length are left out. */
export const decodeModeData = (data: Buffer, cdbBytes: 6 | 10): Decoded<ModeData> => {
  const headerBytes = cdbBytes === 6 ? 4 : 8;
  if (data.length < headerBytes) return malformed("mode data is shorter than its header");
  const announced = cdbBytes === 6 ? data.readUInt8(0) + 1 : data.readUInt16BE(0) + 2;
  const specific = data.readUInt8(cdbBytes === 6 ? 2 : 3);
  const descriptors = cdbBytes === 6 ? data.readUInt8(3) : data.readUInt16BE(6);
  const end = Math.min(announced, data.length);
  const pages: ModePage[] = [];
  let at = headerBytes + descriptors;
  while (at + 4 <= end && pages.length < MODE_PAGES_MAX) {
    const isLong = (data.readUInt8(at) & 0x40) !== 0;
    const start = at + (isLong ? 4 : 2);
    const next = start + (isLong ? data.readUInt16BE(at + 2) : data.readUInt8(at + 1));
    if (next > end) break;
    pages.push({
      page: data.readUInt8(at) & 0x3f,
      subpage: isLong ? data.readUInt8(at + 1) : 0,
      body: data.subarray(start, next),
    });
    at = next;
  }
  return decoded({
    writeProtected: (specific & 0x80) !== 0,
    dpoFua: (specific & 0x10) !== 0,
    pages,
  });
};

/** A supported command in the list form of REPORT SUPPORTED OPERATION CODES (SPC-4 6.35.2). */
export interface SupportedOpcode {
  readonly opcode: number;
  readonly action: number | null;
  readonly cdbBytes: number;
}

const SUPPORTED_BYTES = 8;
const TIMEOUTS_BYTES = 12;

/** All supported commands; with `timeouts` each carries a descriptor that says "no timeout known". */
export const encodeSupportedOpcodes = (
  list: readonly SupportedOpcode[],
  timeouts: boolean,
): Buffer => {
  const entryBytes = SUPPORTED_BYTES + (timeouts ? TIMEOUTS_BYTES : 0);
  const data = Buffer.alloc(4 + list.length * entryBytes);
  data.writeUInt32BE(list.length * entryBytes, 0);
  for (const [index, { opcode, action, cdbBytes }] of list.entries()) {
    const at = 4 + index * entryBytes;
    data.writeUInt8(opcode, at);
    data.writeUInt16BE(action ?? 0, at + 2);
    data[at + 5] = (timeouts ? 0x02 : 0) | (action === null ? 0 : 0x01);
    data.writeUInt16BE(cdbBytes, at + 6);
    if (timeouts) data.writeUInt16BE(TIMEOUTS_BYTES - 2, at + SUPPORTED_BYTES);
  }
  return data;
};

export const decodeSupportedOpcodes = (data: Buffer): Decoded<readonly SupportedOpcode[]> => {
  if (data.length < 4) return malformed("the list of operation codes lacks its header");
  const end = Math.min(data.length, 4 + data.readUInt32BE(0));
  const list: SupportedOpcode[] = [];
  let at = 4;
  while (at + SUPPORTED_BYTES <= end) {
    const flags = data.readUInt8(at + 5);
    list.push({
      opcode: data.readUInt8(at),
      action: (flags & 0x01) !== 0 ? data.readUInt16BE(at + 2) : null,
      cdbBytes: data.readUInt16BE(at + 6),
    });
    at += SUPPORTED_BYTES + ((flags & 0x02) !== 0 ? TIMEOUTS_BYTES : 0);
  }
  return decoded(list);
};

/** The one-command form (SPC-4 6.35.3): `usage` is the CDB usage map, or null when not supported. */
export const encodeOneOpcode = (usage: Buffer | null, timeouts: boolean): Buffer => {
  const head = Buffer.alloc(4);
  // SUPPORT 001b: not supported; 011b: as the standard says. Only the latter carries a map.
  if (usage === null) {
    head[1] = 0x01;
    return head;
  }
  head[1] = (timeouts ? 0x80 : 0) | 0x03;
  head.writeUInt16BE(usage.length, 2);
  if (!timeouts) return Buffer.concat([head, usage]);
  const descriptor = Buffer.alloc(TIMEOUTS_BYTES);
  descriptor.writeUInt16BE(TIMEOUTS_BYTES - 2, 0);
  return Buffer.concat([head, usage, descriptor]);
};
