/**
 * The order of many starts. A takeover of all has a mount and a file service to start for each virtual server at the same moment. All at once
 * they would wait for each other, for processors and disks, and the first would answer when the last does. So only a few works have
 * a turn at once, the others wait; what goes on with a start comes before what begins one.
 *
 * A work that hangs, on a disk that does not answer, must not hold up the neighbours: its turn ends after a while, whatever it does.
 */

export interface StartTurnsOptions {
  /** Works that have a turn at once. */
  readonly atOnce: number;
  /** After this, ms, a work goes on without having a turn. */
  readonly turnMsMax: number;
}

/** `goOn`: of a start that has begun. */
export type StartStage = "goOn" | "begin";

interface Waiting {
  readonly name: string;
  readonly called: (hasTurn: boolean) => void;
}

export class StartTurns {
  readonly #options: StartTurnsOptions;
  #waiting: Readonly<Record<StartStage, readonly Waiting[]>> = { goOn: [], begin: [] };
  #taken = 0;

  constructor(options: StartTurnsOptions) {
    this.#options = options;
  }

  /**
   * Runs a work of `name` when it has a turn; first come, first served, of each stage. Undefined when `drop` came before that: it was
   * not run.
   */
  async take<T>(name: string, stage: StartStage, work: () => Promise<T>): Promise<T | undefined> {
    if (this.#taken < this.#options.atOnce) this.#taken += 1;
    else if (!(await this.#turn(name, stage))) return undefined;
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      this.#passOn();
    };
    const timer = setTimeout(end, this.#options.turnMsMax);
    try {
      return await work();
    } finally {
      end();
    }
  }

  /** What waits of `name` is not wanted any more. */
  drop(name: string): void {
    const { goOn, begin } = this.#waiting;
    const others = (list: readonly Waiting[]) => list.filter((each) => each.name !== name);
    this.#waiting = { goOn: others(goOn), begin: others(begin) };
    for (const each of [...goOn, ...begin]) if (each.name === name) each.called(false);
  }

  #turn(name: string, stage: StartStage): Promise<boolean> {
    return new Promise((called) => {
      this.#waiting = { ...this.#waiting, [stage]: [...this.#waiting[stage], { name, called }] };
    });
  }

  /** The turn goes to the next, or is there for whoever comes. */
  #passOn(): void {
    const { goOn, begin } = this.#waiting;
    const [next] = [...goOn, ...begin];
    if (!next) {
      this.#taken -= 1;
      return;
    }
    this.#waiting = { goOn: goOn.slice(1), begin: goOn.length > 0 ? begin : begin.slice(1) };
    next.called(true);
  }
}
