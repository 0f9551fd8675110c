/** Asking a service that has just been started again and again until it answers: how every kind of file service is proved. */
import { performance } from "node:perf_hooks";
import { failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/**
 * Pause between attempts of one that asks alone. A refused connection costs this process 0.1 ms on a quiet machine and 0.5 on a busy one, so those who ask
 * at the same time share the attempts: in a takeover of many, these connections and those of the health probes were a sixth of what this process did.
 */
const retryMs = 1;

let asking = 0;

export interface Answered<T> {
  readonly answer: T;
  readonly tookMs: number;
}

export interface Asking {
  readonly operation: string;
  readonly deadlineMs: number;
  /** Patience with one attempt, doubled when it was not enough. */
  readonly attemptMsFirst: number;
  /** Asked after each attempt: whether it makes sense to go on. */
  readonly stillUseful: () => boolean;
}

/**
 * Asks until there is an answer, or until `deadlineMs` have passed. Value: what was answered, and the milliseconds that it took. Faults:
 * `serviceSilent` (with the last reason), `serviceFailed` (no longer useful).
 */
export async function untilAnswered<T>(
  how: Asking,
  ask: (timeoutMs: number) => Promise<Outcome<T>>,
): Promise<Outcome<Answered<T>>> {
  asking += 1;
  try {
    return await askAgain(how, ask);
  } finally {
    asking -= 1;
  }
}

async function askAgain<T>(
  { operation, deadlineMs, attemptMsFirst, stillUseful }: Asking,
  ask: (timeoutMs: number) => Promise<Outcome<T>>,
): Promise<Outcome<Answered<T>>> {
  const startedAt = performance.now();
  let patienceMs = attemptMsFirst;
  for (;;) {
    const beganAt = performance.now();
    const leftMs = deadlineMs - (beganAt - startedAt);
    const attempt = await ask(Math.max(1, Math.min(patienceMs, leftMs)));
    if (performance.now() - beganAt >= patienceMs) patienceMs *= 2;
    // Also one that has answered may have ended by now: its end was told already, to somebody who waited for this and took no notice.
    if (!stillUseful()) {
      const why = attempt.ok ? undefined : attempt.fault;
      return failed("serviceFailed", operation, "the file service ended", why);
    }
    if (attempt.ok) return good({ answer: attempt.value, tookMs: performance.now() - startedAt });
    const pauseMs = retryMs * asking;
    if (performance.now() - startedAt + pauseMs >= deadlineMs)
      return failed("serviceSilent", operation, `no answer in ${deadlineMs} ms`, attempt.fault);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}
