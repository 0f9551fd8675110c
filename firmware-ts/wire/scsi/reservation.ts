/**
 * Persistent reservations on the wire: the parameter data of PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16).
 *
 * Glossary: a *registration* is a key that an I_T nexus left at the disk; the *reservation* is held by one
 * registrant, or by all of them for the two "all registrants" types; *PRgeneration* counts changes. An I_T nexus is
 * one initiator port (here iSCSI name and ISID) at one target port. *APTPL*: keep all this over a loss of power.
 */
import { type Decoded, decoded, malformed } from "./decoded.ts";

/** Service actions of PERSISTENT RESERVE IN (SPC-4 table 212). */
export const ReserveIn = {
  readKeys: 0,
  readReservation: 1,
  reportCapabilities: 2,
  readFullStatus: 3,
} as const;

/** Service actions of PERSISTENT RESERVE OUT (SPC-4 table 222). */
export const ReserveOut = {
  register: 0,
  reserve: 1,
  release: 2,
  clear: 3,
  preempt: 4,
  preemptAndAbort: 5,
  registerAndIgnore: 6,
  registerAndMove: 7,
} as const;

/** Reservation types (SPC-4 table 217). */
export const ReservationType = {
  writeExclusive: 1,
  exclusiveAccess: 3,
  writeExclusiveRegistrantsOnly: 5,
  exclusiveAccessRegistrantsOnly: 6,
  writeExclusiveAllRegistrants: 7,
  exclusiveAccessAllRegistrants: 8,
} as const;
export type ReservationType = (typeof ReservationType)[keyof typeof ReservationType];

/** The only scope left in the standard: the logical unit (SPC-4 6.15.3.2). */
export const SCOPE_LOGICAL_UNIT = 0;

export const isReservationType = (value: number): value is ReservationType =>
  value === 1 || value === 3 || (value >= 5 && value <= 8);

/** Every registrant holds the reservation. */
export const isAllRegistrants = (type: ReservationType): boolean => type >= 7;
/** Every registrant has the access that the type grants. */
export const isForRegistrants = (type: ReservationType): boolean => type >= 5;
/** Reading is reserved too, not only writing. */
export const isExclusiveAccess = (type: ReservationType): boolean =>
  type === 3 || type === 6 || type === 8;

export const RESERVE_OUT_BYTES = 24;

/** Parameter list of PERSISTENT RESERVE OUT, all actions but REGISTER AND MOVE (SPC-4 6.16.3). */
export interface ReserveOutParameters {
  readonly key: bigint;
  readonly serviceActionKey: bigint;
  readonly specifyInitiatorPorts: boolean;
  readonly allTargetPorts: boolean;
  readonly aptpl: boolean;
}

export const encodeReserveOut = (parameters: ReserveOutParameters): Buffer => {
  const data = Buffer.alloc(RESERVE_OUT_BYTES);
  data.writeBigUInt64BE(parameters.key, 0);
  data.writeBigUInt64BE(parameters.serviceActionKey, 8);
  data[20] =
    (parameters.specifyInitiatorPorts ? 0x08 : 0) |
    (parameters.allTargetPorts ? 0x04 : 0) |
    (parameters.aptpl ? 0x01 : 0);
  return data;
};

/** Reads the first 24 bytes; whether more may follow is for the service action to say. */
export const decodeReserveOut = (data: Buffer): Decoded<ReserveOutParameters> => {
  if (data.length < RESERVE_OUT_BYTES) return malformed("parameter list is shorter than 24 bytes");
  const flags = data.readUInt8(20);
  return decoded({
    key: data.readBigUInt64BE(0),
    serviceActionKey: data.readBigUInt64BE(8),
    specifyInitiatorPorts: (flags & 0x08) !== 0,
    allTargetPorts: (flags & 0x04) !== 0,
    aptpl: (flags & 0x01) !== 0,
  });
};

const HEADER_BYTES = 8;

const withHeader = (generation: number, bytes: number): Buffer => {
  const data = Buffer.alloc(HEADER_BYTES + bytes);
  data.writeUInt32BE(generation, 0);
  data.writeUInt32BE(bytes, 4);
  return data;
};

/** READ KEYS data. `complete` is false when the allocation length cut the list. */
export interface ReadKeys {
  readonly generation: number;
  readonly keys: readonly bigint[];
}

export const encodeReadKeys = (value: ReadKeys): Buffer => {
  const data = withHeader(value.generation, value.keys.length * 8);
  for (const [index, key] of value.keys.entries()) {
    data.writeBigUInt64BE(key, HEADER_BYTES + index * 8);
  }
  return data;
};

export const decodeReadKeys = (
  data: Buffer,
): Decoded<ReadKeys & { readonly complete: boolean }> => {
  if (data.length < HEADER_BYTES) return malformed("READ KEYS data is shorter than its header");
  const bytes = data.readUInt32BE(4);
  const keys: bigint[] = [];
  for (let at = HEADER_BYTES; at + 8 <= Math.min(data.length, HEADER_BYTES + bytes); at += 8) {
    keys.push(data.readBigUInt64BE(at));
  }
  const complete = bytes === keys.length * 8;
  return decoded({ generation: data.readUInt32BE(0), keys, complete });
};

