/**
 * The command window of a session (RFC 7143 4.2.2.1): which numbered request may be taken now, and how many more
 * the initiator may send.
 *
 * Obligations: requests are delivered in the order of CmdSN; those outside the window are ignored; MaxCmdSN never
 * goes back, so an initiator is never told of room that it then loses.
 */
import { serialAdd, serialDistance } from "../../../firmware-ts/wire/iscsi/serial.ts";

export class CommandWindow<T> {
  readonly #size: number;
  readonly #early = new Map<number, T>();
  #expected: number;
  #max: number;
  #inFlight = 0;

  /** `first` is the CmdSN of the login, `size` how many commands may be in flight. */
  constructor(first: number, size: number) {
    this.#size = size;
    this.#expected = first;
    this.#max = serialAdd(first, size - 1);
  }

  get expected(): number {
    return this.#expected;
  }

  get max(): number {
    return this.#max;
  }

  /** Requests that may be carried out now, in order: none when this one is early, or outside the window. */
  accept(cmdSn: number, request: T): { readonly ready: readonly T[]; readonly ignored: boolean } {
    const ahead = serialDistance(this.#expected, cmdSn);
    if (ahead < 0 || serialDistance(cmdSn, this.#max) < 0) return { ready: [], ignored: true };
    if (ahead > 0) {
      const isRepeated = this.#early.has(cmdSn);
      if (!isRepeated) this.#early.set(cmdSn, request);
      return { ready: [], ignored: isRepeated };
    }
    const ready = [request];
    this.#expected = serialAdd(this.#expected, 1);
    for (
      let next = this.#early.get(this.#expected);
      next !== undefined;
      next = this.#early.get(this.#expected)
    ) {
      this.#early.delete(this.#expected);
      ready.push(next);
      this.#expected = serialAdd(this.#expected, 1);
    }
    this.#inFlight += ready.length;
    return { ready, ignored: false };
  }

  /** A request that was accepted no longer occupies a place. Call once for each. */
  end(): void {
    this.#inFlight -= 1;
    const candidate = serialAdd(this.#expected, this.#size - this.#inFlight - 1);
    if (serialDistance(this.#max, candidate) > 0) this.#max = candidate;
  }
}
