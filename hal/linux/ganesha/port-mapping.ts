/**
 * What a port mapper answers (RFC 1833, versions 2 to 4 of program 100000), for a table of registrations that never changes. Pure.
 *
 * Obligations: bounded; whatever the bytes, an answer or none, never an exception. Only questions are answered: nobody registers here.
 */
import { lastFragment, recordBytesMax } from "./rpc.ts";
import { XdrError, XdrReader, XdrWriter } from "./xdr.ts";

const portMapper = 100000;
/** RFC 5665 5.4.1: network ids; with them the protocol numbers of version 2. */
const protocolOf = { tcp: 6, udp: 17 } as const;
type Transport = keyof typeof protocolOf;

/** RFC 5531 9: `accept_stat` and `reject_stat`. */
const accepted = {
  success: 0,
  programUnavailable: 1,
  versionMismatch: 2,
  procedureUnavailable: 3,
  garbage: 4,
};
const messageReply = 1;
const rpcVersion = 2;
const versions = { lowest: 2, highest: 4 } as const;
/** RFC 5531 8.2. */
const authBodyBytesMax = 400;
const stringBytesMax = 256;

/** A program and the port at which it listens. */
export interface Registration {
  readonly program: number;
  readonly version: number;
  readonly transport: Transport;
  readonly port: number;
}

/** The mapper itself, which clients look up as well. */
export const ownRegistrations: readonly Registration[] = [2, 3, 4].flatMap((version) =>
  (["tcp", "udp"] as const).map((transport) => ({
    program: portMapper,
    version,
    transport,
    port: 111,
  })),
);

export interface Question {
  /** The address at which it was asked: part of the answers of versions 3 and 4. */
  readonly address: string;
  readonly registrations: readonly Registration[];
  /** The sender's address may be forged: nothing is answered that is many times as long as the question. */
  readonly datagram?: boolean;
}

/** The reply message to a call message, without record mark; undefined when it is no call at all. */
export function answerPortMapper(call: Buffer, question: Question): Buffer | undefined {
  let xid = 0;
  try {
    const reader = new XdrReader(call);
    xid = reader.uint32();
    if (reader.uint32() !== 0) return undefined;
    if (reader.uint32() !== rpcVersion) return denied(xid);
    const [program, version, procedure] = [reader.uint32(), reader.uint32(), reader.uint32()];
    for (const _ of ["credential", "verifier"]) {
      reader.uint32();
      reader.opaque(authBodyBytesMax);
    }
    if (program !== portMapper) return reply(xid, accepted.programUnavailable);
    if (version < versions.lowest || version > versions.highest)
      return reply(xid, accepted.versionMismatch, (out) =>
        out.uint32(versions.lowest).uint32(versions.highest),
      );
    return answer(xid, version, procedure, reader, question);
  } catch (error) {
    if (error instanceof XdrError)
      return call.length >= 4 ? reply(xid, accepted.garbage) : undefined;
    throw error;
  }
}

function answer(
  xid: number,
  version: number,
  procedure: number,
  reader: XdrReader,
  { address, registrations, datagram = false }: Question,
): Buffer {
  const { success } = accepted;
  const old = version === versions.lowest;
  switch (procedure) {
    case 0:
      return reply(xid, success);
    // PMAPPROC_GETPORT, RPCBPROC_GETADDR
    case 3: {
      const [program, wanted] = [reader.uint32(), reader.uint32()];
      const transport = old ? reader.uint32() : reader.string(stringBytesMax).replace(/6$/, "");
      const its = registrations.filter(
        (each) => transport === (old ? protocolOf[each.transport] : each.transport),
      );
      const port = portOf(its, program, wanted);
      return reply(xid, success, (out) =>
        old
          ? out.uint32(port ?? 0)
          : out.string(port === undefined ? "" : universal(address, port)),
      );
    }
    // PMAPPROC_DUMP, RPCBPROC_DUMP
    case 4:
      if (datagram) return reply(xid, accepted.procedureUnavailable);
      return reply(xid, success, (out) => {
        for (const each of registrations) {
          out.uint32(1).uint32(each.program).uint32(each.version);
          if (old) out.uint32(protocolOf[each.transport]).uint32(each.port);
          else out.string(each.transport).string(universal(address, each.port)).string("superuser");
        }
        out.uint32(0);
      });
    default:
      return reply(xid, accepted.procedureUnavailable);
  }
}

/** The port of the version that is asked for; like rpcbind, of another version of that program rather than of none. */
function portOf(list: readonly Registration[], program: number, version: number) {
  const its = list.filter((each) => each.program === program);
  return (its.find((each) => each.version === version) ?? its[0])?.port;
}

/** RFC 5665 5.2.3.3: address, then the two bytes of the port, all joined by dots. */
function universal(address: string, port: number): string {
  return `${address}.${port >> 8}.${port & 0xff}`;
}

function reply(xid: number, status: number, body?: (out: XdrWriter) => void): Buffer {
  const out = new XdrWriter().uint32(xid).uint32(messageReply).uint32(0).uint32(0).uint32(0);
  out.uint32(status);
  body?.(out);
  return out.finish();
}

/** MSG_DENIED, RPC_MISMATCH. */
function denied(xid: number): Buffer {
  const out = new XdrWriter().uint32(xid).uint32(messageReply).uint32(1).uint32(0);
  return out.uint32(rpcVersion).uint32(rpcVersion).finish();
}

/** A message as one fragment of a TCP stream (RFC 5531 11). */
export function asRecord(message: Buffer): Buffer {
  if (message.length > recordBytesMax) throw new XdrError(`record of ${message.length} bytes`);
  const mark = Buffer.alloc(4);
  mark.writeUInt32BE(lastFragment + message.length);
  return Buffer.concat([mark, message]);
}
