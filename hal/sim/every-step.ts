/**
 * A crash before and after every step: a story is told once, and the steps that the controllers took in it are numbered; then it is told
 * again from the same seed for each step and each blow, which strikes immediately before or after that step. The invariants are looked at
 * after every event; service has to be back within its bound, and in the end each virtual server has one owner, which serves it.
 */
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { isWanted } from "../../firmware-ts/core/definitions.ts";
import { disksOf } from "../../firmware-ts/core/vserver-types.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import {
  type Blow,
  type BlowName,
  blowNames,
  blows,
  strikeDown,
  type Up,
  upOf,
  victimsOf,
} from "./blows.ts";
import { changeMs, type LeftOver, restartMs, serviceBoundMs } from "./bounds.ts";
import { supervise } from "./chaos.ts";
import { Violation } from "./invariants.ts";
import { judgeClients, judgeHistory, violationOf } from "./judge.ts";
import { obey } from "./orders.ts";
import { ids, Pair } from "./pair.ts";
import { type Deed, describeDeed, type Step, StepCounter, type StepWatch } from "./steps.ts";
import type { Story } from "./stories.ts";
import { isWhole, judgeDefinitions, whyNotWhole } from "./wholeness.ts";

/** A story in a world of some size, whose delays are drawn from a seed. */
export interface Telling {
  readonly story: Story;
  readonly servers: number;
  readonly seed: number;
}

const moments = ["before", "after"] as const;
type Moment = (typeof moments)[number];

/** What runs of each. */
type Ups = Readonly<Record<ControllerId, Up>>;

/** A step of a telling, with what runs before and after it: a step can be an end. */
export interface Seen extends Step {
  readonly up: Record<Moment, Ups>;
}

export interface Injection {
  readonly step: Seen;
  readonly when: Moment;
  readonly blow: BlowName;
}

export interface TellOptions {
  readonly traced?: boolean;
  /** A test breaks something on purpose. */
  readonly prepare?: ((pair: Pair) => void) | undefined;
}

export interface Told {
  readonly violation: string | undefined;
  readonly invariant: string | undefined;
  /** Who was left, how long it took until all was served, and how long it may take. */
  readonly left: LeftOver | undefined;
  readonly servedMs: number;
  readonly boundMs: number;
  /** Until the pair was whole again, from the moment at which everything was started. */
  readonly wholeMs: number;
  readonly events: number;
  readonly simulatedMs: number;
  readonly trace: readonly string[];
}

function worldOf({ servers, seed }: Telling, watch: StepWatch, traced: boolean): Pair {
  return new Pair({
    seed,
    jitter: true,
    servers,
    spares: 2,
    clients: { perServer: 1, thinkMs: 40 },
    silent: !traced,
    watch,
  });
}

/** Tells it until it has ended, or until `isOver`; steps are seen from the first act on. After each act all is served: it has had its time. */
function tell(pair: Pair, { before, acts }: Story, begin: () => void, isOver: () => boolean): void {
  for (const [order, forMs] of before) {
    obey(pair, order.split(" "));
    pair.run(forMs);
  }
  begin();
  for (const [order, forMs] of acts) {
    obey(pair, order.split(" "));
    if (pair.runUntil(isOver, forMs)) return;
    if (!isServed(pair))
      throw new Violation(`noEndlessDark: not all is served ${forMs} ms after "${order}"`);
  }
}

const upsOf = (pair: Pair): Ups => ({ a: upOf(pair, "a"), b: upOf(pair, "b") });

export interface Observed {
  /** In order. */
  readonly steps: readonly Seen[];
  /** What the story itself broke, without any crash; the steps are those until then. */
  readonly violation: string | undefined;
}

/** Everything that the controllers do in a story. */
export function stepsOf(telling: Telling, { prepare }: TellOptions = {}): Observed {
  const seen: Seen[] = [];
  const counter = new StepCounter();
  let isOn = false;
  const watch: StepWatch = {
    begins: (deed) => {
      const ordinal = isOn ? counter.count(deed) : undefined;
      if (ordinal === undefined) return undefined;
      const up = { before: upsOf(pair), after: upsOf(pair) };
      seen.push({ who: deed.who, ordinal, what: describeDeed(deed), up });
      return seen.length - 1;
    },
    ended: (_deed, index) => {
      const step = index === undefined ? undefined : seen[index];
      if (step) step.up.after = upsOf(pair);
    },
  };
  const pair: Pair = worldOf(telling, watch, false);
  prepare?.(pair);
  const begin = () => {
    isOn = true;
  };
  try {
    tell(pair, telling.story, begin, () => false);
    judgeChanges(pair, telling.story);
    judgeHistory(pair);
  } catch (error) {
    return { steps: seen, violation: violationOf(error) };
  }
  const none = seen.length === 0 ? "noSteps: there is nothing to strike at" : undefined;
  return { steps: seen, violation: none };
}

