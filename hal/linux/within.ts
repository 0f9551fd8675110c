/** A limit of time for what cannot be called back: it goes on, and nobody waits for it any more. */
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** The outcome of `work`, or the fault `timeout` with `why` after `limitMs`. */
export async function within<T>(
  work: Promise<Outcome<T>>,
  limitMs: number,
  operation: string,
  why: string,
): Promise<Outcome<T>> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Outcome<T>>((resolve) => {
    timer = setTimeout(() => resolve(failed("timeout", operation, why)), limitMs);
  });
  const outcome = await Promise.race([work, late]);
  clearTimeout(timer);
  return outcome;
}
