/**
 * The addresses that the gate rules over: those of all definitions, and those that may still be on an interface. What the gate does not know the
 * kernel answers at once, so it learns of an address before anything is done with it, and forgets one only when it is off every interface.
 */
import { bareAddresses } from "../schema/config.ts";
import { bareAddress } from "../schema/ip-address.ts";
import { type ControllerState, nothing, type Part, type Step, tell } from "./controller-state.ts";
import type { GateList } from "./definition-types.ts";
import { isDeleted } from "./definitions.ts";
import type { VirtualServerState } from "./vserver-types.ts";

const againMs = 1000;

/** A gate that knows these, as it was set up (the beat process is started with that list). */
export function newGateList(servers: readonly VirtualServerState[]): GateList {
  return { known: listOf(servers), asked: undefined, round: 0, againAtMs: 0 };
}

function addressesOf(server: VirtualServerState): readonly string[] {
  const { definition, config, made, leftover, phase } = server;
  return [
    ...(isDeleted(server) ? [] : bareAddresses(definition.server)),
    ...(phase.kind === "off" ? [] : bareAddresses(config)),
    // A service that starts anew meanwhile gets those of its place.
    ...(made ? bareAddresses(made.config) : []),
    ...leftover.map(bareAddress),
  ];
}

function listOf(servers: readonly VirtualServerState[]): string[] {
  return [...new Set(servers.flatMap(addressesOf))];
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((each) => other.includes(each));
}

/** The gate knows exactly what it has to. */
export function isGateAgreed({ gate, servers }: ControllerState): boolean {
  return isSameSet(gate.known, listOf(servers));
}

/** Every address with which it may be started is ruled over. */
export function isGated({ gate }: ControllerState, { definition }: VirtualServerState): boolean {
  return bareAddresses(definition.server).every((each) => gate.known.includes(each));
}

/** Tells the gate when what it has to know has changed. Asked only while something of a virtual server is being changed. */
export function gateTick(state: ControllerState, nowMs: number): Part {
  const { gate } = state;
  if (gate.asked || nowMs < gate.againAtMs) return undefined;
  const addresses = listOf(state.servers);
  if (isSameSet(gate.known, addresses)) return undefined;
  const round = gate.round + 1;
  const token = `gate:${round}`;
  const next = { ...state, gate: { ...gate, round, asked: { token, addresses } } };
  return [next, [{ kind: "gate", command: { kind: "gateKnow", token, addresses } }]];
}

export function gateKnown(
  state: ControllerState,
  token: string,
  ok: boolean,
  reason: string,
  nowMs: number,
): Step {
  const { gate } = state;
  if (gate.asked?.token !== token) return [state, nothing];
  const answered = { ...gate, asked: undefined };
  if (ok) return [{ ...state, gate: { ...answered, known: gate.asked.addresses } }, nothing];
  const said = tell(
    "error",
    "gate.list",
    `the gate does not take its list of addresses: ${reason}`,
  );
  return [{ ...state, gate: { ...answered, againAtMs: nowMs + againMs } }, [said]];
}
