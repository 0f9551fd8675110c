/**
 * A client of one virtual server: writes a register and a log of its own, reads those of everybody, caches where the address is, and keeps
 * the history of what it asked and what it was told. As a hard mount it never gives up: it repeats until it is answered.
 */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { FileOperation, FileReply } from "./file-service.ts";
import type { Operation } from "./history.ts";
import type { Lan, Station } from "./lan.ts";
import type { Timeline } from "./timeline.ts";

/** Without an answer a request is repeated; then the address is asked for anew. */
const repeatMs = 120;
const askAfterRepeats = 2;

export interface ClientSetup {
  readonly id: number;
  readonly address: string;
  /** Clients of the same virtual server, itself included: whose files it reads. */
  readonly peers: readonly number[];
  readonly timeline: Timeline;
  readonly lan: Lan;
  readonly random: () => number;
  readonly thinkMs: number;
  readonly history: Operation[];
  /** A contradiction that needs no history to be seen. */
  readonly violation: (text: string) => void;
}

/** The file that a client writes; `r` a register, `l` a log. */
export const fileOf = (kind: "r" | "l", client: number) => `${kind}${client}`;

export class Client implements Station {
  readonly #setup: ClientSetup;
  #at: ControllerId | undefined;
  #instance = 0;
  #id = 0;
  #written = 0;
  #appended = 0;
  /** Rises with every sending: an answer to an older one, or a timer of it, means nothing. */
  #turn = 0;
  #repeats = 0;
  #current: Operation | undefined;
  /** The instance that took an unstable write which has to be committed yet. */
  #uncommitted = 0;
  /** Operations that were answered. */
  done = 0;

  constructor(setup: ClientSetup) {
    this.#setup = setup;
    setup.lan.stations.push(this);
    setup.timeline.after(setup.thinkMs * setup.random(), () => this.#begin());
  }

  learn(address: string, who: ControllerId): void {
    if (address === this.#setup.address) this.#at = who;
  }

  /** Since when the present operation waits, ms. */
  get waitsSinceMs(): number | undefined {
    return this.#current?.beginMs;
  }

  #begin(): void {
    const { random, timeline, history, peers, id } = this.#setup;
    const drawn = random();
    const peer = peers[Math.floor(random() * peers.length)] ?? id;
    const head = { client: id, beginMs: timeline.nowMs, endMs: Number.POSITIVE_INFINITY };
    if (drawn < 0.3)
      this.#current = {
        ...head,
        kind: "write",
        file: fileOf("r", id),
        value: ++this.#written,
        stable: random() < 0.5,
      };
    else if (drawn < 0.5)
      this.#current = { ...head, kind: "write", file: fileOf("l", id), value: this.#appended + 1 };
    else
      this.#current = {
        ...head,
        kind: "read",
        file: fileOf(drawn < 0.75 ? "r" : "l", peer),
        value: -1,
      };
    history.push(this.#current);
    this.#id += 1;
    this.#uncommitted = 0;
    this.#send();
  }

  #request(current: Operation): FileOperation {
    const { file, value } = current;
    if (this.#instance === 0) return { kind: "hello" };
    if (current.kind === "read") return { kind: "read", file };
    if (file.startsWith("l")) return { kind: "append", file, value };
    if (this.#uncommitted !== 0) return { kind: "commit", file };
    return { kind: "write", file, value, stable: current.stable ?? false };
  }

  #send(): void {
    const { lan, address, timeline, id } = this.#setup;
    const current = this.#current;
    if (!current) return;
    const turn = ++this.#turn;
    timeline.after(repeatMs, () => {
      if (turn === this.#turn) this.#again();
    });
    if (this.#at === undefined) return lan.ask(this, address);
    const operation = this.#request(current);
    const request = { client: id, id: this.#id, instance: this.#instance, operation };
    lan.send(this.#at, address, request, (reply) => {
      if (turn === this.#turn) this.#answered(current, operation, reply);
    });
  }

  #again(): void {
    this.#repeats += 1;
    if (this.#repeats >= askAfterRepeats) {
      this.#repeats = 0;
      this.#at = undefined;
      // A connection that does not answer is given up with its session.
      this.#instance = 0;
    }
    this.#send();
  }

  /** Asks again a little later, not in a storm. */
  #later(): void {
    const turn = ++this.#turn;
    this.#setup.timeline.after(20, () => {
      if (turn === this.#turn) this.#send();
    });
  }

  #answered(
    current: Operation,
    operation: FileOperation,
    reply: FileReply | { readonly kind: "refused" },
  ): void {
    this.#repeats = 0;
    switch (reply.kind) {
      case "refused":
      case "stale":
        this.#instance = 0;
        return this.#later();
      case "grace":
      case "ioError":
        return this.#later();
      case "gap":
        return this.#setup.violation(
          `neverLostAcknowledged: ${current.file} has ${reply.length} records, ${current.value - 1} were acknowledged`,
        );
      case "done":
        return this.#done(current, operation, reply);
      default:
        throw new Error(`client: unknown reply ${JSON.stringify(reply)}`);
    }
  }

  #done(
    current: Operation,
    operation: FileOperation,
    reply: Extract<FileReply, { kind: "done" }>,
  ): void {
    if (operation.kind === "hello") {
      this.#instance = reply.instance;
      // What an earlier instance had in its memory may be gone: the write is sent again.
      this.#uncommitted = 0;
      this.#id += 1;
      return this.#send();
    }
    if (operation.kind === "write" && !operation.stable) {
      this.#uncommitted = reply.instance;
      this.#id += 1;
      return this.#send();
    }
    this.#end(current, reply.value);
  }

  #end(current: Operation, value: number): void {
    const { timeline, thinkMs, random } = this.#setup;
    current.endMs = timeline.nowMs;
    if (current.kind === "read") current.value = value;
    if (current.kind === "write" && current.file.startsWith("l")) this.#appended = current.value;
    this.done += 1;
    this.#current = undefined;
    this.#turn += 1;
    timeline.after(thinkMs * (0.5 + random()), () => this.#begin());
  }
}
