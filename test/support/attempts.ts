/**
 * Attempts at something that a machine can spoil by standing still at the wrong moment: the preparation then came too late, and nothing
 * was shown, neither good nor bad. What a test claims is checked in every attempt that gets so far, never in the best one only.
 */

/** The preparation of this attempt came too late. */
export class TooLate extends Error {}

/** Repeats the attempt while it is `TooLate`, at most `triesMax` times, and fails when none was in time. */
export async function attempts(triesMax: number, attempt: () => Promise<void>): Promise<void> {
  let last: TooLate | undefined;
  for (let tries = 1; tries <= triesMax; tries += 1) {
    try {
      await attempt();
      if (tries > 1) console.log(`in time at attempt ${tries}; before: ${last?.message}`);
      return;
    } catch (error) {
      if (!(error instanceof TooLate)) throw error;
      last = error;
    }
  }
  throw new Error(`none of ${triesMax} attempts was in time`, { cause: last });
}
