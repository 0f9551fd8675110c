/** Whether a pair is whole: both are members, know the same, and exactly those addresses are answered that are to be. */
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import { isDeleted, isWanted } from "../../firmware-ts/core/definitions.ts";
import type { VirtualServerState } from "../../firmware-ts/core/vserver-types.ts";
import { bareAddresses } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { isSame } from "../../firmware-ts/schema/definition-digest.ts";
import { Violation } from "./invariants.ts";
import { ids, type Pair } from "./pair.ts";

/** Nobody can make what has a disk that there is not: it stays as it was, or is dark. */
function canBeMade(pair: Pair, { definition }: VirtualServerState): boolean {
  return definition.server.volumes.every(({ disk }) => pair.allDisks.includes(disk));
}

interface Wanted {
  readonly answered: readonly string[];
  /** What may be answered or not. */
  readonly either: readonly string[];
}

function wantedOf(pair: Pair, state: ControllerState): Wanted {
  const wanted = state.servers.filter((each) => isWanted(state, each));
  const [whole, broken] = [
    wanted.filter((each) => canBeMade(pair, each)),
    wanted.filter((each) => !canBeMade(pair, each)),
  ];
  const addressesOf = ({ definition, config }: VirtualServerState) => [
    ...bareAddresses(definition.server),
    ...bareAddresses(config),
  ];
  return {
    answered: whole.flatMap(({ definition }) => bareAddresses(definition.server)),
    either: broken.flatMap(addressesOf),
  };
}

/** Nothing of a definition is under way. */
function isSettled(pair: Pair, state: ControllerState): boolean {
  const { changes, parts, servers, volume } = state;
  const open = Object.keys(parts).filter((key) => {
    const server = servers[Number(key)];
    return server && canBeMade(pair, server);
  });
  const idle = [changes, volume.writings, volume.asked].every(
    (each) => Object.keys(each).length === 0,
  );
  return idle && open.length === 0;
}

function states(pair: Pair): readonly [ControllerState, ControllerState] | undefined {
  const [a, b] = ids.map((who) => pair.controllers[who]?.state);
  return a && b ? [a, b] : undefined;
}

export function isWhole(pair: Pair): boolean {
  const both = states(pair);
  if (!both) return false;
  const [a, b] = both;
  if (both.some((state) => state.mode !== "paired" || !isSettled(pair, state))) return false;
  if (a.configuration !== b.configuration) return false;
  const { answered, either } = wantedOf(pair, a);
  return pair.allAddresses.every((address) => {
    if (either.includes(address)) return true;
    return (pair.answers(address) !== undefined) === answered.includes(address);
  });
}

/** Addresses that are to be answered, as controller a knows it. */
export function wantedAddresses(pair: Pair): readonly string[] {
  const both = states(pair);
  return both ? wantedOf(pair, both[0]).answered : [];
}

/** Why a pair is not whole: for people. */
export function whyNotWhole(pair: Pair): string {
  const each = ids.map((who) => {
    const state = pair.controllers[who]?.state;
    if (!state) return `${who} is down`;
    const { changes, parts, volume, configuration } = state;
    const open = JSON.stringify({ changes, parts, writings: volume.writings, asked: volume.asked });
    return `${who} is ${state.mode}, knows ${configuration.toString(16)}, ${open.slice(0, 600)}`;
  });
  const answers = pair.allAddresses.map((address) => `${address} ${pair.answers(address) ?? "-"}`);
  return `${each.join("; ")}; wanted ${wantedAddresses(pair).join(" ")}; answered ${answers.join(", ")}`;
}

/** Both controllers and the disks have the same definitions; and nobody serves, or holds, what is not to be served. */
export function judgeDefinitions(pair: Pair): void {
  const both = states(pair);
  if (!both) throw new Violation("neverLostChange: a controller is down");
  const [a, b] = both;
  pair.ledger.check();
  const known = (state: ControllerState) => state.servers.map(({ definition }) => definition);
  const isUsed = ({ wanted, sequence }: Definition) => wanted !== "deleted" || sequence > 0;
  const [one, other] = [known(a).filter(isUsed), known(b).filter(isUsed)];
  if (!isSame(one, other))
    throw new Violation(`sameDefinitions: ${inWords(one)} at a, ${inWords(other)} at b`);
  for (const stored of pair.ledger.definitions()) {
    const held = one.find(({ number }) => number === stored.number);
    if (!held || !isSame(held, stored))
      throw new Violation(
        `sameDefinitions: on the disks ${inWords([stored])}, known ${inWords(one)}`,
      );
  }
  for (const state of both)
    for (const server of state.servers) {
      const { phase, config } = server;
      const isIdle = phase.kind === "off";
      if (!isIdle && (isDeleted(server) || !isWanted(state, server)))
        throw new Violation(`neverUnwanted: ${config.name} is ${phase.kind} at ${state.me}`);
    }
}

function inWords(list: readonly Definition[]): string {
  return list
    .map(({ number, server, sequence, wanted }) => `${number} ${server.name} ${sequence} ${wanted}`)
    .join(", ");
}
