/**
 * What the definitions of all virtual servers come to on this controller: which of them there are, which contradict each other, what may be
 * served, and who uses what. A definition says what is wanted; `config` is what is in use, and the two differ while a change is carried out
 * (core/parts).
 */
import { bareAddresses, defaultLimits, type VirtualServerConfig } from "../schema/config.ts";
import { canonicalAddress } from "../schema/config-routes.ts";
import type { Definition } from "../schema/definition.ts";
import { definitionProblems, type StaticClaims } from "../schema/definition-check.ts";
import { fingerprintOf, isSame } from "../schema/definition-digest.ts";
import { bareAddress } from "../schema/ip-address.ts";
import {
  andThen,
  type ControllerState,
  none,
  nothing,
  type Part,
  replaceServer,
  type Step,
  tell,
  withEntry,
} from "./controller-state.ts";
import { disksOf, type VirtualServerState } from "./vserver-types.ts";

/** A number that nobody has used yet: it is skipped wherever virtual servers are dealt with. */
export function unused(number: number): Definition {
  const nothing = { addresses: [], routes: [], rules: [], volumes: [], limits: defaultLimits };
  return { number, sequence: 0, wanted: "deleted", server: { name: "", home: "a", ...nothing } };
}

/** A virtual server that nothing has happened to. `isMade`: its place is here already. */
export function newServer(definition: Definition, isMade: boolean, round = 0): VirtualServerState {
  return {
    index: definition.number,
    definition,
    config: definition.server,
    made: isMade ? { config: definition.server, isWhole: true } : undefined,
    leftover: [],
    phase: { kind: "off" },
    claims: {},
    key: undefined,
    round,
    failures: 0,
    movesFailed: 0,
    moveNotBeforeMs: 0,
    lastStartMs: undefined,
    fault: undefined,
    clients: undefined,
  };
}

/** All numbers up to the highest that is defined; those between that nobody has defined are unused. */
export function denseServers(definitions: readonly Definition[]): VirtualServerState[] {
  const known = new Map(definitions.map((each) => [each.number, each]));
  const count = 1 + Math.max(-1, ...known.keys());
  return Array.from({ length: count }, (_, number) => {
    const definition = known.get(number);
    const isThere = definition !== undefined && definition.wanted !== "deleted";
    return newServer(definition ?? unused(number), isThere);
  });
}

export function isDeleted({ definition }: VirtualServerState): boolean {
  return definition.wanted === "deleted";
}

/** The one of this name that there is. */
export function serverNamed(state: ControllerState, name: string): VirtualServerState | undefined {
  return state.servers.find((each) => each.definition.server.name === name && !isDeleted(each));
}

/** Whether it is to be served, by whomever. What the common volume says of it in words that nobody here understands may be anything. */
export function isWanted(state: ControllerState, { index, definition }: VirtualServerState) {
  const { reserved, known } = state.volume;
  const isRiddle = reserved.includes(index) && !known[index];
  return definition.wanted === "started" && !state.blocked.includes(index) && !isRiddle;
}

/** Its place is here, as its definition wants it. */
export function isMade({ made, definition }: VirtualServerState): boolean {
  return made?.isWhole === true && isSame(made.config, definition.server);
}

/** Whether it may be started here now, as far as definitions are concerned. */
export function mayStart(state: ControllerState, server: VirtualServerState): boolean {
  if (!isWanted(state, server) || !isMade(server) || !isAgreed(state, server.index)) return false;
  return server.config === server.definition.server && userOf(state, server) === undefined;
}

/**
 * SAFETY: what a definition gives to a virtual server may be in use at the partner, by another one under a definition of before. Of a pair, nobody uses
 * it before the partner's fingerprint says that it knows the same; whatever it still uses then, it claims (`isInTheWay`), and both are said
 * in one beat. Alone there is nobody to ask, and addresses wait for the partner's leases.
 */
export function isAgreed(state: ControllerState, number: number): boolean {
  return state.mode !== "paired" || !state.unagreed.includes(number);
}

