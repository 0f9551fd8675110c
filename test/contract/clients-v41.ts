/**
 * As much of an NFSv4.1 client (RFC 8881) as it takes to be recorded by a server and to say that it has reclaimed everything:
 *
 *     node clients-v41.ts ADDRESS OWNER
 *
 * EXCHANGE_ID, CREATE_SESSION, SEQUENCE + RECLAIM_COMPLETE. Prints a JSON line, and ends with 1 when a status is not NFS4_OK.
 */
import { connectRpc, type RpcConnection } from "../../hal/linux/ganesha/rpc-connection.ts";
import { XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";
import { limitsMs } from "../support/limits.ts";

const compound = { program: 100003, version: 4, procedure: 1 };
const operation = { exchangeId: 42, createSession: 43, sequence: 53, reclaimComplete: 58 };
const timeoutMs = limitsMs.condition;
let xid = 0;

/** Sends one COMPOUND of operations that are already encoded; returns the reader behind its status, tag and count. */
async function call(connection: RpcConnection, ...operations: Buffer[]): Promise<XdrReader> {
  const writer = new XdrWriter().string("").uint32(1).uint32(operations.length);
  for (const each of operations) writer.fixed(each);
  xid += 1;
  const reply = await connection.call(xid, compound, writer.finish(), timeoutMs);
  if (!reply.ok) throw new Error(reply.fault.message);
  const reader = new XdrReader(reply.value);
  const status = reader.uint32();
  reader.string(64);
  reader.uint32();
  if (status !== 0) throw new Error(`NFSv4 status ${status}`);
  return reader;
}

/** 18.35: client owner by name, no state protection, no implementation id. Value: client id and sequence number. */
async function exchangeId(connection: RpcConnection, owner: string): Promise<[bigint, number]> {
  const args = new XdrWriter()
    .uint32(operation.exchangeId)
    .fixed(Buffer.from("dyadtest"))
    .string(owner)
    .uint32(0)
    .uint32(0)
    .uint32(0);
  const reader = await call(connection, args.finish());
  reader.skip(8);
  return [reader.uint64(), reader.uint32()];
}

/** 18.36: a fore channel of one slot, no callbacks. Value: the session id. */
async function createSession(
  connection: RpcConnection,
  clientId: bigint,
  sequence: number,
): Promise<Buffer> {
  const args = new XdrWriter()
    .uint32(operation.createSession)
    .uint64(clientId)
    .uint32(sequence)
    .uint32(0);
  for (let channel = 0; channel < 2; channel += 1) {
    // Header padding, largest request, response and cached response, operations, requests, no RDMA.
    for (const word of [0, 65536, 65536, 4096, 8, 1, 0]) args.uint32(word);
  }
  args.uint32(0x4000_0000).uint32(1).uint32(0);
  const reader = await call(connection, args.finish());
  reader.skip(8);
  return Buffer.from(reader.fixed(16));
}

/** 18.51, behind the SEQUENCE that every compound of a session begins with. */
async function reclaimComplete(connection: RpcConnection, session: Buffer): Promise<void> {
  const sequence = new XdrWriter().uint32(operation.sequence).fixed(session);
  sequence.uint32(1).uint32(0).uint32(0).uint32(0);
  const reclaim = new XdrWriter().uint32(operation.reclaimComplete).uint32(0);
  await call(connection, sequence.finish(), reclaim.finish());
}

const [address, owner] = process.argv.slice(2);
if (address === undefined || owner === undefined) throw new Error("usage: ADDRESS OWNER");
const identity = { machine: "dyad-test", uid: 0, gid: 0 };
const opened = await connectRpc({ host: address, port: 2049 }, identity, timeoutMs);
if (!opened.ok) throw new Error(opened.fault.message);
const [clientId, sequence] = await exchangeId(opened.value, owner);
const session = await createSession(opened.value, clientId, sequence);
await reclaimComplete(opened.value, session);
process.stdout.write(`${JSON.stringify({ clientId: String(clientId) })}\n`);
opened.value.close();
