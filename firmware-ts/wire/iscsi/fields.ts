/**
 * Fields that several iSCSI headers share (RFC 7143 11.2.1), and the operation codes.
 *
 * Obligations: the segment lengths of the header belong to `framing.ts`; nothing here touches bytes 4 to 7.
 */
import { readLun, writeLun } from "../scsi/lun.ts";
import { HEADER_BYTES, LUN_UNKNOWN } from "./pdu.ts";

/** Operation codes (RFC 7143 11.2.1.2), the immediate bit not included. */
export const Op = {
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskRequest: 0x02,
  loginRequest: 0x03,
  textRequest: 0x04,
  dataOut: 0x05,
  logoutRequest: 0x06,
  snack: 0x10,
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskResponse: 0x22,
  loginResponse: 0x23,
  textResponse: 0x24,
  dataIn: 0x25,
  logoutResponse: 0x26,
  readyToTransfer: 0x31,
  asyncMessage: 0x32,
  reject: 0x3f,
} as const;

export const IMMEDIATE = 0x40;
export const FINAL = 0x80;
export const MORE = 0x40;
export const OVERFLOW = 0x04;
export const UNDERFLOW = 0x02;

/** A zeroed header with its operation code and flags. */
export const newHeader = (opcode: number, flags: number): Buffer => {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = opcode;
  header[1] = flags;
  return header;
};

export const lunOf = (header: Buffer): number => readLun(header, 8) ?? LUN_UNKNOWN;

/** Writes the LUN field; an unknown one stays zero, as the RFC asks of a reserved field. */
export const putLun = (header: Buffer, lun: number): void => {
  if (lun !== LUN_UNKNOWN) writeLun(header, 8, lun);
};

export const isidOf = (header: Buffer): string => header.toString("hex", 8, 14);

/** Writes a session id given as twelve hexadecimal digits. Throws RangeError on anything else. */
export const putIsid = (header: Buffer, isid: string): void => {
  if (!/^[0-9a-f]{12}$/i.test(isid)) throw new RangeError(`ISID "${isid}"`);
  header.write(isid, 8, "hex");
};

/** The flags of a login: T, C, and the two stages (RFC 7143 11.12.1 to 11.12.3). */
export const stageFlags = (
  transit: boolean,
  more: boolean,
  stage: number,
  nextStage: number,
): number => (transit ? FINAL : 0) | (more ? MORE : 0) | ((stage & 3) << 2) | (nextStage & 3);

/** The other way round: what the flags of a login say. */
export const stageOf = (flags: number) => ({
  transit: (flags & FINAL) !== 0,
  more: (flags & MORE) !== 0,
  stage: (flags >>> 2) & 3,
  nextStage: flags & 3,
});

interface Tags {
  readonly taskTag: number;
  readonly transferTag: number;
}

/** Initiator task tag and target transfer tag: in one place wherever a header has both. */
export const putTags = (header: Buffer, { taskTag, transferTag }: Tags): void => {
  header.writeUInt32BE(taskTag, 16);
  header.writeUInt32BE(transferTag, 20);
};

export const tagsOf = (header: Buffer): Tags => ({
  taskTag: header.readUInt32BE(16),
  transferTag: header.readUInt32BE(20),
});
