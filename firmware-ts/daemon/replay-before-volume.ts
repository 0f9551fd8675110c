/**
 * Journals that were written before there was a common volume. Their decisions are looked at as if there had been one that is empty and takes
 * everything at once; what concerns it is left out of the comparison, and so is what effects have said since beyond what they said then.
 */
import { controllerStep } from "../core/controller.ts";
import type { ControllerState } from "../core/controller-state.ts";
import type { Effect } from "../core/effects.ts";
import type { ControllerEvent } from "../core/events.ts";

const emptyView = { records: [], thin: [], reserved: [], damaged: [] };

function answerTo(effect: Effect, nowMs: number): ControllerEvent | undefined {
  if (effect.kind === "volumeRead")
    return {
      kind: "volume",
      token: effect.token,
      nowMs,
      outcome: { ok: true, value: emptyView },
    };
  if (effect.kind !== "volumeWrite") return undefined;
  const written = { accepted: 1, refused: 0, overtaken: 0, total: 1 };
  return { kind: "volumeWritten", token: effect.token, nowMs, written };
}

/** One step, with the answers of that volume; its effects as they were then. */
export function stepBeforeVolume(
  state: ControllerState,
  event: ControllerEvent,
): readonly [ControllerState, readonly unknown[]] {
  let [next, effects] = controllerStep(state, event);
  const told = effects.flatMap(asThen);
  for (const answers = [...effects]; answers.length > 0; ) {
    const answer = answerTo(answers.shift() as Effect, event.nowMs);
    if (!answer) continue;
    [next, effects] = controllerStep(next, answer);
    told.push(...effects.flatMap(asThen));
    answers.push(...effects);
  }
  return [next, told];
}

function asThen(effect: Effect): unknown[] {
  if (effect.kind === "volumeRead" || effect.kind === "volumeWrite") return [];
  if (effect.kind === "mandate") {
    const { configuration: _configuration, ...mandate } = effect.mandate;
    return [{ ...effect, mandate }];
  }
  if (effect.kind === "work" && effect.work.op === "removeAddresses")
    return [{ ...effect, work: { op: effect.work.op } }];
  return [effect];
}
