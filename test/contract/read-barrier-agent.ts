/**
 * An NFSv3 client for the tests of the read barrier, run in a laboratory's namespace: commands as JSON lines on standard input, answers on
 * standard output, any number of calls in flight. It repeats nothing: every status is the test's to judge.
 */
import { createInterface } from "node:readline";
import * as codec from "../../bench/clients/nfs3-codec.ts";
import { decodeMount } from "../../hal/linux/ganesha/probe.ts";
import { connectRpc, type RpcConnection } from "../../hal/linux/ganesha/rpc-connection.ts";
import { XdrReader, XdrWriter } from "../../hal/linux/ganesha/xdr.ts";

type Command =
  | { op: "create"; name: string; size?: number }
  | { op: "write"; name: string; offset: number; text: string; stable: boolean }
  | { op: "read"; name: string; offset: number; count: number }
  | { op: "commit"; name: string }
  | { op: "truncate"; name: string; size: number };

const [, , host = "", pseudo = ""] = process.argv;
const timeoutMs = 60_000;
const identity = { machine: "test", uid: 0, gid: 0 };
const procedure = (program: number, number: number) => ({ program, version: 3, procedure: number });

async function connected(port: number): Promise<RpcConnection> {
  const opened = await connectRpc({ host, port }, identity, timeoutMs);
  if (!opened.ok) throw new Error(opened.fault.message);
  return opened.value;
}

let xid = 0;
async function call(on: RpcConnection, number: number, args: Buffer): Promise<Buffer> {
  xid += 1;
  const reply = await on.call(xid, procedure(100003, number), args, timeoutMs);
  if (!reply.ok) throw new Error(reply.fault.message);
  return reply.value;
}

const mountd = await connected(20048);
const mountArgs = new XdrWriter().string(pseudo).finish();
const mounted = await mountd.call(1, procedure(100005, 1), mountArgs, timeoutMs);
mountd.close();
if (!mounted.ok) throw new Error(mounted.fault.message);
const root = decodeMount(mounted.value, pseudo);
if (!root.ok) throw new Error(root.fault.message);
const rootHandle = Buffer.from(root.value);
const nfs = await connected(2049);

async function handleOf(name: string): Promise<Buffer> {
  const found = codec.decodeLookup(await call(nfs, 3, codec.encodeLookup(rootHandle, name)));
  if (!found.ok) throw new Error(`${name}: ${found.status}`);
  return Buffer.from(found.value);
}

/** sattr3 (RFC 1813 2.5) that sets the size, if one is given, and nothing else. */
function withSize(writer: XdrWriter, size: number | undefined): XdrWriter {
  for (const _ of ["mode", "uid", "gid"]) writer.uint32(0);
  if (size === undefined) writer.uint32(0);
  else writer.uint32(1).uint64(BigInt(size));
  return writer.uint32(0).uint32(0);
}

/** nfsstat3, which every result begins with. */
function status(body: Buffer): object {
  const value = new XdrReader(body).uint32();
  return value === 0 ? { ok: true } : { ok: false, status: codec.statusName(value) };
}

async function perform(command: Command): Promise<object> {
  const { name } = command;
  if (command.op === "create") {
    const unchecked = new XdrWriter().opaque(rootHandle).string(name).uint32(0);
    return status(await call(nfs, 8, withSize(unchecked, command.size).finish()));
  }
  const handle = await handleOf(name);
  switch (command.op) {
    case "write": {
      const how = codec.stableHow[command.stable ? "fileSync" : "unstable"];
      const data = Buffer.from(command.text);
      return status(await call(nfs, 7, codec.encodeWrite(handle, command.offset, data, how)));
    }
    case "read": {
      const args = codec.encodeRead(handle, command.offset, command.count);
      const result = codec.decodeRead(await call(nfs, 6, args));
      return result.ok ? { ok: true, text: result.value.data.toString() } : result;
    }
    case "commit":
      return status(await call(nfs, 21, codec.encodeCommit(handle)));
    case "truncate": {
      const writer = withSize(new XdrWriter().opaque(handle), command.size);
      return status(await call(nfs, 2, writer.uint32(0).finish()));
    }
  }
}

const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);
say({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...command } = JSON.parse(line) as { id: number } & Command;
  void perform(command).then(
    (answer) => say({ id, ...answer }),
    (error: unknown) => say({ id, ok: false, status: String(error) }),
  );
}
nfs.close();
