/**
 * INQUIRY data: the standard page (SPC-4 6.6.2) and the vital product data pages 00h, 80h, 83h (SPC-4 7.8),
 * B0h, B1h and B2h (SBC-3 6.5).
 *
 * Obligations: text fields are ASCII, left aligned, padded with spaces, as SPC-4 4.4.1 asks.
 */
import { type Decoded, decoded, malformed } from "./decoded.ts";

export const VpdPage = {
  supported: 0x00,
  serial: 0x80,
  identification: 0x83,
  blockLimits: 0xb0,
  characteristics: 0xb1,
  provisioning: 0xb2,
} as const;

/** What a device says of itself. `versions` are version descriptors (SPC-4 6.6.2, table 144). */
export interface StandardInquiry {
  readonly deviceType: number;
  readonly qualifier: number;
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  readonly versions: readonly number[];
}

/** Version descriptors without a claim to a certain revision (SPC-4 table 145). */
export const VersionDescriptor = {
  sam5: 0x00a0,
  spc4: 0x0460,
  sbc3: 0x04c0,
  iscsi: 0x0960,
} as const;

/** Peripheral qualifier 011b: the target cannot support a unit at this number (SPC-4 table 142). */
export const QUALIFIER_NO_UNIT = 3;
/** Peripheral device type 1Fh: unknown or none. */
export const DEVICE_TYPE_NONE = 0x1f;
/** Peripheral device type 00h: direct access block device. */
export const DEVICE_TYPE_DISK = 0x00;

const STANDARD_BYTES = 96;
const VERSION_SPC4 = 0x06;
const RESPONSE_FORMAT = 0x02;
const VERSIONS_MAX = 8;

const writeText = (data: Buffer, text: string, offset: number, bytes: number) => {
  if (!/^[\x20-\x7e]*$/.test(text) || text.length > bytes) throw new RangeError(`text "${text}"`);
  data.fill(0x20, offset, offset + bytes);
  data.write(text, offset, "latin1");
};

const readText = (data: Buffer, offset: number, bytes: number): string =>
  data.toString("latin1", offset, offset + bytes).trimEnd();

export const encodeStandardInquiry = (value: StandardInquiry): Buffer => {
  if (value.versions.length > VERSIONS_MAX) throw new RangeError("version descriptors");
  const data = Buffer.alloc(STANDARD_BYTES);
  data[0] = (value.qualifier << 5) | value.deviceType;
  data[2] = VERSION_SPC4;
  data[3] = 0x10 | RESPONSE_FORMAT; // HISUP: REPORT LUNS describes the units (SPC-4 6.6.2).
  data[4] = STANDARD_BYTES - 5;
  data[7] = 0x02; // CMDQUE: the full task management model (SAM-5 8.5).
  writeText(data, value.vendor, 8, 8);
  writeText(data, value.product, 16, 16);
  writeText(data, value.revision, 32, 4);
  for (const [index, version] of value.versions.entries()) {
    data.writeUInt16BE(version, 58 + index * 2);
  }
  return data;
};

export const decodeStandardInquiry = (data: Buffer): Decoded<StandardInquiry> => {
  if (data.length < 36) return malformed("standard INQUIRY data is shorter than 36 bytes");
  const versions: number[] = [];
  for (let at = 58; at + 2 <= Math.min(data.length, 58 + 2 * VERSIONS_MAX); at += 2) {
    const version = data.readUInt16BE(at);
    if (version !== 0) versions.push(version);
  }
  return decoded({
    deviceType: data.readUInt8(0) & 0x1f,
    qualifier: data.readUInt8(0) >>> 5,
    vendor: readText(data, 8, 8),
    product: readText(data, 16, 16),
    revision: readText(data, 32, 4),
    versions,
  });
};

/** A vital product data page: its code and what follows the four byte header. */
export interface Vpd {
  readonly deviceType: number;
  readonly page: number;
  readonly body: Buffer;
}

export const encodeVpd = (page: number, body: Buffer, deviceType = DEVICE_TYPE_DISK): Buffer => {
  const header = Buffer.alloc(4);
  header[0] = deviceType;
  header[1] = page;
  header.writeUInt16BE(body.length, 2);
  return Buffer.concat([header, body]);
};

/** Splits a page; fails when the allocation length cut it. */
export const decodeVpd = (data: Buffer): Decoded<Vpd> => {
  if (data.length < 4) return malformed("vital product data is shorter than its header");
  const bytes = data.readUInt16BE(2);
  if (data.length < 4 + bytes) return malformed("vital product data is truncated");
  return decoded({
    deviceType: data.readUInt8(0) & 0x1f,
    page: data.readUInt8(1),
    body: data.subarray(4, 4 + bytes),
  });
};

/**
 * One designation descriptor (SPC-4 7.8.6): `association` 0 logical unit, 1 target port, 2 target device;
 * `type` 1 T10 vendor id, 3 NAA, 4 relative target port, 8 SCSI name; `codeSet` 1 binary, 2 ASCII, 3 UTF-8.
 */
export interface Designator {
  readonly association: number;
  readonly type: number;
  readonly codeSet: number;
  readonly value: Buffer;
}

const DESIGNATORS_MAX = 64;
const ISCSI_PROTOCOL = 5;

export const encodeDesignators = (designators: readonly Designator[]): Buffer =>
  Buffer.concat(
    designators.map(({ association, type, codeSet, value }) => {
      const header = Buffer.alloc(4);
      // PIV: the protocol identifier counts for ports and devices only (SPC-4 7.8.6.1).
      const piv = association === 0 ? 0 : 0x80;
      header[0] = (association === 0 ? 0 : ISCSI_PROTOCOL << 4) | codeSet;
      header[1] = piv | (association << 4) | type;
      header.writeUInt8(value.length, 3);
      return Buffer.concat([header, value]);
    }),
  );

