/** What must come of each fault: the one table that a campaign is judged by. Pure. */

import { restartsMax } from "../../firmware-ts/core/faults.ts";

export interface Expectation {
  /**
   * Who serves once things have settled: `partner`: the other controller serves everything; `stays`: nothing moves; `one`: either
   * controller serves everything and the other nothing; `firstMoves`: the other one serves the first virtual server, and nothing else moves.
   */
  readonly serves: "partner" | "stays" | "one" | "firstMoves";
  /** Only the first virtual server is struck: all others are served as if nothing had happened. */
  readonly strikesFirst?: true;
  /** A virtual server that has failed so often lately is not started again where it is: then the partner serves. */
  readonly failuresMax?: number;
  /** Longest silence of an address in any run, ms. */
  readonly outageMsMax: number;
  /** Median over the runs, ms. */
  readonly outageMedianMsMax: number;
  /** Longest time until everything has settled, clients included, ms. */
  readonly settleMsMax: number;
}

/**
 * Bounds, not aims: an outage beyond them means that something other than the derived times decided. What stays may be silent
 * for as long as a busy machine holds up a packet. A planned move has its aim from the product's promise: 50 ms.
 */
const unplanned = {
  serverDies: true,
  outageMsMax: 2000,
  outageMedianMsMax: 500,
  settleMsMax: 30_000,
} as const;
const undisturbed = {
  serverDies: false,
  outageMsMax: 50,
  outageMedianMsMax: 10,
  settleMsMax: 30_000,
} as const;

/** Longest silence of a virtual server that is none of a fault's business, ms. */
export const neighbourOutageMsMax = undisturbed.outageMsMax;

/** What is expected of a fault that befalls a controller where a virtual server has failed so often lately. */
export function expectedAfter(expected: Expectation, failures: number): Expectation {
  const moves = expected.failuresMax !== undefined && failures >= expected.failuresMax;
  if (!moves) return expected;
  return { ...expected, serves: expected.strikesFirst ? "firstMoves" : "partner" };
}

/**
 * What the firmware of one controller (its three processes) may hold at most, in every case: also alone on its machine, after a
 * long life, under load.
 */
export const daemonMemoryMbMax = 150;

export const expectations: { readonly [fault: string]: Expectation } = {
  kill9: { serves: "partner", ...unplanned },
  crash: { serves: "partner", ...unplanned },
  freeze: { serves: "partner", ...unplanned },
  power: { serves: "partner", ...unplanned },
  link: { serves: "partner", ...unplanned },
  serial: { serves: "stays", ...undisturbed },
  split: { serves: "one", ...unplanned },
  fileserver: { serves: "stays", failuresMax: restartsMax, ...unplanned },
  hang: { serves: "stays", failuresMax: restartsMax, strikesFirst: true, ...unplanned },
  address: { serves: "stays", failuresMax: restartsMax, strikesFirst: true, ...unplanned },
  device: { serves: "partner", ...unplanned },
  readonly: { serves: "firstMoves", strikesFirst: true, ...unplanned },
  path: { serves: "partner", ...unplanned },
  broker: { serves: "stays", ...undisturbed },
  term: { serves: "partner", ...unplanned, outageMedianMsMax: 50 },
};
