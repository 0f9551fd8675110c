/** The daemon's side of the block service: starts the process, sends requests, hands on events. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import {
  done,
  type Fault,
  failed,
  good,
  type Outcome,
} from "../../../firmware-ts/schema/outcome.ts";
import type { Foreseen } from "../../../firmware-ts/schema/range.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../../firmware-ts/schema/reservation.ts";
import type { Hold } from "../iscsi/reserve.ts";
import {
  type DiskSpec,
  type DiskStatus,
  type ServiceMessage,
  type ServiceRequest,
  type ServiceStatus,
  serviceMessageSchema,
} from "./protocol.ts";

export interface BlockServiceHandlers {
  /** See `IscsiDiskHandlers`: after `up`, I/O waits for `allow`. */
  readonly path?: (serial: string, up: boolean, reason: string) => void;
  readonly fenced?: (serial: string, reason: string) => void;
  /** A client of the NBD server was cut off for cause. */
  readonly nbdFault?: (reason: string, detail: string) => void;
  /** The process is gone. Not called after `close`. */
  readonly ended?: (reason: string) => void;
}

/** A request without its id, member by member of the union. */
type Asked = ServiceRequest extends infer R
  ? R extends { id: number }
    ? Omit<R, "id">
    : never
  : never;

const startTimeoutMs = 10_000;
const closeTimeoutMs = 5_000;
/** Beyond a request's own deadline: what the channel and a busy machine may add. */
const channelMarginMs = 5_000;

export class BlockServiceClient {
  readonly #child: ChildProcess;
  readonly #handlers: BlockServiceHandlers;
  readonly #pending = new Map<number, (reply: ServiceMessage | string) => void>();
  #nextId = 1;
  #ready: (reason: string | undefined) => void = () => {};
  #closing = false;
  #gone: string | undefined;

