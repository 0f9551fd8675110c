/**
 * Two controllers with a mirrored volume, a witness and a network, small enough to walk through every order of what can happen. The register
 * and the clients are the production code; the mirror around them is as short as its obligations (docs/design/0040-witness.md).
 *
 * The network may lose, delay, repeat and reorder: a question may be carried out at any time after it was asked and any number of times,
 * also when nobody waits for the answer any more; an answer that is never delivered is a lost one.
 */
import {
  startWitnessClient,
  stepWitnessClient,
  type Want,
  type WitnessClient,
  type WitnessEvent,
} from "../../firmware-ts/core/witness/client.ts";
import { decide } from "../../firmware-ts/core/witness/register.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import { failed, good } from "../../firmware-ts/schema/outcome.ts";
import type {
  WitnessAnswer,
  WitnessRecord,
  WitnessRequest,
} from "../../firmware-ts/schema/witness.ts";

export const sides = ["a", "b"] as const;
/** Short, for they are in every world that is compared. */
const identities = ["w1", "w2"] as const;
const volume = "v";

/** What is durable at one controller. */
interface Copy {
  readonly current: string;
  /** It may continue alone as `current`: it had a proof, and both have not been in sync since. */
  readonly solo: boolean;
  readonly consistent: boolean;
  readonly outdated: boolean;
  /** The identity of its witness. */
  readonly witness: string;
}

interface Controller {
  readonly copy: Copy;
  /** Undefined: it is down. */
  readonly client: WitnessClient | undefined;
  /** It has never run: the pair begins together. */
  readonly isNew: boolean;
  /** It believes that both are connected and in sync. */
  readonly together: boolean;
  /** What was answered to its question, and has not arrived. */
  readonly heard: readonly WitnessAnswer[];
}

export interface Budget {
  readonly generations: number;
  readonly losses: number;
  readonly crashes: number;
  readonly timeouts: number;
  readonly goodbyes: number;
  readonly powerOffs: number;
  readonly switches: number;
  readonly amnesias: number;
  readonly witnessCrashes: number;
  readonly restores: number;
}

export interface World {
  readonly controllers: Readonly<Record<ControllerId, Controller>>;
  /** By identity. */
  readonly records: Readonly<Record<string, WitnessRecord>>;
  /** What a witness that starts again reads. */
  readonly durable: Readonly<Record<string, WitnessRecord>>;
  /** The first witness has become another one. */
  readonly isAnother: boolean;
  /** Questions that somebody has given up, and that may still be carried out. */
  readonly strays: readonly WitnessRequest[];
  /** A resync under way: who is overwritten. */
  readonly target: ControllerId | undefined;
  readonly latest: string;
  readonly budget: Budget;
  /** `base:side` of each proof that was ever had, and of each generation that somebody went on from. */
  readonly proofs: readonly string[];
  readonly continued: readonly string[];
  readonly violation?: string;
}

/** What a mistake changes; without any, this is how it is to be. */
export interface Rules {
  readonly decide: typeof decide;
  readonly step: typeof stepWitnessClient;
  /** A right is given up before the other copy becomes consistent. */
  readonly giveUpFirst: boolean;
  /** Copies that are targets of a resync, or outdated, are not promoted. */
  readonly mindsFlags: boolean;
  /** Answers to questions that were given up arrive as if they had been waited for. */
  readonly lateAnswers: boolean;
  /** A witness that loses its state loses its identity, too. */
  readonly newIdentity: boolean;
  /** The witness answers when what it says is on its disk. */
  readonly durableFirst: boolean;
  /** Old questions cannot take effect any more, and need not be tried. */
  readonly prune: boolean;
}
export const soundRules: Rules = {
  decide,
  step: stepWitnessClient,
  giveUpFirst: true,
  mindsFlags: true,
  lateAnswers: false,
  newIdentity: true,
  durableFirst: true,
  prune: true,
};

export const nothing: Budget = {
  generations: 0,
  losses: 0,
  crashes: 0,
  timeouts: 0,
  goodbyes: 0,
  powerOffs: 0,
  switches: 0,
  amnesias: 0,
  witnessCrashes: 0,
  restores: 0,
};

export function firstWorld(budget: Budget): World {
  const copy = {
    current: "g0",
    solo: false,
    consistent: true,
    outdated: false,
    witness: identities[0],
  };
  const controller = { copy, client: undefined, isNew: true, together: false, heard: [] };
  return {
    controllers: { a: controller, b: controller },
    records: {},
    durable: {},
    isAnother: false,
    strays: [],
    target: undefined,
    latest: "g0",
    budget,
    proofs: [],
    continued: [],
  };
}

