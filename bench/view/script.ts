/**
 * Scripts for the live view: `5s kill9 a; 10s repair; 15s quit`. Times count from the moment when everything serves. Pure.
 *
 *     FAULT [a|b]   takeover [a|b]   giveback   repair   select a|b   mark   shot FILE   quit
 */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { BenchError } from "../world/error.ts";
import type { Action } from "./keys.ts";

export interface ScriptStep {
  readonly atMs: number;
  readonly action: Action;
}

const stepsMax = 1000;

/** Steps in the order of their times. Throws `badInput` that quotes the step. */
export function parseScript(text: string, faultNames: readonly string[]): ScriptStep[] {
  const steps = text
    .split(";")
    .map((each) => each.trim())
    .filter((each) => each !== "");
  if (steps.length > stepsMax)
    throw new BenchError("badInput", "script", `expected at most ${stepsMax} steps`);
  return steps.map((step) => parseStep(step, faultNames)).sort((x, y) => x.atMs - y.atMs);
}

function parseStep(step: string, faultNames: readonly string[]): ScriptStep {
  const complain = (expected: string) =>
    new BenchError("badInput", "script", `"${step}": expected ${expected}`);
  const match = /^(\d{1,6}(?:\.\d{1,3})?)(ms|s|m) +(\S+)(?: +(\S+))?$/.exec(step);
  const [, amount, unit, word, argument] = match ?? [];
  if (amount === undefined || unit === undefined || word === undefined)
    throw complain("a time and an action, as in 5s kill9 a");
  const atMs = Number(amount) * { ms: 1, s: 1000, m: 60_000 }[unit as "ms" | "s" | "m"];
  const action = actionOfWords(word, argument, faultNames, complain);
  return { atMs, action };
}

function actionOfWords(
  word: string,
  argument: string | undefined,
  faultNames: readonly string[],
  complain: (expected: string) => BenchError,
): Action {
  const id = (): ControllerId | undefined => {
    if (argument === undefined || argument === "a" || argument === "b") return argument;
    throw complain("controller a or b");
  };
  if (faultNames.includes(word)) {
    const victim = id();
    return { kind: "fault", fault: word, toggle: false, ...(victim ? { victim } : {}) };
  }
  switch (word) {
    case "takeover": {
      const by = id();
      return { kind: "takeover", ...(by ? { by } : {}) };
    }
    case "select": {
      const chosen = id();
      if (!chosen) throw complain("select a or select b");
      return { kind: "select", id: chosen };
    }
    case "shot":
      if (argument === undefined) throw complain("shot FILE");
      return { kind: "shot", path: argument };
    case "giveback":
    case "repair":
    case "mark":
    case "quit":
      if (argument !== undefined) throw complain(`nothing after ${word}`);
      return { kind: word };
    default:
      throw complain(
        `one of ${[...faultNames, "takeover", "giveback", "repair", "select", "mark", "shot", "quit"].join(", ")}`,
      );
  }
}
