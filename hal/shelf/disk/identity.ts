/**
 * What a disk says of itself: INQUIRY, capacity, mode pages, supported commands. All pure functions of its identity.
 */
import { createHash } from "node:crypto";
import { decodeCdb } from "../../../firmware-ts/wire/scsi/cdb.ts";
import {
  Asc,
  Opcode,
  READ_CAPACITY_16_ACTION,
  REPORT_SUPPORTED_OPCODES_ACTION,
} from "../../../firmware-ts/wire/scsi/codes.ts";
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import * as inquiry from "../../../firmware-ts/wire/scsi/inquiry.ts";
import {
  type Capacity,
  encodeModeData,
  encodeOneOpcode,
  encodeSupportedOpcodes,
  type ModePage,
  type SupportedOpcode,
} from "../../../firmware-ts/wire/scsi/parameters.ts";
import { illegalRequest, invalidField, type Result, withData } from "./result.ts";

/** A disk's unchanging facts. `targetNames` are the iSCSI targets it is reached by: one port each, from port 1. */
export interface Identity {
  readonly serial: string;
  readonly vendor: string;
  readonly product: string;
  readonly revision: string;
  readonly blockBytes: number;
  readonly blocks: number;
  readonly targetNames: readonly string[];
  /** Whether the disk says that it keeps writes in a volatile cache (WCE). */
  readonly writeCache: boolean;
}

/** The largest single transfer and zeroing, told in page B0h and enforced. */
export const TRANSFER_BYTES_MAX = 16 * 1024 * 1024;
export const COMPARE_AND_WRITE_BLOCKS_MAX = 128;
export const UNMAP_DESCRIPTORS_MAX = 256;
export const ZERO_BYTES_MAX = 16 * 1024 * 1024;

/**
 * A name for the logical unit that depends on nothing but its serial: NAA 3h, locally assigned, with 60 bits of a
 * hash (SPC-4 7.8.6.6.4).
 */
export const naaOfSerial = (serial: string): Buffer => {
  const naa = createHash("sha256").update(serial, "utf8").digest().subarray(0, 8);
  naa[0] = 0x30 | ((naa[0] ?? 0) & 0x0f);
  return naa;
};

export const standardInquiry = ({ vendor, product, revision }: Identity): Buffer =>
  inquiry.encodeStandardInquiry({
    deviceType: inquiry.DEVICE_TYPE_DISK,
    qualifier: 0,
    vendor,
    product,
    revision,
    versions: Object.values(inquiry.VersionDescriptor),
  });

const text = (value: string) => Buffer.from(value, "utf8");

/** SPC-4 7.8.6.11 and 7.6.4: SCSI name strings are UTF-8, ended by zero, padded to four bytes. */
const scsiName = (value: string): Buffer => {
  const bytes = text(`${value}\0`);
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length & 3)) & 3)]);
};

const designators = (identity: Identity, targetPort: number): inquiry.Designator[] => {
  const port = Buffer.alloc(4);
  port.writeUInt16BE(targetPort, 2);
  const portName = `${identity.targetNames[targetPort - 1]},t,0x0001`;
  return [
    { association: 0, type: 3, codeSet: 1, value: naaOfSerial(identity.serial) },
    {
      association: 0,
      type: 1,
      codeSet: 2,
      value: text(`${identity.vendor.padEnd(8)}${identity.serial}`),
    },
    { association: 1, type: 4, codeSet: 1, value: port },
    { association: 1, type: 8, codeSet: 3, value: scsiName(portName) },
  ];
};

const blockLimits = ({ blockBytes, blocks }: Identity): Buffer =>
  inquiry.encodeBlockLimits({
    writeSameNonZero: true,
    compareAndWriteBlocksMax: COMPARE_AND_WRITE_BLOCKS_MAX,
    optimalGranularityBlocks: Math.max(1, 4096 / blockBytes),
    transferBlocksMax: TRANSFER_BYTES_MAX / blockBytes,
    transferBlocksOptimal: (1024 * 1024) / blockBytes,
    prefetchBlocksMax: 0,
    unmapBlocksMax: Math.min(blocks, ZERO_BYTES_MAX / blockBytes),
    unmapDescriptorsMax: UNMAP_DESCRIPTORS_MAX,
    unmapGranularityBlocks: 1,
    writeSameBlocksMax: Math.min(blocks, ZERO_BYTES_MAX / blockBytes),
  });

const vpdBody = (identity: Identity, targetPort: number, page: number): Buffer | undefined => {
  switch (page) {
    case inquiry.VpdPage.supported:
      return Buffer.from(Object.values(inquiry.VpdPage));
    case inquiry.VpdPage.serial:
      return text(identity.serial);
    case inquiry.VpdPage.identification:
      return inquiry.encodeDesignators(designators(identity, targetPort));
    case inquiry.VpdPage.blockLimits:
      return blockLimits(identity);
    case inquiry.VpdPage.characteristics:
      return inquiry.encodeCharacteristics(inquiry.NON_ROTATING);
    case inquiry.VpdPage.provisioning:
      return inquiry.encodeProvisioning({
        unmap: true,
        writeSame16: true,
        writeSame10: true,
        readsZeros: true,
        anchors: false,
        type: 2,
      });
    default:
      return undefined;
  }
};

