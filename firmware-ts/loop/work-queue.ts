/**
 * The order in which the works of virtual servers are done. Works of one virtual server run one after another, as the decisions asked
 * for them, so that an end never overtakes the mount before it; different servers run side by side. As far as the decisions are concerned
 * every work ends within its limit; what really goes on holds up the works behind it for as long as it takes.
 */
import type { Work } from "../core/effects.ts";
import { failed, type Outcome } from "../schema/outcome.ts";

type Settle = (outcome: Outcome<string | undefined>) => void;

/** Something to be done for a virtual server: a work of its parts or, where a host has such, of its whole. */
interface Task {
  readonly op: string;
}

export interface WorkHost<W extends Task = Work> {
  /** A timer of this process; the result ends it. */
  after(delayMs: number, run: () => void): () => void;
  /** Does one work; `ended` is called once, whenever that is. */
  run(virtualServer: string, work: W, limitMs: number, ended: Settle): void;
}

interface Waiting<W> {
  readonly work: W;
  readonly limitMs: number;
  readonly settle: Settle;
}

interface Line<W> {
  readonly waiting: Waiting<W>[];
  running: number;
}

export class WorkQueue<W extends Task = Work> {
  readonly #host: WorkHost<W>;
  readonly #lines = new Map<string, Line<W>>();

  constructor(host: WorkHost<W>) {
    this.#host = host;
  }

  /** `settle` is called once: with the outcome, or with a timeout when `limitMs` have gone by since the work was asked for. */
  perform(virtualServer: string, work: W, limitMs: number, settle: Settle): void {
    const line: Line<W> = this.#lines.get(virtualServer) ?? { waiting: [], running: 0 };
    this.#lines.set(virtualServer, line);
    const waiting = { work, limitMs, settle: this.#limited(virtualServer, work, limitMs, settle) };
    // A kill does not wait behind what hangs because of what is being killed; but what comes after a kill waits for both.
    if (work.op === "killService") return this.#run(virtualServer, line, waiting);
    line.waiting.push(waiting);
    this.#next(virtualServer, line);
  }

  #limited(virtualServer: string, work: Task, limitMs: number, settle: Settle): Settle {
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

  #next(virtualServer: string, line: Line<W>): void {
    if (line.running > 0) return;
    const next = line.waiting.shift();
    if (next) this.#run(virtualServer, line, next);
  }

  #run(virtualServer: string, line: Line<W>, { work, limitMs, settle }: Waiting<W>): void {
    line.running += 1;
    this.#host.run(virtualServer, work, limitMs, (outcome) => {
      line.running -= 1;
      settle(outcome);
      this.#next(virtualServer, line);
      // Virtual servers come and go.
      if (line.running === 0 && line.waiting.length === 0) this.#lines.delete(virtualServer);
    });
  }
}
