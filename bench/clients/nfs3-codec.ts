/**
 * NFS version 3 (RFC 1813), the procedures that the bench's client uses: arguments and results. Pure and bounded; malformed bytes throw
 * `XdrError`.
 */
import { XdrError, XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";

const program = 100003;
const version = 3;
const procedure = (number: number) => ({ program, version, procedure: number });
export const nfsLookup = procedure(3);
export const nfsRead = procedure(6);
export const nfsWrite = procedure(7);
export const nfsCreate = procedure(8);
export const nfsRemove = procedure(12);
export const nfsCommit = procedure(21);

const fileHandleBytesMax = 64;
const verifierBytes = 8;
/** fattr3 (2.5): five 32-bit words, then 64-bit size, used, rdev, fsid, fileid, and three times. */
const attributesBytes = 84;
/** wcc_attr (2.6): size and two times. */
const weakAttributesBytes = 24;
const readBytesMax = 1024 * 1024;

/** stable_how (3.3.7). */
export const stableHow = { unstable: 0, dataSync: 1, fileSync: 2 } as const;

const statusNames: Record<number, string> = {
  0: "NFS3_OK",
  1: "NFS3ERR_PERM",
  2: "NFS3ERR_NOENT",
  5: "NFS3ERR_IO",
  13: "NFS3ERR_ACCES",
  17: "NFS3ERR_EXIST",
  20: "NFS3ERR_NOTDIR",
  28: "NFS3ERR_NOSPC",
  30: "NFS3ERR_ROFS",
  70: "NFS3ERR_STALE",
  10001: "NFS3ERR_BADHANDLE",
  10006: "NFS3ERR_SERVERFAULT",
  10008: "NFS3ERR_JUKEBOX",
};

/** nfsstat3 (2.6) in words. */
export function statusName(status: number): string {
  return statusNames[status] ?? `nfsstat3 ${status}`;
}

export type NfsResult<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly status: string };

export function encodeLookup(directory: Buffer, name: string): Buffer {
  return new XdrWriter().opaque(directory).string(name).finish();
}

export function encodeRead(file: Buffer, offset: number, count: number): Buffer {
  return new XdrWriter().opaque(file).uint64(BigInt(offset)).uint32(count).finish();
}

export function encodeWrite(file: Buffer, offset: number, data: Buffer, stable: number): Buffer {
  return new XdrWriter(data.length + 128)
    .opaque(file)
    .uint64(BigInt(offset))
    .uint32(data.length)
    .uint32(stable)
    .opaque(data)
    .finish();
}

/** CREATE UNCHECKED (3.3.8): an existing file is success and stays as it is, so that a repetition is harmless. */
export function encodeCreate(directory: Buffer, name: string): Buffer {
  const writer = new XdrWriter().opaque(directory).string(name).uint32(0);
  const mode = 0o644;
  // sattr3: mode set; uid, gid, size, atime and mtime left alone.
  return writer.uint32(1).uint32(mode).uint32(0).uint32(0).uint32(0).uint32(0).uint32(0).finish();
}

/** diropargs3 (2.6), as for LOOKUP. */
export function encodeRemove(directory: Buffer, name: string): Buffer {
  return encodeLookup(directory, name);
}

/** The whole file (3.3.21: offset and count 0). */
export function encodeCommit(file: Buffer): Buffer {
  return new XdrWriter().opaque(file).uint64(0n).uint32(0).finish();
}

export function decodeLookup(body: Buffer): NfsResult<Buffer> {
  return decode(body, (reader) => reader.opaque(fileHandleBytesMax));
}

export function decodeRead(body: Buffer): NfsResult<{ data: Buffer; endOfFile: boolean }> {
  return decode(body, (reader) => {
    skipAttributes(reader);
    const count = reader.uint32();
    const endOfFile = reader.bool();
    const data = reader.opaque(readBytesMax);
    if (data.length !== count) throw new XdrError(`READ: count ${count}, ${data.length} bytes`);
    return { data, endOfFile };
  });
}

export function decodeWrite(
  body: Buffer,
): NfsResult<{ count: number; committed: number; verifier: Buffer }> {
  return decode(body, (reader) => {
    skipWeakData(reader);
    const count = reader.uint32();
    const committed = reader.uint32();
    if (committed > stableHow.fileSync) throw new XdrError(`WRITE: stable_how ${committed}`);
    return { count, committed, verifier: reader.fixed(verifierBytes) };
  });
}

/** The new file's handle, or undefined where the server leaves that to a LOOKUP. */
export function decodeCreate(body: Buffer): NfsResult<Buffer | undefined> {
  return decode(body, (reader) => (reader.bool() ? reader.opaque(fileHandleBytesMax) : undefined));
}

export function decodeRemove(body: Buffer): NfsResult<undefined> {
  return decode(body, () => undefined);
}

export function decodeCommit(body: Buffer): NfsResult<Buffer> {
  return decode(body, (reader) => {
    skipWeakData(reader);
    return reader.fixed(verifierBytes);
  });
}

function decode<T>(body: Buffer, read: (reader: XdrReader) => T): NfsResult<T> {
  const reader = new XdrReader(body);
  const status = reader.uint32();
  if (status !== 0) return { ok: false, status: statusName(status) };
  return { ok: true, value: read(reader) };
}

function skipAttributes(reader: XdrReader): void {
  if (reader.bool()) reader.skip(attributesBytes);
}

function skipWeakData(reader: XdrReader): void {
  if (reader.bool()) reader.skip(weakAttributesBytes);
  skipAttributes(reader);
}
