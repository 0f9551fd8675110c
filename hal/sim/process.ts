/**
 * A process of a world: does one thing at a time, in the order in which things came, and can be frozen or killed between any two of
 * them. What comes while it is frozen waits.
 */
import { Waiting } from "../../firmware-ts/loop/waiting.ts";
import type { Timeline } from "./timeline.ts";

/** One job; true: there is more of it, to be done before anything else of the process, and again a moment of its own. */
export type Job = () => unknown;

/** Time that one job takes: what makes an instant between two effects. */
const jobMs = 0.02;

/** More waiting jobs than this are a runaway loop of the decisions. */
const jobsMax = 20_000;

export class Process {
  readonly #timeline: Timeline;
  readonly #jobs = new Waiting<Job>();
  /** The job under way ends then; an event of its own marks the end only when something waits for it. */
  #busyUntilMs = -1;
  #waking = false;
  #running = false;
  /** A field, not made in the constructor: see Pair, where it is said which functions are made old. */
  readonly #wake = (): void => {
    this.#waking = false;
    this.#pump();
  };
  frozen = false;
  alive = true;

  constructor(timeline: Timeline) {
    this.#timeline = timeline;
  }

  /** Queues a job; `first` puts it before all that waits. */
  give(job: Job, first = false): void {
    if (!this.alive) return;
    if (this.#jobs.length === 0 && !this.frozen && this.#isIdle()) {
      this.#run(job);
      return;
    }
    if (this.#jobs.length >= jobsMax) throw new Error("process: too many jobs wait");
    if (first) this.#jobs.unshift(job);
    else this.#jobs.push(job);
    this.#pump();
  }

  thaw(): void {
    this.frozen = false;
    this.#pump();
  }

  kill(): void {
    this.alive = false;
    this.#jobs.clear();
  }

  #isIdle(): boolean {
    return !this.#running && this.#busyUntilMs <= this.#timeline.nowMs;
  }

  #run(job: Job): void {
    this.#busyUntilMs = this.#timeline.nowMs + jobMs;
    this.#running = true;
    const more = job() === true;
    this.#running = false;
    if (more && this.alive) this.#jobs.unshift(job);
    if (this.#jobs.length > 0) this.#pump();
  }

  #pump(): void {
    if (this.frozen || !this.alive || this.#running || this.#jobs.length === 0) return;
    if (this.#isIdle()) {
      const job = this.#jobs.shift();
      if (job) this.#run(job);
    } else if (!this.#waking) {
      this.#waking = true;
      this.#timeline.at(this.#busyUntilMs, this.#wake);
    }
  }
}
