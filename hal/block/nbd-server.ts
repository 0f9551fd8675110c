/**
 * The NBD server: fixed newstyle, any number of exports, TCP and unix sockets. Bad input ends the connection it came on,
 * with a reason that is counted; the others notice nothing.
 */
import { rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { maxNameBytes } from "../../firmware-ts/wire/nbd/protocol.ts";
import { NbdConnection, type NbdConnectionLimits, type NbdFaultReason } from "./nbd-connection.ts";
import { NbdExport, type NbdExportOptions } from "./nbd-export.ts";
import type { NbdTls } from "./nbd-tls.ts";

export interface NbdServerLimits extends NbdConnectionLimits {
  /** Connections beyond those that the exports have room for. */
  readonly maxConnections: number;
  /** Room that each export brings: its one client, nbdfuse, opens four, and a next one may come before the last one's are gone. */
  readonly maxConnectionsOfExport: number;
  readonly maxExports: number;
}

const defaultLimits: NbdServerLimits = {
  handshakeTimeoutMs: 10_000,
  maxCommandsInFlight: 256,
  maxBytesInFlight: 64 * 1024 * 1024,
  maxConnections: 64,
  maxConnectionsOfExport: 8,
  maxExports: 1024,
};

export interface NbdServerOptions {
  readonly limits?: Partial<NbdServerLimits>;
  /** With it, nothing is served or told to whoever does not hold the key or the certificate. */
  readonly tls?: NbdTls;
  /** One call for every connection that was ended for cause; for the log. `peer` is an address, empty on a unix socket. */
  readonly onFault?: (reason: NbdFaultReason, detail: string, peer: string) => void;
}

export type NbdAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

export class NbdServer {
  readonly #limits: NbdServerLimits;
  readonly #tls: NbdTls | undefined;
  readonly #onFault: (reason: NbdFaultReason, detail: string, peer: string) => void;
  readonly #exports = new Map<string, NbdExport>();
  readonly #servers = new Set<Server>();
  readonly #connections = new Set<NbdConnection>();
  readonly #faults = new Map<NbdFaultReason, number>();

  constructor(options: NbdServerOptions = {}) {
    this.#limits = { ...defaultLimits, ...options.limits };
    this.#tls = options.tls;
    this.#onFault = options.onFault ?? (() => {});
  }

  /** Connections ended for cause so far, by reason. */
  get faults(): ReadonlyMap<NbdFaultReason, number> {
    return this.#faults;
  }

  get demandsTls(): boolean {
    return this.#tls !== undefined;
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Puts a device on offer. Names are unique and at most 4096 bytes (proto.md). */
  add(options: NbdExportOptions): Outcome<NbdExport> {
    const bytes = Buffer.byteLength(options.name);
    if (bytes > maxNameBytes) return failed("badInput", "add export", `name of ${bytes} bytes`);
    if (this.#exports.has(options.name))
      return failed("badInput", "add export", `${options.name} is already exported`);
    if (this.#exports.size >= this.#limits.maxExports)
      return failed("refused", "add export", `already ${this.#exports.size} exports`);
    const added = new NbdExport(options);
    this.#exports.set(options.name, added);
    return good(added);
  }

  /** Withdraws an export: its clients are disconnected, and its operations have ended when this resolves. */
  async remove(name: string): Promise<void> {
    const found = this.#exports.get(name);
    if (found === undefined) return;
    this.#exports.delete(name);
    this.disconnect(found);
    await found.turnOff();
  }

  /** Cuts the clients of an export: no request of theirs is begun from this instant on. What they had begun may be under way still (`idle`). */
  disconnect(exported: NbdExport): void {
    for (const connection of this.#connections)
      if (connection.export === exported) connection.destroy();
  }

  /** Listens; a port of 0 takes a free one. Returns the address. A socket file without a listener is replaced. */
  async listen(address: NbdAddress): Promise<Outcome<NbdAddress>> {
    if ("path" in address) {
      const free = await clearStaleSocket(address.path);
      if (!free.ok) return free;
    }
    const server = createServer({ pauseOnConnect: false }, (socket) => this.#accept(socket));
    return new Promise((resolve) => {
      server.once("error", (cause) =>
        resolve(failed("ioError", "NBD listen", JSON.stringify(address), cause)),
      );
      server.listen(address, () => {
        this.#servers.add(server);
        const bound = server.address();
        resolve(
          good(
            typeof bound === "object" && bound !== null
              ? { host: bound.address, port: bound.port }
              : address,
          ),
        );
      });
    });
  }

  /** Ends everything; resolves when no operation is left on any device. The devices stay open. */
  async close(): Promise<void> {
    const closed = [...this.#servers].map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    this.#servers.clear();
    for (const connection of this.#connections) connection.destroy();
    await Promise.all([...this.#exports.values()].map((one) => one.turnOff()));
    await Promise.all(closed);
  }

  #accept(socket: Socket): void {
    const { maxConnections, maxConnectionsOfExport } = this.#limits;
    // Known only while the connection is.
    const peer = socket.remoteAddress ?? "";
    const most = maxConnections + maxConnectionsOfExport * this.#exports.size;
    if (this.#connections.size >= most) {
      socket.on("error", () => {});
      socket.destroy();
      this.#fault("tooManyConnections", `limit ${most}`, peer);
      return;
    }
    const connection = new NbdConnection(socket, {
      limits: this.#limits,
      exports: () => this.#exports.values(),
      find: (name) => this.#find(name),
      tls: this.#tls,
      fault: (reason, detail) => this.#fault(reason, detail, peer),
    });
    this.#connections.add(connection);
    socket.once("close", () => this.#connections.delete(connection));
  }

  /** The empty name asks for the default export (proto.md, NBD_OPT_EXPORT_NAME): ours when there is only one. */
  #find(name: string): NbdExport | undefined {
    const found = this.#exports.get(name) ?? this.#findAdmitting(name);
    if (found !== undefined || name !== "" || this.#exports.size !== 1) return found;
    return this.#exports.values().next().value;
  }

  #findAdmitting(name: string): NbdExport | undefined {
    for (const one of this.#exports.values()) if (one.admission?.isOurs(name)) return one;
    return undefined;
  }

  #fault(reason: NbdFaultReason, detail: string, peer: string): void {
    this.#faults.set(reason, (this.#faults.get(reason) ?? 0) + 1);
    this.#onFault(reason, detail, peer);
  }
}

/** A socket file that nobody listens on is what a killed process leaves behind. */
async function clearStaleSocket(path: string): Promise<Outcome> {
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    const probe = createConnection({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once("error", resolve);
  });
  if (error === undefined) return failed("refused", "NBD listen", `${path} is already in use`);
  if (error.code === "ECONNREFUSED") await rm(path, { force: true });
  return done;
}
