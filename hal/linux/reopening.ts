/**
 * What the wires have in common when their way into the kernel is not there (an adapter unplugged, an address not yet on the
 * interface): they say so once, and open it again by themselves, more slowly each time.
 */
import type { LinkHandlers } from "../port/link.ts";

/** Waiting times between attempts: short at first, since most losses are a cable put back. */
const retryMsMin = 20;
const retryMsMax = 1000;

export class Reopening {
  readonly #open: () => void;
  readonly #carrier: LinkHandlers["carrier"];
  #retry: NodeJS.Timeout | undefined;
  #retryMs = retryMsMin;
  #up: boolean | undefined;

  /** `open` begins an attempt, whose end `opened` or `lost` tells. The first one is the owner's to begin. */
  constructor(open: () => void, carrier: LinkHandlers["carrier"]) {
    this.#open = open;
    this.#carrier = carrier;
  }

  opened(reason: string): void {
    this.#retryMs = retryMsMin;
    this.#tell(true, reason);
  }

  /** It could not be opened, or was open and is gone: tried again later. */
  lost(reason: string): void {
    this.#tell(false, reason);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(this.#open, this.#retryMs);
    this.#retryMs = Math.min(retryMsMax, this.#retryMs * 2);
  }

  /** No further attempt is made. */
  close(): void {
    clearTimeout(this.#retry);
  }

  #tell(up: boolean, reason: string): void {
    if (up === this.#up) return;
    this.#up = up;
    this.#carrier(up, reason);
  }
}
