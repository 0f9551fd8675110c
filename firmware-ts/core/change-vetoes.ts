/** What speaks against a change of a virtual server, what it would make of the definition, and what would be done: asked when it is commanded, and again before it is written. */
import { virtualServersMax } from "../schema/beat.ts";
import type { VirtualServerConfig } from "../schema/config.ts";
import type { Definition, Wanted } from "../schema/definition.ts";
import { definitionProblems } from "../schema/definition-check.ts";
import { isSame } from "../schema/definition-digest.ts";
import type { CommandAnswer, Veto } from "../schema/status.ts";
import { type ControllerState, isQueued, partnerOwns } from "./controller-state.ts";
import { differenceOf, isDeleted, isWanted, serverNamed, unused, userOf } from "./definitions.ts";
import type { Change } from "./events.ts";
import { hard, soft } from "./vetoes.ts";
import { giverOf, writerOf } from "./volume.ts";
import { disksOf, type VirtualServerState } from "./vserver-types.ts";

/** Changes under way at once. */
const changesMax = 16;

/** Predicted darkness of a restart that was never made here, ms; afterwards the last start counts. */
const startPredictedMs = 60;

export interface Judged {
  readonly vetoes: Veto[];
  /** What would be written; the very definition that holds when there is nothing to be changed. Undefined: it cannot be said. */
  readonly definition: Definition | undefined;
  readonly plan: CommandAnswer["plan"];
}

/** `own`: the number under which this very change is under way already. */
export function judgeChange(state: ControllerState, change: Change, own?: number): Judged {
  const vetoes = [...ofController(state, own)];
  const former = formerOf(state, change, own);
  if (former === undefined) {
    vetoes.push(unnamed(state, change));
    return { vetoes, definition: undefined, plan: [] };
  }
  const definition = changed(former, change);
  const ofName = ofNewName(state, change, former, own);
  vetoes.push(...ofNumber(state, former, own), ...ofName, ...ofChange(state, change, former));
  if (definition !== former && ofName.length === 0)
    vetoes.push(...ofDefinition(state, former, definition, own));
  const plan = definition === former ? [] : [planOf(state, change, former, definition)];
  return { vetoes, definition, plan };
}

/** What of this controller speaks against any change. */
function ofController(state: ControllerState, own: number | undefined): Veto[] {
  const list: Veto[] = [];
  const { mode, soloFresh, partner } = state;
  if (mode !== "paired" && mode !== "alone")
    list.push(
      hard("notPaired", `this controller is ${mode}: changes are made in a pair, or by one alone`),
    );
  if (mode === "paired" && partner?.mode !== "paired")
    list.push(hard("partnerNotPaired", `the partner is ${partner?.mode ?? "not heard"}`));
  if (mode === "alone" && !soloFresh)
    list.push(
      hard("volumeUnwritable", "no majority of the coordinator disks lets this controller write"),
    );
  if (own === undefined && Object.keys(state.changes).length >= changesMax)
    list.push(hard("tooMany", `${changesMax} changes are under way`));
  return list;
}

/** What was created is there as it is asked for once more: whoever did not hear the answer gives the command again, and nothing is to be changed. */
function isCreated({ action, server }: Change, found: Definition | undefined): boolean {
  return (
    action === "create" &&
    found?.wanted === "started" &&
    server !== undefined &&
    isSame(found.server, server)
  );
}

/** Two of a name may have been created at once, one at each controller: the one that is not served for that is the one to be deleted. */
function lastNamed({ servers }: ControllerState, name: string): VirtualServerState | undefined {
  return servers.findLast((each) => each.definition.server.name === name && !isDeleted(each));
}

/** The definition that is to be changed; of one that is to be created, that of the number that it gets. */
function formerOf(
  state: ControllerState,
  change: Change,
  own: number | undefined,
): Definition | undefined {
  const { action, name } = change;
  const found = (action === "delete" ? lastNamed : serverNamed)(state, name)?.definition;
  if (action !== "create" || (own === undefined && isCreated(change, found))) return found;
  const number = own ?? freeNumber(state);
  return number === undefined ? undefined : (state.servers[number]?.definition ?? unused(number));
}

