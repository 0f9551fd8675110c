/**
 * Answering a SCSI command (RFC 7143 11.4, 11.7): Data-In PDUs with the status in the last one when all is well,
 * else a SCSI Response with sense data.
 */
import {
  type DataIn,
  NO_RESIDUAL,
  RESERVED_TAG,
  type Residual,
  type Response,
} from "../../../firmware-ts/wire/iscsi/pdu.ts";
import { Status } from "../../../firmware-ts/wire/scsi/codes.ts";
import { encodeSense, type Sense } from "../../../firmware-ts/wire/scsi/sense.ts";
import type { Result } from "../disk/result.ts";

/** What the answer depends on. `outBytes` is what the command needed from the initiator. */
export interface ReplyTerms {
  readonly taskTag: number;
  readonly lun: number;
  readonly expectedBytes: number;
  readonly isRead: boolean;
  readonly outBytes: number;
  readonly segmentBytesMax: number;
  readonly burstBytesMax: number;
}

/** Sends a PDU; `withStatus` ones take the next StatSN. */
export interface ReplyPort {
  numbers(withStatus: boolean): {
    readonly statSn: number;
    readonly expCmdSn: number;
    readonly maxCmdSn: number;
  };
  send(response: Response, data: Buffer): void;
}

/** A command may ask for more than the residual's field can hold. */
const RESIDUAL_MAX = 0xffff_ffff;
const NO_DATA = Buffer.alloc(0);

/** RFC 7143 11.4.5: how far what the command moves, or would have, is from what the initiator expected. */
const residualOf = (expectedBytes: number, commandBytes: number): Residual => {
  if (commandBytes === expectedBytes) return NO_RESIDUAL;
  const bytes = Math.min(Math.abs(commandBytes - expectedBytes), RESIDUAL_MAX);
  return { kind: commandBytes > expectedBytes ? "overflow" : "underflow", bytes };
};

/** RFC 7143 11.4.7.2: sense data in a response is preceded by its length. */
const senseSegment = (sense: Sense | undefined): Buffer => {
  if (sense === undefined) return NO_DATA;
  const encoded = encodeSense(sense);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(encoded.length, 0);
  return Buffer.concat([length, encoded]);
};

const sendData = (terms: ReplyTerms, data: Buffer, residual: Residual, port: ReplyPort): void => {
  let offset = 0;
  let burst = 0;
  for (let dataSn = 0; offset < data.length; dataSn++) {
    const room = Math.min(terms.segmentBytesMax, terms.burstBytesMax - burst);
    const end = Math.min(offset + room, data.length);
    const isLast = end === data.length;
    burst += end - offset;
    const isBurstEnd = isLast || burst === terms.burstBytesMax;
    const pdu: DataIn = {
      op: "dataIn",
      ...port.numbers(isLast),
      final: isBurstEnd,
      status: isLast ? Status.good : null,
      lun: terms.lun,
      taskTag: terms.taskTag,
      transferTag: RESERVED_TAG,
      dataSn,
      offset,
      residual: isLast ? residual : NO_RESIDUAL,
    };
    port.send(pdu, data.subarray(offset, end));
    if (isBurstEnd) burst = 0;
    offset = end;
  }
};

/** Sends the whole answer to a command. */
export const reply = (terms: ReplyTerms, result: Result, port: ReplyPort): void => {
  const given = result.data ?? NO_DATA;
  const residual = residualOf(
    terms.expectedBytes,
    terms.outBytes > 0 ? terms.outBytes : given.length,
  );
  const data = terms.isRead ? given.subarray(0, terms.expectedBytes) : NO_DATA;
  if (data.length > 0 && result.status === Status.good) {
    sendData(terms, data, residual, port);
    return;
  }
  port.send(
    {
      op: "scsiResponse",
      ...port.numbers(true),
      response: 0,
      status: result.status,
      taskTag: terms.taskTag,
      expDataSn: 0,
      residual,
    },
    senseSegment(result.sense),
  );
};
