/**
 * Command descriptor blocks: `Command` ⇄ bytes, both ways.
 *
 * Obligations: decoding never throws; it says whether the operation code is unknown or which byte holds the bad
 * field, as the sense data of the answer needs it (SPC-4 4.5.2.4). Encoding throws RangeError on a value that
 * does not fit its field, since that is the caller's mistake.
 */
import { Opcode, READ_CAPACITY_16_ACTION, REPORT_SUPPORTED_OPCODES_ACTION } from "./codes.ts";
import type { Command } from "./command.ts";

/** Bytes a command descriptor block occupies in an iSCSI PDU (RFC 7143 11.3.5); shorter ones are padded. */
export const CDB_BYTES = 16;

/** A decoded block, or why not: `opcode` unknown, or a bad field at byte `at`. */
export type DecodedCdb =
  | { readonly ok: true; readonly command: Command }
  | { readonly ok: false; readonly problem: "opcode" }
  | { readonly ok: false; readonly problem: "field"; readonly at: number };

const unknownOpcode: DecodedCdb = { ok: false, problem: "opcode" };
const badField = (at: number): DecodedCdb => ({ ok: false, problem: "field", at });
const parsed = (command: Command): DecodedCdb => ({ ok: true, command });

/** The block's length by its group code (SPC-4 4.3.2); undefined for variable or vendor specific groups. */
const lengthOf = (opcode: number): 6 | 10 | 12 | 16 | undefined => {
  const group = opcode >>> 5;
  if (group === 0) return 6;
  if (group === 1 || group === 2) return 10;
  if (group === 4) return 16;
  return group === 5 ? 12 : undefined;
};

const readUInt64 = (cdb: Buffer, at: number): number => {
  const value = cdb.readUInt32BE(at) * 0x1_0000_0000 + cdb.readUInt32BE(at + 4);
  return Math.min(value, Number.MAX_SAFE_INTEGER);
};

const rangeOf = (cdb: Buffer, cdbBytes: 6 | 10 | 12 | 16) => {
  switch (cdbBytes) {
    case 6: {
      const blocks = cdb.readUInt8(4);
      // A length of zero means 256 blocks in the six-byte form only (SBC-3 5.10).
      return { lba: cdb.readUIntBE(1, 3) & 0x1f_ffff, blocks: blocks === 0 ? 256 : blocks };
    }
    case 10:
      return { lba: cdb.readUInt32BE(2), blocks: cdb.readUInt16BE(7) };
    case 12:
      return { lba: cdb.readUInt32BE(2), blocks: cdb.readUInt32BE(6) };
    case 16:
      return { lba: readUInt64(cdb, 2), blocks: cdb.readUInt32BE(10) };
  }
};

const bit = (cdb: Buffer, at: number, mask: number) => (cdb.readUInt8(at) & mask) !== 0;

const access = (name: "read" | "write", cdb: Buffer, cdbBytes: 6 | 10 | 12 | 16): DecodedCdb => {
  if (cdbBytes === 6) {
    return parsed({ name, cdbBytes, protect: 0, dpo: false, fua: false, ...rangeOf(cdb, 6) });
  }
  const flags = cdb.readUInt8(1);
  return parsed({
    name,
    cdbBytes,
    protect: flags >>> 5,
    dpo: (flags & 0x10) !== 0,
    fua: (flags & 0x08) !== 0,
    ...rangeOf(cdb, cdbBytes),
  });
};

const verify = (cdb: Buffer, cdbBytes: 10 | 12 | 16): DecodedCdb =>
  parsed({
    name: "verify",
    cdbBytes,
    protect: cdb.readUInt8(1) >>> 5,
    dpo: bit(cdb, 1, 0x10),
    byteCheck: (cdb.readUInt8(1) >>> 1) & 3,
    ...rangeOf(cdb, cdbBytes),
  });

const writeSame = (cdb: Buffer, cdbBytes: 10 | 16): DecodedCdb =>
  parsed({
    name: "writeSame",
    cdbBytes,
    protect: cdb.readUInt8(1) >>> 5,
    anchor: bit(cdb, 1, 0x10),
    unmap: bit(cdb, 1, 0x08),
    noData: cdbBytes === 16 && bit(cdb, 1, 0x01),
    ...rangeOf(cdb, cdbBytes),
  });

const modeSense = (cdb: Buffer, cdbBytes: 6 | 10): DecodedCdb =>
  parsed({
    name: "modeSense",
    cdbBytes,
    noBlockDescriptors: bit(cdb, 1, 0x08),
    longLba: cdbBytes === 10 && bit(cdb, 1, 0x10),
    control: cdb.readUInt8(2) >>> 6,
    page: cdb.readUInt8(2) & 0x3f,
    subpage: cdb.readUInt8(3),
    allocationBytes: cdbBytes === 6 ? cdb.readUInt8(4) : cdb.readUInt16BE(7),
  });