  private constructor(child: ChildProcess, handlers: BlockServiceHandlers) {
    this.#child = child;
    this.#handlers = handlers;
    child.on("message", (message) => this.#receive(message));
    child.on("error", (cause) => this.#ended(cause.message));
    child.on("exit", (code, signal) => this.#ended(`ended with ${signal ?? code}`));
  }

  /** Starts the process and its NBD server. */
  static async start(
    nbdSocketPath: string,
    handlers: BlockServiceHandlers = {},
    entry: string = fileURLToPath(new URL("./main.ts", import.meta.url)),
  ): Promise<Outcome<BlockServiceClient>> {
    const child = fork(entry, [], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const client = new BlockServiceClient(child, handlers);
    const problem = await new Promise<string | undefined>((resolve) => {
      const timer = setTimeout(() => resolve(`not ready in ${startTimeoutMs} ms`), startTimeoutMs);
      client.#ready = (reason) => {
        clearTimeout(timer);
        resolve(reason);
      };
    });
    const started =
      problem === undefined
        ? await client.#ask({ op: "listen", path: nbdSocketPath }, startTimeoutMs)
        : failed("serviceFailed", "start block service", problem);
    if (started.ok) return good(client);
    await client.close();
    return started;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Opens a disk, or finds it open. Keeps trying in the background when it is not there within `waitMs`. */
  async open(disk: DiskSpec, waitMs: number): Promise<Outcome<DiskStatus>> {
    const reply = await this.#send({ op: "open", disk, waitMs }, waitMs);
    if (typeof reply !== "string" && reply.kind === "disk") return good(reply.disk);
    return this.#fault("open disk", reply);
  }

  /** See the port `Disks`. */
  async reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
  ): Promise<ReservationAnswer> {
    const reply = await this.#send({ op: "reserve", serial, command, deadlineMs }, deadlineMs);
    if (typeof reply !== "string" && reply.kind === "answer") return reply.answer;
    return { status: "failed", reason: this.#fault("reserve", reply).fault.message };
  }

  /**
   * Verifies the hold and lets I/O flow; tells whether the disk has a volatile write cache. Without a hold nothing is verified:
   * for disks that nobody reserves.
   */
  async allow(
    serial: string,
    hold: Hold | undefined,
    deadlineMs: number,
  ): Promise<Outcome<{ readonly writeCache: boolean }>> {
    const request = { op: "allow", serial, ...(hold ? { hold } : {}), deadlineMs } as const;
    const reply = await this.#send(request, deadlineMs);
    if (typeof reply !== "string" && reply.kind === "allowed")
      return good({ writeCache: reply.writeCache });
    return this.#fault("allow", reply);
  }

  /** What a mount and a start of a file service will read of a disk whose I/O flows; undefined when it cannot be told. Never rejects. */
  async foresee(serial: string, deadlineMs: number): Promise<Foreseen | undefined> {
    const reply = await this.#send({ op: "foresee", serial, deadlineMs }, deadlineMs);
    return typeof reply !== "string" && reply.kind === "foreseen" ? reply.foreseen : undefined;
  }

  /** Refuses I/O from now on; resolves when none is under way, bounded by the disks' own deadlines. */
  forbid(serial: string): Promise<Outcome> {
    return this.#ask({ op: "forbid", serial }, closeTimeoutMs);
  }

  /** Logs out of a disk and withdraws its export. */
  closeDisk(serial: string): Promise<Outcome> {
    return this.#ask({ op: "close", serial }, closeTimeoutMs);
  }

  async status(): Promise<Outcome<ServiceStatus>> {
    const reply = await this.#send({ op: "status" }, 0);
    if (typeof reply !== "string" && reply.kind === "status") return good(reply.status);
    return this.#fault("status", reply);
  }

  /** Ends the process: exports off, sessions logged out; killed if that takes too long. */
  async close(): Promise<void> {
    this.#closing = true;
    if (this.#gone !== undefined) return;
    const exited = new Promise<void>((resolve) => this.#child.once("exit", () => resolve()));
    if (this.#child.connected) this.#child.disconnect();
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), closeTimeoutMs);
    await exited;
    clearTimeout(timer);
  }

  async #ask(request: Asked, deadlineMs: number): Promise<Outcome> {
    const reply = await this.#send(request, deadlineMs);
    if (typeof reply !== "string" && reply.kind === "done") return done;
    return this.#fault(request.op, reply);
  }

  #fault(operation: string, reply: ServiceMessage | string): { ok: false; fault: Fault } {
    if (typeof reply === "string") return failed("serviceFailed", operation, reply);
    if (reply.kind === "fault") return { ok: false, fault: reply.fault as Fault };
    throw new Error(`block service: ${reply.kind} in answer to ${operation}`);
  }

  #send(request: Asked, deadlineMs: number): Promise<ServiceMessage | string> {
    if (this.#gone !== undefined || !this.#child.connected)
      return Promise.resolve(`the block service ${this.#gone ?? "is closing"}`);
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve) => {
      const limitMs = deadlineMs + channelMarginMs;
      const timer = setTimeout(() => this.#reply(id, `no answer in ${limitMs} ms`), limitMs);
      this.#pending.set(id, (reply) => {
        clearTimeout(timer);
        resolve(reply);
      });
      this.#child.send({ ...request, id }, (error) => {
        if (error) this.#reply(id, error.message);
      });
    });
  }

  #reply(id: number, reply: ServiceMessage | string): void {
    const resolve = this.#pending.get(id);
    this.#pending.delete(id);
    resolve?.(reply);
  }

  #receive(message: unknown): void {
    const parsed = serviceMessageSchema.safeParse(message);
    if (!parsed.success)
      throw new Error("block service: its own child speaks nonsense", { cause: parsed.error });
    const said = parsed.data;
    switch (said.kind) {
      case "ready":
        this.#ready(undefined);
        return;
      case "path":
        this.#handlers.path?.(said.serial, said.up, said.reason);
        return;
      case "fenced":
        this.#handlers.fenced?.(said.serial, said.reason);
        return;
      case "nbdFault":
        this.#handlers.nbdFault?.(said.reason, said.detail);
        return;
      default:
        this.#reply(said.id, said);
        return;
    }
  }

  #ended(reason: string): void {
    if (this.#gone !== undefined) return;
    this.#gone = reason;
    this.#ready(reason);
    for (const id of [...this.#pending.keys()]) this.#reply(id, `the block service ${reason}`);
    if (!this.#closing) this.#handlers.ended?.(reason);
  }
}
