/**
 * The steps of a world: everything that its controllers do, numbered for each side in the order in which they do it. Nobody lists them: what a
 * loop asks of its host is wrapped whatever it is called, and so are the places at which it takes effect, where a work ends and where a
 * command reaches a disk. A watch hears of each step before and after it is done, and may strike at either moment.
 */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { failed } from "../../firmware-ts/schema/outcome.ts";

/** Something that a controller does. */
export interface Deed {
  readonly who: ControllerId;
  /** Which part of the controller does it, and what that is called there. */
  readonly name: string;
  readonly args: readonly unknown[];
}

export interface StepWatch {
  /** About to be done. What it returns is given to `ended`. */
  begins(deed: Deed): number | undefined;
  ended(deed: Deed, ordinal: number | undefined): void;
}

/** Does it under the eyes of a watch; undefined when whoever does it was struck down before. */
export function doWatched<T>(
  watch: StepWatch | undefined,
  deed: Deed,
  isAlive: () => boolean,
  act: () => T,
): T | undefined {
  if (!watch) return act();
  const ordinal = watch.begins(deed);
  if (!isAlive()) return undefined;
  const result = act();
  watch.ended(deed, ordinal);
  return result;
}

/** What a process that is no more is told; it does not hear it. */
const unheard = failed("gateExpired", "step", "struck down before it");

/**
 * A host whose functions are watched, all of them but those that are named: they are asked for something and change nothing. One that a
 * loop gets tomorrow is watched tomorrow.
 */
export function watchedHost<H extends object>(
  host: H,
  watch: StepWatch,
  part: { readonly who: ControllerId; readonly name: string; readonly isAlive: () => boolean },
  unwatched: readonly (keyof H)[],
): H {
  const { who, isAlive } = part;
  const wrapped = Object.entries(host).map(([key, value]) => {
    if (unwatched.includes(key as keyof H)) return [key, value];
    const name = `${part.name}.${key}`;
    if (typeof value !== "function") return [key, watchedHost(value, watch, { ...part, name }, [])];
    const run = (...args: readonly unknown[]) => {
      // A loop finishes its step whatever has become of its process meanwhile.
      if (!isAlive()) return unheard;
      const result = doWatched(watch, { who, name, args }, isAlive, () => ({ of: value(...args) }));
      return result ? result.of : unheard;
    };
    return [key, run];
  });
  return Object.fromEntries(wrapped) as H;
}

/** One of the steps of a history. */
export interface Step {
  readonly who: ControllerId;
  /** From 0, among those of its side. */
  readonly ordinal: number;
  readonly what: string;
}

/** Longest description of a step that is kept. */
const whatMax = 240;

export const describeDeed = ({ name, args }: Deed): string =>
  `${name} ${JSON.stringify(args)}`.slice(0, whatMax);

/**
 * What a clock makes a loop do again and again: such a thing is a step when it differs from the last of its kind, and else a repetition.
 * Everything else is a step each time.
 */
const clockwork: readonly string[] = ["beat.send", "beat.gate.renew", "main.beat progress"];

/** Numbers that differ in every repetition. A field that is not named here makes it a step: too many are counted then, not too few. */
const running: readonly string[] = ["sequence", "progressAgeMs"];

const withoutRunning = (key: string, value: unknown) => (running.includes(key) ? undefined : value);

/** The kind of what a channel carries belongs to the name. */
function nameOf({ name, args }: Deed): string {
  const [first] = args;
  const kind = typeof first === "object" && first !== null && "kind" in first ? first.kind : "";
  return kind === "" ? name : `${name} ${String(kind)}`;
}

/** Numbers the steps of both sides, and tells repetitions from them. */
export class StepCounter {
  readonly counts: Record<ControllerId, number> = { a: 0, b: 0 };
  readonly #last = new Map<string, string>();

  /** The number of a step; undefined for a repetition. */
  count(deed: Deed): number | undefined {
    const { who, args } = deed;
    const name = nameOf(deed);
    if (clockwork.includes(name)) {
      // Links, or addresses: each list has a rhythm of its own.
      const key = `${who} ${name} ${Array.isArray(args[0]) ? args[0].join() : ""}`;
      const said = JSON.stringify(
        args.filter((each) => typeof each !== "number"),
        withoutRunning,
      );
      if (this.#last.get(key) === said) return undefined;
      this.#last.set(key, said);
    }
    const ordinal = this.counts[who];
    this.counts[who] = ordinal + 1;
    return ordinal;
  }
}