/** READ RESERVATION data. For the "all registrants" types the key reads as zero (SPC-4 6.15.3.2). */
export interface ReadReservation {
  readonly generation: number;
  readonly reservation: {
    readonly key: bigint;
    readonly scope: number;
    readonly type: ReservationType;
  } | null;
}

export const encodeReadReservation = (value: ReadReservation): Buffer => {
  if (value.reservation === null) return withHeader(value.generation, 0);
  const data = withHeader(value.generation, 16);
  data.writeBigUInt64BE(value.reservation.key, 8);
  data[21] = (value.reservation.scope << 4) | value.reservation.type;
  return data;
};

export const decodeReadReservation = (data: Buffer): Decoded<ReadReservation> => {
  if (data.length < HEADER_BYTES) return malformed("READ RESERVATION data lacks its header");
  const generation = data.readUInt32BE(0);
  const bytes = data.readUInt32BE(4);
  if (bytes === 0) return decoded({ generation, reservation: null });
  if (bytes < 16 || data.length < 24) return malformed("READ RESERVATION data is truncated");
  const type = data.readUInt8(21) & 0x0f;
  if (!isReservationType(type)) return malformed(`unknown reservation type ${type}`);
  const scope = data.readUInt8(21) >>> 4;
  return decoded({ generation, reservation: { key: data.readBigUInt64BE(8), scope, type } });
};

/** REPORT CAPABILITIES data (SPC-4 6.15.4); `types` is null when the device does not list them (TMV = 0). */
export interface ReserveCapabilities {
  readonly compatibleReservationHandling: boolean;
  readonly specifyInitiatorPorts: boolean;
  readonly allTargetPorts: boolean;
  readonly persistThroughPowerLoss: boolean;
  readonly persistActivated: boolean;
  readonly allowCommands: number;
  readonly types: readonly ReservationType[] | null;
}

const typeBits: Readonly<Record<ReservationType, number>> = {
  [ReservationType.writeExclusive]: 0x0200,
  [ReservationType.exclusiveAccess]: 0x0800,
  [ReservationType.writeExclusiveRegistrantsOnly]: 0x2000,
  [ReservationType.exclusiveAccessRegistrantsOnly]: 0x4000,
  [ReservationType.writeExclusiveAllRegistrants]: 0x8000,
  [ReservationType.exclusiveAccessAllRegistrants]: 0x0001,
};

const CAPABILITIES_BYTES = 8;

export const encodeCapabilities = (value: ReserveCapabilities): Buffer => {
  const data = Buffer.alloc(CAPABILITIES_BYTES);
  data.writeUInt16BE(CAPABILITIES_BYTES, 0);
  data[2] =
    (value.compatibleReservationHandling ? 0x10 : 0) |
    (value.specifyInitiatorPorts ? 0x08 : 0) |
    (value.allTargetPorts ? 0x04 : 0) |
    (value.persistThroughPowerLoss ? 0x01 : 0);
  data[3] =
    (value.types === null ? 0 : 0x80) |
    ((value.allowCommands & 7) << 4) |
    (value.persistActivated ? 0x01 : 0);
  const mask = (value.types ?? []).reduce((bits, type) => bits | typeBits[type], 0);
  data.writeUInt16BE(mask, 4);
  return data;
};

export const decodeCapabilities = (data: Buffer): Decoded<ReserveCapabilities> => {
  if (data.length < CAPABILITIES_BYTES) return malformed("REPORT CAPABILITIES data is truncated");
  const general = data.readUInt8(2);
  const state = data.readUInt8(3);
  const mask = data.readUInt16BE(4);
  return decoded({
    compatibleReservationHandling: (general & 0x10) !== 0,
    specifyInitiatorPorts: (general & 0x08) !== 0,
    allTargetPorts: (general & 0x04) !== 0,
    persistThroughPowerLoss: (general & 0x01) !== 0,
    persistActivated: (state & 0x01) !== 0,
    allowCommands: (state >>> 4) & 7,
    types:
      (state & 0x80) === 0
        ? null
        : Object.values(ReservationType).filter((type) => (mask & typeBits[type]) !== 0),
  });
};

/** An iSCSI initiator port: the node's name and the session's ISID as twelve hexadecimal digits. */
export interface InitiatorPort {
  readonly name: string;
  readonly isid: string;
}

const ISCSI_PROTOCOL = 0x05;
const NAME_AND_ISID = 0x40;
const SEPARATOR = ",i,0x";
/** RFC 7143 4.2.7.1 limits an iSCSI name to 223 bytes. */
const TRANSPORT_ID_MAX = 4 + 256;

