/** A logical unit: a disk at its number, with its counters. And what answers where there is no unit. */
import { decodeCdb } from "../../../firmware-ts/wire/scsi/cdb.ts";
import { Asc, SenseKey, Status } from "../../../firmware-ts/wire/scsi/codes.ts";
import {
  DEVICE_TYPE_NONE,
  encodeStandardInquiry,
  QUALIFIER_NO_UNIT,
} from "../../../firmware-ts/wire/scsi/inquiry.ts";
import { encodeReportLuns } from "../../../firmware-ts/wire/scsi/lun.ts";
import { encodeSense } from "../../../firmware-ts/wire/scsi/sense.ts";
import type { Disk } from "../disk/disk.ts";
import { illegalRequest, invalidField, type Result, withData } from "../disk/result.ts";

/** What a unit has done since the shelf started. */
export interface UnitCounters {
  commands: number;
  reads: number;
  writes: number;
  readBytes: number;
  writtenBytes: number;
  reservationConflicts: number;
  checkConditions: number;
  aborted: number;
  faulted: number;
}

export interface Unit {
  readonly lun: number;
  readonly serial: string;
  readonly disk: Disk;
  readonly counters: UnitCounters;
}

export const newCounters = (): UnitCounters => ({
  commands: 0,
  reads: 0,
  writes: 0,
  readBytes: 0,
  writtenBytes: 0,
  reservationConflicts: 0,
  checkConditions: 0,
  aborted: 0,
  faulted: 0,
});

/** Counts how a command ended; null is a silent abort. */
export const countEnd = (counters: UnitCounters, result: Result | null): void => {
  if (result === null || result.status === Status.taskAborted) counters.aborted += 1;
  else if (result.status === Status.reservationConflict) counters.reservationConflicts += 1;
  else if (result.status === Status.checkCondition) counters.checkConditions += 1;
};

const noUnit = illegalRequest(Asc.logicalUnitNotSupported);

/** Answers a command to a unit that is not there (SPC-4 6.6.2, 6.33, 6.39; SAM-5 4.7.4). */
export const answerNoUnit = (cdb: Buffer, luns: readonly number[]): Result => {
  const parsed = decodeCdb(cdb);
  if (!parsed.ok) return noUnit;
  const { command } = parsed;
  switch (command.name) {
    case "inquiry": {
      if (command.page !== null) return invalidField;
      const data = encodeStandardInquiry({
        deviceType: DEVICE_TYPE_NONE,
        qualifier: QUALIFIER_NO_UNIT,
        vendor: "",
        product: "",
        revision: "",
        versions: [],
      });
      return withData(data, command.allocationBytes);
    }
    case "reportLuns":
      return withData(encodeReportLuns(luns), command.allocationBytes);
    case "requestSense": {
      const sense = { key: SenseKey.illegalRequest, code: Asc.logicalUnitNotSupported };
      const format = command.descriptor ? "descriptor" : "fixed";
      return withData(encodeSense(sense, format), command.allocationBytes);
    }
    default:
      return noUnit;
  }
};
