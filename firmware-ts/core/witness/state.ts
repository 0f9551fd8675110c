/** The records of all pairs of a built-in witness: requests in, answers and the next durable state out. */
import {
  type WitnessAnswer,
  type WitnessList,
  type WitnessRequest,
  type WitnessState,
  witnessLimits,
} from "../../schema/witness.ts";
import { decide } from "./register.ts";

/** A witness that has never been asked anything. `witness`: its identity, drawn at random by the caller. */
export function emptyState(witness: string): WitnessState {
  return { format: 1, witness, pairs: {} };
}

/** `next` must be durable before the answer is given; absent: nothing changes. `pair` is who the connection was authenticated as. */
export function answerRequest(
  state: WitnessState,
  pair: string,
  request: WitnessRequest,
): { readonly answer: WitnessAnswer; readonly next?: WitnessState } {
  const records = ownEntry(state.pairs, pair) ?? {};
  const record = ownEntry(records, request.volume);
  const { answer, write } = decide(state.witness, record, request);
  if (write === undefined) return { answer };
  if (record === undefined && Object.keys(records).length >= witnessLimits.volumesMax)
    return { answer: { ...answer, result: "full", record: null } };
  const pairs = { ...state.pairs, [pair]: { ...records, [request.volume]: write } };
  return { answer, next: { ...state, pairs } };
}

/** All volumes of one pair, by name. */
export function listVolumes({ witness, pairs }: WitnessState, pair: string): WitnessList {
  const volumes = Object.entries(ownEntry(pairs, pair) ?? {})
    .map(([volume, record]) => ({ volume, record }))
    .toSorted((one, other) => (one.volume < other.volume ? -1 : 1));
  return { witness, volumes };
}

/** A name such as `constructor` is a name like any other. */
function ownEntry<T>(entries: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(entries, name) ? entries[name] : undefined;
}
