/**
 * A client of one virtual server: writes a register and a log of its own, reads those of everybody, caches where the address is, and keeps
 * the history of what it asked and what it was told. As a hard mount it never gives up: it repeats until it is answered. A patient one does
 * so with the timers of a kernel, which are what makes a moved address hurt: what a kernel has taken is waited for for a minute, and an
 * entry of the cache is doubted after half of one.
 */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { FileOperation, FileReply } from "./file-service.ts";
import type { Operation } from "./history.ts";
import type { Lan, Station } from "./lan.ts";
import type { Timeline } from "./timeline.ts";

/** Without an answer a request is repeated; then the address is asked for anew. */
const repeatMs = 120;
const askAfterRepeats = 2;
/** Who was told to ask again waits for so long. */
const laterMs = 20;

/**
 * Patience: TCP sends again what no kernel has taken, twice as late each time, and the first word of a connection later than others (RFC
 * 6298; Linux). NFS waits (`timeo`) for what a kernel has taken.
 */
const retransmitMs = 200;
const connectMs = 1000;
const answerMs = 60_000;
/** ARP: a question is repeated every second (`retrans_time_ms`), an entry doubted when nothing has come from there for so long. */
const askAgainMs = 1000;
const doubtMs = 30_000;
/** A connection that was refused is tried again after this time (Linux, `call_connect_status`). */
const refusedMs = 3000;

/** What a client met that was no answer, and how long it waited; since somebody asked last. */
export interface Met {
  done: number;
  longestMs: number;
  refused: number;
  stale: number;
  grace: number;
  ioError: number;
  resets: number;
}

const nothingMet = (): Met => ({
  done: 0,
  longestMs: 0,
  refused: 0,
  stale: 0,
  grace: 0,
  ioError: 0,
  resets: 0,
});

export interface ClientSetup {
  readonly id: number;
  readonly address: string;
  /** Clients of the same virtual server, itself included: whose files it reads. */
  readonly peers: readonly number[];
  readonly timeline: Timeline;
  readonly lan: Lan;
  readonly random: () => number;
  readonly thinkMs: number;
  readonly patient?: boolean | undefined;
  readonly history: Operation[];
  /** A contradiction that needs no history to be seen. */
  readonly violation: (text: string) => void;
}

/** The file that a client writes; `r` a register, `l` a log. */
export const fileOf = (kind: "r" | "l", client: number) => `${kind}${client}`;

export class Client implements Station {
  readonly #setup: ClientSetup;
  readonly id: number;
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
  /** Patience: how often the present word was repeated, whether a kernel has taken it, and when anything came from the address last. */
  #retransmits = 0;
  #isTaken = false;
  #heardMs = 0;
  #stopped = false;
  /** Operations that were answered. */
  done = 0;
  met: Met = nothingMet();

  constructor(setup: ClientSetup) {
    this.#setup = setup;
    this.id = setup.id;
    setup.lan.stations.push(this);
    setup.timeline.after(setup.thinkMs * setup.random(), () => this.#begin());
  }

  learn(address: string, who: ControllerId): void {
    if (address !== this.#setup.address) return;
    this.#at = who;
    this.#heardMs = this.#setup.timeline.nowMs;
  }

  entry(address: string): ControllerId | undefined {
    return address === this.#setup.address ? this.#at : undefined;
  }

  get connectedTo(): number {
    return this.#instance;
  }

  /** The kernel at the other end knows nothing of our connection: a new one is made at once, whatever was waited for. */
  reset(instance: number): void {
    if (this.#stopped || instance === 0 || instance !== this.#instance) return;
    this.met.resets += 1;
    this.#instance = 0;
    this.#retransmits = 0;
    this.#send();
  }

  /** Its machine has died. */
  stop(): void {
    this.#stopped = true;
    this.#turn += 1;
    this.#current = undefined;
  }

  /** What was met since the last look; the present operation has waited so long. */
  look(): { readonly met: Met; readonly waitsMs: number; readonly at: ControllerId | undefined } {
    const { met } = this;
    this.met = nothingMet();
    const { nowMs } = this.#setup.timeline;
    const waitsMs = this.#current ? nowMs - this.#current.beginMs : 0;
    return { met, waitsMs, at: this.#at };
  }

  get isGone(): boolean {
    return this.#stopped;
  }

  get address(): string {
    return this.#setup.address;
  }

  #begin(): void {
    if (this.#stopped) return;
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
    const { lan, address, timeline, id, patient } = this.#setup;
    const current = this.#current;
    if (!current) return;
    const turn = ++this.#turn;
    if (patient) this.#waitPatiently(turn);
    else
      timeline.after(repeatMs, () => {
        if (turn === this.#turn) this.#again();
      });
    if (this.#at === undefined) return lan.ask(this, address);
    const operation = this.#request(current);
    const request = { client: id, id: this.#id, instance: this.#instance, operation };
    const answered = (reply: FileReply | { readonly kind: "refused" }) => {
      if (turn === this.#turn) this.#answered(current, operation, reply);
    };
    lan.send(this.#at, address, request, answered, patient ? () => this.#taken(turn) : undefined);
  }

  #taken(turn: number): void {
    this.#heardMs = this.#setup.timeline.nowMs;
    if (turn === this.#turn) this.#isTaken = true;
  }

  #waitPatiently(turn: number): void {
    const { timeline } = this.#setup;
    const firstMs = this.#instance === 0 ? connectMs : retransmitMs;
    const repeatedMs = Math.min(answerMs, firstMs * 2 ** this.#retransmits);
    const waitMs = this.#at === undefined ? askAgainMs : repeatedMs;
    this.#isTaken = false;
    timeline.after(waitMs, () => {
      if (turn !== this.#turn) return;
      // Nothing more is sent for what a kernel has taken, before NFS itself loses patience and connects anew.
      if (this.#isTaken) timeline.after(answerMs - waitMs, () => this.#lostPatience(turn));
      else this.#retransmit();
    });
  }

  #lostPatience(turn: number): void {
    if (turn !== this.#turn) return;
    this.#instance = 0;
    this.#retransmits = 0;
    this.#send();
  }

  #retransmit(): void {
    this.#retransmits += 1;
    if (this.#setup.timeline.nowMs - this.#heardMs >= doubtMs) this.#at = undefined;
    this.#send();
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
  #later(waitMs = laterMs): void {
    const turn = ++this.#turn;
    this.#setup.timeline.after(waitMs, () => {
      if (turn === this.#turn) this.#send();
    });
  }

  #answered(
    current: Operation,
    operation: FileOperation,
    reply: FileReply | { readonly kind: "refused" },
  ): void {
    this.#repeats = 0;
    this.#retransmits = 0;
    this.#heardMs = this.#setup.timeline.nowMs;
    if (reply.kind !== "done" && reply.kind !== "gap") this.met[reply.kind] += 1;
    switch (reply.kind) {
      case "refused":
        this.#instance = 0;
        return this.#later(this.#setup.patient ? refusedMs : laterMs);
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
    this.met.done += 1;
    this.met.longestMs = Math.max(this.met.longestMs, timeline.nowMs - current.beginMs);
    this.#current = undefined;
    this.#turn += 1;
    timeline.after(thinkMs * (0.5 + random()), () => this.#begin());
  }
}