const inquiry = (cdb: Buffer): DecodedCdb => {
  const evpd = bit(cdb, 1, 0x01);
  // A page code without EVPD is an error (SPC-4 6.6.1), as is the obsolete CMDDT bit.
  if (bit(cdb, 1, 0x02)) return badField(1);
  if (!evpd && cdb.readUInt8(2) !== 0) return badField(2);
  return parsed({
    name: "inquiry",
    page: evpd ? cdb.readUInt8(2) : null,
    allocationBytes: cdb.readUInt16BE(3),
  });
};

const startStopUnit = (cdb: Buffer): DecodedCdb =>
  parsed({
    name: "startStopUnit",
    immediate: bit(cdb, 1, 0x01),
    powerCondition: cdb.readUInt8(4) >>> 4,
    noFlush: bit(cdb, 4, 0x04),
    loadEject: bit(cdb, 4, 0x02),
    start: bit(cdb, 4, 0x01),
  });

const synchronizeCache = (cdb: Buffer, cdbBytes: 10 | 16): DecodedCdb =>
  parsed({
    name: "synchronizeCache",
    cdbBytes,
    immediate: bit(cdb, 1, 0x02),
    ...rangeOf(cdb, cdbBytes),
  });

const prefetch = (cdb: Buffer, cdbBytes: 10 | 16): DecodedCdb =>
  parsed({ name: "prefetch", cdbBytes, immediate: bit(cdb, 1, 0x02), ...rangeOf(cdb, cdbBytes) });

const compareAndWrite = (cdb: Buffer): DecodedCdb =>
  parsed({
    name: "compareAndWrite",
    protect: cdb.readUInt8(1) >>> 5,
    dpo: bit(cdb, 1, 0x10),
    fua: bit(cdb, 1, 0x08),
    lba: readUInt64(cdb, 2),
    blocks: cdb.readUInt8(13),
  });

const serviceActionIn = (cdb: Buffer): DecodedCdb =>
  (cdb.readUInt8(1) & 0x1f) === READ_CAPACITY_16_ACTION
    ? parsed({ name: "readCapacity16", allocationBytes: cdb.readUInt32BE(10) })
    : badField(1);

const maintenanceIn = (cdb: Buffer): DecodedCdb =>
  (cdb.readUInt8(1) & 0x1f) === REPORT_SUPPORTED_OPCODES_ACTION
    ? parsed({
        name: "reportSupportedOpcodes",
        timeouts: bit(cdb, 2, 0x80),
        options: cdb.readUInt8(2) & 7,
        opcode: cdb.readUInt8(3),
        action: cdb.readUInt16BE(4),
        allocationBytes: cdb.readUInt32BE(6),
      })
    : badField(1);

const reserveOut = (cdb: Buffer): DecodedCdb =>
  parsed({
    name: "persistentReserveOut",
    action: cdb.readUInt8(1) & 0x1f,
    scope: cdb.readUInt8(2) >>> 4,
    type: cdb.readUInt8(2) & 0x0f,
    parameterBytes: cdb.readUInt32BE(5),
  });

type Decoder = (cdb: Buffer) => DecodedCdb;

