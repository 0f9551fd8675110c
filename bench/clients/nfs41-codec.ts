/**
 * NFS version 4.1 (RFC 8881; the XDR is RFC 5662's): the operations that the bench's stateful client uses, and the COMPOUND that carries
 * them. Pure and bounded; malformed bytes throw `XdrError`.
 */
import { XdrError, type XdrReader, type XdrWriter } from "../../hal/linux/ganesha/xdr.ts";

/** RFC 8881 2.2 and 16.2: a stateid is a sequence number and twelve bytes. */
const otherBytes = 12;
export const sessionIdBytes = 16;
const verifierBytes = 8;
const fileHandleBytesMax = 128;
const opaqueBytesMax = 1024;
const nameBytesMax = 255;
const dataBytesMax = 1024 * 1024;
const bitmapWordsMax = 8;

/** stable_how4 (18.32). */
export const stableHow = { unstable: 0, dataSync: 1, fileSync: 2 } as const;
/** OPEN4_SHARE_ACCESS and _DENY (18.16); no delegation is wanted. */
export const share = { none: 0, read: 1, write: 2, both: 3, wantNoDelegation: 0x0400 } as const;
/** nfs_lock_type4 (18.10). */
export const lockType = { read: 1, write: 2 } as const;
/** To the end of the file, however long (18.10.3). */
export const toTheEnd = 2n ** 64n - 1n;
/** EXCHGID4_FLAG_CONFIRMED_R (18.35): the server knew this client, and its state is there. */
export const confirmedFlag = 0x8000_0000;

/** What is open or locked, as the server calls it. */
export type StateId = Buffer;
/** The one that no server takes for anything (8.2.3): sequence number of all ones, the rest zero. */
export const invalidState: StateId = Buffer.concat([
  Buffer.alloc(4, 0xff),
  Buffer.alloc(otherBytes),
]);

/** One operation of a COMPOUND: its arguments, and how its result is read. */
export interface Op<T> {
  readonly number: number;
  readonly encode: (writer: XdrWriter) => void;
  readonly decode: (reader: XdrReader) => T;
}

const nothing = () => undefined;
const op = <T>(number: number, encode: Op<T>["encode"], decode: Op<T>["decode"]): Op<T> => ({
  number,
  encode,
  decode,
});

/** 18.35: client owner and verifier, no state protection, no implementation id. */
export function exchangeId(owner: string, verifier: Uint8Array) {
  return op(
    42,
    (writer) => writer.fixed(verifier).string(owner).uint32(0).uint32(0).uint32(0),
    (reader) => {
      const clientId = reader.uint64();
      const sequence = reader.uint32();
      const flags = reader.uint32();
      const how = reader.uint32();
      if (how !== 0) throw new XdrError(`EXCHANGE_ID: state protection ${how} was not asked for`);
      reader.uint64();
      reader.opaque(opaqueBytesMax);
      reader.opaque(opaqueBytesMax);
      skipImplementation(reader);
      return { clientId, sequence, isConfirmed: flags >= confirmedFlag };
    },
  );
}

/** nfs_impl_id4<1>: domain, name, date. */
function skipImplementation(reader: XdrReader): void {
  const count = reader.uint32();
  if (count > 1) throw new XdrError(`EXCHANGE_ID: ${count} implementations`);
  if (count === 0) return;
  reader.opaque(opaqueBytesMax);
  reader.opaque(opaqueBytesMax);
  reader.skip(12);
}

export interface SessionGranted {
  readonly id: Buffer;
  /** Requests that may be under way at once. */
  readonly slots: number;
}

/** 18.36: a fore channel of so many slots; no callbacks, so the back channel is one that nobody uses. */
export function createSession(clientId: bigint, sequence: number, slots: number) {
  // Header padding, largest request, response and cached response, operations, requests, no RDMA.
  const channel = (writer: XdrWriter, requests: number) => {
    for (const word of [0, dataBytesMax + 4096, dataBytesMax + 4096, 4096, 8, requests, 0])
      writer.uint32(word);
  };
  return op(
    43,
    (writer) => {
      writer.uint64(clientId).uint32(sequence).uint32(0);
      channel(writer, slots);
      channel(writer, 1);
      writer.uint32(0x4000_0000).uint32(1).uint32(0);
    },
    (reader): SessionGranted => {
      const id = Buffer.from(reader.fixed(sessionIdBytes));
      reader.skip(8);
      const granted = channelSlots(reader);
      channelSlots(reader);
      return { id, slots: Math.min(slots, granted) };
    },
  );
}

function channelSlots(reader: XdrReader): number {
  reader.skip(20);
  const requests = reader.uint32();
  const rdma = reader.uint32();
  if (rdma > 1) throw new XdrError(`CREATE_SESSION: ${rdma} RDMA depths`);
  reader.skip(4 * rdma);
  if (requests === 0) throw new XdrError("CREATE_SESSION: a channel without slots");
  return requests;
}

/** 18.46: the first operation of every COMPOUND of a session. */
export function sequence(session: Buffer, slot: number, number: number, isCached: boolean) {
  return op(
    53,
    (writer) =>
      writer.fixed(session).uint32(number).uint32(slot).uint32(slot).uint32(Number(isCached)),
    (reader) => {
      const answered = Buffer.from(reader.fixed(sessionIdBytes));
      const [sequence, slot] = [reader.uint32(), reader.uint32()];
      reader.skip(12);
      return { session: answered, sequence, slot };
    },
  );
}

/** 18.51, for everything. */
export const reclaimComplete = () => op(58, (writer) => writer.uint32(0), nothing);
/** 18.37. */
export const destroySession = (session: Buffer) =>
  op(44, (writer) => writer.fixed(session), nothing);
