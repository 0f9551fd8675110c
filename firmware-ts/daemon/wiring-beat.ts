/** Picks the drivers of the beat process. One HAL so far: the bench's, whose parts in hal/linux are the real ones. */
export { openBeatMachine } from "../../hal/bench/beat-machine.ts";
export { readPairKey as loadPairKey } from "../../hal/linux/pair-key.ts";
