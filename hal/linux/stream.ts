/** TCP connections into the network of a place, and to sockets of this machine. */
import { connect, isIPv6, Socket } from "node:net";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { errorName } from "./syscalls.ts";

/** Where a server is reached: by TCP, or on a socket of this machine. */
export type StreamPlace =
  | {
      readonly host: string;
      readonly port: number;
      /** Makes the socket, where that is not of this process's network; negative: an error number. */
      readonly socket?: ((family: 4 | 6) => number) | undefined;
    }
  | { readonly path: string };

/** What a connection to it is called in faults. */
export function nameOf(place: StreamPlace): string {
  return "path" in place ? `connect ${place.path}` : `connect ${place.host} port ${place.port}`;
}

/** Connects within `timeoutMs`. Faults: `timeout`, `refused` (RST: nobody listens there), `ioError`. */
export function openStream(place: StreamPlace, timeoutMs: number): Promise<Outcome<Socket>> {
  const operation = nameOf(place);
  return new Promise((resolve) => {
    const begun = begin(place, operation);
    if (!begun.ok) return resolve(begun);
    const socket = begun.value;
    const timer = setTimeout(() => {
      socket.destroy();
      resolve(failed("timeout", operation, `no connection within ${timeoutMs} ms`));
    }, timeoutMs);
    const refused = (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      const code = error.code === "ECONNREFUSED" ? "refused" : "ioError";
      resolve(failed(code, operation, error.message));
    };
    socket.once("error", refused);
    socket.once("connect", () => {
      clearTimeout(timer);
      resolve(good(socket));
    });
  });
}

/** Node makes a socket by itself only when it connects, which is later than this call. */
function begin(place: StreamPlace, operation: string): Outcome<Socket> {
  if ("path" in place || !place.socket) return good(connect({ ...place, noDelay: true }));
  const { host, port, socket } = place;
  const fd = socket(isIPv6(host) ? 6 : 4);
  if (fd < 0) return failed("ioError", operation, `socket: ${errorName(fd)}`);
  return good(new Socket({ fd, readable: true, writable: true }).setNoDelay().connect(port, host));
}