/** Both know the same: from here on everything that is defined now is agreed. */
export function agreeTick(state: ControllerState): Part {
  if (state.unagreed.length === 0 || state.mode !== "paired") return undefined;
  if (state.partner?.configuration !== state.configuration) return undefined;
  return [{ ...state, unagreed: [] }, nothing];
}

/**
 * Another one here uses what this one is to have. It is claimed for as long, so that the partner does not start it. While everything is as it is
 * defined, definitions have nothing in common.
 */
export function isInTheWay(state: ControllerState, server: VirtualServerState): boolean {
  if (state.parts === none && state.blocked.length === 0) return false;
  return isWanted(state, server) && userOf(state, server) !== undefined;
}

/** What a configuration needs for itself: disks, and addresses however they are written. */
interface Needs {
  readonly disks: readonly string[];
  readonly addresses: readonly string[];
}

/** Configurations do not change, and these are asked for at every step of a change. */
const needsKnown = new WeakMap<VirtualServerConfig, Needs>();

function needsOf(config: VirtualServerConfig): Needs {
  const known = needsKnown.get(config);
  if (known) return known;
  const addresses = bareAddresses(config).map(canonicalAddress);
  const needs = { disks: disksOf(config), addresses };
  needsKnown.set(config, needs);
  return needs;
}

/** Nothing of a virtual server that is off or failed is used by it; of others, all that they run with, and what they may have left on an interface. */
function uses(server: VirtualServerState, { disks, addresses }: Needs): boolean {
  const { phase, config, made, leftover } = server;
  const isLeft = leftover.some((each) => addresses.includes(canonicalAddress(bareAddress(each))));
  if (isLeft || phase.kind === "off" || phase.kind === "failed") return isLeft;
  const used = needsOf(config);
  return (
    used.disks.some((each) => disks.includes(each)) ||
    used.addresses.some((each) => addresses.includes(each)) ||
    // What its place was made for may be on its interface as soon as its service starts anew.
    (made !== undefined && needsOf(made.config).addresses.some((each) => addresses.includes(each)))
  );
}

/** Another virtual server here that uses a disk or an address which the definition of this one wants. */
export function userOf(
  state: ControllerState,
  { index, definition }: Pick<VirtualServerState, "index" | "definition">,
): VirtualServerState | undefined {
  const needs = needsOf(definition.server);
  return state.servers.find((other) => other.index !== index && uses(other, needs));
}

/** What has to be done to a virtual server that runs with the one configuration so that it runs with the other. */
export type Difference =
  | "none"
  /** It can be changed beside the run. */
  | "beside"
  /** The file service has to start anew. */
  | "service"
  /** A disk comes or goes, or it gets another interface: it has to stop. */
  | "disks";

/** Read by routing and by placement, or set from outside: no running file service knows of these. */
const beside: readonly string[] = ["home", "routes", "rules", "limits"];

/** Its interface is on another VLAN: a place is made with its interface, and is made anew. */
export function isElsewhere(from: VirtualServerConfig, to: VirtualServerConfig): boolean {
  return from.vlan !== to.vlan;
}

export function differenceOf(from: VirtualServerConfig, to: VirtualServerConfig): Difference {
  if (isSame(from, to)) return "none";
  if (!isSame(disksOf(from).toSorted(), disksOf(to).toSorted())) return "disks";
  if (isElsewhere(from, to)) return "disks";
  const rest = (config: VirtualServerConfig) =>
    Object.fromEntries(Object.entries(config).filter(([key]) => !beside.includes(key)));
  return isSame(rest(from), rest(to)) ? "beside" : "service";
}

/** Has a place in the list for a number that nobody has used yet: only what is in the list is claimed. */
export function withNumber(state: ControllerState, number: number): ControllerState {
  if (number < state.servers.length) return state;
  const servers = [...state.servers];
  for (let next = servers.length; next <= number; next += 1)
    servers.push(newServer(unused(next), false));
  return { ...state, servers };
}

