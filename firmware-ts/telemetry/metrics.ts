/**
 * Prometheus metrics, text format 0.0.4. Everything about the pair is taken from one `Status` at the moment of the scrape, so
 * that metrics and `dyad status` cannot disagree; only the histogram of takeovers has a memory of its own.
 *
 * Names: prefix `dyad_`, base units (seconds, bytes), states as 0/1 gauges with a label. docs/metrics.md lists them.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Status } from "../schema/status.ts";
import { families, type OutsideCounters } from "./metric-families.ts";

/** How a takeover came about: nobody asked (`failure`), or an operator did (`planned`). */
export type TakeoverKind = "failure" | "planned";

export interface Metrics {
  /** Notes one finished takeover: from the decision (or the loss of the partner) to the last open address. */
  readonly observeTakeover: (kind: TakeoverKind, durationMs: number) => void;
  /** The page of `/metrics`. */
  readonly render: (status: Status, counters: OutsideCounters) => Promise<string>;
}

/** From a planned move's 50 ms to a pair that had to wait for a power-off. */
const takeoverBucketsSeconds = [0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30];

export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const histogram = new Histogram({
    name: "dyad_takeover_duration_seconds",
    help: "Takeovers by this controller, from the decision to the last open address",
    labelNames: ["kind"],
    buckets: takeoverBucketsSeconds,
    registers,
  });
  // Both series exist from the start: a rate over a series that appears with its first event misses that event.
  for (const kind of ["failure", "planned"]) histogram.zero({ kind });
  const filled = families.map((family) => {
    const { name, help, labelNames, kind, samples } = family;
    const settings = { name, help, labelNames: [...labelNames], registers };
    const metric = kind === "counter" ? new Counter(settings) : new Gauge(settings);
    return { metric, samples };
  });
  return {
    observeTakeover: (kind, durationMs) => histogram.observe({ kind }, durationMs / 1000),
    render: (status, counters) => {
      for (const { metric, samples } of filled) {
        metric.reset();
        // Reset leaves a 0 in place of a metric without labels; an absent part is to have no series at all.
        metric.remove({});
        for (const [labels, value] of samples(status, counters)) metric.inc(labels, value);
      }
      return registry.metrics();
    },
  };
}
