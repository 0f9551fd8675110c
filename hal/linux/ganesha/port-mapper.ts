/**
 * The port mapper of one virtual server (RFC 1833): kernel clients of NFSv3 ask it for the port of MOUNT. It answers in the network of
 * its virtual server, from this process: the ports of file services never change, so there is nothing to be registered (`registrations.c`),
 * and a program of 4 MB for each virtual server would be there to say two numbers.
 *
 * Obligations: bounded in connections and bytes; trouble here is logged and costs NFSv3 clients their mounts, nobody anything else.
 */
import { createSocket, type Socket as Datagrams } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { parseAddress } from "../../../firmware-ts/schema/ip-address.ts";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type { ProgramPlace } from "../place/programs.ts";
import { AF_INET, bindSocket, closeDescriptor, openSocket, SOCK_DGRAM } from "../syscalls.ts";
import { answerPortMapper, asRecord, ownRegistrations, type Registration } from "./port-mapping.ts";
import { RecordReader } from "./rpc.ts";

const port = 111;
const nfs = { program: 100003, transport: "tcp", port: 2049 } as const;
const mount = { program: 100005, transport: "tcp", port: 20048 } as const;
const registrations: readonly Registration[] = [
  ...ownRegistrations,
  { ...nfs, version: 3 },
  { ...nfs, version: 4 },
  { ...mount, version: 1 },
  { ...mount, version: 3 },
];

/** Clients ask once and go. */
const connectionsMax = 32;
const connectionMsMax = 10_000;
/** A call with the longest credentials and strings that are understood has half of it. */
const callBytesMax = 4096;

const SOCK_NONBLOCK = 0o4000;

export interface PortMapper {
  /** Makes sure that it answers at these addresses: at each of IPv4 it hears datagrams, and answers from there. Fault `serviceFailed`. */
  ensure(addresses: readonly string[]): Promise<Outcome>;
  stop(): Promise<void>;
}

export function createPortMapper(place: ProgramPlace): PortMapper {
  let server: Server | undefined;
  const connections = new Set<Socket>();
  const datagrams = new Map<string, Datagrams>();

  const hear = (addresses: readonly string[]) => {
    for (const [address, socket] of datagrams) {
      if (addresses.includes(address)) continue;
      socket.close();
      datagrams.delete(address);
    }
    for (const address of addresses) {
      const socket = datagrams.get(address) ?? hearDatagrams(place, address);
      if (socket) datagrams.set(address, socket);
    }
  };
  return {
    async ensure(addresses) {
      if (!server?.listening) {
        const listening = await listen(place);
        if (!listening.ok) return listening;
        server = listening.value;
        server.on("connection", (socket) => {
          connections.add(socket);
          socket.once("close", () => connections.delete(socket));
        });
      }
      hear(addresses);
      return done;
    },
    async stop() {
      hear([]);
      for (const socket of connections) socket.destroy();
      const ending = server;
      server = undefined;
      if (ending) await new Promise((resolve) => ending.close(resolve));
    },
  };
}

function listen(place: ProgramPlace): Promise<Outcome<Server>> {
  return new Promise((resolve) => {
    const server = createServer(answerConnection);
    server.maxConnections = connectionsMax;
    const refused = (error: Error) =>
      resolve(failed("serviceFailed", "port mapper", "does not listen", error));
    server.once("error", refused);
    server.once("listening", () => {
      server.off("error", refused);
      server.on("error", () => undefined);
      resolve({ ok: true, value: server });
    });
    // Without a host Node binds within the call, and both families.
    place.inside(() => server.listen(port));
    server.unref();
  });
}

/** Answers calls for as long as the other end reads the answers, and never for long: there are few connections. */
export function answerConnection(socket: Duplex & Pick<Socket, "localAddress">): void {
  const records = new RecordReader(callBytesMax);
  const localAddress = (socket.localAddress ?? "").replace(/^::ffff:/, "");
  const end = setTimeout(() => socket.destroy(), connectionMsMax).unref();
  socket.on("close", () => clearTimeout(end));
  socket.on("error", () => undefined);
  socket.on("data", (chunk: Buffer) => {
    try {
      for (const call of records.push(chunk)) {
        const reply = answerPortMapper(call, { address: localAddress, registrations });
        if (reply && !socket.write(asRecord(reply))) return void socket.destroy();
      }
    } catch {
      // A stream that cannot be cut into records is of no use to anybody.
      socket.destroy();
    }
  });
}

/** Undefined where the port is taken, and for IPv6: clients then ask by TCP. */
function hearDatagrams(place: ProgramPlace, address: string): Datagrams | undefined {
  const ip = parseAddress(address);
  if (ip?.family !== 4) return undefined;
  const descriptor = place.inside(() => openSocket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  if (descriptor < 0) return undefined;
  const own = Buffer.alloc(16);
  own.writeUInt16LE(AF_INET, 0);
  own.writeUInt16BE(port, 2);
  own.set(ip.bytes, 4);
  if (bindSocket(descriptor, own) < 0) {
    closeDescriptor(descriptor);
    return undefined;
  }
  const socket = createSocket("udp4");
  socket.on("error", () => undefined);
  socket.on("message", (call, from) => {
    const reply = answerPortMapper(call, { address, registrations, datagram: true });
    if (reply) socket.send(reply, from.port, from.address);
  });
  socket.bind({ fd: descriptor });
  socket.unref();
  return socket;
}
