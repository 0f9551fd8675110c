/**
 * The one clock of a controller. The main process and the beat process exchange times (`lastGrantedMs`, `notBeforeMs`), so both
 * must read CLOCK_MONOTONIC itself: `performance.now()` counts from the start of its own process.
 */
import { performance } from "node:perf_hooks";

/** What `performance.now()` of this process lacks to be CLOCK_MONOTONIC in ms; both advance at the same rate. */
const processOriginMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();

/** CLOCK_MONOTONIC in ms: the same in every process of this machine. */
export function monotonicMs(): number {
  return processOriginMs + performance.now();
}

/** A time that a driver of this process took from `performance.now()`. */
export function fromProcessMs(processMs: number): number {
  return processOriginMs + processMs;
}
