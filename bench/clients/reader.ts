/** The reader: reads each register over and over on its own connection and verifies every byte; and reads everything back on demand. */
import type { Engine } from "./engine.ts";
import type { Outbox } from "./outbox.ts";
import {
  type FromWorker,
  type LogSegment,
  logKey,
  monotonicMs,
  registerKey,
  type WorkerSettings,
} from "./protocol.ts";
import { countGoodRecords, readRegister } from "./read-back.ts";

const contendEveryMs = 20;

export class Reader {
  readonly #engine: Engine;
  readonly #outbox: Outbox;
  readonly #settings: WorkerSettings;
  #ending = false;

  constructor(engine: Engine, outbox: Outbox, settings: WorkerSettings) {
    this.#engine = engine;
    this.#outbox = outbox;
    this.#settings = settings;
  }

  async run(): Promise<void> {
    const { registers } = this.#settings;
    const loops = Array.from({ length: registers }, (_, i) => this.#readRegister(i));
    await Promise.all([...loops, this.#contend()]);
  }

  end(): void {
    this.#ending = true;
  }

  /** A pass over everything through `fresh`, an engine that has mounted for this alone. */
  async verify(fresh: Engine, segments: readonly LogSegment[]): Promise<FromWorker> {
    const { recordBytes, registers } = this.#settings;
    let corruptReads = 0;
    const found: { key: string; seq: number }[] = [];
    for (let i = 0; i < registers; i += 1) {
      const key = registerKey(this.#settings, i);
      const { record } = await readRegister(fresh, await fresh.open(key), key, recordBytes);
      if (record.ok) found.push({ key, seq: record.seq });
      else corruptReads += 1;
    }
    let lostRecords = 0;
    for (const { path, records } of segments) {
      const file = await fresh.open(path);
      lostRecords +=
        records - (await countGoodRecords(fresh, file, logKey(this.#settings), records));
    }
    return { type: "verified", registers: found, lostRecords, corruptReads };
  }

  /** Asks for what the writer holds, one register after the other, where there is anything to hold. */
  async #contend(): Promise<void> {
    const { registers, paceMs } = this.#settings;
    for (let i = 0; this.#engine.contend !== undefined && !this.#ending; i += 1) {
      const file = await this.#engine.open(registerKey(this.#settings, i % registers));
      await this.#engine.contend(file);
      await new Promise((resolve) => setTimeout(resolve, Math.max(paceMs, contendEveryMs)));
    }
  }

  async #readRegister(i: number): Promise<void> {
    const key = registerKey(this.#settings, i);
    const { recordBytes, paceMs } = this.#settings;
    const file = await this.#engine.open(key);
    while (!this.#ending) {
      const invokedAtMs = monotonicMs();
      const { record, torn } = await readRegister(this.#engine, file, key, recordBytes);
      const completedAtMs = monotonicMs();
      if (record.ok) {
        this.#outbox.tornReads += torn;
        const done = { kind: "read", key, seq: record.seq, invokedAtMs, completedAtMs } as const;
        this.#outbox.add(done, invokedAtMs, recordBytes);
      } else {
        this.#outbox.corruptReads += 1;
      }
      await new Promise((resolve) => setTimeout(resolve, paceMs));
    }
  }
}