function unnamed(state: ControllerState, { action, name }: Change): Veto {
  if (action === "create")
    return hard("noNumberFree", `controller ${state.me} has no number left to give away`);
  return hard("unknownServer", `there is no virtual server ${name}`);
}

/**
 * Each of a pair gives away every other number, so that both may create at once; one that is alone gives away the partner's when its own are
 * used up.
 */
function freeNumber(state: ControllerState): number | undefined {
  const all = Array.from({ length: virtualServersMax }, (_, number) => number);
  const mine = all.filter((number) => giverOf(number) === state.me);
  const list = state.mode === "alone" ? [...mine, ...all] : mine;
  return list.find((number) => isFree(state, number));
}

/** Nothing of whoever had it is left here, and nobody is about to have it. */
function isFree(state: ControllerState, number: number): boolean {
  const server = state.servers[number];
  if (state.changes[number] || state.parts[number] || partnerOwns(state, number)) return false;
  if (state.volume.reserved.includes(number)) return false;
  return server === undefined || (isDeleted(server) && server.made === undefined);
}

/** What is under way with this number, here or elsewhere. */
function ofNumber(state: ControllerState, former: Definition, own: number | undefined): Veto[] {
  const { number } = former;
  const { name } = former.server;
  const list: Veto[] = [];
  if (number !== own && state.changes[number])
    list.push(hard("changeUnderWay", `${name} is being changed already`));
  if (state.mode === "paired" && writerOf(state, number) !== state.me)
    list.push(
      hard("notHere", `${name} is changed at controller ${writerOf(state, number)}: ask there`),
    );
  if (state.volume.reserved.includes(number))
    list.push(
      hard("volumeUnwritable", `what the common volume says of ${name} is not understood here`),
    );
  if (state.transfers[number] || isQueued(state, number))
    list.push(hard("transferUnderWay", `${name} is being moved`));
  const kind = state.servers[number]?.phase.kind;
  if (kind === "starting" || kind === "stopping")
    list.push(hard("serverBusy", `${name} is ${kind} here`));
  return list;
}

/** The name of one that is to be created is free, and nobody here is about to take it. */
function ofNewName(
  state: ControllerState,
  { action, name }: Change,
  former: Definition,
  own: number | undefined,
): Veto[] {
  if (action !== "create" || former.wanted !== "deleted") return [];
  const isCreating = pending(state, own).some(({ server }) => server.name === name);
  if (isCreating) return [hard("changeUnderWay", `${name} is being created already`)];
  if (serverNamed(state, name))
    return [hard("nameTaken", `there is a virtual server ${name} already`)];
  return [];
}

/** What changes under way here are about to make of others: they may be stored at any moment. */
function pending(
  { changes }: Pick<ControllerState, "changes">,
  own: number | undefined,
): readonly Definition[] {
  return Object.values(changes)
    .map(({ definition }) => definition)
    .filter(({ number }) => number !== own);
}

/** What the change itself has against it. */
function ofChange(
  state: ControllerState,
  { action, name, server, expectedSequence }: Change,
  former: Definition,
): Veto[] {
  const list: Veto[] = [];
  const { sequence, wanted } = former;
  if (server && server.name !== name)
    list.push(hard("conflict", `${name} cannot be called ${server.name}: names do not change`));
  const isOne = lastNamed(state, name) === serverNamed(state, name);
  if (isOne && action !== "create" && (expectedSequence ?? sequence) !== sequence)
    list.push(
      hard(
        "changed",
        `${name} has been changed: its definition is ${sequence}, not ${expectedSequence}`,
      ),
    );
  if (action === "delete" && wanted === "started")
    list.push(soft("notStopped", `${name} is not stopped: it would be stopped first`));
  return list;
}