interface Action {
  readonly name: string;
  readonly world: World;
}

/** Everything that can happen next. */
export function actions(world: World, rules: Rules): Action[] {
  const list: Action[] = [];
  const add = (name: string, next: World | undefined) => {
    if (next) list.push({ name, world: tidy(next, rules) });
  };
  for (const me of sides) {
    add(`${me} starts`, started(world, me, rules));
    add(`${me} crashes`, crashed(world, me));
    add(`${me} loses its partner`, lost(world, me, rules));
    add(`${me}'s question is carried out`, carriedOut(world, me, rules));
    const { heard } = world.controllers[me];
    for (const [index, answer] of heard.entries())
      add(`${me} hears answer ${index}`, answeredTo(world, me, answer, rules));
    add(`${me}'s question times out`, timedOut(world, me, rules));
    add(`${me} ticks`, ticked(world, me, rules));
    add(`${me} uses its proof`, usedProof(world, me, rules));
    add(`${me} says goodbye`, saidGoodbye(world, me, rules));
    add(`${me} sees its partner powered off`, sawPowerOff(world, me));
    add(`${me} changes to the other witness`, switched(world, me, rules));
  }
  for (const [index] of world.strays.entries())
    add(`stray question ${index} is carried out`, strayCarriedOut(world, index, rules));
  add("they meet", met(world, rules));
  add("the right to continue alone is given up", gaveUp(world));
  add("the resync ends", resynced(world, rules));
  add("the witness loses its state", forgot(world, rules));
  add("the witness crashes and starts again", witnessCrashed(world));
  add("both copies are put back from a backup", putBack(world));
  return list;
}

function change(world: World, me: ControllerId, part: Partial<Controller>): World {
  const controllers = { ...world.controllers, [me]: { ...world.controllers[me], ...part } };
  return { ...world, controllers };
}

function changeCopy(world: World, me: ControllerId, part: Partial<Copy>): World {
  return change(world, me, { copy: { ...world.controllers[me].copy, ...part } });
}

function spend(world: World, what: keyof Budget): World | undefined {
  if (world.budget[what] === 0) return undefined;
  return { ...world, budget: { ...world.budget, [what]: world.budget[what] - 1 } };
}

/** A question that is no longer waited for may still be carried out. */
function strayed(world: World, request: WitnessRequest | undefined): World {
  if (request === undefined || request.kind === "look") return world;
  return { ...world, strays: [...world.strays, request] };
}

/** Time stands still and questions are not numbered: neither may matter, and both would make every world a new one. */
function feed(world: World, me: ControllerId, event: WitnessEvent, rules: Rules): World {
  const { client } = world.controllers[me];
  if (client === undefined) throw new Error("a controller that is down was told something");
  const before = client.asked;
  const next = rules.step(client, event).client;
  const isSame = next.asked === before;
  const moved = isSame ? world : strayed(world, before?.request);
  const plain = {
    ...next,
    lastAskId: 0,
    failures: 0,
    hurried: 0,
    seenVersion: 0,
    wakeAtMs: next.wakeAtMs === undefined ? undefined : 1,
    asked: next.asked && { ...next.asked, id: 1 },
  };
  return change(moved, me, { client: plain, ...(isSame ? {} : { heard: [] }) });
}

function want(world: World, me: ControllerId, wanted: Want, rules: Rules): World {
  return feed(world, me, { kind: "want", want: wanted, nowMs: 0 }, rules);
}

/** What a controller without its partner wants: nothing if it may continue, or if its copy is not good enough. */
function wantAlone(world: World, me: ControllerId, rules: Rules): World | undefined {
  const { current: base, solo, consistent, outdated } = world.controllers[me].copy;
  if (solo || (rules.mindsFlags && (!consistent || outdated)))
    return want(world, me, { kind: "nothing" }, rules);
  const spent = spend(world, "generations");
  const next = `g${world.budget.generations}`;
  return spent && want(spent, me, { kind: "alone", base, next, epoch: 1 }, rules);
}

function started(world: World, me: ControllerId, rules: Rules): World | undefined {
  const { client, copy, isNew } = world.controllers[me];
  if (client !== undefined) return undefined;
  const started = startWitnessClient(me, copy.witness, volume);
  const up = change(world, me, { client: started, isNew: false });
  return isNew ? up : wantAlone(up, me, rules);
}

function crashed(world: World, me: ControllerId): World | undefined {
  const { client } = world.controllers[me];
  const spent = client && spend(world, "crashes");
  if (!spent) return undefined;
  const ended = { client: undefined, together: false, heard: [] };
  return { ...change(strayed(spent, client.asked?.request), me, ended), target: undefined };
}

