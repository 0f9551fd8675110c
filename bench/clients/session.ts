/** One engine's writer and reader, and what is known about them: their history, meters and counters. */
import { type ChildProcess, fork } from "node:child_process";
import { noCounts, type StateCounts } from "./engine.ts";
import { HistoryChecker, type Operation, type Verdict } from "./history.ts";
import { Merge } from "./merge.ts";
import { Meter, type MeterReading } from "./meter.ts";
import {
  type EngineName,
  type FromWorker,
  type LogSegment,
  logKey,
  monotonicMs,
  registerKey,
  type ToWorker,
  type WorkerSettings,
} from "./protocol.ts";

const workerPath = new URL("./worker.ts", import.meta.url).pathname;
const roles = ["writer", "reader"] as const;
type Role = (typeof roles)[number];
type Batch = Extract<FromWorker, { type: "batch" }>;

export interface SessionReading {
  readonly engine: EngineName;
  readonly write: MeterReading;
  readonly read: MeterReading;
  readonly repeats: number;
  readonly statuses: Record<string, number>;
  readonly tornReads: number;
  readonly corruptReads: number;
  /** Of writer and reader together; `graceWaitMs` is that of the one who waited longer, since the mark. */
  readonly state: StateCounts;
  readonly verdict: Verdict;
}

interface Side {
  readonly child: ChildProcess;
  readonly meter: Meter;
  last: Batch | undefined;
  /** At the mark. */
  graceWaitMs: number;
}

export class Session {
  readonly engine: EngineName;
  readonly #settings: Omit<WorkerSettings, "role">;
  readonly #checker = new HistoryChecker();
  readonly #merge = new Merge<Operation>(roles);
  readonly #sides: Record<Role, Side>;
  readonly #onFailure: (reason: string) => void;
  #waiting: { type: FromWorker["type"]; resolve: (message: FromWorker) => void }[] = [];
  #corruptInVerification = 0;
  #lostBefore = 0;
  #ready = 0;
  #ending = false;

  /** Starts both processes. `onFailure` is called when one ends by itself: its history is then incomplete and proves nothing. */
  constructor(settings: Omit<WorkerSettings, "role">, onFailure: (reason: string) => void) {
    this.engine = settings.engine;
    this.#settings = settings;
    this.#onFailure = onFailure;
    this.#sides = { writer: this.#start("writer"), reader: this.#start("reader") };
  }

