/** COMPOUND of NFS version 4.1 (RFC 8881 16.2): operations in, their results out; and statuses in words. Pure and bounded. */
import { XdrError, XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";
import type { Op } from "./nfs41-codec.ts";

export const compoundProcedure = { program: 100003, version: 4, procedure: 1 };
const minorVersion = 1;
const tagBytesMax = 64;

const statusNames: Record<number, string> = {
  0: "NFS4_OK",
  1: "NFS4ERR_PERM",
  2: "NFS4ERR_NOENT",
  5: "NFS4ERR_IO",
  13: "NFS4ERR_ACCESS",
  17: "NFS4ERR_EXIST",
  28: "NFS4ERR_NOSPC",
  30: "NFS4ERR_ROFS",
  70: "NFS4ERR_STALE",
  10001: "NFS4ERR_BADHANDLE",
  10006: "NFS4ERR_SERVERFAULT",
  10008: "NFS4ERR_DELAY",
  10010: "NFS4ERR_DENIED",
  10011: "NFS4ERR_EXPIRED",
  10012: "NFS4ERR_LOCKED",
  10013: "NFS4ERR_GRACE",
  10015: "NFS4ERR_SHARE_DENIED",
  10022: "NFS4ERR_STALE_CLIENTID",
  10023: "NFS4ERR_STALE_STATEID",
  10024: "NFS4ERR_OLD_STATEID",
  10025: "NFS4ERR_BAD_STATEID",
  10033: "NFS4ERR_NO_GRACE",
  10034: "NFS4ERR_RECLAIM_BAD",
  10035: "NFS4ERR_RECLAIM_CONFLICT",
  10038: "NFS4ERR_OPENMODE",
  10047: "NFS4ERR_ADMIN_REVOKED",
  10052: "NFS4ERR_BADSESSION",
  10053: "NFS4ERR_BADSLOT",
  10054: "NFS4ERR_COMPLETE_ALREADY",
  10055: "NFS4ERR_CONN_NOT_BOUND_TO_SESSION",
  10063: "NFS4ERR_SEQ_MISORDERED",
  10068: "NFS4ERR_RETRY_UNCACHED_REP",
  10074: "NFS4ERR_CLIENTID_BUSY",
  10076: "NFS4ERR_SEQ_FALSE_RETRY",
  10078: "NFS4ERR_DEADSESSION",
};

/** nfsstat4 (15.1) in words. */
export function statusName(status: number): string {
  return statusNames[status] ?? `nfsstat4 ${status}`;
}

type Ops = readonly Op<unknown>[];
type Values<Of extends Ops> = {
  readonly [Key in keyof Of]: Of[Key] extends Op<infer Value> ? Value : never;
};

/** The results of all operations, or the status of the one that ended them, and which it was. */
export type CompoundResult<Of extends Ops> =
  | { readonly ok: true; readonly values: Values<Of> }
  | { readonly ok: false; readonly status: string; readonly at: number };

export function encodeCompound(ops: Ops): Buffer {
  const writer = new XdrWriter().string("").uint32(minorVersion).uint32(ops.length);
  for (const { number, encode } of ops) encode(writer.uint32(number));
  return writer.finish();
}

/** Throws `XdrError` when it is not an answer to these operations. */
export function decodeCompound<const Of extends Ops>(body: Buffer, ops: Of): CompoundResult<Of> {
  const reader = new XdrReader(body);
  const overall = reader.uint32();
  reader.opaque(tagBytesMax);
  const count = reader.uint32();
  if (count > ops.length) throw new XdrError(`COMPOUND: ${count} results of ${ops.length}`);
  const values: unknown[] = [];
  for (const [at, { number, decode }] of ops.slice(0, count).entries()) {
    const answered = reader.uint32();
    if (answered !== number) throw new XdrError(`COMPOUND: operation ${answered} for ${number}`);
    const status = reader.uint32();
    // What comes with a failure (the lock in the way, say) is of no interest, and nothing comes behind it.
    if (status !== 0) return { ok: false, status: statusName(status), at };
    values.push(decode(reader));
  }
  if (overall !== 0) return { ok: false, status: statusName(overall), at: count };
  if (count < ops.length) throw new XdrError(`COMPOUND: ${count} results of ${ops.length}`);
  if (reader.remaining > 0) throw new XdrError(`COMPOUND: ${reader.remaining} bytes too many`);
  return { ok: true, values: values as Values<Of> };
}
