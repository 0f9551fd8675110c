/** Many virtual servers that are taken over, or that move while clients work: what `bench vserver` does. */
import type { Fault } from "../faults/fault.ts";
import { faultNamed } from "../faults/index.ts";
import { BenchError } from "../world/error.ts";
import type { Expectation } from "./expectations.ts";
import { repeat } from "./failover.ts";
import { type MoveKind, type MovesResult, movesResult } from "./moves-result.ts";
import type { Stage } from "./one-run.ts";

/** What must hold: the last of 32 answers again within 3 s, on two processors. */
const expected: Expectation = {
  serves: "partner",
  outageMsMax: 3000,
  outageMedianMsMax: 3000,
  settleMsMax: 60_000,
};

/** Not a fault, but it runs as one: everything that is at home on the controller moves away, at once. */
export const transfer: Fault = {
  name: "transfer",
  description: "every virtual server of the controller is moved to the other one",
  async inject(world, victim) {
    const chosen = world.layout.servers.filter(({ home }) => home === victim);
    const answers = await Promise.all(chosen.map(({ name }) => world.apis[victim].transfer(name)));
    const refused = answers.flatMap(({ vetoes }) => vetoes.map(({ message }) => message));
    if (answers.some(({ accepted }) => !accepted))
      throw new BenchError("worldBroken", "transfer", refused.join("; "));
  },
  async repair() {
    // They go home when the run is over.
  },
};

const acts: { readonly [kind in MoveKind]: Fault } = { takeover: faultNamed("kill9"), transfer };

/** Runs on a stage of twice as many virtual servers as move. */
export async function moves(
  stage: Stage,
  kind: MoveKind,
  runs: number,
  progress: (text: string) => void,
): Promise<MovesResult> {
  const { records, broken, counts } = await repeat(stage, acts[kind], expected, runs, progress);
  return movesResult(kind, {
    servers: stage.world.layout.servers,
    clients: stage.clients,
    probeIntervalMs: stage.watch.intervalMs,
    records,
    broken,
    counts,
  });
}
