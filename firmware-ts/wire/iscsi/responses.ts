/** Headers that a target sends (RFC 7143 clause 11): value ⇄ 48 bytes. */
import type { Decoded } from "../scsi/decoded.ts";
import { decoded, malformed } from "../scsi/decoded.ts";
import {
  FINAL,
  isidOf,
  lunOf,
  MORE,
  newHeader,
  Op,
  OVERFLOW,
  putIsid,
  putLun,
  putTags,
  stageFlags,
  stageOf,
  tagsOf,
  UNDERFLOW,
} from "./fields.ts";
import type {
  AsyncMessage,
  DataIn,
  LoginResponse,
  LogoutReply,
  NopIn,
  ReadyToTransfer,
  Reject,
  Residual,
  Response,
  ScsiResponse,
  TextResponse,
} from "./pdu.ts";
import { NO_RESIDUAL, RESERVED_TAG } from "./pdu.ts";

const STATUS_PRESENT = 0x01;

const putNumbers = (
  header: Buffer,
  response: { readonly statSn: number; readonly expCmdSn: number; readonly maxCmdSn: number },
) => {
  header.writeUInt32BE(response.statSn, 24);
  header.writeUInt32BE(response.expCmdSn, 28);
  header.writeUInt32BE(response.maxCmdSn, 32);
};

const numbersOf = (header: Buffer) => ({
  statSn: header.readUInt32BE(24),
  expCmdSn: header.readUInt32BE(28),
  maxCmdSn: header.readUInt32BE(32),
});

const residualFlags = ({ kind }: Residual) =>
  kind === "none" ? 0 : kind === "overflow" ? OVERFLOW : UNDERFLOW;

const residualOf = (header: Buffer, flags: number): Residual => {
  if ((flags & (OVERFLOW | UNDERFLOW)) === 0) return NO_RESIDUAL;
  const kind = (flags & OVERFLOW) !== 0 ? "overflow" : "underflow";
  return { kind, bytes: header.readUInt32BE(44) };
};

const encodeNopIn = (response: NopIn): Buffer => {
  const header = newHeader(Op.nopIn, FINAL);
  putNumbers(header, response);
  putLun(header, response.lun);
  putTags(header, response);
  return header;
};

const encodeScsiResponse = (response: ScsiResponse): Buffer => {
  const header = newHeader(Op.scsiResponse, FINAL | residualFlags(response.residual));
  putNumbers(header, response);
  header.writeUInt8(response.response, 2);
  header.writeUInt8(response.status, 3);
  header.writeUInt32BE(response.taskTag, 16);
  header.writeUInt32BE(response.expDataSn, 36);
  header.writeUInt32BE(response.residual.bytes, 44);
  return header;
};

const encodeLoginResponse = (response: LoginResponse): Buffer => {
  const flags = stageFlags(response.transit, response.more, response.stage, response.nextStage);
  const header = newHeader(Op.loginResponse, flags);
  putNumbers(header, response);
  putIsid(header, response.isid);
  header.writeUInt8(response.versionMax, 2);
  header.writeUInt8(response.versionActive, 3);
  header.writeUInt16BE(response.tsih, 14);
  header.writeUInt32BE(response.taskTag, 16);
  header.writeUInt16BE(response.status, 36);
  return header;
};

const encodeTextResponse = (response: TextResponse): Buffer => {
  const flags = (response.final ? FINAL : 0) | (response.more ? MORE : 0);
  const header = newHeader(Op.textResponse, flags);
  putNumbers(header, response);
  putLun(header, response.lun);
  putTags(header, response);
  return header;
};

const encodeDataIn = (response: DataIn): Buffer => {
  const flags =
    (response.final ? FINAL : 0) |
    (response.status === null ? 0 : STATUS_PRESENT | residualFlags(response.residual));
  const header = newHeader(Op.dataIn, flags);
  putNumbers(header, response);
  putLun(header, response.lun);
  putTags(header, response);
  header.writeUInt32BE(response.dataSn, 36);
  header.writeUInt32BE(response.offset, 40);
  if (response.status !== null) {
    header.writeUInt8(response.status, 3);
    header.writeUInt32BE(response.residual.bytes, 44);
  }
  return header;
};

const encodeReadyToTransfer = (response: ReadyToTransfer): Buffer => {
  const header = newHeader(Op.readyToTransfer, FINAL);
  putNumbers(header, response);
  putLun(header, response.lun);
  putTags(header, response);
  header.writeUInt32BE(response.r2tSn, 36);
  header.writeUInt32BE(response.offset, 40);
  header.writeUInt32BE(response.bytes, 44);
  return header;
};

const encodeAsyncMessage = (response: AsyncMessage): Buffer => {
  const header = newHeader(Op.asyncMessage, FINAL);
  putNumbers(header, response);
  putLun(header, response.lun);
  header.writeUInt32BE(RESERVED_TAG, 16);
  header.writeUInt8(response.event, 36);
  header.writeUInt8(response.vendorCode, 37);
  for (const [index, value] of response.parameters.entries()) {
    header.writeUInt16BE(value, 38 + index * 2);
  }
  return header;
};

const encodeLogoutResponse = (response: LogoutReply): Buffer => {
  const header = newHeader(Op.logoutResponse, FINAL);
  putNumbers(header, response);
  header.writeUInt8(response.response, 2);
  header.writeUInt32BE(response.taskTag, 16);
  header.writeUInt16BE(response.time2Wait, 40);
  header.writeUInt16BE(response.time2Retain, 42);
  return header;
};

