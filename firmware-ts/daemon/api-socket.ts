/**
 * Listening on a unix socket that only its owner may open. A socket file that a killed daemon left behind is removed; one
 * that still answers, or a file that is no socket, is not.
 */
import { lstatSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { createConnection } from "node:net";
import { failed, good, type Outcome } from "../schema/outcome.ts";

const probeTimeoutMs = 1000;

/** Binds `server` to `path` with mode 0600. Fails with `refused` if another process answers there. */
export async function listenOnSocket(server: Server, path: string): Promise<Outcome<string>> {
  const first = await listenOnce(server, path);
  if (first === undefined) return good(path);
  if (first.code !== "EADDRINUSE") return failed("ioError", `listen on ${path}`, first.message);
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket())
    return failed("refused", `listen on ${path}`, "expected a socket or nothing, found a file");
  if (await answers(path))
    return failed("refused", `listen on ${path}`, "another daemon is listening there");
  rmSync(path, { force: true });
  const second = await listenOnce(server, path);
  return second === undefined ? good(path) : failed("ioError", `listen on ${path}`, second.message);
}

function listenOnce(server: Server, path: string): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const finish = (error?: NodeJS.ErrnoException) => {
      server.off("error", finish);
      server.off("listening", finish);
      resolve(error);
    };
    server.once("error", finish);
    server.once("listening", finish);
    // The file is made inside the call to listen: under this mask it never exists with a wider mode than 0600.
    const mask = process.umask(0o177);
    try {
      server.listen(path);
    } finally {
      process.umask(mask);
    }
  });
}

/** Whether somebody accepts connections at `path`. A process too busy to accept counts as somebody. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    const finish = (alive: boolean) => {
      socket.destroy();
      resolve(alive);
    };
    socket.setTimeout(probeTimeoutMs, () => finish(true));
    socket.once("connect", () => finish(true));
    socket.once("error", (error: NodeJS.ErrnoException) =>
      finish(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"),
    );
  });
}
