/**
 * An NFSv4.1 client id and its session (RFC 8881 2.4 and 2.10), through any number of servers: when the server does not know the session
 * any more, another is made, what was held is reclaimed, and whoever waits goes on.
 *
 * Glossary. *Slot*: one request at a time, counted, so that a repetition is recognised. *Reclaim*: to tell a new server what one held at the
 * last (RFC 8881 8.4.2.1), before anybody else can take it.
 *
 * Obligations: an operation is executed once, whatever becomes of connections, by the server that answers it; everything held is reclaimed
 * before RECLAIM_COMPLETE, and nothing new is asked for before that.
 */
import { randomBytes } from "node:crypto";
import type { AuthSys } from "../../hal/linux/ganesha/rpc.ts";
import { SteadyConnection } from "./connection.ts";
import { EngineClosed, type EngineCounters, type Target } from "./engine.ts";
import * as nfs from "./nfs41-codec.ts";
import {
  type CompoundResult,
  compoundProcedure,
  decodeCompound,
  encodeCompound,
} from "./nfs41-compound.ts";

const identity: AuthSys = { machine: "dyad-bench", uid: 0, gid: 0 };
const slotsWanted = 64;
const retryMs = 5;
/** Well within the shortest lease (2 s): who has nothing to do renews it all the same. */
const renewEveryMs = 500;

type Ops = readonly nfs.Op<unknown>[];

interface Slot {
  readonly id: number;
  sequence: number;
}

interface Session {
  readonly id: Buffer;
  readonly clientId: bigint;
  readonly free: Slot[];
}

/** One attempt in this session, without waiting for another. Throws `SessionLost`. */
export type Exchange = <const Of extends Ops>(ops: Of) => Promise<CompoundResult<Of>>;

/** Takes back what was held, as this client id. */
export type Reclaim = (exchange: Exchange, clientId: bigint) => Promise<void>;

class SessionLost extends Error {
  override readonly name = "SessionLost";
}

export class Nfs41Session {
  readonly #connection: SteadyConnection;
  readonly #counters: EngineCounters;
  readonly #owner: string;
  readonly #reclaim: Reclaim;
  /** RFC 8881 2.4: a client that has another one has forgotten what it held. */
  readonly #verifier = randomBytes(8);
  readonly #renewal: NodeJS.Timeout;
  #current: Promise<Session> | undefined;
  /** The client id for which everything has been reclaimed. */
  #complete: bigint | undefined;
  #waiting: (() => void)[] = [];
  #lastCallMs = performance.now();
  #closed = false;