const decoders: ReadonlyMap<number, Decoder> = new Map<number, Decoder>([
  [Opcode.testUnitReady, () => parsed({ name: "testUnitReady" })],
  [
    Opcode.requestSense,
    (cdb) =>
      parsed({
        name: "requestSense",
        descriptor: bit(cdb, 1, 0x01),
        allocationBytes: cdb.readUInt8(4),
      }),
  ],
  [Opcode.read6, (cdb) => access("read", cdb, 6)],
  [Opcode.read10, (cdb) => access("read", cdb, 10)],
  [Opcode.read12, (cdb) => access("read", cdb, 12)],
  [Opcode.read16, (cdb) => access("read", cdb, 16)],
  [Opcode.write6, (cdb) => access("write", cdb, 6)],
  [Opcode.write10, (cdb) => access("write", cdb, 10)],
  [Opcode.write12, (cdb) => access("write", cdb, 12)],
  [Opcode.write16, (cdb) => access("write", cdb, 16)],
  [Opcode.inquiry, inquiry],
  [Opcode.modeSense6, (cdb) => modeSense(cdb, 6)],
  [Opcode.modeSense10, (cdb) => modeSense(cdb, 10)],
  [Opcode.startStopUnit, startStopUnit],
  [Opcode.readCapacity10, () => parsed({ name: "readCapacity10" })],
  [Opcode.serviceActionIn16, serviceActionIn],
  [Opcode.verify10, (cdb) => verify(cdb, 10)],
  [Opcode.verify12, (cdb) => verify(cdb, 12)],
  [Opcode.verify16, (cdb) => verify(cdb, 16)],
  [Opcode.prefetch10, (cdb) => prefetch(cdb, 10)],
  [Opcode.prefetch16, (cdb) => prefetch(cdb, 16)],
  [Opcode.synchronizeCache10, (cdb) => synchronizeCache(cdb, 10)],
  [Opcode.synchronizeCache16, (cdb) => synchronizeCache(cdb, 16)],
  [Opcode.writeSame10, (cdb) => writeSame(cdb, 10)],
  [Opcode.writeSame16, (cdb) => writeSame(cdb, 16)],
  [
    Opcode.unmap,
    (cdb) =>
      parsed({ name: "unmap", anchor: bit(cdb, 1, 0x01), parameterBytes: cdb.readUInt16BE(7) }),
  ],
  [Opcode.compareAndWrite, compareAndWrite],
  [
    Opcode.reportLuns,
    (cdb) =>
      parsed({
        name: "reportLuns",
        select: cdb.readUInt8(2),
        allocationBytes: cdb.readUInt32BE(6),
      }),
  ],
  [Opcode.maintenanceIn, maintenanceIn],
  [
    Opcode.persistentReserveIn,
    (cdb) =>
      parsed({
        name: "persistentReserveIn",
        action: cdb.readUInt8(1) & 0x1f,
        allocationBytes: cdb.readUInt16BE(7),
      }),
  ],
  [Opcode.persistentReserveOut, reserveOut],
]);

/** Reads a command descriptor block of at least its group's length. */
export const decodeCdb = (cdb: Buffer): DecodedCdb => {
  const opcode = cdb[0];
  if (opcode === undefined) return unknownOpcode;
  const decoder = decoders.get(opcode);
  const length = lengthOf(opcode);
  if (decoder === undefined || length === undefined || cdb.length < length) return unknownOpcode;
  // NACA asks for auto contingent allegiance, which the shelf does not offer (SAM-5 5.2).
  if ((cdb.readUInt8(length - 1) & 0x04) !== 0) return badField(length - 1);
  return decoder(cdb);
};

/** The command's operation code. */
export const opcodeOf = (command: Command): number => {
  switch (command.name) {
    case "read":
    case "write":
    case "verify":
    case "writeSame":
    case "synchronizeCache":
    case "prefetch":
    case "modeSense":
      return opcodeByLength[`${command.name}${command.cdbBytes}`] ?? unreachable(command.name);
    case "readCapacity16":
      return Opcode.serviceActionIn16;
    case "reportSupportedOpcodes":
      return Opcode.maintenanceIn;
    default:
      return Opcode[command.name];
  }
};

const unreachable = (name: string): never => {
  throw new RangeError(`no operation code for this length of ${name}`);
};

const opcodeByLength: Readonly<Record<string, number>> = Opcode;

const writeUInt64 = (cdb: Buffer, value: number, at: number) => {
  if (!Number.isSafeInteger(value)) throw new RangeError(`block address ${value}`);
  cdb.writeBigUInt64BE(BigInt(value), at);
};

const writeRange = (
  cdb: Buffer,
  range: { readonly lba: number; readonly blocks: number },
  cdbBytes: 6 | 10 | 12 | 16,
) => {
  const { lba, blocks } = range;
  switch (cdbBytes) {
    case 6:
      if (lba > 0x1f_ffff || blocks < 1 || blocks > 256) throw new RangeError("six-byte range");
      cdb.writeUIntBE(lba, 1, 3);
      cdb.writeUInt8(blocks & 0xff, 4);
      return;
    case 10:
      cdb.writeUInt32BE(lba, 2);
      cdb.writeUInt16BE(blocks, 7);
      return;
    case 12:
      cdb.writeUInt32BE(lba, 2);
      cdb.writeUInt32BE(blocks, 6);
      return;
    case 16:
      writeUInt64(cdb, lba, 2);
      cdb.writeUInt32BE(blocks, 10);
  }
};

const field = (value: number, limit: number): number => {
  if (!Number.isInteger(value) || value < 0 || value > limit) throw new RangeError(`${value}`);
  return value;
};

const flag = (value: boolean, mask: number) => (value ? mask : 0);

