/** Every step of every story: what a worker does, and what its results come to. Pure: the same in any worker, in any order. */
import type { LeftOver } from "./bounds.ts";
import {
  type Injection,
  injectionsOf,
  type Seen,
  stepsOf,
  type Telling,
  type TellOptions,
  type Told,
  tellStruck,
} from "./every-step.ts";
import { sizes, stories } from "./stories.ts";

/** A telling by the name of its story: can be sent to a thread. */
export interface Named {
  readonly story: string;
  readonly servers: number;
  readonly seed: number;
}

/** A part of the injections of one telling. */
export interface StepShare extends Named {
  readonly kind: "steps";
  readonly first: number;
  readonly count: number;
}

/** The longest that it took until all was served, how long it may take, and where. */
export interface Worst {
  readonly servedMs: number;
  readonly boundMs: number;
  readonly at: string;
}

export interface StepFound extends Named {
  readonly at: string;
  readonly what: string;
  readonly violation: string;
}

/** Numbers of a share, or of all shares of a telling together. */
export interface StepTally extends Named {
  /** Of both sides together. */
  readonly steps: number;
  readonly runs: number;
  readonly events: number;
  readonly simulatedMs: number;
  /** By who was left. */
  readonly worst: Readonly<Partial<Record<LeftOver, Worst>>>;
  /** Until the pair was whole again, from the start of whoever was down. */
  readonly wholeMs: number;
  readonly violations: readonly StepFound[];
}

/** How an injection is named: `a:112:before:main`. */
export const atOf = ({ step, when, blow }: Injection): string =>
  `${step.who}:${step.ordinal}:${when}:${blow}`;

export function tellingOf({ story, servers, seed }: Named): Telling {
  const found = stories.find(({ name }) => name === story);
  if (!found) throw new Error(`no story ${story}`);
  return { story: found, servers, seed };
}

/** All tellings, or those of one story, or of one size. */
export function tellings(seed: number, story?: string, servers?: number): readonly Named[] {
  const some = stories.filter(({ name }) => story === undefined || name === story);
  const all = sizes.filter((size) => servers === undefined || size === servers);
  return all.flatMap((size) => some.map(({ name }) => ({ story: name, servers: size, seed })));
}

interface Known extends Named {
  readonly steps: readonly Seen[];
  readonly violation: string | undefined;
  readonly injections: readonly Injection[];
}

/** Runs shares, and remembers the telling of the last: a worker gets many of one. */
export class StepRunner {
  readonly #options: TellOptions;
  #last: Known | undefined;

  constructor(options: TellOptions = {}) {
    this.#options = options;
  }

  #known({ story, servers, seed }: Named): Known {
    const last = this.#last;
    if (last?.story === story && last.servers === servers && last.seed === seed) return last;
    const named = { story, servers, seed };
    const { steps, violation } = stepsOf(tellingOf(named), this.#options);
    this.#last = { ...named, steps, violation, injections: injectionsOf(steps) };
    return this.#last;
  }

  steps(named: Named): readonly Seen[] {
    return this.#known(named).steps;
  }

  injections(named: Named): readonly Injection[] {
    return this.#known(named).injections;
  }

  /** A telling in parts, small enough for all threads to end together; at least one. */
  parts(named: Named, count: number): readonly StepShare[] {
    const parts = Math.max(1, Math.ceil(this.injections(named).length / count));
    const { story, servers, seed } = named;
    return Array.from({ length: parts }, (_, i) => {
      return { kind: "steps", story, servers, seed, first: i * count, count };
    });
  }

  /** The first part of a telling answers also for the story itself. */
  run({ first, count, ...named }: Omit<StepShare, "kind">): StepTally {
    const { injections, violation } = this.#known(named);
    const tally = this.some(named, injections.slice(first, first + count));
    if (first > 0 || violation === undefined) return tally;
    const found = { ...named, at: "", what: "the story itself", violation };
    return { ...tally, violations: [found, ...tally.violations] };
  }

  some(named: Named, injections: readonly Injection[]): StepTally {
    const { story, servers, seed } = named;
    const steps = this.steps(named).length;
    const telling = tellingOf(named);
    const counts = { steps, runs: 0, events: 0, simulatedMs: 0, wholeMs: 0 };
    const none: StepTally = { story, servers, seed, ...counts, worst: {}, violations: [] };
    return injections.reduce(
      (sum, injection) => addTold(sum, injection, tellStruck(telling, injection, this.#options)),
      none,
    );
  }
}

function addTold(sum: StepTally, injection: Injection, told: Told): StepTally {
  const { story, servers, seed } = sum;
  const { violation, left, servedMs, boundMs } = told;
  const at = atOf(injection);
  const found = { story, servers, seed, at, what: injection.step.what };
  return {
    ...sum,
    runs: sum.runs + 1,
    events: sum.events + told.events,
    simulatedMs: sum.simulatedMs + told.simulatedMs,
    worst: left ? nearest(sum.worst, { [left]: { servedMs, boundMs, at } }) : sum.worst,
    wholeMs: Math.max(sum.wholeMs, told.wholeMs),
    violations:
      violation === undefined ? sum.violations : [...sum.violations, { ...found, violation }],
  };
}

const leftOvers = ["member", "together", "lone"] as const satisfies readonly LeftOver[];

/** What came nearest to its bound. */
function nearest(one: StepTally["worst"], other: StepTally["worst"]): StepTally["worst"] {
  const share = (worst: Worst | undefined) => (worst ? worst.servedMs / worst.boundMs : -1);
  const list = leftOvers.map((left) => {
    const [mine, theirs] = [one[left], other[left]];
    return [left, share(theirs) > share(mine) ? theirs : mine] as const;
  });
  return Object.fromEntries(list.filter(([, worst]) => worst !== undefined));
}

/** Of one telling; or of several, whose names are those of the first then. */
export function addStepTallies(one: StepTally, other: StepTally): StepTally {
  return {
    ...one,
    runs: one.runs + other.runs,
    events: one.events + other.events,
    simulatedMs: one.simulatedMs + other.simulatedMs,
    worst: nearest(one.worst, other.worst),
    wholeMs: Math.max(one.wholeMs, other.wholeMs),
    violations: [...one.violations, ...other.violations],
  };
}
