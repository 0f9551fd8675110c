/**
 * The protocol data units of iSCSI (RFC 7143 clause 11) as values.
 *
 * Glossary, ours and the RFC's: `taskTag` Initiator Task Tag; `transferTag` Target Transfer Tag; `...Sn` sequence
 * numbers (CmdSN, StatSN and so on); `final` the F bit; `isid` the initiator's session id as twelve hexadecimal
 * digits; `lun` the logical unit number, or LUN_UNKNOWN where the eight bytes name none we can address.
 *
 * Obligations: a header here is the basic header segment only. Additional header segments and the data segment
 * travel beside it, so that data is never copied for the sake of a header.
 */

/** A tag that names nothing (FFFFFFFFh). */
export const RESERVED_TAG = 0xffff_ffff;
export const LUN_UNKNOWN = -1;
export const HEADER_BYTES = 48;

/** Task attributes of a SCSI command (RFC 7143 11.3.1.2). */
export const TaskAttribute = {
  untagged: 0,
  simple: 1,
  ordered: 2,
  headOfQueue: 3,
  aca: 4,
} as const;

/** Task management functions (RFC 7143 11.5.1). */
export const TaskFunction = {
  abortTask: 1,
  abortTaskSet: 2,
  clearAca: 3,
  clearTaskSet: 4,
  logicalUnitReset: 5,
  targetWarmReset: 6,
  targetColdReset: 7,
  taskReassign: 8,
} as const;

/** Task management responses (RFC 7143 11.6.1). */
export const TaskResponse = {
  complete: 0,
  noSuchTask: 1,
  noSuchUnit: 2,
  allegianceUnsupported: 4,
  unsupported: 5,
  rejected: 255,
} as const;

/** Login stages (RFC 7143 11.12.3). */
export const LoginStage = { security: 0, operational: 1, fullFeature: 3 } as const;

/** Login status, class and detail in one number (RFC 7143 11.13.5). */
export const LoginStatus = {
  success: 0x0000,
  initiatorError: 0x0200,
  authenticationFailure: 0x0201,
  authorizationFailure: 0x0202,
  notFound: 0x0203,
  unsupportedVersion: 0x0205,
  tooManyConnections: 0x0206,
  missingParameter: 0x0207,
  cannotInclude: 0x0208,
  sessionDoesNotExist: 0x020a,
  targetError: 0x0300,
  serviceUnavailable: 0x0301,
  outOfResources: 0x0302,
} as const;

/** Reject reasons (RFC 7143 11.17.1). */
export const RejectReason = {
  dataDigest: 0x02,
  protocolError: 0x04,
  commandNotSupported: 0x05,
  tooManyImmediate: 0x06,
  invalidPdu: 0x09,
} as const;

/** Logout reasons and responses (RFC 7143 11.14.1, 11.15.1). */
export const LogoutReason = { closeSession: 0, closeConnection: 1, recovery: 2 } as const;
export const LogoutResponse = { success: 0, cidNotFound: 1, recoveryUnsupported: 2 } as const;

/** Asynchronous events (RFC 7143 11.9.1). */
export const AsyncEvent = {
  scsi: 0,
  logoutRequested: 1,
  dropConnection: 2,
  dropAllConnections: 3,
  negotiationRequested: 4,
} as const;

/** How much of the expected data did not move, or would not have fitted (RFC 7143 11.4.5). */
export interface Residual {
  readonly kind: "none" | "underflow" | "overflow";
  readonly bytes: number;
}
export const NO_RESIDUAL: Residual = { kind: "none", bytes: 0 };

/** Every target PDU says what it has received and how much more it takes. */
interface FromTarget {
  readonly statSn: number;
  readonly expCmdSn: number;
  readonly maxCmdSn: number;
}

/** Every numbered initiator PDU. `immediate` ones do not advance CmdSN. */
interface FromInitiator {
  readonly immediate: boolean;
  readonly taskTag: number;
  readonly cmdSn: number;
  readonly expStatSn: number;
}

export type NopOut = FromInitiator & {
  readonly op: "nopOut";
  readonly lun: number;
  readonly transferTag: number;
};

export type ScsiCommand = FromInitiator & {
  readonly op: "scsiCommand";
  readonly final: boolean;
  readonly read: boolean;
  readonly write: boolean;
  readonly attribute: number;
  readonly lun: number;
  readonly expectedBytes: number;
  readonly cdb: Buffer;
};

