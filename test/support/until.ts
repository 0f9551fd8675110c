import { limitsMs } from "./limits.ts";

/** Those of the machine, also in a test that makes its own time. */
const { setTimeout: realSetTimeout } = globalThis;
const realNow = performance.now.bind(performance);

/** Polls until the condition holds, in real time; the error names what did not happen. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  deadlineMs: number = limitsMs.condition,
): Promise<void> {
  const end = realNow() + deadlineMs;
  while (!(await condition())) {
    if (realNow() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => realSetTimeout(resolve, 2));
  }
}
