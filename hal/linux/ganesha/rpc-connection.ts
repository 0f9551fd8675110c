/**
 * One TCP connection that carries RPC calls. It neither reconnects nor retransmits: when it ends, every call that waits is
 * told so, and the owner decides. That keeps "was this executed?" visible to whoever must answer it.
 */
import type { Socket } from "node:net";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { nameOf, openStream, type StreamPlace } from "../stream.ts";
import {
  type AuthSys,
  decodeReply,
  encodeCall,
  RecordReader,
  type RpcProcedure,
  type RpcReply,
} from "./rpc.ts";

/** Calls that may wait on one connection at a time. */
const callsMax = 1024;

interface Waiting {
  readonly settle: (outcome: Outcome<Buffer>) => void;
  readonly timer: NodeJS.Timeout;
}

export interface RpcConnection {
  /** Sends one call. Faults: `timeout`, `ioError` (the connection ended: executed or not is unknown), `refused` (the server said no). */
  call(
    xid: number,
    target: RpcProcedure,
    args: Uint8Array,
    timeoutMs: number,
  ): Promise<Outcome<Buffer>>;
  /** Settles when the connection has ended, with the reason. */
  readonly ended: Promise<string>;
  close(): void;
}

/** Where an RPC server is reached. */
export type RpcPlace = StreamPlace;

/** Connects within `timeoutMs`. Faults: `timeout`, `refused` (RST: nobody listens there), `ioError`. */
export async function connectRpc(
  place: RpcPlace,
  identity: AuthSys,
  timeoutMs: number,
): Promise<Outcome<RpcConnection>> {
  const opened = await openStream(place, timeoutMs);
  return opened.ok ? good(openConnection(opened.value, identity, nameOf(place))) : opened;
}

function openConnection(socket: Socket, identity: AuthSys, operation: string): RpcConnection {
  const waiting = new Map<number, Waiting>();
  const records = new RecordReader();
  let reason = "";
  let noteEnd: (why: string) => void = () => undefined;
  const ended = new Promise<string>((resolve) => {
    noteEnd = resolve;
  });

  const settle = (xid: number, outcome: Outcome<Buffer>): void => {
    const entry = waiting.get(xid);
    if (entry === undefined) return; // A reply that outlived its call: the caller has been told already.
    waiting.delete(xid);
    clearTimeout(entry.timer);
    entry.settle(outcome);
  };
  const end = (why: string): void => {
    if (reason !== "") return;
    reason = why;
    socket.destroy();
    for (const xid of [...waiting.keys()]) settle(xid, failed("ioError", operation, why));
    noteEnd(why);
  };
  socket.on("data", (chunk: Buffer) => {
    try {
      for (const record of records.push(chunk)) {
        const reply = decodeReply(record);
        settle(reply.xid, toOutcome(reply));
      }
    } catch (error) {
      end(`bad RPC stream: ${error instanceof Error ? error.message : String(error)}`);
    }
  });
  socket.on("error", (error) => end(error.message));
  socket.on("close", () => end("connection closed"));

  return {
    ended,
    close: () => end("closed by this side"),
    call(xid, target, args, timeoutMs) {
      if (reason !== "") return Promise.resolve(failed("ioError", operation, reason));
      if (waiting.has(xid)) throw new Error(`RPC xid ${xid} is already in use on this connection`);
      if (waiting.size >= callsMax) throw new Error(`more than ${callsMax} RPC calls wait`);
      return new Promise((resolve) => {
        const timer = setTimeout(
          () => settle(xid, failed("timeout", operation, `no reply within ${timeoutMs} ms`)),
          timeoutMs,
        );
        waiting.set(xid, { settle: resolve, timer });
        socket.write(encodeCall(xid, target, identity, args));
      });
    },
  };
}

function toOutcome(reply: RpcReply): Outcome<Buffer> {
  if (reply.ok) return good(reply.body);
  return failed("refused", "RPC call", reply.reason);
}
