/**
 * The failure monitor of one file service (US 7,200,622: the virtual server failure monitor): a service may live and not answer, because a
 * thread of it holds a lock for good, or somebody stopped it. So it is asked, once a second, for as long as it serves.
 *
 * Obligations: a false alarm is an outage, so silence alone is none. Two questions must go unanswered in a row while the process *stands still*: it
 * neither runs nor wants to, and waits for no disk. One that works is busy, and is given ten questions; what waits for a disk is the business of whoever
 * watches the path and the device, for a restart would wait there, too. Time in which this process itself did not run counts for nothing.
 */
import { explain, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Standing } from "./standing.ts";

/** Time goes by in slices of this. */
const sliceMs = 500;
/** From an answer to the next question, and from a question until its answer counts as missed. */
const pauseSlices = 2;
const patienceSlices = 2;
/** A slice that took longer than this shows that this process did not run: the answer may lie here unread. */
const sliceMsMax = 2 * sliceMs;

/** Questions in a row without an answer, after which a service that stands still counts as hung, and one that works. */
export const missesMax: Readonly<Record<"still" | "works", number>> = { still: 2, works: 10 };

export interface HealthOptions {
  /** Asks the service; the number of the question picks one of its addresses. */
  readonly ask: (question: number) => Promise<Outcome>;
  /** Called with each question; what it returns says how the process stands, compared with then. */
  readonly look: () => () => Standing;
  /** Called again and again as long as it hangs: whoever hears it may have reasons to wait. */
  readonly onHung: (reason: string) => void;
  readonly log: (message: string) => void;
  readonly nowMs?: () => number;
}

interface Question {
  readonly standing: () => Standing;
}

/** Watches until `stop`. */
export class HealthMonitor {
  readonly #options: HealthOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #nowMs: () => number;
  #slicedAtMs: number;
  #slices = 0;
  #asked: Question | undefined;
  #questions = 0;
  #misses = 0;
  /** Of these, the last ones in a row for which it stood still. */
  #stillMisses = 0;
  /** It waits for its disk, which has been told. */
  #waits = false;
  #stopped = false;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#slicedAtMs = this.#nowMs();
    this.#timer = setInterval(() => this.#slice(), sliceMs).unref();
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  #slice(): void {
    const nowMs = this.#nowMs();
    const tookMs = nowMs - this.#slicedAtMs;
    this.#slicedAtMs = nowMs;
    if (tookMs > sliceMsMax) return;
    this.#slices += 1;
    if (this.#asked === undefined) {
      if (this.#slices >= pauseSlices) this.#ask();
    } else if (this.#slices >= patienceSlices) {
      this.#missed(this.#asked, `no answer in ${patienceSlices * sliceMs} ms`);
    }
  }

  #ask(): void {
    const asked: Question = { standing: this.#options.look() };
    this.#asked = asked;
    this.#slices = 0;
    void this.#options.ask(this.#questions++).then((outcome) => this.#answered(asked, outcome));
  }

  #answered(asked: Question, outcome: Outcome): void {
    if (this.#stopped) return;
    // Late is better than never: it answers, though slowly.
    if (outcome.ok) {
      this.#forgive();
      this.#waits = false;
    }
    if (this.#asked !== asked) return;
    this.#asked = undefined;
    this.#slices = 0;
    // An answer that is none comes at once: it is waited with the next question.
    if (!outcome.ok) this.#count("still", explain(outcome.fault));
  }

  #missed(asked: Question, why: string): void {
    const standing = asked.standing();
    if (standing === "disk") this.#forgive();
    else this.#count(standing, why);
    if (this.#stopped) return;
    if (standing === "disk" && !this.#waits) this.#options.log(`${why}: it waits for its disk`);
    this.#waits = standing === "disk";
    // On a connection of its own, whatever became of the last one.
    this.#ask();
  }

  #forgive(): void {
    this.#misses = 0;
    this.#stillMisses = 0;
  }

  #count(standing: "still" | "works", why: string): void {
    this.#misses += 1;
    this.#stillMisses = standing === "still" ? this.#stillMisses + 1 : 0;
    const told = `${why} (${standing === "still" ? "it stands still" : "it works"})`;
    if (this.#misses === 1) this.#options.log(told);
    const isHung = this.#stillMisses >= missesMax.still || this.#misses >= missesMax.works;
    if (isHung) this.#options.onHung(`${told}, ${this.#misses} times in a row`);
  }
}