/** INQUIRY as seen through a target port. */
export const answerInquiry = (
  identity: Identity,
  targetPort: number,
  command: Extract<Command, { name: "inquiry" }>,
): Result => {
  if (command.page === null) return withData(standardInquiry(identity), command.allocationBytes);
  const body = vpdBody(identity, targetPort, command.page);
  if (body === undefined) return invalidField;
  return withData(inquiry.encodeVpd(command.page, body), command.allocationBytes);
};

export const capacityOf = ({ blocks, blockBytes }: Identity): Capacity => ({
  blocks,
  blockBytes,
  physicalExponent: Math.max(0, Math.log2(4096 / blockBytes)),
  thin: true,
  unmappedReadsZeros: true,
});

const page = (code: number, bytes: number, set: Readonly<Record<number, number>>): ModePage => {
  const body = Buffer.alloc(bytes);
  // Offsets are those of the standard's tables, which count the page's two byte header.
  for (const [offset, value] of Object.entries(set)) body[Number(offset) - 2] = value;
  return { page: code, subpage: 0, body };
};

/**
 * Caching, with WCE where there is a volatile cache (SBC-3 6.4.6); control with unrestricted reordering and TAS, so that an aborted initiator is
 * told and need not time out (SPC-4 7.5.8); informational exceptions, none reported (SBC-3 6.4.7).
 */
const modePages = ({ writeCache }: Identity): readonly ModePage[] => [
  page(0x08, 18, writeCache ? { 2: 0x04 } : {}),
  page(0x0a, 10, { 3: 0x10, 5: 0x40 }),
  page(0x1c, 10, {}),
];
const ALL_PAGES = 0x3f;
const CHANGEABLE = 1;
const SAVED = 3;

/** MODE SENSE. No page can be changed, so the mask of changeable bits is zero throughout. */
export const answerModeSense = (
  identity: Identity,
  command: Extract<Command, { name: "modeSense" }>,
): Result => {
  if (command.control === SAVED) return illegalRequest(Asc.saveParametersNotSupported);
  const isSubpageKnown = command.subpage === 0 || command.subpage === 0xff;
  const selected = modePages(identity).filter(
    (candidate) => command.page === ALL_PAGES || candidate.page === command.page,
  );
  if (selected.length === 0 || !isSubpageKnown) return invalidField;
  const pages =
    command.control === CHANGEABLE
      ? selected.map((mode) => ({ ...mode, body: Buffer.alloc(mode.body.length) }))
      : selected;
  const data = encodeModeData({ writeProtected: false, dpoFua: true, pages }, command.cdbBytes);
  return withData(data, command.allocationBytes);
};

const lengthByGroup: Readonly<Record<number, number>> = { 0: 6, 1: 10, 2: 10, 4: 16, 5: 12 };
/** Commands that are told apart by service action; those of PERSISTENT RESERVE are listed one by one. */
const actions: Readonly<Record<number, readonly number[]>> = {
  [Opcode.serviceActionIn16]: [READ_CAPACITY_16_ACTION],
  [Opcode.maintenanceIn]: [REPORT_SUPPORTED_OPCODES_ACTION],
  [Opcode.persistentReserveIn]: [0, 1, 2, 3],
  [Opcode.persistentReserveOut]: [0, 1, 2, 3, 4, 5, 6],
};

const supportedOpcodes: readonly SupportedOpcode[] = Object.values(Opcode).flatMap((opcode) => {
  const cdbBytes = lengthByGroup[opcode >>> 5] ?? 0;
  return (actions[opcode] ?? [null]).map((action) => ({ opcode, action, cdbBytes }));
});

/**
 * The CDB usage map (SPC-4 6.35.3): a bit is set when the device looks at it. Found by asking the decoder: a bit
 * counts when setting it changes what is decoded.
 */
const usageMap = ({ opcode, action, cdbBytes }: SupportedOpcode): Buffer => {
  const base = Buffer.alloc(cdbBytes);
  base[0] = opcode;
  if (action !== null) base[1] = action;
  const plain = JSON.stringify(decodeCdb(base));
  const map = Buffer.alloc(cdbBytes);
  map[0] = opcode;
  for (let at = 1; at < cdbBytes; at++) {
    for (let mask = 1; mask <= 0x80; mask <<= 1) {
      const changed = Buffer.from(base);
      changed[at] = (base[at] ?? 0) ^ mask;
      if (JSON.stringify(decodeCdb(changed)) !== plain) map[at] = (map[at] ?? 0) | mask;
    }
  }
  // The service action field shows the action itself, not a mask (SPC-4 6.35.3).
  if (action !== null) map[1] = ((map[1] ?? 0) & 0xe0) | action;
  return map;
};

/** REPORT SUPPORTED OPERATION CODES (SPC-4 6.35). */
export const answerSupportedOpcodes = (
  command: Extract<Command, { name: "reportSupportedOpcodes" }>,
): Result => {
  const { options, opcode, action, timeouts, allocationBytes } = command;
  if (options === 0) {
    return withData(encodeSupportedOpcodes(supportedOpcodes, timeouts), allocationBytes);
  }
  const hasActions = actions[opcode] !== undefined;
  // Option 1 is for commands without service actions, 2 for those with; 3 takes both.
  if (options > 3 || (options === 1 && hasActions) || (options === 2 && !hasActions)) {
    return invalidField;
  }
  const found = supportedOpcodes.find(
    (entry) => entry.opcode === opcode && (entry.action === null || entry.action === action),
  );
  const usage = found === undefined ? null : usageMap(found);
  return withData(encodeOneOpcode(usage, timeouts), allocationBytes);
};
