/**
 * The life of one file service: at most one process that serves, and one that is held for the next start.
 *
 * Obligations: none serves after `stop` or `kill` has settled well; none serves anything but the volumes that are mounted; the death of the one that
 * serves is reported at once; all calls but `kill` wait for each other, for two starts at once would be two servers on one volume.
 */
import { done, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { HealthMonitor } from "./health.ts";
import type { ProcessEnd, ServiceProcess } from "./service-process.ts";
import { standingOf, ticksOf } from "./standing.ts";
import { within } from "./within.ts";

/** What a probe has shown. */
export interface Proved {
  readonly tookMs: number;
  /** Asks once more whether it answers; the number of the question picks one of its addresses. */
  readonly ask: (question: number) => Promise<Outcome>;
}

/** What differs from one kind of service to another: `S` is what it serves, `P` its process. */
export interface ServiceKind<S, P extends ServiceProcess> {
  /** For messages. */
  readonly name: string;
  /** Two of the same text are the same service. */
  identify(service: S): string;
  /** Starts a process; a held one waits for its release. */
  launch(service: S, options: { readonly held: boolean }): Promise<Outcome<P>>;
  /** Sees to what must be there before a server touches its volume. */
  makeReady(service: S): Promise<Outcome>;
  /** Whether a process that is in its place sees the volumes that it is to serve (`place/sight.ts`). Faults: `serviceFailed`, `timeout`. */
  sees(service: S, pid: number, deadlineMs: number): Promise<Outcome>;
  /** Waits until it answers. Faults: `serviceSilent`, `serviceFailed`. */
  probe(service: S, deadlineMs: number, isAlive: () => boolean): Promise<Outcome<Proved>>;
  readonly log: (message: string) => void;
  /** Called once for each that had served and ended; `expected` when `stop` or `kill` asked for it. */
  readonly onEnd: (end: ProcessEnd & { readonly expected: boolean }) => void;
  /** Called, again and again, while one that has been proved lives and does not answer (`health.ts`). */
  readonly onHung: (reason: string) => void;
}

interface Spare<P> {
  readonly process: P;
  readonly identity: string;
}

interface Serving<S, P> {
  readonly process: P;
  readonly service: S;
  stopping: boolean;
  health?: HealthMonitor | undefined;
}

/** How long a start waits for a server that was killed a moment before. */
const lastEndMs = 2000;

/** How long it waits for a spare to come to its hold, and then to be looked through. What is not known by then is seen when it answers. */
const atHoldMsMax = 1000;
const sightMsMax = 1000;

export class ServiceDriver<S, P extends ServiceProcess = ServiceProcess> {
  readonly #kind: ServiceKind<S, P>;
  #spare: Spare<P> | undefined;
  #serving: Serving<S, P> | undefined;
  /** Raised by `kill`, so that a start that was asked for before does not bring up what was just killed. */
  #killCount = 0;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(kind: ServiceKind<S, P>) {
    this.#kind = kind;
  }

  /** Holds a process for the next start of that service; one of another service is ended. Faults: those of `launch`, `timeout`. */
  prepare(service: S): Promise<Outcome> {
    return this.#inTurn(async () => {
      const identity = this.#kind.identify(service);
      if (this.#spare?.identity === identity) return done;
      const ended = await this.#endSpare(lastEndMs);
      if (!ended.ok) return ended;
      const launched = await this.#kind.launch(service, { held: true });
      if (!launched.ok) return launched;
      const spare = { process: launched.value, identity };
      this.#spare = spare;
      void spare.process.ended.then(() => {
        if (this.#spare === spare) this.#spare = undefined;
      });
      return done;
    });
  }

  /** Ends the spare, should there be one. Fault `timeout`. */
  dropSpare(timeoutMs: number): Promise<Outcome> {
    return this.#inTurn(() => this.#endSpare(timeoutMs));
  }

  /** Settles when the spare has done all that it can do in advance, or has ended, or there is none. */
  spareHeld(): Promise<void> {
    return this.#spare?.process.atHold ?? Promise.resolve();
  }

  /** Starts it; value: its pid. It does not answer yet. Serving the same is a success. Faults: `refused`, and those of `launch` and `makeReady`. */
  start(service: S): Promise<Outcome<number>> {
    const kills = this.#killCount;
    return this.#inTurn(() => this.#start(service, kills));
  }

  /**
   * Waits until it answers; value: milliseconds. From then on it is asked whether it still does, until it is stopped. Faults: `serviceSilent`,
   * `serviceFailed`.
   */
  async probe(deadlineMs: number): Promise<Outcome<number>> {
    const mine = this.#serving;
    if (mine === undefined) {
      return failed("serviceFailed", `probe ${this.#kind.name}`, "not started");
    }
    const end = performance.now() + deadlineMs;
    const isAlive = () => mine.process.alive();
    const proved = await this.#kind.probe(mine.service, deadlineMs, isAlive);
    if (!proved.ok) return proved;
    // No address answers clients yet.
    const leftMs = Math.max(sightMsMax, end - performance.now());
    const sees = await this.#kind.sees(mine.service, mine.process.pid, leftMs);
    if (!sees.ok) {
      // Whoever asks for it again is to have another.
      letEnd(mine);
      mine.process.kill();
      return sees;
    }
    this.#watch(mine, proved.value);
    return good(proved.value.tookMs);
  }

  /** Ends it; settles well only when the kernel has released everything that it held. Fault: `timeout`. */
  stop(timeoutMs: number): Promise<Outcome> {
    return this.#inTurn(() => this.#stop(timeoutMs));
  }

  /** Ends it without waiting. */
  kill(): void {
    this.#killCount += 1;
    if (this.#serving === undefined) return;
    letEnd(this.#serving);
    this.#serving.process.kill();
  }

  /** The server, and the spare. */
  processes(): readonly number[] {
    return [this.#serving, this.#spare].flatMap((each) => each?.process.pid ?? []);
  }

  /** How often `kill` was called: what dies between two equal answers was not ended by this driver. */
  killCount(): number {
    return this.#killCount;
  }

  state(): { readonly pid: number | undefined; readonly sparePid: number | undefined } {
    return { pid: this.#serving?.process.pid, sparePid: this.#spare?.process.pid };
  }

  /** The one that serves. */
  process(): P | undefined {
    return this.#serving?.process;
  }

  /** `stop`, and the spare too. */
  close(timeoutMs: number): Promise<Outcome> {
    return this.#inTurn(async () => {
      await this.#endSpare(timeoutMs);
      return await this.#stop(timeoutMs);
    });
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(action);
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  async #start(service: S, killsBefore: number): Promise<Outcome<number>> {
    const operation = `start ${this.#kind.name}`;
    const current = this.#serving;
    if (current?.stopping) {
      const ended = await endOf(current.process, operation, lastEndMs);
      if (!ended.ok) return ended;
    } else if (current !== undefined) {
      if (this.#kind.identify(current.service) === this.#kind.identify(service))
        return good(current.process.pid);
      return failed("refused", operation, "it serves something else");
    }
    const ready = await this.#kind.makeReady(service);
    if (!ready.ok) return ready;
    const isKilled = () => killsBefore !== this.#killCount;
    const launched = await this.#launchReady(service, isKilled);
    if (!launched.ok) return launched;
    if (!isKilled()) return good(launched.value);
    this.kill();
    return failed("refused", operation, "it was killed while it started");
  }

  /** It serves from the moment at which it may be let go on: whoever kills the service means it, too. */
  async #launchReady(service: S, isKilled: () => boolean): Promise<Outcome<number>> {
    const spare = this.#spare;
    if (spare?.identity === this.#kind.identify(service)) {
      this.#spare = undefined;
      const serving = this.#adopt(spare.process, service);
      // Until then its end is nobody's loss: another is started.
      serving.stopping = true;
      const released = await this.#letGo(spare.process, service);
      if (released.ok) {
        serving.stopping = isKilled();
        return good(spare.process.pid);
      }
      if (!isKilled())
        this.#kind.log(`the spare file service is of no use: ${released.fault.message}`);
      const ended = await endOf(spare.process, "end a broken spare", lastEndMs);
      if (!ended.ok) return ended;
      if (isKilled()) return released;
    }
    const ended = await this.#endSpare(lastEndMs);
    if (!ended.ok) return ended;
    const launched = await this.#kind.launch(service, { held: false });
    if (!launched.ok) return launched;
    this.#adopt(launched.value, service);
    return good(launched.value.pid);
  }

  /**
   * A spare entered its place before its volumes were mounted: one that is seen not to see them is not let go on. One that is not at its hold in time,
   * or cannot be looked through, is, as a fresh process would be: before it answers anybody it is looked at once more.
   */
  async #letGo(process: P, service: S): Promise<Outcome> {
    const held = process.atHold.then(() => done);
    const waited = await within(held, atHoldMsMax, `release ${process.pid}`, "not at its hold");
    if (waited.ok) {
      const sees = await this.#kind.sees(service, process.pid, sightMsMax);
      if (!sees.ok && sees.fault.code !== "timeout") return sees;
    }
    return await process.release();
  }

  #adopt(process: P, service: S): Serving<S, P> {
    const mine: Serving<S, P> = { process, service, stopping: false };
    this.#serving = mine;
    void process.ended.then((ending) => {
      mine.health?.stop();
      if (this.#serving === mine) this.#serving = undefined;
      this.#kind.onEnd({ ...ending, expected: mine.stopping });
    });
    return mine;
  }

  #watch(mine: Serving<S, P>, { ask }: Proved): void {
    if (mine.stopping) return;
    mine.health?.stop();
    const { pid } = mine.process;
    const { log, onHung } = this.#kind;
    const look = () => {
      const ticks = ticksOf(pid);
      return () => standingOf(pid, ticks);
    };
    mine.health = new HealthMonitor({ ask, look, onHung, log });
  }

  async #endSpare(timeoutMs: number): Promise<Outcome> {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare === undefined) return done;
    return await endOf(spare.process, `end spare of ${this.#kind.name}`, timeoutMs);
  }

  async #stop(timeoutMs: number): Promise<Outcome> {
    if (this.#serving === undefined) return done;
    letEnd(this.#serving);
    return await endOf(this.#serving.process, `stop ${this.#kind.name}`, timeoutMs);
  }
}

/** Whatever becomes of it from now on is what we asked for. */
function letEnd(serving: Pick<Serving<unknown, unknown>, "stopping" | "health">): void {
  serving.stopping = true;
  serving.health?.stop();
}

async function endOf(
  process: ServiceProcess,
  operation: string,
  timeoutMs: number,
): Promise<Outcome> {
  process.kill();
  const ended = process.ended.then(() => done);
  const why = `process ${process.pid} lives after ${timeoutMs} ms`;
  return await within(ended, timeoutMs, operation, why);
}