const encodeReject = (response: Reject): Buffer => {
  const header = newHeader(Op.reject, FINAL);
  putNumbers(header, response);
  header.writeUInt8(response.reason, 2);
  header.writeUInt32BE(RESERVED_TAG, 16);
  header.writeUInt32BE(response.dataSn, 36);
  return header;
};

/** The 48 byte header of a response. Throws RangeError on values that do not fit their fields. */
export const encodeResponse = (response: Response): Buffer => {
  switch (response.op) {
    case "nopIn":
      return encodeNopIn(response);
    case "scsiResponse":
      return encodeScsiResponse(response);
    case "taskResponse": {
      const header = newHeader(Op.taskResponse, FINAL);
      putNumbers(header, response);
      header.writeUInt8(response.response, 2);
      header.writeUInt32BE(response.taskTag, 16);
      return header;
    }
    case "loginResponse":
      return encodeLoginResponse(response);
    case "textResponse":
      return encodeTextResponse(response);
    case "dataIn":
      return encodeDataIn(response);
    case "readyToTransfer":
      return encodeReadyToTransfer(response);
    case "asyncMessage":
      return encodeAsyncMessage(response);
    case "logoutResponse":
      return encodeLogoutResponse(response);
    case "reject":
      return encodeReject(response);
  }
};

const decodeDataIn = (header: Buffer, flags: number): DataIn => {
  const hasStatus = (flags & STATUS_PRESENT) !== 0;
  return {
    op: "dataIn",
    ...numbersOf(header),
    final: (flags & FINAL) !== 0,
    status: hasStatus ? header.readUInt8(3) : null,
    lun: lunOf(header),
    ...tagsOf(header),
    dataSn: header.readUInt32BE(36),
    offset: header.readUInt32BE(40),
    residual: hasStatus ? residualOf(header, flags) : NO_RESIDUAL,
  };
};

const decodeScsiResponse = (header: Buffer, flags: number): ScsiResponse => ({
  op: "scsiResponse",
  ...numbersOf(header),
  response: header.readUInt8(2),
  status: header.readUInt8(3),
  taskTag: header.readUInt32BE(16),
  expDataSn: header.readUInt32BE(36),
  residual: residualOf(header, flags),
});

const decodeLoginResponse = (header: Buffer, flags: number): LoginResponse => ({
  op: "loginResponse",
  ...numbersOf(header),
  ...stageOf(flags),
  versionMax: header.readUInt8(2),
  versionActive: header.readUInt8(3),
  isid: isidOf(header),
  tsih: header.readUInt16BE(14),
  taskTag: header.readUInt32BE(16),
  status: header.readUInt16BE(36),
});

const decodeTextResponse = (header: Buffer, flags: number): TextResponse => ({
  op: "textResponse",
  ...numbersOf(header),
  final: (flags & FINAL) !== 0,
  more: (flags & MORE) !== 0,
  lun: lunOf(header),
  ...tagsOf(header),
});

const decodeReadyToTransfer = (header: Buffer): ReadyToTransfer => ({
  op: "readyToTransfer",
  ...numbersOf(header),
  lun: lunOf(header),
  ...tagsOf(header),
  r2tSn: header.readUInt32BE(36),
  offset: header.readUInt32BE(40),
  bytes: header.readUInt32BE(44),
});

const decodeAsyncMessage = (header: Buffer): AsyncMessage => ({
  op: "asyncMessage",
  ...numbersOf(header),
  lun: lunOf(header),
  event: header.readUInt8(36),
  vendorCode: header.readUInt8(37),
  parameters: [header.readUInt16BE(38), header.readUInt16BE(40), header.readUInt16BE(42)],
});

const decodeLogoutResponse = (header: Buffer): LogoutReply => ({
  op: "logoutResponse",
  ...numbersOf(header),
  response: header.readUInt8(2),
  taskTag: header.readUInt32BE(16),
  time2Wait: header.readUInt16BE(40),
  time2Retain: header.readUInt16BE(42),
});

/** Reads the header of a response; fails on operation codes that no target may send. */
export const decodeResponse = (header: Buffer): Decoded<Response> => {
  const opcode = header.readUInt8(0) & 0x3f;
  const flags = header.readUInt8(1);
  switch (opcode) {
    case Op.nopIn:
      return decoded({
        op: "nopIn",
        ...numbersOf(header),
        lun: lunOf(header),
        ...tagsOf(header),
      });
    case Op.scsiResponse:
      return decoded(decodeScsiResponse(header, flags));
    case Op.taskResponse:
      return decoded({
        op: "taskResponse",
        ...numbersOf(header),
        response: header.readUInt8(2),
        taskTag: header.readUInt32BE(16),
      });
    case Op.loginResponse:
      return decoded(decodeLoginResponse(header, flags));
    case Op.textResponse:
      return decoded(decodeTextResponse(header, flags));
    case Op.dataIn:
      return decoded(decodeDataIn(header, flags));
    case Op.readyToTransfer:
      return decoded(decodeReadyToTransfer(header));
    case Op.asyncMessage:
      return decoded(decodeAsyncMessage(header));
    case Op.logoutResponse:
      return decoded(decodeLogoutResponse(header));
    case Op.reject:
      return decoded({
        op: "reject",
        ...numbersOf(header),
        reason: header.readUInt8(2),
        dataSn: header.readUInt32BE(36),
      });
    default:
      return malformed(`operation code 0x${opcode.toString(16)} is not a target's`);
  }
};
