/**
 * A process of a world: does one thing at a time, in the order in which things came, and can be frozen or killed between any two of
 * them. What comes while it is frozen waits.
 */
import type { Timeline } from "./timeline.ts";

/** Time that one job takes: what makes an instant between two effects. */
const jobMs = 0.02;

/** More waiting jobs than this are a runaway loop of the decisions. */
const jobsMax = 20_000;

export class Process {
  readonly #timeline: Timeline;
  readonly #jobs: (() => void)[] = [];
  #busy = false;
  frozen = false;
  alive = true;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
  }

  /** Queues a job; `first` puts it before all that waits (a synchronous call, or a timer that is due at a thaw). */
  give(job: () => void, first = false): void {
    if (!this.alive) return;
    if (this.#jobs.length >= jobsMax) throw new Error("process: too many jobs wait");
    if (first) this.#jobs.unshift(job);
    else this.#jobs.push(job);
    this.#pump();
  }

  /** Queues jobs that one synchronous stretch does in turn, before anything else. */
  giveAll(jobs: readonly (() => void)[]): void {
    if (!this.alive) return;
    this.#jobs.unshift(...jobs);
    this.#pump();
  }

  thaw(): void {
    this.frozen = false;
    this.#pump();
  }

  kill(): void {
    this.alive = false;
    this.#jobs.length = 0;
  }

  #pump(): void {
    if (this.#busy || this.frozen || !this.alive) return;
    const job = this.#jobs.shift();
    if (!job) return;
    this.#busy = true;
    job();
    this.#timeline.after(jobMs, () => {
      this.#busy = false;
      this.#pump();
    });
  }
}
