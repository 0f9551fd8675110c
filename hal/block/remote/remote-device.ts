/**
 * The mass storage emulator: a disk that is somewhere else, reached by NBD. It goes down with the first connection that is lost, and comes
 * up again by itself, as a new *session*. The first passes I/O at once, each later one when it was granted: the server may have lost its
 * power meanwhile, and what it had acknowledged and not flushed, and somebody has to have heard of that.
 *
 * Obligations: nothing is ever sent twice. A request that was under way when its session ended fails with `effectUnknown` (a read with
 * `diskLost`), one that was never sent with `diskLost`. An access program serves a new session only when the old one's requests have left its
 * device; other servers promise nothing of the kind, and what is asked of them after a loss may be overtaken by what was asked before.
 */
import { randomUUID } from "node:crypto";
import {
  done,
  type Fault,
  failed,
  good,
  type Outcome,
} from "../../../firmware-ts/schema/outcome.ts";
import type { ServerFacts } from "../../../firmware-ts/wire/nbd/client-handshake.ts";
import { command, commandFlag, transmissionFlag } from "../../../firmware-ts/wire/nbd/protocol.ts";
import { type BlockDevice, inRange } from "../device.ts";
import { RemoteConnection, type RemoteRequest } from "./connection.ts";
import {
  defaultRemoteLimits,
  defaultRemoteTiming,
  type RemoteLimits,
  type RemoteOptions,
  type RemoteTiming,
} from "./options.ts";

type RemoteState = "connecting" | "up" | "refused" | "closed";

export interface RemoteStatus {
  readonly state: RemoteState;
  /** Counts sessions that came up. */
  readonly session: number;
  /** Whether the session passes I/O. */
  readonly granted: boolean;
  /** Sessions that were lost after they had come up. */
  readonly losses: number;
  /** Why the last session ended, or the last attempt failed. */
  readonly reason: string;
}

interface Session {
  readonly id: string;
  readonly connections: RemoteConnection[];
  facts: ServerFacts | undefined;
  ready: number;
}

const empty = Buffer.alloc(0);
/** The most that one TRIM or WRITE_ZEROES asks for; the field has 32 bits, and any block size divides this. */
const zeroesMaxBytes = 1024 * 1024 * 1024;

