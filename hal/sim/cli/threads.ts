/** All cores: shares are handed to threads as they become free. */
import { Worker } from "node:worker_threads";
import { addTallies, noTally, type Share, type Tally } from "../campaign.ts";
import type { Profile } from "../plan.ts";
import {
  addStepTallies,
  type Named,
  StepRunner,
  type StepShare,
  type StepTally,
} from "../step-campaign.ts";

/** Seeds of one share: long enough that handing over costs nothing, short enough that all threads end together. */
const shareSeeds = 50;
/** Of crashes at the steps of one story, likewise. */
const shareSteps = 100;

export interface CampaignOptions {
  readonly profile: Profile;
  readonly firstSeed: number;
  readonly seeds: number;
  readonly jobs: number;
  readonly progress: (tally: Tally) => void;
}

/** Runs all seeds; settles with their sum when the last thread has ended. */
export async function runCampaign(options: CampaignOptions): Promise<Tally> {
  const { profile, firstSeed, seeds, jobs, progress } = options;
  const shares: Share[] = [];
  for (let seed = firstSeed; seed < firstSeed + seeds; seed += shareSeeds) {
    const left = Math.min(shareSeeds, firstSeed + seeds - seed);
    shares.push({ kind: "seeds", profile, firstSeed: seed, seeds: left });
  }
  let sum = noTally;
  await runShares<Share, Tally>(shares, jobs, (_, tally) => {
    sum = addTallies(sum, tally);
    progress(sum);
  });
  return sum;
}

/** Strikes at every step of some tellings. `ended` gets each when it is whole, in their order. */
export async function runStepCampaign(
  list: readonly Named[],
  jobs: number,
  ended: (tally: StepTally) => void,
): Promise<void> {
  const runner = new StepRunner();
  const parts = list.map((named) => runner.parts(named, shareSteps));
  const sums: (StepTally | undefined)[] = list.map(() => undefined);
  const left = parts.map(({ length }) => length);
  let next = 0;
  const indexed = parts.flatMap((shares, index) => shares.map((share) => ({ index, share })));
  const indexOf = new Map(indexed.map(({ index, share }) => [share, index]));
  await runShares<StepShare, StepTally>(
    indexed.map(({ share }) => share),
    jobs,
    (share, tally) => {
      const index = indexOf.get(share) ?? 0;
      const sum = sums[index];
      sums[index] = sum ? addStepTallies(sum, tally) : tally;
      left[index] = (left[index] ?? 0) - 1;
      for (; left[next] === 0; next += 1) {
        const whole = sums[next];
        if (whole) ended(whole);
      }
    },
  );
}

/** Hands each share to a thread that is free. */
async function runShares<S, T>(
  shares: readonly S[],
  jobs: number,
  done: (share: S, tally: T) => void,
): Promise<void> {
  const waiting = shares.values();
  const count = Math.max(1, Math.min(jobs, shares.length));
  await Promise.all(Array.from({ length: count }, () => runThread(waiting, done)));
}

function runThread<S, T>(waiting: Iterator<S>, done: (share: S, tally: T) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker.ts", import.meta.url));
    const give = () => {
      const { value: share, done: isOver } = waiting.next();
      if (isOver) {
        void worker.terminate().then(() => resolve());
        return;
      }
      worker.once("message", (tally: T) => {
        done(share, tally);
        give();
      });
      worker.postMessage(share);
    };
    worker.on("error", (cause) => reject(new Error("sim: a thread failed", { cause })));
    give();
  });
}
