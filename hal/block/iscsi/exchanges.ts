/** Requests that are no SCSI commands and await one answer: task management, pings, the logout. By their task tags. */
import type { Response } from "../../../firmware-ts/wire/iscsi/pdu.ts";

export class Exchanges {
  readonly #pending = new Map<number, (pdu: Response | undefined) => void>();

  has(tag: number): boolean {
    return this.#pending.has(tag);
  }

  /** The answer to a request with this tag; undefined after the deadline, or when the session has ended. */
  answer(tag: number, deadlineMs: number): Promise<Response | undefined> {
    return new Promise((resolve) => {
      const end = (pdu: Response | undefined) => {
        clearTimeout(timer);
        this.#pending.delete(tag);
        resolve(pdu);
      };
      const timer = setTimeout(() => end(undefined), deadlineMs);
      this.#pending.set(tag, end);
    });
  }

  /** An answer has come. One that nobody waits for any more is late, and of no interest. */
  end(tag: number, pdu: Response): void {
    this.#pending.get(tag)?.(pdu);
  }

  endAll(): void {
    for (const end of [...this.#pending.values()]) end(undefined);
  }
}