export const decodeDesignators = (body: Buffer): Decoded<readonly Designator[]> => {
  const designators: Designator[] = [];
  let at = 0;
  while (at < body.length) {
    if (at + 4 > body.length) return malformed("a designation descriptor is truncated");
    const end = at + 4 + body.readUInt8(at + 3);
    if (end > body.length) return malformed("a designation descriptor exceeds the page");
    if (designators.length === DESIGNATORS_MAX) return malformed("too many designators");
    designators.push({
      association: (body.readUInt8(at + 1) >>> 4) & 3,
      type: body.readUInt8(at + 1) & 0x0f,
      codeSet: body.readUInt8(at) & 0x0f,
      value: body.subarray(at + 4, end),
    });
    at = end;
  }
  return decoded(designators);
};

/** Block limits (SBC-3 6.5.3), in logical blocks; zero means no limit, or not supported for unmap. */
export interface BlockLimits {
  readonly writeSameNonZero: boolean;
  readonly compareAndWriteBlocksMax: number;
  readonly optimalGranularityBlocks: number;
  readonly transferBlocksMax: number;
  readonly transferBlocksOptimal: number;
  readonly prefetchBlocksMax: number;
  readonly unmapBlocksMax: number;
  readonly unmapDescriptorsMax: number;
  readonly unmapGranularityBlocks: number;
  readonly writeSameBlocksMax: number;
}

const BLOCK_LIMITS_BYTES = 60;

export const encodeBlockLimits = (value: BlockLimits): Buffer => {
  const body = Buffer.alloc(BLOCK_LIMITS_BYTES);
  body[0] = value.writeSameNonZero ? 1 : 0;
  body.writeUInt8(value.compareAndWriteBlocksMax, 1);
  body.writeUInt16BE(value.optimalGranularityBlocks, 2);
  body.writeUInt32BE(value.transferBlocksMax, 4);
  body.writeUInt32BE(value.transferBlocksOptimal, 8);
  body.writeUInt32BE(value.prefetchBlocksMax, 12);
  body.writeUInt32BE(value.unmapBlocksMax, 16);
  body.writeUInt32BE(value.unmapDescriptorsMax, 20);
  body.writeUInt32BE(value.unmapGranularityBlocks, 24);
  body.writeBigUInt64BE(BigInt(value.writeSameBlocksMax), 32);
  return body;
};

/** Reads the body of page B0h; devices older than SBC-3 send only its first 12 bytes. */
export const decodeBlockLimits = (body: Buffer): Decoded<BlockLimits> => {
  if (body.length < 12) return malformed("the block limits page is shorter than 12 bytes");
  const u32 = (at: number) => (body.length >= at + 4 ? body.readUInt32BE(at) : 0);
  const writeSame = body.length >= 40 ? Number(body.readBigUInt64BE(32)) : 0;
  return decoded({
    writeSameNonZero: (body.readUInt8(0) & 1) !== 0,
    compareAndWriteBlocksMax: body.readUInt8(1),
    optimalGranularityBlocks: body.readUInt16BE(2),
    transferBlocksMax: u32(4),
    transferBlocksOptimal: u32(8),
    prefetchBlocksMax: u32(12),
    unmapBlocksMax: u32(16),
    unmapDescriptorsMax: u32(20),
    unmapGranularityBlocks: u32(24),
    writeSameBlocksMax: Math.min(writeSame, Number.MAX_SAFE_INTEGER),
  });
};

/** Medium rotation rate 1: not a rotating medium (SBC-3 6.5.2). */
export const NON_ROTATING = 1;

export const encodeCharacteristics = (rotationRate: number): Buffer => {
  const body = Buffer.alloc(BLOCK_LIMITS_BYTES);
  body.writeUInt16BE(rotationRate, 0);
  return body;
};

/** Reads the body of page B1h: the medium rotation rate, 0 where the device does not say. */
export const decodeCharacteristics = (body: Buffer): Decoded<number> =>
  body.length < 2
    ? malformed("the characteristics page is truncated")
    : decoded(body.readUInt16BE(0));

/** Logical block provisioning (SBC-3 6.5.4); `type` 2 is thin provisioned, 1 resource provisioned. */
export interface Provisioning {
  readonly unmap: boolean;
  readonly writeSame16: boolean;
  readonly writeSame10: boolean;
  readonly readsZeros: boolean;
  readonly anchors: boolean;
  readonly type: number;
}

export const encodeProvisioning = (value: Provisioning): Buffer => {
  const body = Buffer.alloc(4);
  body[1] =
    (value.unmap ? 0x80 : 0) |
    (value.writeSame16 ? 0x40 : 0) |
    (value.writeSame10 ? 0x20 : 0) |
    (value.readsZeros ? 0x04 : 0) |
    (value.anchors ? 0x02 : 0);
  body[2] = value.type & 7;
  return body;
};

export const decodeProvisioning = (body: Buffer): Decoded<Provisioning> => {
  if (body.length < 4) return malformed("the provisioning page is truncated");
  const flags = body.readUInt8(1);
  return decoded({
    unmap: (flags & 0x80) !== 0,
    writeSame16: (flags & 0x40) !== 0,
    writeSame10: (flags & 0x20) !== 0,
    readsZeros: (flags & 0x04) !== 0,
    anchors: (flags & 0x02) !== 0,
    type: body.readUInt8(2) & 7,
  });
};
