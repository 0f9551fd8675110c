/** Judges what several askers were told about one volume: could all of it have happened one after the other, each between question and answer? */
import { isDeepStrictEqual } from "node:util";
import { decide } from "../../firmware-ts/core/witness/register.ts";
import type {
  WitnessAnswer,
  WitnessRecord,
  WitnessRequest,
} from "../../firmware-ts/schema/witness.ts";

export interface Told {
  readonly request: WitnessRequest;
  /** Positions in one common order. An answer that was lost is absent: it may have taken effect, at any time after it was asked. */
  readonly asked: number;
  readonly answered?: number;
  readonly answer?: WitnessAnswer;
}

/** What speaks against it; empty if nothing does. */
export function contradictions(witness: string, history: readonly Told[]): string[] {
  const effects = new Map<number, Told>();
  const wrong: string[] = [];
  for (const told of history) {
    const version = effectOf(told);
    if (version === undefined) continue;
    if (effects.has(version)) wrong.push(`version ${version} was made twice`);
    effects.set(version, told);
  }
  const last = Math.max(0, ...history.map(seenBy));
  const records = reconstruct(witness, history, effects, last);
  if (records === undefined) return [...wrong, "no order of the requests leads to these answers"];
  for (const { request, answer } of history) {
    if (answer === undefined) continue;
    const before = answer.record?.version ?? 0;
    const isEffect = answer.result === "done" && request.kind !== "look";
    const at = records[isEffect ? before - 1 : before];
    if (!isDeepStrictEqual(decide(witness, at, request).answer, answer))
      wrong.push(`${JSON.stringify(request)} was answered ${JSON.stringify(answer)}`);
  }
  return [...wrong, ...outOfTime(history)];
}

function seenBy({ answer }: Told): number {
  return answer?.record?.version ?? 0;
}

function effectOf({ request, answer }: Told): number | undefined {
  const isEffect = answer?.result === "done" && request.kind !== "look";
  return isEffect ? answer.record?.version : undefined;
}

/** The record at each version. What nobody was told of is one of the requests whose answers were lost: those that fit are tried. */
function reconstruct(
  witness: string,
  history: readonly Told[],
  effects: ReadonlyMap<number, Told>,
  last: number,
): readonly (WitnessRecord | undefined)[] | undefined {
  const extend = (
    records: readonly (WitnessRecord | undefined)[],
  ): readonly (WitnessRecord | undefined)[] | undefined => {
    const version = records.length;
    if (version > last) return records;
    const known = effects.get(version);
    const candidates = known ? [known] : history.filter(({ answer }) => answer === undefined);
    for (const { request, asked } of candidates) {
      const { write } = decide(witness, records.at(-1), request);
      // It cannot be what somebody had been told before it was asked.
      const isTooLate = history.some(
        (other) => seenBy(other) >= version && (other.answered ?? asked) < asked,
      );
      if (write?.version !== version || isTooLate) continue;
      const longer = extend([...records, write]);
      if (longer && fits(history, write)) return longer;
    }
    return undefined;
  };
  return extend([undefined]);
}

function fits(history: readonly Told[], record: WitnessRecord): boolean {
  const told = history.filter((each) => seenBy(each) === record.version);
  return told.every(({ answer }) => isDeepStrictEqual(answer?.record, record));
}

/** Nobody is told of an older version than somebody was told of before the question. */
function outOfTime(history: readonly Told[]): string[] {
  return history.flatMap((one) =>
    history
      .filter((other) => one.answered !== undefined && one.answered < other.asked && other.answer)
      .filter((other) => seenBy(other) < seenBy(one))
      .map((other) => `version ${seenBy(other)} was told after ${seenBy(one)}`),
  );
}

/** For each base the sides that were granted it; more than one is what must never be. */
export function grantedTwice(history: readonly Told[]): string[] {
  const granted = new Map<string, string>();
  const wrong: string[] = [];
  for (const { request, answer } of history) {
    if (request.kind !== "claim" || answer?.result !== "done") continue;
    const other = granted.get(request.base);
    if (other !== undefined && other !== request.side) wrong.push(`both from ${request.base}`);
    granted.set(request.base, request.side);
  }
  return wrong;
}
