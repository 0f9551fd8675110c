/**
 * The file service of one virtual server while it runs on one controller. A client has a session with an instance of it; a new instance
 * takes back the sessions of those whom the volume remembers (grace) before it takes new ones. Whoever is not heard for the time of a lease
 * is forgotten, also by the volume, so nobody waits for the dead of long ago. Within a session every request is done
 * once, however often it is sent. A read shows nothing that is not on the disk (design 0012).
 */
import type { Pages } from "./pages.ts";
import type { Process } from "./process.ts";
import type { Timeline } from "./timeline.ts";

export type FileOperation =
  | { readonly kind: "hello" }
  | { readonly kind: "read"; readonly file: string }
  /** `stable`: answered when it is on the disk; otherwise a commit has to follow. */
  | {
      readonly kind: "write";
      readonly file: string;
      readonly value: number;
      readonly stable: boolean;
    }
  | { readonly kind: "commit"; readonly file: string }
  /** Record `value` at the end of a log that is one shorter. */
  | { readonly kind: "append"; readonly file: string; readonly value: number };

export interface FileRequest {
  readonly client: number;
  /** Rises with every operation of the client; the same in every repetition. */
  readonly id: number;
  /** Instance with which the client has its session; 0 in a hello. */
  readonly instance: number;
  readonly operation: FileOperation;
}

export type FileReply =
  | { readonly kind: "done"; readonly instance: number; readonly value: number }
  /** No session with this instance. */
  | { readonly kind: "stale" }
  /** The time to take back sessions is not over; ask again. */
  | { readonly kind: "grace" }
  | { readonly kind: "ioError" }
  /** A log is shorter than its writer knows it: data is lost. */
  | { readonly kind: "gap"; readonly length: number };

export interface FileServiceSetup {
  /** New at every start; also the write verifier. */
  readonly instance: number;
  readonly process: Process;
  readonly pages: Pages;
  /** Clients that had sessions with the last instance; kept on the volume. */
  readonly known: Set<number>;
  readonly graceMs: number;
  readonly leaseMs: number;
  readonly timeline: Timeline;
  /** Off only to see that it is needed. */
  readonly readBarrier: boolean;
}

interface Session {
  id: number;
  heardMs: number;
  /** Undefined while the operation is under way: a repetition waits for the same answer. */
  reply: FileReply | undefined;
}

export class FileService {
  readonly #setup: FileServiceSetup;
  readonly #sessions = new Map<number, Session>();
  /** Those whom the volume remembers and who have not come back: nobody new is taken while it is waited for them. */
  readonly #missing: Set<number>;
  readonly #graceUntilMs: number;
  #inGrace: boolean;
  #running = true;
  #mute = false;

  constructor(setup: FileServiceSetup) {
    this.#setup = setup;
    this.#missing = new Set(setup.known);
    this.#inGrace = this.#missing.size > 0;
    this.#graceUntilMs = setup.timeline.nowMs + setup.graceMs;
    this.#lookLater();
  }

  get instance(): number {
    return this.#setup.instance;
  }

  /** As ganesha's reaper: whether all are back, and whose lease has run out, is looked at every half lease. */
  #lookLater(): void {
    const { timeline, leaseMs, process } = this.#setup;
    timeline.after(leaseMs / 2, () => {
      if (this.alive) process.give(() => this.#look());
    });
  }

  #look(): void {
    if (!this.#running) return;
    const { known, timeline, leaseMs } = this.#setup;
    const { nowMs } = timeline;
    if (this.#inGrace && (this.#missing.size === 0 || nowMs >= this.#graceUntilMs)) {
      this.#inGrace = false;
      for (const client of this.#missing) known.delete(client);
      this.#missing.clear();
    }
    for (const [client, { heardMs, reply }] of this.#sessions) {
      if (reply === undefined || nowMs - heardMs < leaseMs) continue;
      this.#sessions.delete(client);
      known.delete(client);
    }
    this.#lookLater();
  }

  stop(): void {
    this.#running = false;
  }

  /** From now on it takes what comes, and answers nothing. */
  mute(): void {
    this.#mute = true;
  }

  get alive(): boolean {
    return this.#running && this.#setup.process.alive;
  }

  /** A request that the kernel let in. It waits while the process does not run. */
  receive(request: FileRequest, reply: (reply: FileReply) => void): void {
    this.#setup.process.give(() => {
      if (this.#running && !this.#mute) this.#take(request, reply);
    });
  }

  #take(request: FileRequest, reply: (reply: FileReply) => void): void {
    const { client, id, operation, instance } = request;
    if (operation.kind === "hello") return reply(this.#hello(client));
    const session = this.#sessions.get(client);
    if (!session || instance !== this.#setup.instance) return reply({ kind: "stale" });
    session.heardMs = this.#setup.timeline.nowMs;
    if (id < session.id) return;
    if (id === session.id) {
      if (session.reply) reply(session.reply);
      return;
    }
    session.id = id;
    session.reply = undefined;
    this.#perform(operation, (answer) => {
      if (!this.#running || this.#mute || session.id !== id) return;
      // An error is no result: the client may try the same again.
      if (answer.kind === "ioError") session.id = id - 1;
      else session.reply = answer;
      reply(answer);
    });
  }

  #hello(client: number): FileReply {
    const { known, timeline, instance } = this.#setup;
    if (this.#inGrace && !known.has(client)) return { kind: "grace" };
    this.#missing.delete(client);
    known.add(client);
    const reply: FileReply = { kind: "done", instance, value: 0 };
    this.#sessions.set(client, { id: 0, heardMs: timeline.nowMs, reply });
    return reply;
  }

  #perform(operation: Exclude<FileOperation, { kind: "hello" }>, settle: (r: FileReply) => void) {
    const { pages, instance } = this.#setup;
    const done = (value: number): FileReply => ({ kind: "done", instance, value });
    const synced = (value: number) => (result: true | "ioError") =>
      settle(result === "ioError" ? { kind: "ioError" } : done(value));
    switch (operation.kind) {
      case "read":
        return this.#read(operation.file, settle);
      case "write":
        pages.write(operation.file, operation.value);
        if (!operation.stable) return settle(done(operation.value));
        return pages.sync(operation.file, synced(operation.value));
      case "commit":
        return pages.sync(operation.file, synced(0));
      case "append":
        return pages.read(operation.file, (length) => {
          if (length === "ioError") return settle({ kind: "ioError" });
          if (length < operation.value - 1) return settle({ kind: "gap", length });
          if (length < operation.value) pages.write(operation.file, operation.value);
          pages.sync(operation.file, synced(operation.value));
        });
      default:
        throw new Error(`file service: unknown operation ${JSON.stringify(operation)}`);
    }
  }

  #read(file: string, settle: (reply: FileReply) => void): void {
    const { pages, instance, readBarrier } = this.#setup;
    pages.read(file, (value) => {
      if (value === "ioError") return settle({ kind: "ioError" });
      if (!readBarrier || !pages.isDirty(file)) return settle({ kind: "done", instance, value });
      pages.sync(file, (result) =>
        settle(result === "ioError" ? { kind: "ioError" } : { kind: "done", instance, value }),
      );
    });
  }
}