export class RemoteDevice implements BlockDevice {
  readonly #options: RemoteOptions;
  readonly #timing: RemoteTiming;
  readonly #limits: RemoteLimits;
  #state: RemoteState = "connecting";
  #session: Session | undefined;
  #facts: ServerFacts | undefined;
  #sessions = 0;
  #granted = 1;
  #losses = 0;
  #reason = "";
  #backOffMs: number;
  #retry: NodeJS.Timeout | undefined;
  readonly #waiting: RemoteRequest[] = [];
  #requestsInFlight = 0;
  #bytesInFlight = 0;
  readonly #stateWaiters = new Set<() => void>();
  #whenIdle: (() => void) | undefined;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.#timing = { ...defaultRemoteTiming, ...options.timing };
    this.#limits = { ...defaultRemoteLimits, ...options.limits };
    this.#backOffMs = this.#timing.backOffMs;
    this.#begin();
  }

  /** Waits until the first session is up; closes and fails after the deadline, or at once when the generation is refused. */
  static async open(options: RemoteOptions, deadlineMs: number): Promise<Outcome<RemoteDevice>> {
    const device = new RemoteDevice(options);
    if (await device.whenUp(deadlineMs)) return good(device);
    const { state, reason } = device.status;
    await device.close();
    const code = state === "refused" ? "generationRefused" : "diskLost";
    return failed(code, "open remote device", reason || `not up within ${deadlineMs} ms`);
  }

  /** 0 until the device was first up; then it does not change. */
  get sizeBytes(): number {
    const { sizeBytes = 0, blockSizeBytes = 1 } = this.#facts ?? {};
    return sizeBytes - (sizeBytes % blockSizeBytes);
  }

  get blockSizeBytes(): number {
    return this.#facts?.blockSizeBytes ?? 1;
  }

  get status(): RemoteStatus {
    const [session, losses, granted] = [this.#sessions, this.#losses, this.#passes];
    return { state: this.#state, session, granted, losses, reason: this.#reason };
  }

  /** Whether it is up within the time; false at once when it never will be. */
  async whenUp(deadlineMs: number): Promise<boolean> {
    if (this.#state === "connecting") {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        timer = setTimeout(resolve, deadlineMs);
        this.#stateWaiters.add(resolve);
      });
      clearTimeout(timer);
    }
    return this.#state === "up";
  }

  get #passes(): boolean {
    return this.#state === "up" && this.#granted === this.#sessions;
  }

  /** Lets this session pass I/O. Fault `diskLost` when it is not the present one. */
  grant(session: number): Outcome {
    if (this.#state !== "up" || session !== this.#sessions)
      return failed("diskLost", "grant", `session ${session} has ended`);
    this.#granted = session;
    return done;
  }

  /** Ends the session now: somebody knows better than the network that nobody answers any more. A new one is attempted. */
  cut(reason: string): void {
    const [first] = this.#session?.connections ?? [];
    first?.cut(reason);
  }

  read(offset: number, length: number): Promise<Outcome<Buffer>> {
    const refused = this.#refuse("read", offset, length);
    if (refused) return Promise.resolve(refused);
    if (length === 0) return Promise.resolve(good(empty));
    const { maxPayloadBytes } = this.#asked();
    if (length <= maxPayloadBytes) return this.#ask(command.read, 0, offset, length, undefined);
    return this.#readParts(offset, length, maxPayloadBytes);
  }

  async #readParts(offset: number, length: number, partBytes: number): Promise<Outcome<Buffer>> {
    const parts: Buffer[] = [];
    for (let at = 0; at < length; at += partBytes) {
      const size = Math.min(partBytes, length - at);
      const part = await this.#ask(command.read, 0, offset + at, size, undefined);
      if (!part.ok) return part;
      parts.push(part.value);
    }
    return good(Buffer.concat(parts, length));
  }

  async write(offset: number, data: Buffer, { fua }: { readonly fua: boolean }): Promise<Outcome> {
    const refused = this.#refuse("write", offset, data.length);
    if (refused) return refused;
    const flags = fua ? commandFlag.fua : 0;
    const { maxPayloadBytes: most } = this.#asked();
    for (let at = 0; at < data.length; at += most) {
      const part = data.length <= most ? data : data.subarray(at, at + most);
      const answer = await this.#ask(command.write, flags, offset + at, part.length, part);
      if (!answer.ok) return at === 0 ? answer : partly(answer.fault);
    }
    return done;
  }

  async flush(): Promise<Outcome> {
    const answer = await this.#ask(command.flush, 0, 0, 0, undefined);
    return answer.ok ? done : answer;
  }

  async trim(offset: number, length: number): Promise<Outcome> {
    const refused = this.#refuse("trim", offset, length);
    if (refused) return refused;
    // Trim is a hint: a server that knows none has done what was asked.
    if ((this.#asked().flags & transmissionFlag.sendTrim) === 0) return done;
    return this.#inParts(command.trim, 0, offset, length);
  }

  async writeZeroes(
    offset: number,
    length: number,
    { fua, mayTrim }: { readonly fua: boolean; readonly mayTrim: boolean },
  ): Promise<Outcome> {
    const refused = this.#refuse("write zeroes", offset, length);
    if (refused) return refused;
    const flags = (fua ? commandFlag.fua : 0) | (mayTrim ? 0 : commandFlag.noHole);
    return this.#inParts(command.writeZeroes, flags, offset, length);
  }

  /** Refuses what is asked from now on, waits for what is under way (as long as its deadline lasts), and tells the server. */
  async close(): Promise<void> {
    if (this.#state === "closed") return;
    this.#setState("closed", "closed");
    clearTimeout(this.#retry);
    this.#failWaiting("closed");
    if (this.#requestsInFlight > 0)
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    const connections = this.#session?.connections ?? [];
    this.#session = undefined;
    for (const connection of connections) connection.disconnect("closed");
  }

  async #inParts(asked: number, flags: number, offset: number, length: number): Promise<Outcome> {
    for (let at = 0; at < length; at += zeroesMaxBytes) {
      const size = Math.min(zeroesMaxBytes, length - at);
      const answer = await this.#ask(asked, flags, offset + at, size, undefined);
      if (!answer.ok) return at === 0 ? answer : partly(answer.fault);
    }
    return done;
  }

  #refuse(operation: string, offset: number, length: number) {
    // One that was up once knows its size, and may come up again.
    if (this.#facts === undefined || !this.#passes) return this.#down(operation);
    if (inRange(this, offset, length)) return undefined;
    return failed("badInput", operation, `${length} bytes at ${offset} lie outside the device`);
  }

  #down(operation: string) {
    if (this.#state === "closed") return failed("refused", operation, "the device is closed");
    const code = this.#state === "refused" ? "generationRefused" : "diskLost";
    const why = this.#state === "up" ? "nobody has granted this session" : this.#reason;
    return failed(code, operation, why || "the remote device is not up yet");
  }

  #asked(): ServerFacts {
    if (this.#facts === undefined) throw new Error("remote: a request before the first session");
    return this.#facts;
  }

  #ask(
    asked: number,
    flags: number,
    offset: number,
    length: number,
    data: Buffer | undefined,
  ): Promise<Outcome<Buffer>> {
    if (!this.#passes) return Promise.resolve(this.#down("remote device"));
    return new Promise((settle) => {
      const request = { command: asked, flags, offset, length, data, settle };
      if (this.#waiting.length === 0 && this.#hasRoom(length)) this.#send(request);
      else if (this.#waiting.length < this.#limits.requestsWaitingMax) this.#waiting.push(request);
      else settle(failed("refused", "remote device", `${this.#waiting.length} requests wait`));
    });
  }

  /** A request that is larger than all that may be under way goes alone. */
  #hasRoom(length: number): boolean {
    if (this.#requestsInFlight === 0) return true;
    return (
      this.#requestsInFlight < this.#limits.requestsInFlightMax &&
      this.#bytesInFlight + length <= this.#limits.bytesInFlightMax
    );
  }

  #send(request: RemoteRequest): void {
    const { connections = [] } = this.#session ?? {};
    let [best] = connections;
    for (const one of connections) {
      if (best === undefined || best.inFlight === 0) break;
      const isBetter =
        one.bytesInFlight < best.bytesInFlight ||
        (one.bytesInFlight === best.bytesInFlight && one.inFlight < best.inFlight);
      if (isBetter) best = one;
    }
    if (best === undefined) throw new Error("remote: up without a connection");
    this.#requestsInFlight += 1;
    this.#bytesInFlight += request.length;
    const { settle } = request;
    best.send({
      command: request.command,
      flags: request.flags,
      offset: request.offset,
      length: request.length,
      data: request.data,
      settle: (outcome) => {
        this.#requestsInFlight -= 1;
        this.#bytesInFlight -= request.length;
        settle(outcome);
        if (this.#requestsInFlight === 0) this.#whenIdle?.();
      },
    });
  }

  #answered(): void {
    for (let next = this.#waiting[0]; next && this.#state === "up"; next = this.#waiting[0]) {
      if (!this.#hasRoom(next.length)) return;
      this.#waiting.shift();
      this.#send(next);
    }
  }

  #begin(): void {
    this.#session = { id: randomUUID(), connections: [], facts: undefined, ready: 0 };
    this.#connect(this.#session);
  }

  #connect(session: Session): void {
    const { address, exportName, tls } = this.#options;
    session.connections.push(
      new RemoteConnection({
        ...{ address, tls, timing: this.#timing, exportName: exportName(session.id) },
        ready: (facts) => this.#ready(session, facts),
        ended: (fault, lost) => this.#ended(session, fault, lost),
        answered: () => this.#answered(),
      }),
    );
  }

  #ready(session: Session, facts: ServerFacts): void {
    const wrong = unfit(facts, session.facts ?? this.#facts);
    if (wrong !== undefined) {
      const fault: Fault = { code: "notSupported", operation: "remote device", message: wrong };
      this.#ended(session, fault, []);
      return;
    }
    session.facts = facts;
    session.ready += 1;
    const isOne = (facts.flags & transmissionFlag.canMultiConn) !== 0;
    const wanted = isOne ? this.#limits.connections : 1;
    if (session.ready === 1) while (session.connections.length < wanted) this.#connect(session);
    if (session.ready < wanted) return;
    this.#facts = facts;
    this.#sessions += 1;
    this.#backOffMs = this.#timing.backOffMs;
    this.#setState("up", "");
    this.#options.handlers?.up?.(this.#sessions);
  }

  /** One connection less is a session less: what it had under way would otherwise be unknown among what is known. */
  #ended(session: Session, fault: Fault, lost: readonly RemoteRequest[]): void {
    if (session !== this.#session) {
      // The others of a session that has ended already.
      for (const request of lost) settleLost(request, fault);
      return;
    }
    this.#session = undefined;
    const wasUp = this.#state === "up";
    if (wasUp) {
      this.#losses += 1;
      this.#setState("connecting", fault.message);
      this.#options.handlers?.down?.(fault.message);
    }
    for (const connection of session.connections) connection.cut(fault.message);
    for (const request of lost) settleLost(request, fault);
    this.#failWaiting(fault.message);
    if (this.#state === "closed") return;
    this.#reason = fault.message;
    if (fault.code === "generationRefused") {
      this.#setState("refused", fault.message);
      this.#options.handlers?.refused?.(fault.message);
      return;
    }
    this.#retry = setTimeout(() => this.#begin(), this.#backOffMs);
    this.#backOffMs = Math.min(this.#backOffMs * 2, this.#timing.backOffMaxMs);
  }

  #failWaiting(reason: string): void {
    for (const { settle } of this.#waiting.splice(0))
      settle(failed("diskLost", "remote device", `not sent: ${reason}`));
  }

  #setState(state: RemoteState, reason: string): void {
    this.#state = state;
    this.#reason = reason;
    for (const resolve of this.#stateWaiters) resolve();
    this.#stateWaiters.clear();
  }
}

function settleLost({ command: asked, settle }: RemoteRequest, fault: Fault): void {
  const code = asked === command.read ? "diskLost" : "effectUnknown";
  settle(failed(code, "remote device", fault.message, fault));
}

/** Some parts have happened: whatever the fault of this one says, the whole is half done. */
const partly = (fault: Fault) =>
  failed("effectUnknown", "remote device", "only a part was done", fault);

/** What speaks against an export as a replica: without FUA and flush nothing that it acknowledges is known to be durable. */
function unfit(facts: ServerFacts, known: ServerFacts | undefined): string | undefined {
  const { sendFlush, sendFua, sendWriteZeroes, readOnly } = transmissionFlag;
  const needed = sendFlush | sendFua | sendWriteZeroes;
  if ((facts.flags & readOnly) !== 0) return "the export is read-only";
  if ((facts.flags & needed) !== needed)
    return `the export lacks flush, FUA or zeroes (flags 0x${facts.flags.toString(16)})`;
  if (known === undefined) return undefined;
  const isSame =
    facts.sizeBytes === known.sizeBytes &&
    facts.blockSizeBytes === known.blockSizeBytes &&
    facts.maxPayloadBytes === known.maxPayloadBytes;
  return isSame ? undefined : `the export has changed: ${facts.sizeBytes} bytes`;
}
