/** All cores: shares of seeds are handed to threads as they become free. */
import { Worker } from "node:worker_threads";
import { addTallies, noTally, type Share, type Tally } from "../campaign.ts";
import type { Profile } from "../plan.ts";

/** Seeds of one share: long enough that handing over costs nothing, short enough that all threads end together. */
const shareSeeds = 50;

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
  const endSeed = firstSeed + seeds;
  let nextSeed = firstSeed;
  let sum = noTally;
  const takeShare = (): Share | undefined => {
    if (nextSeed >= endSeed) return undefined;
    const share = { profile, firstSeed: nextSeed, seeds: Math.min(shareSeeds, endSeed - nextSeed) };
    nextSeed += share.seeds;
    return share;
  };
  const count = Math.max(1, Math.min(jobs, Math.ceil(seeds / shareSeeds)));
  await Promise.all(
    Array.from({ length: count }, () =>
      runThread(takeShare, (tally) => {
        sum = addTallies(sum, tally);
        progress(sum);
      }),
    ),
  );
  return sum;
}

function runThread(take: () => Share | undefined, done: (tally: Tally) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker.ts", import.meta.url));
    const give = () => {
      const share = take();
      if (share) worker.postMessage(share);
      else void worker.terminate().then(() => resolve());
    };
    worker.on("message", (tally: Tally) => {
      done(tally);
      give();
    });
    worker.on("error", (cause) => reject(new Error("sim: a thread failed", { cause })));
    give();
  });
}
