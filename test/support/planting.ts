/** How a mistake is planted into a world: into what its controllers decide, into what they are told, into what they do. */
import type { BeatEffect, BeatEvent } from "../../firmware-ts/core/beat-types.ts";
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import type { Machines } from "../../hal/sim/machines.ts";
import type { Pair } from "../../hal/sim/pair.ts";
import type { Plan, Profile } from "../../hal/sim/plan.ts";

export type Invariant =
  | "neverTwoWriters"
  | "neverTwoAnswers"
  | "majoritySurvives"
  | "noEndlessDark"
  | "releaseOnlyWhenGone"
  | "epochsOnlyRise"
  | "forcedIsAudited"
  | "linearizable"
  | "neverLostAcknowledged"
  | "neverTwoUsers"
  | "neverUngated"
  | "neverUnwanted"
  | "neverLostChange"
  | "sameDefinitions";

export interface Planted {
  /** What is wrong, as a sentence. */
  readonly wrong: string;
  readonly profile: Profile;
  /** Seeds from 1 on, of those that `only` lets through, within which it is caught. */
  readonly seeds: number;
  /** What is broken by it; any of these. */
  readonly breaks: readonly Invariant[];
  /** Changes each plan: what the mistake needs to matter. */
  readonly spoil?: (plan: Plan) => Plan;
  /** Plans in which the mistake can matter at all. */
  readonly only?: (plan: Plan) => boolean;
  readonly plant?: (pair: Pair) => void;
}

type ControllerStep = Machines["controller"];
type BeatStep = Machines["beat"];

export function decisions(change: (step: ControllerStep) => ControllerStep) {
  return (pair: Pair): void => {
    pair.machines = { ...pair.machines, controller: change(pair.machines.controller) };
  };
}

export function beats(change: (step: BeatStep) => BeatStep) {
  return (pair: Pair): void => {
    pair.machines = { ...pair.machines, beat: change(pair.machines.beat) };
  };
}

/** The main loop decides rightly, and something else is done. */
export const doing = (change: (effect: Effect, after: ControllerState) => readonly Effect[]) =>
  decisions((step) => (state, event) => {
    const [after, effects] = step(state, event);
    return [after, effects.flatMap((effect) => change(effect, after))];
  });

/** The main loop is told something else, or nothing, or believes something else. */
export const told = (
  change: (event: ControllerEvent, state: ControllerState) => ControllerEvent | undefined,
) =>
  decisions((step) => (state, event) => {
    const changed = change(event, state);
    return changed ? step(state, changed) : [state, []];
  });

export const believing = (
  change: (state: ControllerState, event: ControllerEvent) => ControllerState,
) => decisions((step) => (state, event) => step(change(state, event), event));

type BeatBefore = Parameters<BeatStep>[0];

/** The beat machine decides rightly, and something else is done. */
export const beating = (
  change: (effect: BeatEffect, event: BeatEvent, before: BeatBefore) => BeatEffect,
) =>
  beats((step) => (state, event) => {
    const [after, effects] = step(state, event);
    return [after, effects.map((effect) => change(effect, event, state))];
  });

/** Every beat says something else. */
export const saying = (change: (beat: Said, state: BeatBefore) => Partial<Said>) =>
  beating((effect, _event, state) =>
    effect.kind === "send"
      ? { ...effect, beat: { ...effect.beat, ...change(effect.beat, state) } }
      : effect,
  );
type Said = Extract<BeatEffect, { kind: "send" }>["beat"];

/** An observation that the main loop does not get. */
export const unseen = (kind: string) =>
  told((event) => (event.kind === "seen" && event.observation.kind === kind ? undefined : event));
