/** Throughput, gaps and latencies of one client. Pure; every time is a monotonic clock's milliseconds. */
import { Latencies } from "./latencies.ts";

export interface MeterReading {
  readonly operationsPerS: number;
  readonly megabytesPerS: number;
  /** Time since the last completed operation. */
  readonly gapMs: number;
  /** Longest time between two successive completed operations since the mark, the one under way included. */
  readonly longestGapMs: number;
  /** Longest time that one operation took since the mark. */
  readonly slowestMs: number;
  /** Time that half of the operations since the mark took at most, and 99 of 100. */
  readonly medianMs: number;
  readonly p99Ms: number;
  /** Completed operations since the mark. */
  readonly operations: number;
}

export class Meter {
  #lastAtMs: number;
  #markedAtMs: number;
  #longestGapMs = 0;
  #slowestMs = 0;
  readonly #latencies = new Latencies();
  #operations = 0;
  #windowAtMs: number;
  #windowOperations = 0;
  #windowBytes = 0;

  constructor(nowMs: number) {
    this.#lastAtMs = nowMs;
    this.#markedAtMs = nowMs;
    this.#windowAtMs = nowMs;
  }

  complete(invokedAtMs: number, completedAtMs: number, bytes: number): void {
    this.#longestGapMs = Math.max(this.#longestGapMs, completedAtMs - this.#lastAtMs);
    this.#slowestMs = Math.max(this.#slowestMs, completedAtMs - invokedAtMs);
    // What was begun before the mark belongs to what was before.
    if (invokedAtMs >= this.#markedAtMs) this.#latencies.add(completedAtMs - invokedAtMs);
    this.#lastAtMs = Math.max(this.#lastAtMs, completedAtMs);
    this.#operations += 1;
    this.#windowOperations += 1;
    this.#windowBytes += bytes;
  }

  /** A pause that the client made on purpose is no gap. */
  resume(nowMs: number): void {
    this.#lastAtMs = nowMs;
  }

  mark(nowMs: number): void {
    // A gap under way at the mark belongs to what comes after it only from the mark on.
    this.#lastAtMs = nowMs;
    this.#markedAtMs = nowMs;
    this.#latencies.clear();
    this.#longestGapMs = 0;
    this.#slowestMs = 0;
    this.#operations = 0;
  }

  /** Reads and, when asked, begins a new window for the throughput. */
  read(nowMs: number, newWindow: boolean): MeterReading {
    const windowS = Math.max(0.001, (nowMs - this.#windowAtMs) / 1000);
    const gapMs = Math.max(0, nowMs - this.#lastAtMs);
    const reading = {
      operationsPerS: Math.round(this.#windowOperations / windowS),
      megabytesPerS: Math.round(this.#windowBytes / windowS / 10_000) / 100,
      gapMs: round(gapMs),
      longestGapMs: round(Math.max(this.#longestGapMs, gapMs)),
      slowestMs: round(this.#slowestMs),
      medianMs: fine(this.#latencies.quantileMs(0.5)),
      p99Ms: fine(this.#latencies.quantileMs(0.99)),
      operations: this.#operations,
    };
    if (newWindow) {
      this.#windowAtMs = nowMs;
      this.#windowOperations = 0;
      this.#windowBytes = 0;
    }
    return reading;
  }
}

function fine(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
