/**
 * The one clock of a controller. The main process and the beat process exchange times (`lastGrantedMs`, `notBeforeMs`), so both
 * must read CLOCK_MONOTONIC itself: `performance.now()` counts from the start of its own process.
 */
import { performance } from "node:perf_hooks";

/** Good enough: far below any time that is decided upon. */
const originErrorMs = 0.02;
/** A process that is interrupted this often may start with the best that it got. */
const originTriesMax = 1000;

/**
 * What one clock lacks to be another that advances at the same rate. A process that is interrupted between its two looks would be behind the
 * others for its whole life; so the looks are repeated until nothing can have come between them. The error is at most the time that the
 * best try took.
 */
export function originOf(clockMs: () => number, processMs: () => number): number {
  let best = { originMs: 0, tookMs: Number.POSITIVE_INFINITY };
  for (let i = 0; i < originTriesMax && best.tookMs > originErrorMs; i += 1) {
    const beforeMs = clockMs();
    const insideMs = processMs();
    const tookMs = clockMs() - beforeMs;
    if (tookMs < best.tookMs) best = { originMs: beforeMs + tookMs / 2 - insideMs, tookMs };
  }
  return best.originMs;
}

/** What `performance.now()` of this process lacks to be CLOCK_MONOTONIC in ms. */
const processOriginMs = originOf(
  () => Number(process.hrtime.bigint()) / 1e6,
  () => performance.now(),
);

/** CLOCK_MONOTONIC in ms: the same in every process of this machine. */
export function monotonicMs(): number {
  return processOriginMs + performance.now();
}

/** A time that a driver of this process took from `performance.now()`. */
export function fromProcessMs(processMs: number): number {
  return processOriginMs + processMs;
}

/** The same time as a driver of this process reads it from `performance.now()`. */
export function toProcessMs(monotonic: number): number {
  return monotonic - processOriginMs;
}
