/** Headers that an initiator sends (RFC 7143 clause 11): value ⇄ 48 bytes. */
import type { Decoded } from "../scsi/decoded.ts";
import { decoded, malformed } from "../scsi/decoded.ts";
import {
  FINAL,
  IMMEDIATE,
  isidOf,
  lunOf,
  MORE,
  newHeader,
  Op,
  putIsid,
  putLun,
  putTags,
  stageFlags,
  stageOf,
  tagsOf,
} from "./fields.ts";
import type {
  DataOut,
  LoginRequest,
  LogoutRequest,
  NopOut,
  Request,
  ScsiCommand,
  Snack,
  TaskRequest,
  TextRequest,
} from "./pdu.ts";

const immediately = (opcode: number, request: { readonly immediate: boolean }) =>
  opcode | (request.immediate ? IMMEDIATE : 0);

const putNumbers = (
  header: Buffer,
  request: { readonly taskTag: number; readonly cmdSn: number; readonly expStatSn: number },
) => {
  header.writeUInt32BE(request.taskTag, 16);
  header.writeUInt32BE(request.cmdSn, 24);
  header.writeUInt32BE(request.expStatSn, 28);
};

const numbersOf = (header: Buffer) => ({
  immediate: (header.readUInt8(0) & IMMEDIATE) !== 0,
  taskTag: header.readUInt32BE(16),
  cmdSn: header.readUInt32BE(24),
  expStatSn: header.readUInt32BE(28),
});

const encodeNopOut = (request: NopOut): Buffer => {
  const header = newHeader(immediately(Op.nopOut, request), FINAL);
  putNumbers(header, request);
  putLun(header, request.lun);
  header.writeUInt32BE(request.transferTag, 20);
  return header;
};

const encodeScsiCommand = (request: ScsiCommand): Buffer => {
  const flags =
    (request.final ? FINAL : 0) |
    (request.read ? 0x40 : 0) |
    (request.write ? 0x20 : 0) |
    (request.attribute & 7);
  if (request.cdb.length > 16) throw new RangeError("CDBs over 16 bytes need an extension header");
  const header = newHeader(immediately(Op.scsiCommand, request), flags);
  putNumbers(header, request);
  putLun(header, request.lun);
  header.writeUInt32BE(request.expectedBytes, 20);
  request.cdb.copy(header, 32);
  return header;
};

const encodeTaskRequest = (request: TaskRequest): Buffer => {
  const flags = FINAL | (request.function & 0x7f);
  const header = newHeader(immediately(Op.taskRequest, request), flags);
  putNumbers(header, request);
  putLun(header, request.lun);
  header.writeUInt32BE(request.referencedTag, 20);
  header.writeUInt32BE(request.refCmdSn, 32);
  return header;
};

const encodeLoginRequest = (request: LoginRequest): Buffer => {
  const flags = stageFlags(request.transit, request.more, request.stage, request.nextStage);
  const header = newHeader(immediately(Op.loginRequest, request), flags);
  putNumbers(header, request);
  putIsid(header, request.isid);
  header.writeUInt8(request.versionMax, 2);
  header.writeUInt8(request.versionMin, 3);
  header.writeUInt16BE(request.tsih, 14);
  header.writeUInt16BE(request.connectionId, 20);
  return header;
};

const encodeTextRequest = (request: TextRequest): Buffer => {
  const flags = (request.final ? FINAL : 0) | (request.more ? MORE : 0);
  const header = newHeader(immediately(Op.textRequest, request), flags);
  putNumbers(header, request);
  putLun(header, request.lun);
  header.writeUInt32BE(request.transferTag, 20);
  return header;
};

const encodeLogoutRequest = (request: LogoutRequest): Buffer => {
  const flags = FINAL | (request.reason & 0x7f);
  const header = newHeader(immediately(Op.logoutRequest, request), flags);
  putNumbers(header, request);
  header.writeUInt16BE(request.connectionId, 20);
  return header;
};

const encodeDataOut = (request: DataOut): Buffer => {
  const header = newHeader(Op.dataOut, request.final ? FINAL : 0);
  putLun(header, request.lun);
  putTags(header, request);
  header.writeUInt32BE(request.expStatSn, 28);
  header.writeUInt32BE(request.dataSn, 36);
  header.writeUInt32BE(request.offset, 40);
  return header;
};