/** What all others, and what is in use here, have against what it would be. */
function ofDefinition(
  state: ControllerState,
  former: Definition,
  definition: Definition,
  own: number | undefined,
): Veto[] {
  const { number, wanted, server } = definition;
  // Whoever only gives something up is in nobody's way.
  if (wanted === "deleted" || (wanted === "stopped" && server === former.server)) return [];
  const list = problemsOf(state, former, definition, own).map((each) => hard("conflict", each));
  const user = userOf(state, { index: number, definition });
  if (user && list.length === 0)
    list.push(
      hard("conflict", `${user.config.name} still uses what it would get: that has to stop first`),
    );
  if (wanted === "started" && server.vlan !== undefined && !state.vlans.includes(server.vlan))
    list.push(
      hard(
        "conflict",
        `vlan: ${server.vlan} is no VLAN of a virtual server since this controller has started, and VLANs are made then: change it while ${server.name} is stopped, start the firmware of both controllers anew, and then start it`,
      ),
    );
  if (isLagging(state, definition))
    list.push(hard("serverBusy", `${definition.server.name} still runs as it was defined before`));
  return list;
}

/**
 * What is not served because it contradicts another one speaks only against what the change would add: nothing else could be changed any more before
 * that one is deleted or corrected.
 */
function problemsOf(
  { config, servers, blocked, changes }: ControllerState,
  former: Definition,
  definition: Definition,
  own: number | undefined,
): readonly string[] {
  const those = (isBlocked: boolean) =>
    servers
      .filter(({ index }) => blocked.includes(index) === isBlocked)
      .map((each) => each.definition);
  const withoutKey = (problem: string) => problem.replace(/^[\w.[\]]+: /, "");
  const old = definitionProblems(config, those(true), former).map(withoutKey);
  const fresh = definitionProblems(config, those(true), definition).filter(
    (each) => !old.includes(withoutKey(each)),
  );
  return [
    ...new Set([
      ...definitionProblems(config, those(false), definition),
      ...fresh,
      ...definitionProblems(config, pending({ changes }, own), definition),
    ]),
  ];
}

/**
 * It runs with what its last definition has taken from it, because what that one gave it could not be made. To give it yet something else could
 * make it wait for another that waits for what this one still uses.
 */
function isLagging(state: ControllerState, { number, server }: Definition): boolean {
  const running = state.servers[number];
  if (!state.parts[number] || running?.phase.kind !== "serving") return false;
  const gains = (wanted: readonly string[], has: readonly string[]) =>
    wanted.some((each) => !has.includes(each));
  const { config } = running;
  return gains(server.addresses, config.addresses) || gains(disksOf(server), disksOf(config));
}

function changed(former: Definition, { action, server }: Change): Definition {
  const wanted = wantedAfter(former.wanted, action);
  const next = server ?? former.server;
  if (wanted === former.wanted && isSame(next, former.server)) return former;
  return { number: former.number, sequence: former.sequence + 1, wanted, server: next };
}

function wantedAfter(former: Wanted, action: Change["action"]): Wanted {
  switch (action) {
    case "create":
    case "start":
      return "started";
    case "stop":
      return "stopped";
    case "delete":
      return "deleted";
    case "modify":
      return former;
    default:
      throw new Error(`change: unknown action ${String(action)}`);
  }
}

function planOf(
  state: ControllerState,
  { action, name }: Change,
  former: Definition,
  { number, server }: Definition,
): CommandAnswer["plan"][number] {
  const startMs = Math.round(state.servers[number]?.lastStartMs ?? startPredictedMs);
  const is = (what: string, predictedMs: number) => ({
    virtualServer: name,
    action: what,
    predictedMs,
  });
  switch (action) {
    case "create":
      return is(`create as number ${number}, start`, startMs);
    case "start":
      return is("start", startMs);
    case "stop":
      return is("stop", 0);
    case "delete":
      return is(former.wanted === "started" ? "stop, delete" : "delete", 0);
    case "modify":
      return modification(state, former, server, is, startMs);
    default:
      throw new Error(`change: unknown action ${String(action)}`);
  }
}

function modification(
  state: ControllerState,
  former: Definition,
  server: VirtualServerConfig,
  is: (what: string, predictedMs: number) => CommandAnswer["plan"][number],
  startMs: number,
): CommandAnswer["plan"][number] {
  const running = state.servers[former.number];
  if (!running || !isWanted(state, running)) return is("change", 0);
  switch (differenceOf(former.server, server)) {
    case "none":
    case "beside":
      return is("change beside the run", 0);
    case "service":
      return is("change, restart the file service", startMs);
    case "disks":
      return is("stop, change, start", startMs);
    default:
      throw new Error("change: unknown difference");
  }
}
