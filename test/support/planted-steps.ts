/** Mistakes that only a crash at the right step shows, planted into the decisions of a world; see planted.ts. */
import type { Pair } from "../../hal/sim/pair.ts";
import { decisions, doing, type Invariant } from "./planting.ts";

export interface PlantedStep {
  /** What is wrong, as a sentence. */
  readonly wrong: string;
  /** In which it is found, with two virtual servers. */
  readonly story: string;
  readonly breaks: readonly (Invariant | "oneOwner")[];
  readonly plant: (pair: Pair) => void;
}

export const plantedSteps: Readonly<Record<string, PlantedStep>> = {
  persistsNothing: {
    wrong: "the epoch of a takeover is not written down",
    story: "kill-a",
    breaks: ["noEndlessDark"],
    plant: doing((effect) => (effect.kind === "persist" ? [] : [effect])),
  },
  remembersMoves: {
    wrong: "a move that is under way is not forgotten when the partner is lost",
    story: "transfer-offered-by-a",
    breaks: ["noEndlessDark"],
    plant: decisions((step) => (state, event) => {
      const [after, effects] = step(state, event);
      const isLoss = event.kind === "seen" && event.observation.kind === "partnerLost";
      return [isLoss ? { ...after, transfers: state.transfers } : after, effects];
    }),
  },
};
