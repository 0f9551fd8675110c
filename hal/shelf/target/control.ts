/**
 * The shelf's control socket: one JSON object a line in, one a line out, in the same order.
 *
 *     {"fault":"set","disk":"D1","initiator":"iqn.…:a","operations":"write","action":{"kind":"delay","delayMs":500}}
 *         → {"ok":true,"id":"fault-1"}
 *     {"fault":"set","id":"x","initiator":"iqn.…:a","action":{"kind":"pathLoss","mode":"blackhole"}}
 *     {"fault":"clear","id":"x"}      → {"ok":true,"cleared":["x"]}
 *     {"fault":"clear"}               lifts all of them
 *     {"fault":"list"}                → {"ok":true,"faults":[…]}
 *     {"status":true}                 → {"ok":true,"status":{…}}: counters, sessions, registrations, holders
 *     anything else                   → {"ok":false,"error":"…"}
 *
 * The fields of a fault are described in `faults.ts`: `disk` (serial), `initiator`, `isid`, `operations`
 * (read, write, reservation, all), and `action`:
 *     {"kind":"delay","delayMs":1…600000}
 *     {"kind":"error","status":2,"senseKey":3,"asc":17,"ascq":0}
 *     {"kind":"pathLoss","mode":"cut"|"blackhole"}
 *     {"kind":"diskLoss","mode":"gone"|"hang"}
 *
 * Obligations: a line is at most LINE_BYTES_MAX long; a longer one is answered with an error and the connection
 * closed. The socket is made for its owner alone.
 */
import { chmodSync, lstatSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { z } from "zod";
import { ShelfError } from "./errors.ts";
import { faultRequest } from "./faults.ts";
import type { Shelf } from "./shelf.ts";

const LINE_BYTES_MAX = 64 * 1024;
const CONNECTIONS_MAX = 32;

const clearCommand = z.strictObject({ fault: z.literal("clear"), id: z.string().optional() });
const listCommand = z.strictObject({ fault: z.literal("list") });
const statusCommand = z.strictObject({ status: z.literal(true) });
const setCommand = z.object({ fault: z.literal("set") }).loose();

const problemOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

const setFault = (shelf: Shelf, { fault: _, ...request }: z.infer<typeof setCommand>) => {
  const parsed = faultRequest.safeParse(request);
  return parsed.success
    ? { ok: true, id: shelf.setFault(parsed.data) }
    : { ok: false, error: z.prettifyError(parsed.error) };
};

/** Carries out one line; never throws. */
const answer = (shelf: Shelf, line: string): object => {
  try {
    const value: unknown = JSON.parse(line);
    const set = setCommand.safeParse(value);
    if (set.success) return setFault(shelf, set.data);
    const clear = clearCommand.safeParse(value);
    if (clear.success) return { ok: true, cleared: shelf.clearFault(clear.data.id) };
    if (listCommand.safeParse(value).success) return { ok: true, faults: shelf.status().faults };
    if (statusCommand.safeParse(value).success) return { ok: true, status: shelf.status() };
    return { ok: false, error: 'expected {"fault":"set"|"clear"|"list",…} or {"status":true}' };
  } catch (error) {
    return { ok: false, error: problemOf(error) };
  }
};

const serve = (shelf: Shelf, socket: Socket): void => {
  let rest = "";
  socket.setEncoding("utf8");
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() !== "") socket.write(`${JSON.stringify(answer(shelf, line))}\n`);
    }
    if (rest.length > LINE_BYTES_MAX) {
      rest = "";
      socket.end(`${JSON.stringify({ ok: false, error: "line too long" })}\n`);
    }
  });
};

/** A control socket that is being served. */
export interface Control {
  close(): Promise<void>;
}

/** Removes what an earlier run left at the path, if it is a socket. */
const removeStale = (path: string): void => {
  try {
    if (lstatSync(path).isSocket()) rmSync(path);
  } catch {
    // Nothing there is what we want.
  }
};

const listen = (server: Server, path: string): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once("error", (cause) =>
      reject(new ShelfError("LISTEN", `listen on control socket ${path}`, cause)),
    );
    server.listen(path, resolve);
  });

/** Serves control commands on a unix socket. Throws ShelfError LISTEN. */
export const startControl = async (shelf: Shelf, path: string): Promise<Control> => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    serve(shelf, socket);
  });
  server.maxConnections = CONNECTIONS_MAX;
  removeStale(path);
  await listen(server, path);
  chmodSync(path, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
};
