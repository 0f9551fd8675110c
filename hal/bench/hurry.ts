/**
 * Real-time priority for the way of the data while an address is silent. Every block of a volume passes two processes that do nothing but hand it
 * on, and each of them waits for its turn behind whatever file service or client runs: a start is a chain of dozens of blocks.
 *
 * Obligations. Never for long: Linux lets ordinary work go before *all* real-time work, the heartbeats too, for 50 ms in each second in which it
 * got nothing (sched(7), sched_rt_runtime_us; since 6.12 the fair server). So a hurry ends before that second is over, whatever goes on, and
 * the next one lets a moment pass in which everybody has a turn. Never for many: when all start at once there is nobody to go before, and they would
 * keep the processors from what a kernel does in ordinary threads, the network of the heartbeats too. And never before the decisions, which wait
 * for no data.
 */
import { explain, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** Less than the second, with what the timer may be late. */
export const hurryMs = 700;
const restMs = 100;
/** The block service, and the disks of a few virtual servers: as many as move at once (core/transfer-window), both ways. */
export const processesMax = 5;

export interface HurrySetup {
  readonly raise: (pid: number) => Outcome;
  readonly lower: (pid: number) => Outcome;
  readonly log: (message: string) => void;
}

export class Hurry {
  readonly #setup: HurrySetup;
  readonly #raised = new Set<number>();
  #timer: NodeJS.Timeout | undefined;
  #isResting = false;
  #hasFailed = false;

  constructor(setup: HurrySetup) {
    this.#setup = setup;
  }

  /** Raises these processes until the end of the hurry that is under way, or of one that begins now. In a rest, or for too many, nobody is raised. */
  begin(pids: readonly number[]): void {
    if (this.#isResting) return;
    const added = pids.filter((pid) => !this.#raised.has(pid));
    if (this.#raised.size + added.length > processesMax) return this.#rest(hurryMs);
    for (const pid of added) if (this.#tell(this.#setup.raise(pid))) this.#raised.add(pid);
    if (this.#raised.size > 0)
      this.#timer ??= setTimeout(() => this.#rest(restMs), hurryMs).unref();
  }

  /** Everybody is ordinary again. */
  close(): void {
    clearTimeout(this.#timer);
    this.#lowerAll();
    this.#isResting = true;
  }

  #rest(ms: number): void {
    clearTimeout(this.#timer);
    this.#lowerAll();
    this.#isResting = true;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#isResting = false;
    }, ms).unref();
  }

  #lowerAll(): void {
    // One that has gone meanwhile needs nothing more.
    for (const pid of this.#raised) this.#setup.lower(pid);
    this.#raised.clear();
  }

  /** Without the right to it everything is only slower: said once. */
  #tell(raised: Outcome): boolean {
    if (raised.ok || this.#hasFailed) return raised.ok;
    this.#hasFailed = true;
    this.#setup.log(`the way of the data stays ordinary: ${explain(raised.fault)}`);
    return false;
  }
}