export type TaskRequest = FromInitiator & {
  readonly op: "taskRequest";
  readonly function: number;
  readonly lun: number;
  readonly referencedTag: number;
  readonly refCmdSn: number;
};

export type LoginRequest = FromInitiator & {
  readonly op: "loginRequest";
  readonly transit: boolean;
  readonly more: boolean;
  readonly stage: number;
  readonly nextStage: number;
  readonly versionMax: number;
  readonly versionMin: number;
  readonly isid: string;
  readonly tsih: number;
  readonly connectionId: number;
};

export type TextRequest = FromInitiator & {
  readonly op: "textRequest";
  readonly final: boolean;
  readonly more: boolean;
  readonly lun: number;
  readonly transferTag: number;
};

export type LogoutRequest = FromInitiator & {
  readonly op: "logoutRequest";
  readonly reason: number;
  readonly connectionId: number;
};

export interface DataOut {
  readonly op: "dataOut";
  readonly final: boolean;
  readonly lun: number;
  readonly taskTag: number;
  readonly transferTag: number;
  readonly expStatSn: number;
  readonly dataSn: number;
  readonly offset: number;
}

export interface Snack {
  readonly op: "snack";
  readonly type: number;
  readonly lun: number;
  readonly taskTag: number;
  readonly transferTag: number;
  readonly expStatSn: number;
  readonly begin: number;
  readonly run: number;
}

/** What an initiator sends. */
export type Request =
  | NopOut
  | ScsiCommand
  | TaskRequest
  | LoginRequest
  | TextRequest
  | LogoutRequest
  | DataOut
  | Snack;

export type NopIn = FromTarget & {
  readonly op: "nopIn";
  readonly lun: number;
  readonly taskTag: number;
  readonly transferTag: number;
};

/** `response` 0 means that the command was completed at the target and `status` counts. */
export type ScsiResponse = FromTarget & {
  readonly op: "scsiResponse";
  readonly response: number;
  readonly status: number;
  readonly taskTag: number;
  readonly expDataSn: number;
  readonly residual: Residual;
};

export type TaskReply = FromTarget & {
  readonly op: "taskResponse";
  readonly response: number;
  readonly taskTag: number;
};

export type LoginResponse = FromTarget & {
  readonly op: "loginResponse";
  readonly transit: boolean;
  readonly more: boolean;
  readonly stage: number;
  readonly nextStage: number;
  readonly versionMax: number;
  readonly versionActive: number;
  readonly isid: string;
  readonly tsih: number;
  readonly taskTag: number;
  readonly status: number;
};

export type TextResponse = FromTarget & {
  readonly op: "textResponse";
  readonly final: boolean;
  readonly more: boolean;
  readonly lun: number;
  readonly taskTag: number;
  readonly transferTag: number;
};

/** With `status` not null the PDU ends the command and `statSn` counts (the S bit, RFC 7143 11.7.3). */
export type DataIn = FromTarget & {
  readonly op: "dataIn";
  readonly final: boolean;
  readonly status: number | null;
  readonly lun: number;
  readonly taskTag: number;
  readonly transferTag: number;
  readonly dataSn: number;
  readonly offset: number;
  readonly residual: Residual;
};

export type ReadyToTransfer = FromTarget & {
  readonly op: "readyToTransfer";
  readonly lun: number;
  readonly taskTag: number;
  readonly transferTag: number;
  readonly r2tSn: number;
  readonly offset: number;
  readonly bytes: number;
};

export type AsyncMessage = FromTarget & {
  readonly op: "asyncMessage";
  readonly lun: number;
  readonly event: number;
  readonly vendorCode: number;
  readonly parameters: readonly [number, number, number];
};

export type LogoutReply = FromTarget & {
  readonly op: "logoutResponse";
  readonly response: number;
  readonly taskTag: number;
  readonly time2Wait: number;
  readonly time2Retain: number;
};

/** The data segment carries the header that was rejected. */
export type Reject = FromTarget & {
  readonly op: "reject";
  readonly reason: number;
  readonly dataSn: number;
};

/** What a target sends. */
export type Response =
  | NopIn
  | ScsiResponse
  | TaskReply
  | LoginResponse
  | TextResponse
  | DataIn
  | ReadyToTransfer
  | AsyncMessage
  | LogoutReply
  | Reject;
