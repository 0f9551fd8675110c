/**
 * ONC RPC version 2 (RFC 5531) over TCP: call and reply headers and record marking (section 11), as a client sees them.
 *
 * Glossary: *record*: one call or reply, sent as one or more fragments, each with a 4-byte mark (last-fragment bit and length).
 * *xid*: names a call; a retransmission keeps it, so that the server's duplicate request cache can recognise it.
 *
 * Obligations: pure; bounded. A reply that cannot be understood is an error value of that xid, a stream that cannot
 * be framed throws `XdrError`: the connection is then useless and must be closed.
 */
import { XdrError, XdrReader, XdrWriter } from "./xdr.ts";

/** No record this driver or the bench's clients expect is larger: 1 MiB of file data and its headers. */
export const recordBytesMax = 1024 * 1024 + 4096;
/** RFC 5531 8.2: the body of an authenticator has at most 400 bytes. */
const authBodyBytesMax = 400;
export const lastFragment = 0x8000_0000;
const messageCall = 0;
const messageReply = 1;
const rpcVersion = 2;
const authNone = 0;
const authSys = 1;

/** What a call is for: the program, its version, and the procedure. */
export interface RpcProcedure {
  readonly program: number;
  readonly version: number;
  readonly procedure: number;
}

/** RFC 5531 appendix A: the identity that AUTH_SYS carries. */
export interface AuthSys {
  readonly machine: string;
  readonly uid: number;
  readonly gid: number;
}

export type RpcReply =
  | { readonly xid: number; readonly ok: true; readonly body: Buffer }
  | { readonly xid: number; readonly ok: false; readonly reason: string };

/** One call as a single-fragment record, mark included. `args` are the procedure's arguments, XDR-encoded. */
export function encodeCall(
  xid: number,
  target: RpcProcedure,
  identity: AuthSys,
  args: Uint8Array,
): Buffer {
  const credential = new XdrWriter(64)
    .uint32(0)
    .string(identity.machine)
    .uint32(identity.uid)
    .uint32(identity.gid)
    .uint32(0)
    .finish();
  const header = new XdrWriter(128)
    .uint32(0)
    .uint32(xid)
    .uint32(messageCall)
    .uint32(rpcVersion)
    .uint32(target.program)
    .uint32(target.version)
    .uint32(target.procedure)
    .uint32(authSys)
    .opaque(credential)
    .uint32(authNone)
    .uint32(0)
    .finish();
  const record = Buffer.concat([header, args]);
  const length = record.length - 4;
  if (length > recordBytesMax)
    throw new XdrError(`call: ${length} bytes, at most ${recordBytesMax}`);
  record.writeUInt32BE(lastFragment + length, 0);
  return record;
}

const acceptStatus = [
  "success",
  "program unavailable",
  "program version mismatch",
  "procedure unavailable",
  "garbage arguments",
  "system error",
];

/** RFC 5531 section 9: a reply message. Throws `XdrError` when it is not one. */
export function decodeReply(record: Buffer): RpcReply {
  const reader = new XdrReader(record);
  const xid = reader.uint32();
  const type = reader.uint32();
  if (type !== messageReply) throw new XdrError(`message type ${type} where a reply was expected`);
  const denied = reader.uint32();
  if (denied === 1) {
    return { xid, ok: false, reason: reader.uint32() === 0 ? "RPC version" : "authentication" };
  }
  if (denied !== 0) throw new XdrError(`reply status ${denied}`);
  reader.uint32();
  reader.opaque(authBodyBytesMax);
  const status = reader.uint32();
  if (status !== 0) return { xid, ok: false, reason: acceptStatus[status] ?? `status ${status}` };
  return { xid, ok: true, body: reader.fixed(reader.remaining) };
}

/** Cuts a TCP stream into records. Feed it every chunk; it returns the records that chunk completed. */
export class RecordReader {
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #fragments: Buffer[] = [];
  #fragmentBytes = 0;
  readonly #bytesMax: number;

  /** `bytesMax`: of one record. */
  constructor(bytesMax: number = recordBytesMax) {
    this.#bytesMax = bytesMax;
  }

  push(chunk: Buffer): Buffer[] {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    const records: Buffer[] = [];
    while (this.#pendingBytes >= 4) {
      const mark = this.#peekMark();
      const length = mark % lastFragment;
      // A stream of empty fragments would never make a record and never end.
      if (length === 0 && mark < lastFragment) throw new XdrError("empty fragment");
      const total = this.#fragmentBytes + length;
      if (total > this.#bytesMax) {
        throw new XdrError(`record of ${total} bytes, at most ${this.#bytesMax}`);
      }
      if (this.#pendingBytes < 4 + length) break;
      this.#consume(4);
      this.#fragments.push(this.#consume(length));
      this.#fragmentBytes = total;
      if (mark < lastFragment) continue;
      const only = this.#fragments.length === 1 ? this.#fragments[0] : undefined;
      records.push(only ?? Buffer.concat(this.#fragments));
      this.#fragments = [];
      this.#fragmentBytes = 0;
    }
    return records;
  }

  #peekMark(): number {
    let mark = 0;
    let seen = 0;
    for (const piece of this.#pending) {
      for (const byte of piece) {
        mark = mark * 256 + byte;
        seen += 1;
        if (seen === 4) return mark;
      }
    }
    throw new Error("peekMark was called with fewer than four bytes pending");
  }

  #consume(count: number): Buffer {
    const first = this.#pending[0];
    this.#pendingBytes -= count;
    if (first !== undefined && first.length > count) {
      this.#pending[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const all = Buffer.concat(this.#pending);
    this.#pending = all.length > count ? [all.subarray(count)] : [];
    return all.subarray(0, count);
  }
}
