/**
 * The port mapper (RFC 1833) of one controller: kernel clients ask it for the port of MOUNT. One per controller, in the controller's own
 * namespaces, shared by all virtual servers: their ports are equal, so they are registered here, once, and not by each
 * file service at each start (`registrations.c`). Where one registers all the same, the answer stays the same.
 *
 * Obligations: `/run` must be private to the controller, because the mapper's socket lies there.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { connect } from "node:net";
import { performance } from "node:perf_hooks";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { ordinaryCommand } from "../ordinary.ts";
import { connectRpc } from "./rpc-connection.ts";
import { XdrReader, XdrWriter } from "./xdr.ts";

const socketPath = "/run/rpcbind.sock";
const startDeadlineMs = 2000;
const pollMs = 2;
const registerTimeoutMs = 1000;

/** RFC 1833 2.1: RPCBPROC_SET of version 3, and what it takes. */
const rpcbindSet = { program: 100000, version: 3, procedure: 1 } as const;
const nfs = { program: 100003, port: 2049 } as const;
const mount = { program: 100005, port: 20048 } as const;
const registered = [
  { ...nfs, version: 3 },
  { ...nfs, version: 4 },
  { ...mount, version: 1 },
  { ...mount, version: 3 },
] as const;
const anyAddress = { tcp: "0.0.0.0", tcp6: "::" } as const;

export interface PortMapper {
  /** Makes sure that a mapper answers; starts one if none does. Faults: `toolMissing`, `timeout`, `serviceFailed`. */
  ensure(): Promise<Outcome>;
  /** Ends the mapper that this object started. One that was there before stays. */
  stop(): Promise<void>;
}

export function createPortMapper(): PortMapper {
  let child: ChildProcess | undefined;
  let starting: Promise<Outcome> | undefined;
  let isComplete = false;

  const ensure = async (): Promise<Outcome> => {
    if (await answers()) {
      if (isComplete) return done;
    } else {
      isComplete = false;
      const begun = await begin();
      if (!begun.ok) return begun;
    }
    const complete = await registerAll();
    isComplete = complete.ok;
    return complete;
  };
  const begin = async (): Promise<Outcome> => {
    const { program, args } = ordinaryCommand("rpcbind", ["-f"]);
    const started = spawn(program, args, { stdio: "ignore", cwd: "/" });
    child = started;
    return await whenAnswering(started);
  };
  return {
    ensure() {
      starting ??= ensure().finally(() => {
        starting = undefined;
      });
      return starting;
    },
    async stop() {
      const ending = child;
      child = undefined;
      if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return;
      const ended = new Promise((resolve) => ending.once("exit", resolve));
      ending.kill("SIGKILL");
      await ended;
    },
  };
}

/** Makes the registrations. One that is there already is refused by the mapper, and is right: the ports never change. */
async function registerAll(): Promise<Outcome> {
  const identity = { machine: "dyad", uid: 0, gid: 0 };
  const opened = await connectRpc({ path: socketPath }, identity, registerTimeoutMs);
  if (!opened.ok) return opened;
  let xid = 0;
  try {
    for (const { program, version, port } of registered) {
      for (const [transport, address] of Object.entries(anyAddress)) {
        const body = new XdrWriter()
          .uint32(program)
          .uint32(version)
          .string(transport)
          .string(`${address}.${port >> 8}.${port & 0xff}`)
          .string("superuser")
          .finish();
        const reply = await opened.value.call(++xid, rpcbindSet, body, registerTimeoutMs);
        if (!reply.ok) return reply;
        // A boolean: false when there is one of that program, version and transport.
        new XdrReader(reply.value).uint32();
      }
    }
    return done;
  } catch (error) {
    return failed("badInput", "register at rpcbind", "malformed reply", error);
  } finally {
    opened.value.close();
  }
}

async function whenAnswering(child: ChildProcess): Promise<Outcome> {
  let problem: { code: "toolMissing" | "serviceFailed"; message: string } | undefined;
  child.once("error", (error) => {
    problem = { code: "toolMissing", message: error.message };
  });
  child.once("exit", (code, signal) => {
    problem ??= { code: "serviceFailed", message: `ended with ${signal ?? code}` };
  });
  const startedAt = performance.now();
  for (;;) {
    if (await answers()) return done;
    if (problem !== undefined) return failed(problem.code, "start rpcbind", problem.message);
    if (performance.now() - startedAt > startDeadlineMs) {
      return failed("timeout", "start rpcbind", `no socket within ${startDeadlineMs} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** A socket that takes a connection: a socket file alone may be what a killed mapper left behind. */
function answers(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
