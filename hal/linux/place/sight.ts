/**
 * Whether a program sees the volumes that it is to serve. It has mounts of its own (enter.c), and a volume that is not among them looks to it like an empty
 * folder, which it would serve: what its clients write there is acknowledged and lost (docs/design/0036-volume-beneath.md). So nobody
 * counts as serving on the word that a volume is mounted: the kernel is asked, through the program's own root.
 */
import type { BigIntStats } from "node:fs";
import { stat } from "node:fs/promises";
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import { within } from "../within.ts";

/**
 * A folder of a volume, where this process and where the program find it. There is no symbolic link on the way to it: one to an absolute path would lead
 * from the program's root back to ours.
 */
export interface Sight {
  readonly here: string;
  readonly there: string;
}

/**
 * Whether program `pid`, which may be another user's (CAP_SYS_PTRACE), finds at each of them what is there for this process. Memory is asked, but by way of
 * the volume, whose disk may hang. Faults: `serviceFailed`: it does not; `timeout`.
 */
export function seesVolumes(
  pid: number,
  sights: readonly Sight[],
  deadlineMs: number,
): Promise<Outcome> {
  const operation = `look through process ${pid}`;
  const late = `no answer within ${Math.round(deadlineMs)} ms`;
  return within(looked(pid, sights, operation), deadlineMs, operation, late);
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