const encodeBlockCommand = (
  cdb: Buffer,
  command: Extract<Command, { readonly lba: number }>,
): void => {
  switch (command.name) {
    case "read":
    case "write":
      writeRange(cdb, command, command.cdbBytes);
      if (command.cdbBytes === 6) return;
      cdb[1] = (field(command.protect, 7) << 5) | flag(command.dpo, 0x10) | flag(command.fua, 8);
      return;
    case "compareAndWrite":
      writeUInt64(cdb, command.lba, 2);
      cdb[1] = (field(command.protect, 7) << 5) | flag(command.dpo, 0x10) | flag(command.fua, 8);
      cdb.writeUInt8(command.blocks, 13);
      return;
    case "verify":
      writeRange(cdb, command, command.cdbBytes);
      cdb[1] =
        (field(command.protect, 7) << 5) |
        flag(command.dpo, 0x10) |
        (field(command.byteCheck, 3) << 1);
      return;
    case "writeSame":
      writeRange(cdb, command, command.cdbBytes);
      cdb[1] =
        (field(command.protect, 7) << 5) |
        flag(command.anchor, 0x10) |
        flag(command.unmap, 0x08) |
        flag(command.noData && command.cdbBytes === 16, 0x01);
      return;
    case "synchronizeCache":
    case "prefetch":
      writeRange(cdb, command, command.cdbBytes);
      cdb[1] = flag(command.immediate, 0x02);
  }
};

const encodeModeSense = (cdb: Buffer, command: Extract<Command, { name: "modeSense" }>) => {
  cdb[1] = flag(command.noBlockDescriptors, 0x08) | flag(command.longLba, 0x10);
  cdb[2] = (field(command.control, 3) << 6) | field(command.page, 0x3f);
  cdb.writeUInt8(command.subpage, 3);
  if (command.cdbBytes === 6) cdb.writeUInt8(command.allocationBytes, 4);
  else cdb.writeUInt16BE(command.allocationBytes, 7);
};

const encodeOther = (
  cdb: Buffer,
  command: Exclude<Command, { readonly lba: number } | { readonly name: "modeSense" }>,
): void => {
  switch (command.name) {
    case "testUnitReady":
    case "readCapacity10":
      return;
    case "requestSense":
      cdb[1] = flag(command.descriptor, 0x01);
      cdb.writeUInt8(command.allocationBytes, 4);
      return;
    case "inquiry":
      cdb[1] = flag(command.page !== null, 0x01);
      cdb.writeUInt8(command.page ?? 0, 2);
      cdb.writeUInt16BE(command.allocationBytes, 3);
      return;
    case "reportLuns":
      cdb.writeUInt8(command.select, 2);
      cdb.writeUInt32BE(command.allocationBytes, 6);
      return;
    case "reportSupportedOpcodes":
      cdb[1] = REPORT_SUPPORTED_OPCODES_ACTION;
      cdb[2] = flag(command.timeouts, 0x80) | field(command.options, 7);
      cdb.writeUInt8(command.opcode, 3);
      cdb.writeUInt16BE(command.action, 4);
      cdb.writeUInt32BE(command.allocationBytes, 6);
      return;
    case "startStopUnit":
      cdb[1] = flag(command.immediate, 0x01);
      cdb[4] =
        (field(command.powerCondition, 0xf) << 4) |
        flag(command.noFlush, 0x04) |
        flag(command.loadEject, 0x02) |
        flag(command.start, 0x01);
      return;
    case "readCapacity16":
      cdb[1] = READ_CAPACITY_16_ACTION;
      cdb.writeUInt32BE(command.allocationBytes, 10);
      return;
    case "unmap":
      cdb[1] = flag(command.anchor, 0x01);
      cdb.writeUInt16BE(command.parameterBytes, 7);
      return;
    case "persistentReserveIn":
      cdb[1] = field(command.action, 0x1f);
      cdb.writeUInt16BE(command.allocationBytes, 7);
      return;
    case "persistentReserveOut":
      cdb[1] = field(command.action, 0x1f);
      cdb[2] = (field(command.scope, 0xf) << 4) | field(command.type, 0xf);
      cdb.writeUInt32BE(command.parameterBytes, 5);
  }
};

/** The command's descriptor block, padded with zeros to 16 bytes. Throws RangeError on values out of range. */
export const encodeCdb = (command: Command): Buffer => {
  const cdb = Buffer.alloc(CDB_BYTES);
  cdb[0] = opcodeOf(command);
  if (command.name === "modeSense") encodeModeSense(cdb, command);
  else if ("lba" in command) encodeBlockCommand(cdb, command);
  else encodeOther(cdb, command);
  return cdb;
};
