/**
 * The proof that a file service answers and that its exports are there: NFS NULL on each of its addresses, then MOUNT3 MNT
 * of each export (RFC 1813 5.2.1). Run where the service runs, before the addresses are announced. Whether it goes on
 * answering is asked by `health.ts`.
 */
import { done, failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { ProgramPlace } from "../place/programs.ts";
import { untilAnswered } from "../until-answered.ts";
import type { FileService } from "./config.ts";
import type { AuthSys, RpcProcedure } from "./rpc.ts";
import { connectRpc, type RpcPlace } from "./rpc-connection.ts";
import { XdrReader, XdrWriter } from "./xdr.ts";

const nfsNull: RpcProcedure = { program: 100003, version: 3, procedure: 0 };
const nfsFsstat: RpcProcedure = { program: 100003, version: 3, procedure: 18 };
const mountMnt: RpcProcedure = { program: 100005, version: 3, procedure: 1 };
/** RFC 1813 2.4: a version 3 file handle has at most 64 bytes. */
const fileHandleBytesMax = 64;
const identity: AuthSys = { machine: "dyad", uid: 0, gid: 0 };
/**
 * Patience with one attempt, doubled when it was not enough. A server takes connections before it serves them, and one that comes at the wrong moment
 * may never be served: a whole start must not wait for it.
 */
const attemptMsFirst = 200;

/** How to end a probe early: `stillUseful` is asked after each attempt. `place`: where the service is. */
export interface ProbeOptions {
  readonly deadlineMs: number;
  readonly place: ProgramPlace;
  readonly stillUseful: () => boolean;
}

/** What a service has proved. */
export interface Proof {
  readonly tookMs: number;
  /** File handle of the root of each export, in the order of the service's exports. */
  readonly handles: readonly Buffer[];
}

/**
 * Asks again and again until the service answers for every export, or until `deadlineMs` have passed.
 * Faults: `serviceSilent` (with the last reason), `serviceFailed` (no longer useful).
 */
export async function probeService(
  service: FileService,
  { deadlineMs, stillUseful, place }: ProbeOptions,
): Promise<Outcome<Proof>> {
  const operation = `probe ${service.addresses.join(", ")}`;
  const asking = { operation, deadlineMs, attemptMsFirst, stillUseful };
  const proved = await untilAnswered(asking, (timeoutMs) => probeOnce(service, place, timeoutMs));
  return proved.ok ? good({ tookMs: proved.value.tookMs, handles: proved.value.answer }) : proved;
}

async function probeOnce(
  service: FileService,
  place: ProgramPlace,
  timeoutMs: number,
): Promise<Outcome<Buffer[]>> {
  const { addresses, port, mountdPort } = service;
  const at = (host: string): RpcPlace => ({ host, port, socket: place.socket });
  for (const address of addresses) {
    const nfs = await withConnection(at(address), timeoutMs, (call) =>
      call(nfsNull, Buffer.alloc(0)),
    );
    if (!nfs.ok) return nfs;
  }
  const mount = { ...at(addresses[0] ?? ""), port: mountdPort };
  return await withConnection(mount, timeoutMs, async (call) => {
    const handles: Buffer[] = [];
    for (const each of service.exports) {
      const reply = await call(mountMnt, new XdrWriter().string(each.pseudo).finish());
      if (!reply.ok) return reply;
      const handle = decodeMount(reply.value, each.pseudo);
      if (!handle.ok) return handle;
      handles.push(handle.value);
    }
    return good(handles);
  });
}

/** Answers that say that an export is not there any more (RFC 1813 2.6): I/O error, stale or bad handle, server fault. */
const brokenStatus: ReadonlySet<number> = new Set([5, 70, 10001, 10006]);

/**
 * Asks once, at one address and on a connection of its own, for the state of the file system of each export (RFC 1813 3.3.18): that takes every
 * part of the service, from its listener to statfs(2), and no disk. Faults: `serviceSilent`, `refused`, `ioError`, `badInput`.
 */
export function askHealth(
  { port }: FileService,
  address: string,
  handles: readonly Buffer[],
  place: ProgramPlace,
  timeoutMs: number,
): Promise<Outcome> {
  const server = { host: address, port, socket: place.socket };
  return withConnection(server, timeoutMs, async (call) => {
    const replies = await Promise.all(
      handles.map((handle) => call(nfsFsstat, new XdrWriter().opaque(handle).finish())),
    );
    for (const reply of replies) {
      const known = reply.ok ? statusOf(reply.value) : reply;
      if (!known.ok) return known;
      if (brokenStatus.has(known.value))
        return failed("refused", "FSSTAT", `status ${known.value}`);
    }
    return done;
  });
}

/** The status with which every result of NFS version 3 begins. */
function statusOf(body: Buffer): Outcome<number> {
  try {
    return good(new XdrReader(body).uint32());
  } catch (error) {
    return failed("badInput", "FSSTAT", "malformed reply", error);
  }
}

/** RFC 1813 5.2.1: the handle of an export, or the status that refused it as a fault. */
export function decodeMount(body: Buffer, exportPath: string): Outcome<Buffer> {
  const operation = `MNT ${exportPath}`;
  try {
    const reader = new XdrReader(body);
    const status = reader.uint32();
    if (status !== 0) return failed("refused", operation, `mount status ${status}`);
    return good(reader.opaque(fileHandleBytesMax));
  } catch (error) {
    return failed("badInput", operation, "malformed reply", error);
  }
}

type Call = (target: RpcProcedure, args: Uint8Array) => Promise<Outcome<Buffer>>;

async function withConnection<T>(
  server: RpcPlace,
  timeoutMs: number,
  use: (call: Call) => Promise<Outcome<T>>,
): Promise<Outcome<T>> {
  const opened = await connectRpc(server, identity, timeoutMs);
  if (!opened.ok) return opened;
  let xid = 0;
  const outcome = await use((target, args) => opened.value.call(++xid, target, args, timeoutMs));
  opened.value.close();
  return outcome;
}
