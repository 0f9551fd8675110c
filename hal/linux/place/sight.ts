/**
 * Whether a program sees the volumes that it is to serve. It has mounts of its own (enter.c), and a volume that is not among them looks to it like an empty
 * folder, which it would serve: what its clients write there is acknowledged and lost (docs/design/0036-volume-beneath.md). So nobody is let go on, nor
 * counts as serving, on the word that a volume is mounted: the kernel is asked, through the program's own root.
 */
import type { BigIntStats } from "node:fs";
import { stat } from "node:fs/promises";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { within } from "../within.ts";

/** The root of a volume, where this process and where the program find it. */
export interface Sight {
  readonly here: string;
  readonly there: string;
}

/** Only memory is asked, but by way of the volume: its disk may hang. */
const sightMsMax = 1000;

/** Whether program `pid` finds at each of them what is there for this process. Faults: `serviceFailed`: it does not; `timeout`. */
export function seesVolumes(pid: number, sights: readonly Sight[]): Promise<Outcome> {
  const operation = `look through process ${pid}`;
  const late = `no answer within ${sightMsMax} ms`;
  return within(looked(pid, sights, operation), sightMsMax, operation, late);
}

async function looked(pid: number, sights: readonly Sight[], operation: string): Promise<Outcome> {
  for (const { here, there } of sights) {
    try {
      const [ours, its] = await Promise.all([
        stat(here, { bigint: true }),
        stat(`/proc/${pid}/root${there}`, { bigint: true }),
      ]);
      if (isSame(ours, its)) continue;
      const why = `it does not see the volume at ${here}, but what is beneath it`;
      return failed("serviceFailed", operation, why);
    } catch (error) {
      return failed("serviceFailed", operation, `it does not see ${here}`, error);
    }
  }
  return done;
}

function isSame(one: BigIntStats, other: BigIntStats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}
