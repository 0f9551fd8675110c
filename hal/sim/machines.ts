/** The decisions that a world runs: those of production, unless a test wants to see broken ones caught. */
import { beatStep } from "../../firmware-ts/core/beat.ts";
import { controllerStep } from "../../firmware-ts/core/controller.ts";

export interface Machines {
  readonly controller: typeof controllerStep;
  readonly beat: typeof beatStep;
}

export const productionMachines: Machines = { controller: controllerStep, beat: beatStep };