function lost(world: World, me: ControllerId, rules: Rules): World | undefined {
  const spent = world.controllers[me].together ? spend(world, "losses") : undefined;
  return (
    spent && wantAlone({ ...change(spent, me, { together: false }), target: undefined }, me, rules)
  );
}

/** What is carried out is answered by whoever is where the named witness was. */
function perform(world: World, request: WitnessRequest, rules: Rules) {
  const identity = world.isAnother ? "w3" : request.witness;
  const { answer, write } = rules.decide(identity, world.records[request.witness], request);
  if (!write) return { answer, world };
  const records = { ...world.records, [request.witness]: write };
  const durable = rules.durableFirst ? records : world.records;
  return { answer, world: { ...world, records, durable } };
}

function carriedOut(world: World, me: ControllerId, rules: Rules): World | undefined {
  const { client, heard } = world.controllers[me];
  // Once while somebody waits for it; a repetition that is heard of later is a stray question.
  if (!client?.asked || heard.length > 0) return undefined;
  const done = perform(world, client.asked.request, rules);
  return change(done.world, me, { heard: [done.answer] });
}

function strayCarriedOut(world: World, index: number, rules: Rules): World | undefined {
  const request = world.strays[index];
  if (request === undefined) return undefined;
  const done = perform(world, request, rules);
  if (!rules.lateAnswers || !("side" in request)) return done.world;
  const { heard, client } = done.world.controllers[request.side];
  if (!client?.asked) return done.world;
  return change(done.world, request.side, { heard: [...heard, done.answer] });
}

function answeredTo(
  world: World,
  me: ControllerId,
  answer: WitnessAnswer,
  rules: Rules,
): World | undefined {
  const fed = feed(world, me, { kind: "answer", id: 1, outcome: good(answer), nowMs: 0 }, rules);
  const verdict = fed.controllers[me].client?.verdict;
  if (verdict?.kind !== "proof") return fed;
  return remember(fed, "proofs", me, verdict.base);
}

/** SAFETY: for one generation at most one side ever holds a proof, and at most one ever goes on from it. */
function remember(
  world: World,
  list: "proofs" | "continued",
  me: ControllerId,
  base: string,
): World {
  const other = world[list].includes(`${base}:${partnerOf(me)}`);
  const next = { ...world, [list]: [...new Set([...world[list], `${base}:${me}`])].toSorted() };
  return other ? { ...next, violation: `${list}: both, from ${base}` } : next;
}

function timedOut(world: World, me: ControllerId, rules: Rules): World | undefined {
  const spent = world.controllers[me].client?.asked ? spend(world, "timeouts") : undefined;
  const outcome = failed("timeout", "ask", "no answer");
  return spent && feed(spent, me, { kind: "answer", id: 1, outcome, nowMs: 0 }, rules);
}

function ticked(world: World, me: ControllerId, rules: Rules): World | undefined {
  if (world.controllers[me].client?.wakeAtMs === undefined) return undefined;
  return feed(world, me, { kind: "tick", nowMs: 1 }, rules);
}

/** Goes on as a new generation; from here on the old one is over. */
function goOn(world: World, me: ControllerId, base: string, next: string): World {
  const { current } = world.controllers[me].copy;
  const moved = changeCopy(world, me, { current: next, solo: true });
  const kept = remember({ ...moved, latest: next }, "continued", me, base);
  const both = kept.controllers.a.copy.solo && kept.controllers.b.copy.solo;
  const back = base !== world.latest || base !== current;
  if (kept.violation === undefined && (both || back))
    return { ...kept, violation: both ? "both continue alone" : `back to ${base}` };
  return kept;
}

function usedProof(world: World, me: ControllerId, rules: Rules): World | undefined {
  const { client, together } = world.controllers[me];
  if (together || client?.verdict.kind !== "proof") return undefined;
  const { base, next } = client.verdict;
  return want(goOn(world, me, base, next), me, { kind: "nothing" }, rules);
}

/** A partner that marks its own copy as outdated is proof enough. The register is not told before both are in sync again. */
function saidGoodbye(world: World, me: ControllerId, rules: Rules): World | undefined {
  const partner = partnerOf(me);
  const { controllers, budget } = world;
  if (!controllers[me].together || !controllers[partner].together) return undefined;
  const spent = spend(world, "goodbyes");
  if (!spent || budget.generations === 0) return undefined;
  const gone = changeCopy(change(spent, me, { together: false }), me, { outdated: true });
  const told = change(want(gone, me, { kind: "nothing" }, rules), partner, { together: false });
  const named = spend(told, "generations");
  const base = controllers[partner].copy.current;
  const next = `g${budget.generations}`;
  return named && want(goOn(named, partner, base, next), partner, { kind: "nothing" }, rules);
}