/** Takes a definition over as the one that holds; what has to be done here follows from it (core/parts). */
export function setDefinition(before: ControllerState, definition: Definition): Step {
  const { number } = definition;
  const servers = [...withNumber(before, number).servers];
  const old = servers[number];
  if (!old) throw new Error(`setDefinition: no virtual server ${number}`);
  const isSameServer = isSame(old.definition.server, definition.server);
  // What is the same stays the same object: it is compared in every step, which costs nothing then.
  const kept = isSameServer ? { ...definition, server: old.definition.server } : definition;
  servers[number] = { ...(isDeleted(old) ? reborn(old, servers) : old), definition: kept };
  const isKnown = before.unagreed.includes(number) || isSameServer;
  const unagreed = isKnown ? before.unagreed : [...before.unagreed, number];
  const state = { ...before, servers, unagreed };
  const parts = withEntry(state.parts, number, state.parts[number] ?? untouched);
  const said = tell("info", "definition.adopted", `${inWords(definition)} (number ${number})`, {
    number,
    sequence: definition.sequence,
  });
  return andThen([{ ...state, parts }, [said]], agreeAnew);
}

const untouched = { at: "due", againAtMs: 0, failures: 0, isResumed: false } as const;

function inWords({ server, wanted, sequence }: Definition): string {
  return `${server.name} is to be ${wanted}, as of its definition ${sequence}`;
}

/**
 * A number that is given away again. Tokens name a virtual server by its name and its round, and a name may have had another number before: no outcome
 * of that time may be taken for one of this.
 */
function reborn(old: VirtualServerState, all: readonly VirtualServerState[]): VirtualServerState {
  const round = 1 + Math.max(...all.map((each) => each.round));
  if (old.phase.kind !== "off") return old;
  const { made, leftover, config } = old;
  return { ...newServer(old.definition, false, round), made, leftover, config };
}

/** The fingerprint, and who contradicts whom; told when it begins and when it ends. */
function agreeAnew(before: ControllerState): Step {
  const definitions = before.servers.map((each) => each.definition);
  const problems = contradictions(before.config, definitions);
  const configuration = fingerprintOf(before.staticConfiguration, definitions);
  const blocked = [...problems.keys()];
  const effects = definitions.flatMap(({ number, server }) => {
    const problem = problems.get(number);
    const wasBlocked = before.blocked.includes(number);
    if (problem !== undefined && !wasBlocked)
      return [tell("error", "definition.conflict", `${server.name} is not served: ${problem}`)];
    if (problem === undefined && wasBlocked)
      return [tell("info", "definition.settled", `${server.name} contradicts nothing any more`)];
    return [];
  });
  if (isSame(blocked, before.blocked)) return [{ ...before, configuration }, effects];
  // What was in their way may still be in use at the partner.
  const freed = before.blocked.filter((number) => !problems.has(number));
  const unagreed = [...new Set([...before.unagreed, ...freed])];
  let { parts } = before;
  for (const number of [...freed, ...blocked])
    parts = withEntry(parts, number, parts[number] ?? untouched);
  return [{ ...before, configuration, blocked, unagreed, parts }, effects];
}

/**
 * Two changes of different virtual servers that were made at both controllers at once may contradict each other. Then the one with the higher
 * number is not served: a rule that gives the same answer on both.
 */
export function contradictions(
  config: StaticClaims,
  definitions: readonly Definition[],
): ReadonlyMap<number, string> {
  const accepted: Definition[] = [];
  const problems = new Map<number, string>();
  for (const each of definitions) {
    if (each.wanted === "deleted") continue;
    const found = definitionProblems(config, accepted, each);
    if (found.length === 0) accepted.push(each);
    else problems.set(each.number, found.join("; "));
  }
  return problems;
}

/** Addresses that a virtual server may have left on its interface are gone from there. */
export function leftNothing(state: ControllerState, index: number): ControllerState {
  const server = state.servers[index];
  if (!server || server.leftover.length === 0) return state;
  return replaceServer(state, { ...server, leftover: [] });
}
