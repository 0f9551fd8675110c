/** How a command ends: status, sense data, and data for the initiator. */
import { Asc, SenseKey, Status } from "../../../firmware-ts/wire/scsi/codes.ts";
import type { Sense } from "../../../firmware-ts/wire/scsi/sense.ts";

export interface Result {
  readonly status: number;
  readonly sense?: Sense;
  readonly data?: Buffer;
}

export const good: Result = { status: Status.good };
export const reservationConflict: Result = { status: Status.reservationConflict };
export const taskAborted: Result = { status: Status.taskAborted };

export const withData = (data: Buffer, allocationBytes = data.length): Result => ({
  status: Status.good,
  data: data.length > allocationBytes ? data.subarray(0, allocationBytes) : data,
});

/** CHECK CONDITION with its reason; `code` as in `Asc`. */
export const checkCondition = (key: number, code: number, information?: number): Result => ({
  status: Status.checkCondition,
  sense: { key, code, ...(information === undefined ? {} : { information }) },
});

export const illegalRequest = (code: number): Result =>
  checkCondition(SenseKey.illegalRequest, code);

export const invalidField: Result = illegalRequest(Asc.invalidFieldInCdb);