  mark(): void {
    for (const side of Object.values(this.#sides)) {
      side.meter.mark(monotonicMs());
      side.graceWaitMs = side.last?.counters.state.graceWaitMs ?? 0;
    }
  }

  reading(newWindow: boolean): SessionReading {
    const { writer, reader } = this.#sides;
    const counters = [writer.last?.counters, reader.last?.counters];
    return {
      engine: this.engine,
      write: writer.meter.read(writer.last?.watermarkMs ?? monotonicMs(), newWindow),
      read: reader.meter.read(reader.last?.watermarkMs ?? monotonicMs(), newWindow),
      repeats: counters.reduce((sum, each) => sum + (each?.repeats ?? 0), 0),
      statuses: sumOf(counters.map((each) => each?.statuses ?? {})),
      tornReads: reader.last?.tornReads ?? 0,
      corruptReads: (reader.last?.corruptReads ?? 0) + this.#corruptInVerification,
      state: stateOf([writer, reader]),
      verdict: this.#checker.verdict(),
    };
  }

  /**
   * Stops the writer between two operations, reads everything back through a fresh mount, compares it with what was acknowledged, and goes
   * on. Settles with false when that was not done after `timeoutMs`; the writer goes on in any case.
   */
  async verify(timeoutMs: number): Promise<boolean> {
    const timeout = new Promise<undefined>((resolve) => {
      setTimeout(() => resolve(undefined), timeoutMs).unref();
    });
    const verified = await Promise.race([this.#verifyNow(), timeout]);
    this.#waiting = [];
    this.#send("writer", { type: "resume" });
    this.#sides.writer.meter.resume(monotonicMs());
    return verified === true;
  }

  async end(): Promise<void> {
    this.#ending = true;
    const ends = roles.map(
      (role) =>
        new Promise<void>((resolve) => {
          const { child } = this.#sides[role];
          if (child.exitCode !== null || child.signalCode !== null) resolve();
          else child.once("exit", () => resolve());
        }),
    );
    for (const role of roles) this.#send(role, { type: "end" });
    // A libnfs call that waits for a dead server does not end with its process's good will.
    const insist = setTimeout(() => {
      for (const role of roles) this.#sides[role].child.kill("SIGKILL");
    }, 1000);
    await Promise.all(ends);
    clearTimeout(insist);
  }

  async #verifyNow(): Promise<boolean> {
    const paused = this.#next("paused");
    this.#send("writer", { type: "pause" });
    const { segments } = (await paused) as Extract<FromWorker, { type: "paused" }>;
    const answer = this.#next("verified");
    this.#send("reader", { type: "verify", segments: segments as LogSegment[] });
    const found = (await answer) as Extract<FromWorker, { type: "verified" }>;
    const seen = new Map(found.registers.map(({ key, seq }) => [key, seq]));
    for (let i = 0; i < this.#settings.registers; i += 1) {
      const key = registerKey(this.#settings, i);
      this.#checker.addFinalRead(key, seen.get(key) ?? 0);
    }
    this.#checker.addLostRecords(logKey(this.#settings), found.lostRecords);
    this.#corruptInVerification += found.corruptReads;
    return true;
  }

  #start(role: Role): Side {
    const settings: WorkerSettings = { ...this.#settings, role };
    const child = fork(workerPath, [JSON.stringify(settings)], {
      // libnfs's contexts wait in a thread each: one for each register, the log, a removal and the verification.
      env: { ...process.env, UV_THREADPOOL_SIZE: String(this.#settings.registers + 4) },
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    child.on("message", (message: FromWorker) => this.#take(role, message));
    child.once("exit", (code, signal) => {
      if (!this.#ending) this.#onFailure(`${this.engine} ${role} ended with ${signal ?? code}`);
    });
    return { child, meter: new Meter(monotonicMs()), last: undefined, graceWaitMs: 0 };
  }

  #take(role: Role, message: FromWorker): void {
    if (message.type === "ready") {
      this.#ready += 1;
      if (this.#ready === roles.length) this.#send("reader", { type: "start" });
      return;
    }
    if (message.type !== "batch") {
      const waiter = this.#waiting.find((each) => each.type === message.type);
      this.#waiting = this.#waiting.filter((each) => each !== waiter);
      waiter?.resolve(message);
      return;
    }
    const side = this.#sides[role];
    side.last = message;
    for (const { startedAtMs, completedAtMs, bytes } of message.operations) {
      side.meter.complete(startedAtMs, completedAtMs, bytes);
    }
    const ordered = this.#merge.push(role, message.operations, message.watermarkMs);
    for (const operation of ordered) this.#checker.add(operation);
    const newlyLost = message.lostRecords - this.#lostBefore;
    if (role === "writer" && newlyLost > 0) {
      this.#lostBefore = message.lostRecords;
      this.#checker.addLostRecords(logKey(this.#settings), newlyLost);
    }
  }

  #next(type: FromWorker["type"]): Promise<FromWorker> {
    return new Promise((resolve) => this.#waiting.push({ type, resolve }));
  }

  #send(role: Role, message: ToWorker): void {
    const { child } = this.#sides[role];
    if (child.connected) child.send(message);
  }
}

function stateOf(sides: readonly Side[]): StateCounts {
  const counts = sides.map((side) => side.last?.counters.state ?? noCounts().state);
  const waitsMs = sides.map((side, i) => (counts[i]?.graceWaitMs ?? 0) - side.graceWaitMs);
  return {
    ...noCounts().state,
    ...sumOf(counts.map((each) => ({ ...each }))),
    graceWaitMs: Math.round(Math.max(...waitsMs)),
  };
}

function sumOf(counts: readonly Record<string, number>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [name, count] of counts.flatMap((each) => Object.entries(each))) {
    sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
