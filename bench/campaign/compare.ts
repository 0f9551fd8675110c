/** Ours and a peer's outage of an address, run by run in turn, on one machine, by one prober. */
import { faultNamed } from "../faults/index.ts";
import { Keepalived, peerFaultNamed } from "../peers/keepalived.ts";
import { BenchError } from "../world/error.ts";
import { expectations } from "./expectations.ts";
import { type Spread, spread, tenth } from "./figures.ts";
import { oneRun, type Stage } from "./one-run.ts";

export interface Comparison {
  readonly test: "compare";
  readonly fault: string;
  readonly runs: number;
  readonly dyadOutageMs: Spread | undefined;
  readonly keepalivedOutageMs: Spread | undefined;
  readonly dyad: readonly number[];
  readonly keepalived: readonly number[];
  /** Median of ours by median of theirs: at most 1 means no worse. */
  readonly ratio: number | undefined;
  readonly problems: readonly string[];
}

/** The peer's world has its own prefix; both worlds live through the whole comparison. */
export async function compare(
  stage: Stage,
  faultNames: readonly string[],
  runs: number,
  progress: (text: string) => void,
  result: (comparison: Comparison) => void,
): Promise<void> {
  const chosen = faultNames.map((name) => {
    const expected = expectations[name];
    if (!expected) throw new BenchError("badInput", name, "nothing is expected of this fault");
    return { ours: faultNamed(name), theirs: peerFaultNamed(name), expected };
  });
  const { signal, layout } = stage.world;
  const peer = await Keepalived.start({
    prefix: `${layout.prefix}k`,
    ...(signal ? { signal } : {}),
  });
  try {
    for (const { ours, theirs, expected } of chosen) {
      const dyad: number[] = [];
      const keepalived: number[] = [];
      const problems: string[] = [];
      for (let i = 1; i <= runs; i++) {
        const record = await oneRun(stage, ours, expected, `${ours.name}-${i}`);
        dyad.push(record.addressOutageMs);
        problems.push(...record.problems);
        keepalived.push(tenth(await peer.oneRun(theirs)));
        progress(
          `${ours.name} ${i}/${runs}: ours ${dyad.at(-1)} ms, keepalived ${keepalived.at(-1)} ms`,
        );
      }
      result(comparison(ours.name, dyad, keepalived, problems));
    }
  } finally {
    await peer.stop();
  }
}

function comparison(
  fault: string,
  dyad: readonly number[],
  keepalived: readonly number[],
  problems: readonly string[],
): Comparison {
  const ours = spread(dyad);
  const theirs = spread(keepalived);
  const ratio = ours && theirs ? Math.round((ours.median / theirs.median) * 100) / 100 : undefined;
  const worse = ratio !== undefined && ratio > 1 ? [`median ${ratio} times keepalived's`] : [];
  return {
    test: "compare",
    fault,
    runs: dyad.length,
    dyadOutageMs: ours,
    keepalivedOutageMs: theirs,
    dyad,
    keepalived,
    ratio,
    problems: [...problems, ...worse],
  };
}
