/**
 * Operations that take turns and have a time limit, though the system call beneath cannot be called back: one that is
 * given up goes on in the kernel, and the next one on the same subject waits for it.
 */
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";

/** True once the caller was told `timeout`: what is achieved now has to be undone. */
export type IsLate = () => boolean;

export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Runs the action when all earlier ones on `subject` have ended. An action given up before its turn never begins. */
  async take<T>(
    subject: string,
    operation: string,
    limitMs: number,
    action: (isLate: IsLate) => Promise<Outcome<T>>,
  ): Promise<Outcome<T>> {
    let late = false;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<Outcome<T>>((resolve) => {
      timer = setTimeout(() => {
        late = true;
        resolve(failed("timeout", operation, `${subject}: not done within ${limitMs} ms`));
      }, limitMs);
    });
    const before = this.#last.get(subject) ?? Promise.resolve();
    const turn = before.then(() =>
      late ? failed("timeout", operation, `${subject}: given up`) : action(() => late),
    );
    // A broken invariant inside reaches the caller through `turn`; here it only ends the turn.
    const ended = turn.catch(() => undefined);
    this.#last.set(subject, ended);
    try {
      return await Promise.race([turn, timeout]);
    } finally {
      clearTimeout(timer);
      void ended.then(() => {
        if (this.#last.get(subject) === ended) this.#last.delete(subject);
      });
    }
  }
}