/** Everything that can be struck at in a story: each step, before and after it, with each blow that finds somebody to hit. */
export function injectionsOf(steps: readonly Seen[]): readonly Injection[] {
  return steps.flatMap((step) =>
    moments.flatMap((when) =>
      blowNames
        .filter((blow) => victimsOf(blows[blow], step.who, step.up[when]).length > 0)
        .map((blow) => ({ step, when, blow })),
    ),
  );
}

/** What is known at the moment of the blow. */
interface Struck {
  readonly atMs: number;
  readonly victims: readonly ControllerId[];
  readonly left: LeftOver;
  /** Until when all has to be served again. */
  readonly boundMs: number;
}

/** Strikes once, at the step that it was made for. */
class Striker implements StepWatch {
  readonly #injection: Injection;
  readonly #furtherMs: number;
  readonly #counter = new StepCounter();
  pair: Pair | undefined;
  isOn = false;
  struck: Struck | undefined;

  /** `furtherMs`: what the story itself may add to the bound. */
  constructor(injection: Injection, furtherMs: number) {
    this.#injection = injection;
    this.#furtherMs = furtherMs;
  }

  begins(deed: Deed): number | undefined {
    if (!this.isOn || this.struck) return undefined;
    const ordinal = this.#counter.count(deed);
    this.#look(deed, ordinal, "before");
    return ordinal;
  }

  ended(deed: Deed, ordinal: number | undefined): void {
    if (!this.struck) this.#look(deed, ordinal, "after");
  }