const encodeSnack = (request: Snack): Buffer => {
  const header = newHeader(Op.snack, FINAL | (request.type & 0x0f));
  putLun(header, request.lun);
  putTags(header, request);
  header.writeUInt32BE(request.expStatSn, 28);
  header.writeUInt32BE(request.begin, 40);
  header.writeUInt32BE(request.run, 44);
  return header;
};

/** The 48 byte header of a request. Throws RangeError on values that do not fit their fields. */
export const encodeRequest = (request: Request): Buffer => {
  switch (request.op) {
    case "nopOut":
      return encodeNopOut(request);
    case "scsiCommand":
      return encodeScsiCommand(request);
    case "taskRequest":
      return encodeTaskRequest(request);
    case "loginRequest":
      return encodeLoginRequest(request);
    case "textRequest":
      return encodeTextRequest(request);
    case "logoutRequest":
      return encodeLogoutRequest(request);
    case "dataOut":
      return encodeDataOut(request);
    case "snack":
      return encodeSnack(request);
  }
};

const decodeScsiCommand = (header: Buffer, flags: number): ScsiCommand => ({
  op: "scsiCommand",
  ...numbersOf(header),
  final: (flags & FINAL) !== 0,
  read: (flags & 0x40) !== 0,
  write: (flags & 0x20) !== 0,
  attribute: flags & 7,
  lun: lunOf(header),
  expectedBytes: header.readUInt32BE(20),
  // The parser reuses its header buffer, and a command outlives it.
  cdb: Buffer.from(header.subarray(32, 48)),
});

const decodeDataOut = (header: Buffer, flags: number): DataOut => ({
  op: "dataOut",
  final: (flags & FINAL) !== 0,
  lun: lunOf(header),
  ...tagsOf(header),
  expStatSn: header.readUInt32BE(28),
  dataSn: header.readUInt32BE(36),
  offset: header.readUInt32BE(40),
});

const decodeLoginRequest = (header: Buffer, flags: number): LoginRequest => ({
  op: "loginRequest",
  ...numbersOf(header),
  ...stageOf(flags),
  versionMax: header.readUInt8(2),
  versionMin: header.readUInt8(3),
  isid: isidOf(header),
  tsih: header.readUInt16BE(14),
  connectionId: header.readUInt16BE(20),
});

const decodeSnack = (header: Buffer, flags: number): Snack => ({
  op: "snack",
  type: flags & 0x0f,
  lun: lunOf(header),
  ...tagsOf(header),
  expStatSn: header.readUInt32BE(28),
  begin: header.readUInt32BE(40),
  run: header.readUInt32BE(44),
});

/** Reads the header of a request; fails on operation codes that no initiator may send. */
export const decodeRequest = (header: Buffer): Decoded<Request> => {
  const opcode = header.readUInt8(0) & 0x3f;
  const flags = header.readUInt8(1);
  switch (opcode) {
    case Op.nopOut:
      return decoded({
        op: "nopOut",
        ...numbersOf(header),
        lun: lunOf(header),
        transferTag: header.readUInt32BE(20),
      });
    case Op.scsiCommand:
      return decoded(decodeScsiCommand(header, flags));
    case Op.taskRequest:
      return decoded({
        op: "taskRequest",
        ...numbersOf(header),
        function: flags & 0x7f,
        lun: lunOf(header),
        referencedTag: header.readUInt32BE(20),
        refCmdSn: header.readUInt32BE(32),
      });
    case Op.loginRequest:
      return decoded(decodeLoginRequest(header, flags));
    case Op.textRequest:
      return decoded({
        op: "textRequest",
        ...numbersOf(header),
        final: (flags & FINAL) !== 0,
        more: (flags & MORE) !== 0,
        lun: lunOf(header),
        transferTag: header.readUInt32BE(20),
      });
    case Op.dataOut:
      return decoded(decodeDataOut(header, flags));
    case Op.logoutRequest:
      return decoded({
        op: "logoutRequest",
        ...numbersOf(header),
        reason: flags & 0x7f,
        connectionId: header.readUInt16BE(20),
      });
    case Op.snack:
      return decoded(decodeSnack(header, flags));
    default:
      return malformed(`operation code 0x${opcode.toString(16)} is not an initiator's`);
  }
};
