/**
 * The proof that a file service answers and that its exports are there: NFS NULL on each of its addresses, then MOUNT3 MNT
 * of each export (RFC 1813 5.2.1). Run where the service runs, before the addresses are announced, and later as a health check.
 */
import { performance } from "node:perf_hooks";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { ProgramPlace } from "../place/programs.ts";
import type { FileService } from "./config.ts";
import type { AuthSys, RpcProcedure } from "./rpc.ts";
import { connectRpc, type RpcPlace } from "./rpc-connection.ts";
import { XdrReader, XdrWriter } from "./xdr.ts";

const nfsNull: RpcProcedure = { program: 100003, version: 3, procedure: 0 };
const mountMnt: RpcProcedure = { program: 100005, version: 3, procedure: 1 };
/** RFC 1813 2.4: a version 3 file handle has at most 64 bytes. */
const fileHandleBytesMax = 64;
const identity: AuthSys = { machine: "dyad", uid: 0, gid: 0 };
/** Pause between attempts while the service is starting: a refused connection on the same host costs 0.1 ms. */
const retryMs = 1;

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

/**
 * Asks again and again until the service answers for every export, or until `deadlineMs` have passed.
 * Value: milliseconds it took. Faults: `serviceSilent` (with the last reason), `serviceFailed` (no longer useful).
 */
export async function probeService(
  service: FileService,
  { deadlineMs, stillUseful, place }: ProbeOptions,
): Promise<Outcome<number>> {
  const startedAt = performance.now();
  const operation = `probe ${service.addresses.join(", ")}`;
  let patienceMs = attemptMsFirst;
  for (;;) {
    const beganAt = performance.now();
    const leftMs = deadlineMs - (beganAt - startedAt);
    const attempt = await probeOnce(service, place, Math.max(1, Math.min(patienceMs, leftMs)));
    if (performance.now() - beganAt >= patienceMs) patienceMs *= 2;
    // Also one that has answered may have ended by now: its end was told already, to somebody who waited for this and took no notice.
    if (!stillUseful()) {
      const why = attempt.ok ? undefined : attempt.fault;
      return failed("serviceFailed", operation, "the file service ended", why);
    }
    if (attempt.ok) return good(performance.now() - startedAt);
    if (performance.now() - startedAt + retryMs >= deadlineMs) {
      return failed("serviceSilent", operation, `no answer in ${deadlineMs} ms`, attempt.fault);
    }
    await new Promise((resolve) => setTimeout(resolve, retryMs));
  }
}

async function probeOnce(
  service: FileService,
  place: ProgramPlace,
  timeoutMs: number,
): Promise<Outcome> {
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
    for (const each of service.exports) {
      const reply = await call(mountMnt, new XdrWriter().string(each.pseudo).finish());
      if (!reply.ok) return reply;
      const handle = decodeMount(reply.value, each.pseudo);
      if (!handle.ok) return handle;
    }
    return good(Buffer.alloc(0));
  });
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

async function withConnection(
  server: RpcPlace,
  timeoutMs: number,
  use: (call: Call) => Promise<Outcome<Buffer>>,
): Promise<Outcome> {
  const opened = await connectRpc(server, identity, timeoutMs);
  if (!opened.ok) return opened;
  let xid = 0;
  const outcome = await use((target, args) => opened.value.call(++xid, target, args, timeoutMs));
  opened.value.close();
  return outcome.ok ? good(undefined) : outcome;
}
