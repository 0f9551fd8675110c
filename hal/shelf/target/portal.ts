/**
 * The network portal: accepts connections, keeps sessions apart, watches for the silent ones, and applies faults
 * to paths.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { OwnParameters } from "../../../firmware-ts/wire/iscsi/parameters.ts";
import type { TextPair } from "../../../firmware-ts/wire/iscsi/text.ts";
import { nexusOf } from "../disk/nexus.ts";
import type { ShelfSettings } from "./config.ts";
import { Connection, type ConnectionHost, type EndReason } from "./connection.ts";
import { ShelfError } from "./errors.ts";
import type { Faults } from "./faults.ts";
import type { LoggedIn } from "./login.ts";
import { QUEUE_DEPTH, Session, type SessionPort } from "./session.ts";
import type { Unit } from "./unit.ts";

/** Three initiators of each of two controllers (two of them for the coordinators), a session for each disk, and as many again that were cut off and are not known to be gone. */
export const CONNECTIONS_MAX = 1024;
/** Reasons that are told apart in the counters; the rest are counted together. */
const REASONS_MAX = 64;
const SWEEP_MS = 100;
const SEGMENT_BYTES = 256 * 1024;
const BURST_BYTES = 1024 * 1024;

export interface PortalParts {
  readonly settings: ShelfSettings;
  readonly units: ReadonlyMap<number, Unit>;
  readonly faults: Faults;
  readonly nowMs: () => number;
}

const ownParameters = (settings: ShelfSettings): OwnParameters => ({
  digests: settings.digests,
  receiveDataBytesMax: SEGMENT_BYTES,
  initialR2t: settings.initialR2t,
  immediateData: settings.immediateData,
  maxBurstBytes: BURST_BYTES,
  firstBurstBytes: SEGMENT_BYTES,
  outstandingR2tMax: 1,
});

export class Portal {
  readonly #parts: PortalParts;
  readonly #server: Server;
  readonly #host: ConnectionHost;
  readonly #connections = new Set<Connection>();
  readonly #endings = new Map<EndReason, number>();
  #sweep: NodeJS.Timeout | null = null;

  constructor(parts: PortalParts) {
    this.#parts = parts;
    this.#host = {
      own: ownParameters(parts.settings),
      targets: parts.settings.targets,
      queueDepth: QUEUE_DEPTH,
      openSession: (login, numbers, port) => this.#openSession(login, numbers, port),
      targetPairs: (socket) => this.#targetPairs(socket),
      pathOf: (initiator, isid) => parts.faults.forPath(initiator, isid),
      dropAll: () => this.dropAll("targetColdReset"),
      ended: (connection, reason) => this.#ended(connection, reason),
    };
    this.#server = createServer((socket) => this.#accept(socket));
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  get connections(): ReadonlySet<Connection> {
    return this.#connections;
  }

  /** How connections ended so far, by reason. */
  get endings(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#endings);
  }

  /** Starts listening; returns the port. Throws ShelfError LISTEN. */
  async listen(): Promise<number> {
    const { host, port } = this.#parts.settings.listen;
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", (cause) =>
        reject(new ShelfError("LISTEN", `listen on ${host}:${port}`, cause)),
      );
      this.#server.listen(port, host, resolve);
    });
    this.#sweep = setInterval(() => this.#watch(), SWEEP_MS);
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("listen: no address");
    return address.port;
  }

  async close(): Promise<void> {
    if (this.#sweep !== null) clearInterval(this.#sweep);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.dropAll("shutdown");
    await closed;
  }

  dropAll(reason: EndReason): void {
    for (const connection of [...this.#connections]) connection.end(reason, true);
  }

  /** Brings every connection's path into agreement with the faults in force. */
  applyPathFaults(): void {
    for (const connection of [...this.#connections]) {
      const { initiator } = connection;
      const path =
        initiator === null ? null : this.#parts.faults.forPath(initiator.name, initiator.isid);
      if (path === "cut") connection.end("pathLoss", true);
      else if (initiator !== null) connection.setBlackholed(path === "blackhole");
      else if (connection.phase === "stuck") this.#releaseStuck(connection);
    }
  }

  /** A login that a blackhole swallowed is reset once no blackhole is left: the initiator tries anew. */
  #releaseStuck(connection: Connection): void {
    const isStill = this.#parts.faults
      .list()
      .some(({ action }) => action.kind === "pathLoss" && action.mode === "blackhole");
    if (!isStill) connection.setBlackholed(false);
  }

  /** What a delay held back goes on when the delay is lifted. */
  releaseDelayed(faultId: string): void {
    for (const { session } of [...this.#connections]) session?.releaseDelayed(faultId);
  }

  #accept(socket: Socket): void {
    // The initiator may be gone by the time it is accepted.
    if (socket.destroyed) return;
    this.#connections.add(new Connection(socket, this.#host, this.#parts.nowMs));
  }

  #ended(connection: Connection, reason: EndReason): void {
    this.#connections.delete(connection);
    const counted = this.#endings.has(reason) || this.#endings.size < REASONS_MAX;
    const key = counted ? reason : "other";
    this.#endings.set(key, (this.#endings.get(key) ?? 0) + 1);
    connection.session?.close();
  }

  #openSession(
    login: LoggedIn,
    numbers: { readonly cmdSn: number; readonly statSn: number },
    port: SessionPort,
  ): Session | null {
    const { settings, units, faults } = this.#parts;
    const targetPort = login.target === null ? 0 : settings.targets.indexOf(login.target) + 1;
    const nexus =
      targetPort === 0 ? null : nexusOf({ name: login.initiator, isid: login.isid }, targetPort);
    if (nexus !== null) this.#reinstate(nexus.id);
    return new Session({
      login,
      nexus,
      units,
      faults,
      port,
      ...numbers,
      queueDepth: QUEUE_DEPTH,
    });
  }

  /** Session reinstatement (RFC 7143 6.3.5): a login of the same nexus ends the session it has. */
  #reinstate(nexusId: string): void {
    for (const connection of [...this.#connections]) {
      if (connection.session?.nexus?.id === nexusId) connection.end("reinstated");
    }
  }

  #targetPairs(socket: Socket): readonly TextPair[] {
    const host = socket.localAddress ?? "127.0.0.1";
    const address = `${host.includes(":") ? `[${host}]` : host}:${socket.localPort ?? 0},1`;
    return this.#parts.settings.targets.flatMap((name): readonly TextPair[] => [
      ["TargetName", name],
      ["TargetAddress", address],
    ]);
  }

  /** Pings the silent, gives up the dead, and ends logins that do not come to an end. */
  #watch(): void {
    const now = this.#parts.nowMs();
    const { pingAfterMs, pingTimeoutMs, loginTimeoutMs } = this.#parts.settings;
    for (const connection of [...this.#connections]) {
      if (connection.isBlackholed || connection.phase === "stuck") continue;
      if (connection.phase === "login") {
        if (now - connection.openedMs > loginTimeoutMs) connection.end("loginTimeout");
      } else if (connection.pingedMs !== null) {
        if (now - connection.pingedMs > pingTimeoutMs) connection.end("silent", true);
      } else if (now - connection.heardMs > pingAfterMs) {
        connection.pingedMs = now;
        connection.session?.ping();
      }
    }
  }
}
