/**
 * The order in which the works of virtual servers are done. Works of one virtual server run one after another, as the decisions asked
 * for them, so that an end never overtakes the mount before it; different servers run side by side. As far as the decisions are concerned
 * every work ends within its limit; what really goes on holds up the works behind it for as long as it takes.
 */
import type { Work } from "../core/effects.ts";
import { failed, type Outcome } from "../schema/outcome.ts";

type Settle = (outcome: Outcome<string | undefined>) => void;

export interface WorkHost {
  /** A timer of this process; the result ends it. */
  after(delayMs: number, run: () => void): () => void;
  /** Does one work; `ended` is called once, whenever that is. */
  run(virtualServer: string, work: Work, limitMs: number, ended: Settle): void;
}

interface Waiting {
  readonly work: Work;
  readonly limitMs: number;
  readonly settle: Settle;
}

interface Line {
  readonly waiting: Waiting[];
  running: number;
}

export class WorkQueue {
  readonly #host: WorkHost;
  readonly #lines = new Map<string, Line>();

  constructor(host: WorkHost) {
    this.#host = host;
  }

  /** `settle` is called once: with the outcome, or with a timeout when `limitMs` have gone by since the work was asked for. */
  perform(virtualServer: string, work: Work, limitMs: number, settle: Settle): void {
    const line = this.#lines.get(virtualServer) ?? { waiting: [], running: 0 };
    this.#lines.set(virtualServer, line);
    const waiting = { work, limitMs, settle: this.#limited(virtualServer, work, limitMs, settle) };
    // A kill does not wait behind what hangs because of what is being killed; but what comes after a kill waits for both.
    if (work.op === "killService") return this.#run(virtualServer, line, waiting);
    line.waiting.push(waiting);
    this.#next(virtualServer, line);
  }

  #limited(virtualServer: string, work: Work, limitMs: number, settle: Settle): Settle {
    let isSettled = false;
    const once: Settle = (outcome) => {
      if (isSettled) return;
      isSettled = true;
      stop();
      settle(outcome);
    };
    const late = () =>
      once(failed("timeout", `${work.op} ${virtualServer}`, `no end within ${limitMs} ms`));
    const stop = this.#host.after(limitMs, late);
    return once;
  }

  #next(virtualServer: string, line: Line): void {
    if (line.running > 0) return;
    const next = line.waiting.shift();
    if (next) this.#run(virtualServer, line, next);
  }

  #run(virtualServer: string, line: Line, { work, limitMs, settle }: Waiting): void {
    line.running += 1;
    this.#host.run(virtualServer, work, limitMs, (outcome) => {
      line.running -= 1;
      settle(outcome);
      this.#next(virtualServer, line);
    });
  }
}
