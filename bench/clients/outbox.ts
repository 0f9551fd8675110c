/** Collects what a worker completed and sends it in batches, with the counters that belong to it. */
import type { EngineCounters } from "./engine.ts";
import type { Operation } from "./history.ts";
import { type FromWorker, monotonicMs } from "./protocol.ts";

const flushEveryMs = 20;

export class Outbox {
  readonly #counters: EngineCounters;
  readonly #timer: NodeJS.Timeout;
  #operations: (Operation & { bytes: number; startedAtMs: number })[] = [];
  tornReads = 0;
  corruptReads = 0;
  lostRecords = 0;

  constructor(counters: EngineCounters) {
    this.#counters = counters;
    this.#timer = setInterval(() => this.flush(), flushEveryMs);
  }

  add(operation: Operation, startedAtMs: number, bytes: number): void {
    this.#operations.push({ ...operation, bytes, startedAtMs });
  }

  flush(): void {
    send({
      type: "batch",
      operations: this.#operations,
      watermarkMs: monotonicMs(),
      counters: this.#counters,
      tornReads: this.tornReads,
      corruptReads: this.corruptReads,
      lostRecords: this.lostRecords,
    });
    this.#operations = [];
  }

  end(): void {
    clearInterval(this.#timer);
    this.flush();
  }
}

export function send(message: FromWorker): void {
  if (process.send === undefined) throw new Error("a client worker needs its parent");
  // A parent that was killed in this moment is missed by nobody here: the worker ends when the channel does.
  if (process.connected) process.send(message, () => undefined);
}
