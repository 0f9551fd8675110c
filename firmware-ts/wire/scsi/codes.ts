/**
 * The numbers of SAM-5, SPC-4 and SBC-3 that the shelf and the initiator speak: operation codes, statuses,
 * sense keys and additional sense codes.
 *
 * Obligations: a code appears here only if something in this project sends or interprets it.
 */

/** Operation codes (SPC-4 annex D, SBC-3 clause 5). */
export const Opcode = {
  testUnitReady: 0x00,
  requestSense: 0x03,
  read6: 0x08,
  write6: 0x0a,
  inquiry: 0x12,
  modeSense6: 0x1a,
  startStopUnit: 0x1b,
  readCapacity10: 0x25,
  read10: 0x28,
  write10: 0x2a,
  verify10: 0x2f,
  prefetch10: 0x34,
  synchronizeCache10: 0x35,
  writeSame10: 0x41,
  unmap: 0x42,
  modeSense10: 0x5a,
  persistentReserveIn: 0x5e,
  persistentReserveOut: 0x5f,
  read16: 0x88,
  compareAndWrite: 0x89,
  write16: 0x8a,
  verify16: 0x8f,
  prefetch16: 0x90,
  synchronizeCache16: 0x91,
  writeSame16: 0x93,
  serviceActionIn16: 0x9e,
  reportLuns: 0xa0,
  maintenanceIn: 0xa3,
  read12: 0xa8,
  write12: 0xaa,
  verify12: 0xaf,
} as const;

/** The one service action of SERVICE ACTION IN (16) in use (SBC-3 5.16). */
export const READ_CAPACITY_16_ACTION = 0x10;
/** The one service action of MAINTENANCE IN in use (SPC-4 6.35). */
export const REPORT_SUPPORTED_OPCODES_ACTION = 0x0c;

/** Status codes (SAM-5 5.3.1). */
export const Status = {
  good: 0x00,
  checkCondition: 0x02,
  conditionMet: 0x04,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  acaActive: 0x30,
  taskAborted: 0x40,
} as const;

/** Sense keys (SPC-4 table 43). */
export const SenseKey = {
  noSense: 0x0,
  recoveredError: 0x1,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  abortedCommand: 0xb,
  miscompare: 0xe,
} as const;

/** Additional sense code and qualifier in one number, `asc << 8 | ascq` (SPC-4 annex D.2). */
export const Asc = {
  none: 0x0000,
  notReadyManualIntervention: 0x0403,
  writeError: 0x0c00,
  unrecoveredReadError: 0x1100,
  parameterListLength: 0x1a00,
  miscompareDuringVerify: 0x1d00,
  invalidOpcode: 0x2000,
  lbaOutOfRange: 0x2100,
  invalidFieldInCdb: 0x2400,
  logicalUnitNotSupported: 0x2500,
  invalidFieldInParameterList: 0x2600,
  invalidRelease: 0x2604,
  powerOnOrReset: 0x2900,
  logicalUnitReset: 0x2903,
  nexusLoss: 0x2907,
  modeParametersChanged: 0x2a01,
  reservationsPreempted: 0x2a03,
  reservationsReleased: 0x2a04,
  registrationsPreempted: 0x2a05,
  saveParametersNotSupported: 0x3900,
  informationUnitInvalid: 0x0e03,
  internalTargetFailure: 0x4400,
  dataPhaseError: 0x4b00,
  insufficientRegistrationResources: 0x5504,
} as const;

const statusNames: Readonly<Record<number, string>> = {
  [Status.good]: "GOOD",
  [Status.checkCondition]: "CHECK CONDITION",
  [Status.conditionMet]: "CONDITION MET",
  [Status.busy]: "BUSY",
  [Status.reservationConflict]: "RESERVATION CONFLICT",
  [Status.taskSetFull]: "TASK SET FULL",
  [Status.acaActive]: "ACA ACTIVE",
  [Status.taskAborted]: "TASK ABORTED",
};

const senseKeyNames: Readonly<Record<number, string>> = {
  [SenseKey.noSense]: "NO SENSE",
  [SenseKey.recoveredError]: "RECOVERED ERROR",
  [SenseKey.notReady]: "NOT READY",
  [SenseKey.mediumError]: "MEDIUM ERROR",
  [SenseKey.hardwareError]: "HARDWARE ERROR",
  [SenseKey.illegalRequest]: "ILLEGAL REQUEST",
  [SenseKey.unitAttention]: "UNIT ATTENTION",
  [SenseKey.dataProtect]: "DATA PROTECT",
  [SenseKey.abortedCommand]: "ABORTED COMMAND",
  [SenseKey.miscompare]: "MISCOMPARE",
};

const ascNames: Readonly<Record<number, string>> = {
  [Asc.notReadyManualIntervention]: "NOT READY, MANUAL INTERVENTION REQUIRED",
  [Asc.writeError]: "WRITE ERROR",
  [Asc.unrecoveredReadError]: "UNRECOVERED READ ERROR",
  [Asc.parameterListLength]: "PARAMETER LIST LENGTH ERROR",
  [Asc.miscompareDuringVerify]: "MISCOMPARE DURING VERIFY OPERATION",
  [Asc.invalidOpcode]: "INVALID COMMAND OPERATION CODE",
  [Asc.lbaOutOfRange]: "LOGICAL BLOCK ADDRESS OUT OF RANGE",
  [Asc.invalidFieldInCdb]: "INVALID FIELD IN CDB",
  [Asc.logicalUnitNotSupported]: "LOGICAL UNIT NOT SUPPORTED",
  [Asc.invalidFieldInParameterList]: "INVALID FIELD IN PARAMETER LIST",
  [Asc.invalidRelease]: "INVALID RELEASE OF PERSISTENT RESERVATION",
  [Asc.powerOnOrReset]: "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED",
  [Asc.logicalUnitReset]: "BUS DEVICE RESET FUNCTION OCCURRED",
  [Asc.nexusLoss]: "I_T NEXUS LOSS OCCURRED",
  [Asc.modeParametersChanged]: "MODE PARAMETERS CHANGED",
  [Asc.reservationsPreempted]: "RESERVATIONS PREEMPTED",
  [Asc.reservationsReleased]: "RESERVATIONS RELEASED",
  [Asc.registrationsPreempted]: "REGISTRATIONS PREEMPTED",
  [Asc.saveParametersNotSupported]: "SAVING PARAMETERS NOT SUPPORTED",
  [Asc.informationUnitInvalid]: "INVALID FIELD IN COMMAND INFORMATION UNIT",
  [Asc.internalTargetFailure]: "INTERNAL TARGET FAILURE",
  [Asc.dataPhaseError]: "DATA PHASE ERROR",
  [Asc.insufficientRegistrationResources]: "INSUFFICIENT REGISTRATION RESOURCES",
};

const hex = (value: number, digits: number) => `0x${value.toString(16).padStart(digits, "0")}`;

/** The standard's name of a status, or its number. */
export const statusName = (status: number): string => statusNames[status] ?? hex(status, 2);
/** The standard's name of a sense key, or its number. */
export const senseKeyName = (key: number): string => senseKeyNames[key] ?? hex(key, 1);
/** The standard's name of an additional sense code (`asc << 8 | ascq`), or its number. */
export const ascName = (code: number): string => ascNames[code] ?? hex(code, 4);