/** The TransportID of an iSCSI initiator port with its ISID (SPC-4 7.6.4.6, format code 01b). */
export const encodeTransportId = (port: InitiatorPort): Buffer => {
  const text = Buffer.from(`${port.name}${SEPARATOR}${port.isid}\0`, "utf8");
  // The additional length is a multiple of four and at least 20 (SPC-4 7.6.4.6).
  const bytes = Math.max(20, Math.ceil(text.length / 4) * 4);
  if (4 + bytes > TRANSPORT_ID_MAX) throw new RangeError("initiator name is too long");
  const data = Buffer.alloc(4 + bytes);
  data[0] = NAME_AND_ISID | ISCSI_PROTOCOL;
  data.writeUInt16BE(bytes, 2);
  text.copy(data, 4);
  return data;
};

export const decodeTransportId = (data: Buffer): Decoded<InitiatorPort> => {
  if (data.length < 4 || data.length > TRANSPORT_ID_MAX) return malformed("TransportID length");
  if (data[0] !== (NAME_AND_ISID | ISCSI_PROTOCOL)) {
    return malformed("TransportID is not an iSCSI name with ISID");
  }
  const bytes = data.readUInt16BE(2);
  if (4 + bytes > data.length) return malformed("TransportID is truncated");
  const end = data.indexOf(0, 4);
  if (end < 0 || end >= 4 + bytes) return malformed("TransportID lacks its terminating zero");
  const text = data.toString("utf8", 4, end);
  const at = text.indexOf(SEPARATOR);
  const isid = text.slice(at + SEPARATOR.length).toLowerCase();
  if (at < 1 || !/^[0-9a-f]{12}$/.test(isid)) return malformed("TransportID lacks an ISID");
  return decoded({ name: text.slice(0, at), isid });
};

/** One registration as READ FULL STATUS shows it (SPC-4 6.15.5); scope and type only for holders. */
export interface FullStatusEntry {
  readonly key: bigint;
  readonly allTargetPorts: boolean;
  readonly held: { readonly scope: number; readonly type: ReservationType } | null;
  readonly targetPort: number;
  readonly initiator: InitiatorPort;
}

export interface ReadFullStatus {
  readonly generation: number;
  readonly entries: readonly FullStatusEntry[];
}

const ENTRY_BYTES = 24;
/** A bound for what an initiator reads from a target. */
export const FULL_STATUS_ENTRIES_MAX = 1024;

export const encodeFullStatus = (value: ReadFullStatus): Buffer => {
  const entries = value.entries.map((entry) => {
    const transportId = encodeTransportId(entry.initiator);
    const data = Buffer.alloc(ENTRY_BYTES);
    data.writeBigUInt64BE(entry.key, 0);
    data[12] = (entry.allTargetPorts ? 0x02 : 0) | (entry.held === null ? 0 : 0x01);
    if (entry.held !== null) data[13] = (entry.held.scope << 4) | entry.held.type;
    data.writeUInt16BE(entry.targetPort, 18);
    data.writeUInt32BE(transportId.length, 20);
    return Buffer.concat([data, transportId]);
  });
  const header = withHeader(value.generation, 0);
  const body = Buffer.concat(entries);
  header.writeUInt32BE(body.length, 4);
  return Buffer.concat([header, body]);
};

const decodeEntry = (data: Buffer): Decoded<FullStatusEntry> => {
  const initiator = decodeTransportId(data.subarray(ENTRY_BYTES));
  if (!initiator.ok) return initiator;
  const type = data.readUInt8(13) & 0x0f;
  const isHolder = (data.readUInt8(12) & 0x01) !== 0;
  if (isHolder && !isReservationType(type)) return malformed(`unknown reservation type ${type}`);
  const scope = data.readUInt8(13) >>> 4;
  return decoded({
    key: data.readBigUInt64BE(0),
    allTargetPorts: (data.readUInt8(12) & 0x02) !== 0,
    held: isHolder && isReservationType(type) ? { scope, type } : null,
    targetPort: data.readUInt16BE(18),
    initiator: initiator.value,
  });
};

export const decodeFullStatus = (
  data: Buffer,
): Decoded<ReadFullStatus & { readonly complete: boolean }> => {
  if (data.length < HEADER_BYTES) return malformed("READ FULL STATUS data lacks its header");
  const bytes = data.readUInt32BE(4);
  const end = Math.min(data.length, HEADER_BYTES + bytes);
  const entries: FullStatusEntry[] = [];
  let at = HEADER_BYTES;
  while (at + ENTRY_BYTES <= end) {
    const next = at + ENTRY_BYTES + data.readUInt32BE(at + 20);
    if (next > end) break;
    const entry = decodeEntry(data.subarray(at, next));
    if (!entry.ok) return entry;
    if (entries.length === FULL_STATUS_ENTRIES_MAX) return malformed("too many registrations");
    entries.push(entry.value);
    at = next;
  }
  return decoded({
    generation: data.readUInt32BE(0),
    entries,
    complete: at === HEADER_BYTES + bytes,
  });
};