  #look(deed: Deed, ordinal: number | undefined, when: Injection["when"]): void {
    const { step, blow } = this.#injection;
    const isIt = ordinal === step.ordinal && deed.who === step.who;
    if (!isIt || when !== this.#injection.when || !this.pair) return;
    const what = describeDeed(deed);
    if (what !== step.what) throw new Error(`every step: ${what} instead of ${step.what}`);
    const struck = hit(this.pair, blows[blow], step.who);
    this.struck = { ...struck, boundMs: struck.boundMs + this.#furtherMs };
  }
}

function hit(pair: Pair, blow: Blow, doer: ControllerId): Struck {
  const victims = victimsOf(blow, doer, upsOf(pair));
  if (victims.length === 0) throw new Error("every step: nobody is left to be hit");
  const left = leftBy(pair, blow, victims);
  const isHung = ids.some((who) => !victims.includes(who) && pair.controllers[who]?.main.frozen);
  pair.say("-", `struck: ${blow.how} ${victims.join(" ")}`);
  strikeDown(pair, blow, victims);
  const boundMs = serviceBoundMs(pair.timing, left, isHung);
  return { atMs: pair.timeline.nowMs, victims, left, boundMs };
}

/** Runs, and is not about to end. */
function canServe(pair: Pair, who: ControllerId): boolean {
  const controller = pair.controllers[who];
  return Boolean(controller?.alive && !controller.frozen && controller.state.mode !== "leaving");
}

function leftBy(pair: Pair, { whom }: Blow, victims: readonly ControllerId[]): LeftOver {
  const survivor = ids.find((who) => !victims.includes(who) && canServe(pair, who));
  if (!survivor) return whom === "both" ? "together" : "lone";
  const state = pair.controllers[survivor]?.state;
  if (state?.mode === "alone") return "member";
  const theirs = pair.controllers[partnerOf(survivor)]?.state.mode;
  const isPair = state?.mode === "paired" && (theirs === "paired" || theirs === "leaving");
  const isOld = isPair && state.pairedSinceMs + pair.timing.soloSilentMs <= pair.timeline.nowMs;
  return isOld ? "member" : "lone";
}

/** What whoever may serve knows of each virtual server; nobody, when nobody may. */
function knownBy(pair: Pair): readonly ControllerState[] {
  return ids.flatMap((who) => {
    const controller = pair.controllers[who];
    if (!controller?.alive || controller.frozen) return [];
    const { state } = controller;
    return state.mode === "paired" || state.mode === "alone" ? [state] : [];
  });
}

/** Who serves a virtual server, to the last part: its decisions say so, its kernel answers, and every disk is its own. */
function serversOf(pair: Pair, index: number): readonly ControllerId[] {
  const { nowMs } = pair.timeline;
  return ids.filter((who) => {
    const controller = pair.controllers[who];
    if (!controller?.alive || controller.frozen) return false;
    const server = controller.state.servers[index];
    if (server?.phase.kind !== "serving") return false;
    const { mounted, sealed, services } = pair.kernels[who];
    const holds = (disk: string) =>
      pair.shelf.holder(disk)?.by === who && mounted.has(disk) && !sealed.has(disk);
    const { config } = server;
    const answers = (address: string) => pair.kernels[who].isOpen(address, nowMs);
    return (
      disksOf(config).every(holds) &&
      services.has(config.name) &&
      bareAddresses(config).every(answers)
    );
  });
}

/** All that is wanted is served by one; what only one of the two knows to be wanted is not decided yet. */
function isServed(pair: Pair): boolean {
  const known = knownBy(pair);
  const count = Math.max(0, ...known.map(({ servers }) => servers.length));
  const isRight = (index: number) => {
    const wanted = known.map((state) => {
      const server = state.servers[index];
      return server !== undefined && isWanted(state, server);
    });
    if (wanted.some((each) => each !== wanted[0])) return false;
    return !wanted[0] || serversOf(pair, index).length === 1;
  };
  return known.length > 0 && Array.from({ length: count }, (_, index) => index).every(isRight);
}

/** Both are of the pair and know the same, and each virtual server is one's alone: to the other it is off, and nothing of it is left there. */
function hasOneOwnerEach(pair: Pair): boolean {
  if (!isWhole(pair)) return false;
  const servers = pair.controllers.a?.state.servers ?? [];
  return servers.every(({ index, config }) => {
    const [owner, second] = serversOf(pair, index);
    if (second !== undefined) return false;
    return ids.every((who) => {
      if (who === owner) return true;
      const phase = pair.controllers[who]?.state.servers[index]?.phase.kind;
      const isLeft = (disk: string) => pair.kernels[who].mounted.has(disk);
      return phase === "off" && (owner === undefined || !disksOf(config).some(isLeft));
    });
  });
}

/** The changes of a story were made: it is about something. */
function judgeChanges(pair: Pair, { changes = 0 }: Story): void {
  const { acknowledged } = pair.ledger;
  if (acknowledged !== changes)
    throw new Violation(`notChanged: ${acknowledged} of ${changes} changes were made`);
}

/** Tells a story, strikes, and judges what becomes of it. Never throws. */
export function tellStruck(
  telling: Telling,
  injection: Injection,
  { traced = false, prepare }: TellOptions = {},
): Told {
  const striker = new Striker(injection, telling.story.changes ? changeMs : 0);
  const pair = worldOf(telling, striker, traced);
  const took = { servedMs: 0, wholeMs: 0 };
  let violation: string | undefined;
  try {
    striker.pair = pair;
    prepare?.(pair);
    const begin = () => {
      striker.isOn = true;
    };
    tell(pair, telling.story, begin, () => striker.struck !== undefined);
    const { struck } = striker;
    if (!struck) throw new Violation("notStruck: the story ended before its step was taken");
    took.servedMs = judgeService(pair, struck, blows[injection.blow]);
    took.wholeMs = judgeWhole(pair);
    judgeDefinitions(pair);
    judgeClients(pair);
    judgeHistory(pair);
  } catch (error) {
    violation = violationOf(error);
  }
  return {
    violation,
    invariant: violation?.split(":")[0],
    left: striker.struck?.left,
    ...took,
    boundMs: striker.struck?.boundMs ?? 0,
    events: pair.timeline.events,
    simulatedMs: pair.timeline.nowMs,
    trace: pair.trace,
  };
}

/** Waits until all is served; how long it took since the blow. */
function judgeService(
  pair: Pair,
  { atMs, victims, left, boundMs }: Struck,
  { back, whom }: Blow,
): number {
  const { timeline } = pair;
  const isLeft = ids.some((who) => !victims.includes(who) && canServe(pair, who));
  // Whoever was down before stays down, unless everything starts.
  const starters = whom === "both" ? ids : back === "soon" || !isLeft ? victims : [];
  if (starters.length > 0) {
    pair.run(restartMs);
    for (const who of starters) pair.start(who);
  }
  if (!pair.runUntil(() => isServed(pair), atMs + boundMs - timeline.nowMs))
    throw new Violation(`noEndlessDark: not all is served ${boundMs} ms after the blow (${left})`);
  return timeline.nowMs - atMs;
}

/** Everything starts and goes on: how long until the pair is whole, and stays so. */
function judgeWhole(pair: Pair): number {
  const { timeline, timing } = pair;
  const beganMs = timeline.nowMs;
  pair.say("-", "everything is started");
  for (const who of ids) pair.thaw(who);
  const endMs = beganMs + serviceBoundMs(timing, "lone");
  while (timeline.nowMs < endMs) {
    supervise(pair);
    if (!pair.runUntil(() => hasOneOwnerEach(pair), 20)) continue;
    const wholeMs = timeline.nowMs - beganMs;
    pair.run(200);
    if (hasOneOwnerEach(pair)) return wholeMs;
  }
  throw new Violation(`oneOwner: the pair is not whole again; ${whyNotWhole(pair)}`);
}