  /** `owner`: the name by which the server knows this client again, different from all others. Connects with the first call. */
  constructor(target: Target, owner: string, counters: EngineCounters, reclaim: Reclaim) {
    this.#owner = owner;
    this.#counters = counters;
    this.#reclaim = reclaim;
    this.#connection = new SteadyConnection(target.server, target.nfsPort, identity, () => {
      counters.repeats += 1;
    });
    this.#renewal = setInterval(() => void this.#renew(), renewEveryMs).unref();
  }

  /**
   * One COMPOUND; `make` is asked for its operations again when a session was lost, because what they name is another thing then. `isCached`: the
   * server keeps the answer of what must not be done twice (2.10.6.1.3). Throws `EngineClosed`.
   */
  async call<const Of extends Ops>(
    make: (clientId: bigint) => Of,
    { isCached = false } = {},
  ): Promise<CompoundResult<Of>> {
    for (;;) {
      const opening = this.#session();
      const session = await opening;
      const slot = await this.#slotOf(session);
      // Another session may have come while a slot was waited for.
      if (slot === undefined || this.#current !== opening) continue;
      try {
        return await this.#exchange(session, slot, make(session.clientId), isCached);
      } catch (error) {
        if (!(error instanceof SessionLost)) throw error;
        this.#forget(opening);
      } finally {
        this.#giveBack(session, slot);
      }
    }
  }

  /** Gives session and client id back, so that nobody has to wait for this client after a move; at most for `timeoutMs`. */
  async close(timeoutMs: number): Promise<void> {
    clearInterval(this.#renewal);
    const late = new Promise<void>((resolve) => setTimeout(resolve, timeoutMs).unref());
    await Promise.race([this.#destroy(), late]);
    this.#closed = true;
    this.#connection.close();
  }

  async #destroy(): Promise<void> {
    if (this.#current === undefined) return;
    const session = await this.#current;
    for (const op of [nfs.destroySession(session.id), nfs.destroyClientId(session.clientId)]) {
      const answered = await this.#ask([op]);
      if (!answered.ok) this.#count(answered.status);
    }
  }

  #session(): Promise<Session> {
    if (this.#closed) return Promise.reject(new EngineClosed());
    if (this.#current === undefined) {
      const opening = this.#establish();
      this.#current = opening;
      opening.catch(() => this.#forget(opening));
    }
    return this.#current;
  }

  #forget(opening: Promise<Session>): void {
    if (this.#current !== opening) return;
    this.#current = undefined;
    for (const go of this.#waiting.splice(0)) go();
  }

  /** Undefined when one may be free now: the caller looks again. */
  async #slotOf(session: Session): Promise<Slot | undefined> {
    const slot = session.free.shift();
    if (slot !== undefined) return slot;
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return undefined;
  }

  #giveBack(session: Session, slot: Slot): void {
    session.free.push(slot);
    this.#waiting.shift()?.();
  }

  async #establish(): Promise<Session> {
    for (;;) {
      const session = await this.#begin();
      if (session !== undefined) {
        try {
          await this.#takeBack(session);
          return session;
        } catch (error) {
          if (!(error instanceof SessionLost)) throw error;
        }
      }
      if (this.#closed) throw new EngineClosed();
      await pause(retryMs);
    }
  }

  /** EXCHANGE_ID and CREATE_SESSION; undefined when the server wants to be asked again. */
  async #begin(): Promise<Session | undefined> {
    const known = await this.#ask([nfs.exchangeId(this.#owner, this.#verifier)]);
    if (!known.ok) return this.#count(known.status);
    const [{ clientId, sequence, isConfirmed }] = known.values;
    const created = await this.#ask([nfs.createSession(clientId, sequence, slotsWanted)]);
    if (!created.ok) return this.#count(created.status);
    const [{ id, slots }] = created.values;
    // A server that does not know us has nothing of what we held, whatever it calls us.
    if (!isConfirmed) this.#complete = undefined;
    const free = Array.from({ length: slots }, (_, i): Slot => ({ id: i, sequence: 0 }));
    return { id, clientId, free };
  }

  async #takeBack(session: Session): Promise<void> {
    if (this.#complete === session.clientId) return;
    const exchange: Exchange = async (ops) => {
      for (;;) {
        const slot = await this.#slotOf(session);
        if (slot === undefined) continue;
        try {
          return await this.#exchange(session, slot, ops, true);
        } finally {
          this.#giveBack(session, slot);
        }
      }
    };
    await this.#reclaim(exchange, session.clientId);
    const completed = await exchange([nfs.reclaimComplete()]);
    // A repetition of what a lost answer was about.
    if (!completed.ok && completed.status !== "NFS4ERR_COMPLETE_ALREADY") {
      this.#count(completed.status);
      throw new SessionLost(completed.status);
    }
    this.#complete = session.clientId;
  }

  /** Repeats until the operations have been executed or refused. Throws `SessionLost` when this session can do nothing more. */
  async #exchange<const Of extends Ops>(
    session: Session,
    slot: Slot,
    ops: Of,
    isCached: boolean,
  ): Promise<CompoundResult<Of>> {
    for (;;) {
      slot.sequence += 1;
      const head = nfs.sequence(session.id, slot.id, slot.sequence, isCached);
      const answered = await this.#ask([head, ...ops] as const);
      this.#lastCallMs = performance.now();
      if (answered.ok)
        return { ok: true, values: answered.values.slice(1) } as unknown as CompoundResult<Of>;
      if (answered.at > 0) return { ...answered, at: answered.at - 1 };
      this.#count(answered.status);
      // It was executed, and its answer is not there any more: it is one that may be executed again.
      if (answered.status === "NFS4ERR_RETRY_UNCACHED_REP" && !isCached) continue;
      if (answered.status !== "NFS4ERR_DELAY") throw new SessionLost(answered.status);
      // 18.46.3: the slot is as it was.
      slot.sequence -= 1;
      await pause(retryMs);
    }
  }

  async #ask<const Of extends Ops>(ops: Of): Promise<CompoundResult<Of>> {
    return decodeCompound(await this.#connection.call(compoundProcedure, encodeCompound(ops)), ops);
  }

  /** A SEQUENCE alone renews the lease (8.3). */
  async #renew(): Promise<void> {
    if (this.#current === undefined || performance.now() - this.#lastCallMs < renewEveryMs) return;
    this.#lastCallMs = performance.now();
    await this.call(() => []).catch((error: unknown) => {
      if (!(error instanceof EngineClosed)) throw error;
    });
  }

  #count(status: string): undefined {
    this.#counters.statuses[status] = (this.#counters.statuses[status] ?? 0) + 1;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
