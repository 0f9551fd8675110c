/**
 * The port mapper (RFC 1833) of one controller. ganesha refuses to start NFSv3 unless a mapper takes its registrations, and
 * kernel clients ask it for the port of MOUNT. One per controller, in the controller's own namespaces, shared by all virtual
 * servers: their ports are equal, so whichever registered last, the answer is right for each.
 *
 * Obligations: `/run` must be private to the controller, because the mapper's socket lies there.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { connect } from "node:net";
import { performance } from "node:perf_hooks";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { ordinaryCommand } from "./ordinary.ts";

const socketPath = "/run/rpcbind.sock";
const startDeadlineMs = 2000;
const pollMs = 2;

export interface PortMapper {
  /** Makes sure that a mapper answers; starts one if none does. Faults: `toolMissing`, `timeout`, `serviceFailed`. */
  ensure(): Promise<Outcome>;
  /** Ends the mapper that this object started. One that was there before stays. */
  stop(): Promise<void>;
}

export function createPortMapper(): PortMapper {
  let child: ChildProcess | undefined;
  let starting: Promise<Outcome> | undefined;

  const ensure = async (): Promise<Outcome> => {
    if (await answers()) return done;
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
