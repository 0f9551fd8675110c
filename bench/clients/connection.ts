/**
 * An RPC connection that is always there: it reconnects for ever and repeats what was in flight, each call under its old xid.
 *
 * Two things set it apart from a kernel's client. A new attempt to connect starts every few milliseconds beside those still waiting, so a
 * SYN that a closed gate swallowed does not cost a second. And it gives up a silent connection only after `patienceMs`, which is long:
 * repeating a write while the first copy may still wait in a live server could put old data over new.
 */
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { AuthSys, RpcProcedure } from "../../hal/linux/ganesha/rpc.ts";
import { connectRpc, type RpcConnection } from "../../hal/linux/ganesha/rpc-connection.ts";
import { EngineClosed } from "./engine.ts";

const attemptEveryMs = 10;
/** An attempt is given up after this, well before the kernel repeats its SYN (1 s), so there is always room for the next one. */
const attemptTimeoutMs = 200;
const attemptsMax = 24;
const patienceMs = 10_000;

export class SteadyConnection {
  readonly #host: string;
  readonly #port: number;
  readonly #identity: AuthSys;
  readonly #onRepeat: () => void;
  #current: Promise<RpcConnection> | undefined;
  #closed = false;
  #xid: number;

  constructor(host: string, port: number, identity: AuthSys, onRepeat: () => void) {
    this.#host = host;
    this.#port = port;
    this.#identity = identity;
    this.#onRepeat = onRepeat;
    this.#xid = (process.pid * 65_536) % 2 ** 31;
  }

  /** Settles with the reply. Throws `EngineClosed`, and an error when the server refuses the RPC itself. */
  async call(target: RpcProcedure, args: Uint8Array): Promise<Buffer> {
    this.#xid = (this.#xid + 1) % 2 ** 32;
    const xid = this.#xid;
    for (;;) {
      const connection = await this.#connection();
      const reply = await connection.call(xid, target, args, patienceMs);
      if (reply.ok) return reply.value;
      if (reply.fault.code === "refused") throw new Error(`RPC refused: ${reply.fault.message}`);
      this.#onRepeat();
      if (reply.fault.code === "timeout") connection.close();
    }
  }

  close(): void {
    this.#closed = true;
    void this.#current?.then(
      (connection) => connection.close(),
      () => undefined,
    );
  }

  #connection(): Promise<RpcConnection> {
    if (this.#closed) return Promise.reject(new EngineClosed());
    if (this.#current !== undefined) return this.#current;
    const opening = this.#open();
    this.#current = opening;
    void opening.then(
      (connection) => connection.ended.then(() => this.#forget(opening)),
      () => this.#forget(opening),
    );
    return opening;
  }

  #forget(opening: Promise<RpcConnection>): void {
    if (this.#current === opening) this.#current = undefined;
  }

  /** Races staggered attempts; the first that connects wins and the others are closed unused. */
  async #open(): Promise<RpcConnection> {
    const attempts = new Set<Promise<Outcome<RpcConnection>>>();
    let winner: RpcConnection | undefined;
    while (winner === undefined) {
      if (this.#closed) throw new EngineClosed();
      if (attempts.size < attemptsMax) {
        const attempt = connectRpc(
          { host: this.#host, port: this.#port },
          this.#identity,
          attemptTimeoutMs,
        );
        attempts.add(attempt);
        void attempt.then((outcome) => {
          attempts.delete(attempt);
          if (!outcome.ok) return;
          if (winner === undefined) winner = outcome.value;
          else outcome.value.close();
        });
      }
      await Promise.race([...attempts, pause(attemptEveryMs)]);
      if (winner === undefined) await pause(1);
    }
    return winner;
  }
}

function pause(ms: number): Promise<Outcome<RpcConnection>> {
  return new Promise((resolve) => setTimeout(() => resolve(failed("timeout", "wait", "")), ms));
}