/** 18.50. */
export const destroyClientId = (clientId: bigint) =>
  op(57, (writer) => writer.uint64(clientId), nothing);

/** 18.21 */
export const putRootHandle = () => op(24, nothing, nothing);
/** 18.19 */
export const putHandle = (handle: Buffer) => op(22, (writer) => writer.opaque(handle), nothing);
/** 18.13 */
export const lookup = (name: string) => op(15, (writer) => writer.string(nameOf(name)), nothing);
/** 18.8 */
export const getHandle = () =>
  op(10, nothing, (reader) => Buffer.from(reader.opaque(fileHandleBytesMax)));
/** 18.25 */
export const remove = (name: string) => op(28, (writer) => writer.string(nameOf(name)), skipChange);

function nameOf(name: string): string {
  if (Buffer.byteLength(name) > nameBytesMax) throw new XdrError(`a name of ${name.length} bytes`);
  return name;
}

/** Whose opens or locks these are: a client and a name of its own. */
export interface Owner {
  readonly clientId: bigint;
  readonly name: string;
}

export interface Access {
  readonly access: number;
  readonly deny: number;
}

/** 18.16 by name in the current directory; with `isCreated`, UNCHECKED: what is there stays as it is. */
export function open(name: string, owner: Owner, mode: Access, isCreated: boolean) {
  return op(
    18,
    (writer) => {
      beginOpen(writer, owner, mode);
      if (isCreated) {
        // The mode (attribute 33, in the second word) and nothing else.
        writer.uint32(1).uint32(0);
        writer.uint32(2).uint32(0).uint32(2).uint32(4).uint32(0o644);
      } else {
        writer.uint32(0);
      }
      writer.uint32(0).string(nameOf(name));
    },
    readOpened,
  );
}

/** CLAIM_PREVIOUS (18.16.3): the current file, which was open before the server was another. */
export function reclaimOpen(owner: Owner, mode: Access) {
  return op(
    18,
    (writer) => {
      beginOpen(writer, owner, mode);
      writer.uint32(0).uint32(1).uint32(0);
    },
    readOpened,
  );
}

function beginOpen(writer: XdrWriter, owner: Owner, { access, deny }: Access): void {
  writer
    .uint32(0)
    .uint32(access | share.wantNoDelegation)
    .uint32(deny);
  writer.uint64(owner.clientId).string(owner.name);
}

function readOpened(reader: XdrReader): StateId {
  const opened = readStateId(reader);
  skipChange(reader);
  reader.uint32();
  const words = reader.uint32();
  if (words > bitmapWordsMax) throw new XdrError(`OPEN: attributes of ${words} words`);
  reader.skip(4 * words);
  const delegation = reader.uint32();
  if (delegation === 3) skipReason(reader);
  else if (delegation !== 0) throw new XdrError(`OPEN: delegation ${delegation}, none was wanted`);
  return opened;
}

/** open_none_delegation4: contention and want of resources say whether they will tell when it is over. */
function skipReason(reader: XdrReader): void {
  const why = reader.uint32();
  if (why === 1 || why === 2) reader.bool();
}

/** 18.2 */
export const close = (state: StateId) =>
  op(4, (writer) => writer.uint32(0).fixed(state), readStateId);

export interface Range {
  readonly type: number;
  readonly offset: bigint;
  readonly length: bigint;
}

/** 18.10, for a lock owner that has no lock in this file yet. */
export function lock(opened: StateId, owner: Owner, range: Range, isReclaim: boolean) {
  return op(
    12,
    (writer) => {
      writer.uint32(range.type).uint32(Number(isReclaim));
      writer.uint64(range.offset).uint64(range.length);
      writer.uint32(1).uint32(0).fixed(opened).uint32(0);
      writer.uint64(owner.clientId).string(owner.name);
    },
    readStateId,
  );
}

/** 18.12 */
export const unlock = (locked: StateId, range: Range) =>
  op(
    14,
    (writer) => {
      writer.uint32(range.type).uint32(0).fixed(locked);
      writer.uint64(range.offset).uint64(range.length);
    },
    readStateId,
  );

/** 18.22 */
export const read = (state: StateId, offset: number, count: number) =>
  op(
    25,
    (writer) => writer.fixed(state).uint64(BigInt(offset)).uint32(count),
    (reader) => {
      const endOfFile = reader.bool();
      const data = reader.opaque(dataBytesMax);
      if (data.length > count) throw new XdrError(`READ: ${data.length} bytes of ${count}`);
      return { endOfFile, data };
    },
  );

/** 18.32 */
export const write = (state: StateId, offset: number, data: Buffer, stable: number) =>
  op(
    38,
    (writer) => writer.fixed(state).uint64(BigInt(offset)).uint32(stable).opaque(data),
    (reader) => {
      const count = reader.uint32();
      const committed = reader.uint32();
      if (committed > stableHow.fileSync) throw new XdrError(`WRITE: stable_how ${committed}`);
      if (count > data.length) throw new XdrError(`WRITE: ${count} bytes of ${data.length}`);
      return { count, committed, verifier: Buffer.from(reader.fixed(verifierBytes)) };
    },
  );

/** 18.3, the whole file. */
export const commit = () =>
  op(
    5,
    (writer) => writer.uint64(0n).uint32(0),
    (reader) => Buffer.from(reader.fixed(verifierBytes)),
  );

/** Its sequence number is 0, which means the newest (8.2.2): nobody here keeps more than that. */
function readStateId(reader: XdrReader): StateId {
  reader.uint32();
  return Buffer.concat([Buffer.alloc(4), reader.fixed(otherBytes)]);
}

/** change_info4 (3.3.1): whether they were read in one step, and the change attribute before and after. */
function skipChange(reader: XdrReader): undefined {
  reader.bool();
  reader.skip(16);
}
