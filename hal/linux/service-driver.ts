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
  sees(service: S, pid: number): Promise<Outcome>;
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

/** How long it waits for a spare to come to its hold. */
const atHoldMsMax = 3000;

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
    const isAlive = () => mine.process.alive();
    const proved = await this.#kind.probe(mine.service, deadlineMs, isAlive);
    if (!proved.ok) return proved;
    // Those that were not held are looked at here for the first time; no address answers clients yet.
    const sees = await this.#kind.sees(mine.service, mine.process.pid);
    if (!sees.ok) return sees;
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
    const launched = await this.#launchReady(service);
    if (!launched.ok) return launched;
    this.#adopt(launched.value, service);
    if (killsBefore === this.#killCount) return good(launched.value.pid);
    this.kill();
    return failed("refused", operation, "it was killed while it started");
  }

  async #launchReady(service: S): Promise<Outcome<P>> {
    const spare = this.#spare;
    if (spare?.identity === this.#kind.identify(service)) {
      this.#spare = undefined;
      const released = await this.#letGo(spare.process, service);
      if (released.ok) return good(spare.process);
      this.#kind.log(`the spare file service is of no use: ${released.fault.message}`);
      const ended = await endOf(spare.process, "end a broken spare", lastEndMs);
      if (!ended.ok) return ended;
    }
    const ended = await this.#endSpare(lastEndMs);
    return ended.ok ? await this.#kind.launch(service, { held: false }) : ended;
  }

  /** A spare entered its place before its volumes were mounted: it is let go on only once it has been seen to see them. */
  async #letGo(process: P, service: S): Promise<Outcome> {
    const operation = `release ${process.pid}`;
    const why = `not at its hold within ${atHoldMsMax} ms`;
    const held = process.atHold.then(() => done);
    const waited = await within(held, atHoldMsMax, operation, why);
    if (!waited.ok) return waited;
    const sees = await this.#kind.sees(service, process.pid);
    return sees.ok ? await process.release() : sees;
  }

  #adopt(process: P, service: S): void {
    const mine: Serving<S, P> = { process, service, stopping: false };
    this.#serving = mine;
    void process.ended.then((ending) => {
      mine.health?.stop();
      if (this.#serving === mine) this.#serving = undefined;
      this.#kind.onEnd({ ...ending, expected: mine.stopping });
    });
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
