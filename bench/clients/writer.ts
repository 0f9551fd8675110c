/**
 * The writer: overwrites each of its registers with rising sequence numbers and appends to a log, one operation in flight for each.
 */
import type { Engine, EngineFile, Stability } from "./engine.ts";
import type { Outbox } from "./outbox.ts";
import {
  type LogSegment,
  logKey,
  logRecordBytes,
  logSegmentRecords,
  monotonicMs,
  registerKey,
  type WorkerSettings,
} from "./protocol.ts";
import { countGoodRecords } from "./read-back.ts";
import { encodeRecord } from "./record.ts";

export class Writer {
  readonly #engine: Engine;
  readonly #outbox: Outbox;
  readonly #settings: WorkerSettings;
  /** Set while paused: loops wait for it between operations. */
  #paused: { promise: Promise<void>; resume: () => void } | undefined;
  #inFlight = new Set<Promise<void>>();
  #ending = false;
  readonly #files: EngineFile[] = [];
  #segments: { path: string; records: number }[] = [];

  constructor(engine: Engine, outbox: Outbox, settings: WorkerSettings) {
    this.#engine = engine;
    this.#outbox = outbox;
    this.#settings = settings;
  }

  /** Makes the registers anew, so that a reader that begins afterwards opens these and not those of an earlier run. */
  async create(): Promise<void> {
    for (let i = 0; i < this.#settings.registers; i += 1) {
      const key = registerKey(this.#settings, i);
      await this.#engine.remove(key);
      this.#files.push(await this.#engine.create(key));
    }
  }

  /** Works until `end`. Rejects only when the engine does. */
  async run(): Promise<void> {
    const loops = this.#files.map((file, i) => this.#writeRegister(file, i));
    await Promise.all([...loops, this.#appendLog()]);
  }

  /** Settles when nothing is in flight; the log as it stands then. */
  async pause(): Promise<readonly LogSegment[]> {
    this.#paused ??= gate();
    await Promise.all(this.#inFlight);
    return this.#segments.map((segment) => ({ ...segment }));
  }

  resume(): void {
    this.#paused?.resume();
    this.#paused = undefined;
  }

  end(): void {
    this.#ending = true;
    this.resume();
  }

  async #writeRegister(file: EngineFile, i: number): Promise<void> {
    const key = registerKey(this.#settings, i);
    const bytes = this.#settings.recordBytes;
    // Both ways of reaching stable storage are exercised.
    const stability: Stability = i % 2 === 0 ? "file-sync" : "commit";
    for (let seq = 1; !this.#ending; seq += 1) {
      await this.#turn(() => this.#write(key, seq, file, 0, bytes, stability));
    }
  }

  async #appendLog(): Promise<void> {
    const key = logKey(this.#settings);
    let seq = 1;
    for (let generation = 0; !this.#ending; generation += 1) {
      const path = `${key}-${generation % 4}`;
      await this.#engine.remove(path);
      const file = await this.#engine.create(path);
      const segment = { path, records: 0 };
      this.#segments.push(segment);
      for (let i = 0; i < logSegmentRecords && !this.#ending; i += 1) {
        const at = i * logRecordBytes;
        await this.#turn(async () => {
          await this.#write(key, seq, file, at, logRecordBytes, "commit");
          segment.records += 1;
        });
        seq += 1;
      }
      await this.#turn(() => this.#retire());
    }
  }

  /** The oldest of three segments is read back whole, then removed. */
  async #retire(): Promise<void> {
    if (this.#segments.length < 3) return;
    const oldest = this.#segments.shift();
    if (oldest === undefined) return;
    const file = await this.#engine.open(oldest.path);
    const good = await countGoodRecords(this.#engine, file, logKey(this.#settings), oldest.records);
    this.#outbox.lostRecords += oldest.records - good;
    await this.#engine.remove(oldest.path);
  }

  async #write(
    key: string,
    seq: number,
    file: EngineFile,
    offset: number,
    bytes: number,
    stability: Stability,
  ): Promise<void> {
    const record = encodeRecord(key, seq, bytes);
    const startedAtMs = monotonicMs();
    await this.#engine.write(file, offset, record, stability);
    const completedAtMs = monotonicMs();
    this.#outbox.add({ kind: "write", key, seq, completedAtMs }, startedAtMs, bytes);
  }

  async #turn(action: () => Promise<void>): Promise<void> {
    while (this.#paused !== undefined) await this.#paused.promise;
    const running = action();
    this.#inFlight.add(running);
    try {
      await running;
    } finally {
      this.#inFlight.delete(running);
    }
    await new Promise((resolve) => setTimeout(resolve, this.#settings.paceMs));
  }
}

function gate(): { promise: Promise<void>; resume: () => void } {
  let resume: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => {
    resume = resolve;
  });
  return { promise, resume };
}