/** A mistake by itself: that the partner has no power now does not keep it from claiming when it has. */
function sawPowerOff(world: World, me: ControllerId): World | undefined {
  const { client, together, copy } = world.controllers[me];
  if (!client || together || copy.solo || world.controllers[partnerOf(me)].client) return undefined;
  const spent = spend(world, "powerOffs");
  const named = spent && spend(spent, "generations");
  return named && goOn(named, me, copy.current, `g${world.budget.generations}`);
}

/** Both meet: copies that are equal and good are in sync, a newer one overwrites an older one, anything else stops. */
function met(world: World, rules: Rules): World | undefined {
  const { a, b } = world.controllers;
  if (!a.client || !b.client || a.together || b.together || world.target) return undefined;
  const sound = ({ consistent, outdated }: Copy) => consistent && !outdated;
  if (!a.copy.solo && !b.copy.solo && a.copy.current === b.copy.current)
    return sound(a.copy) && sound(b.copy) ? inSync(world, rules) : undefined;
  const target = sides.find((me) => world.controllers[partnerOf(me)].copy.current === world.latest);
  if (target === undefined || world.controllers[target].copy.solo) return undefined;
  const begun = changeCopy(world, target, { consistent: false });
  return want({ ...begun, target }, target, { kind: "nothing" }, rules);
}

function inSync(world: World, rules: Rules): World {
  let next = world;
  for (const me of sides) {
    const { current: base } = next.controllers[me].copy;
    next = want(change(next, me, { together: true }), me, { kind: "settled", base }, rules);
  }
  return next;
}

function gaveUp(world: World): World | undefined {
  const source = world.target && partnerOf(world.target);
  if (!source || !world.controllers[source].copy.solo) return undefined;
  return changeCopy(world, source, { solo: false });
}

function resynced(world: World, rules: Rules): World | undefined {
  const { target } = world;
  if (!target) return undefined;
  const source = world.controllers[partnerOf(target)];
  if (rules.giveUpFirst && source.copy.solo) return undefined;
  const { current } = source.copy;
  const good = changeCopy(world, target, { current, consistent: true, outdated: false });
  return inSync({ ...good, target: undefined }, rules);
}

/** Only while both are in sync, and each for itself: the other may be lost before it has changed, too. */
function switched(world: World, me: ControllerId, rules: Rules): World | undefined {
  const { copy, client, together } = world.controllers[me];
  if (!client || !together || copy.witness === identities[1]) return undefined;
  const spent = spend(world, "switches");
  if (!spent) return undefined;
  const moved = changeCopy(strayed(spent, client.asked?.request), me, { witness: identities[1] });
  const fresh = startWitnessClient(me, identities[1], volume);
  const restarted = change(moved, me, { client: fresh, heard: [] });
  return want(restarted, me, { kind: "settled", base: copy.current }, rules);
}

function forgot(world: World, rules: Rules): World | undefined {
  const spent = spend(world, "amnesias");
  return spent && { ...spent, records: {}, durable: {}, isAnother: rules.newIdentity };
}

function witnessCrashed(world: World): World | undefined {
  const spent = spend(world, "witnessCrashes");
  return spent && { ...spent, records: world.durable };
}

/** An administrator's doing: both disks hold what they held in the beginning, and the register knows of what came since. */
function putBack(world: World): World | undefined {
  const spent = spend(world, "restores");
  if (!spent) return undefined;
  const fresh = { current: "g0", solo: false, consistent: true, outdated: false };
  return sides.reduce<World>(
    (next, me) => {
      const { client } = next.controllers[me];
      const down = { client: undefined, isNew: true, together: false, heard: [] };
      return changeCopy(change(strayed(next, client?.asked?.request), me, down), me, fresh);
    },
    { ...spent, target: undefined, latest: "g0" },
  );
}

/** The same world in one form only. */
function tidy(world: World, { prune }: Rules): World {
  const alive = (request: WitnessRequest) =>
    !prune ||
    request.kind === "look" ||
    request.version >= (world.records[request.witness]?.version ?? 0);
  const strays = unique(world.strays.filter(alive));
  const controllers = {
    a: { ...world.controllers.a, heard: unique(world.controllers.a.heard) },
    b: { ...world.controllers.b, heard: unique(world.controllers.b.heard) },
  };
  return { ...world, controllers, strays };
}

function unique<T>(list: readonly T[]): readonly T[] {
  if (list.length < 2) return list;
  const texts = new Map(list.map((each) => [JSON.stringify(each), each]));
  return [...texts].toSorted(([one], [other]) => (one < other ? -1 : 1)).map(([, each]) => each);
}
