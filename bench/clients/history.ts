/**
 * The judge of what clients saw. Pure: operations in, verdict out.
 *
 * Glossary: *register*: one record of fixed size that a single writer overwrites with sequence numbers 1, 2, 3, …, one operation in
 * flight, each repeated until it is acknowledged. *floor* of a register at an instant: the highest sequence number that had been
 * acknowledged, or returned by a read that had completed, by then. A read that begins later must not return less.
 *
 * Obligations: every time is on one clock (CLOCK_MONOTONIC is shared by all processes of a machine); operations of one register are
 * added in the order of their completion; memory stays bounded for ever.
 */

/** An acknowledged write. A write that failed is not added: its writer repeats it with the same sequence number. */
export interface WriteDone {
  readonly kind: "write";
  readonly key: string;
  readonly seq: number;
  readonly completedAtMs: number;
}

/** A read whose record was whole. A register that was never written reads as 0. */
export interface ReadDone {
  readonly kind: "read";
  readonly key: string;
  readonly seq: number;
  readonly invokedAtMs: number;
  readonly completedAtMs: number;
}

export type Operation = WriteDone | ReadDone;

export interface Verdict {
  readonly ackedWrites: number;
  readonly reads: number;
  /** Reads that returned less than the floor at their beginning, those counted next excepted. */
  readonly staleReads: number;
  /**
   * Reads that returned the last acknowledged value after an earlier read had seen the write in flight: a server that shows what it has
   * not made durable does that when it dies. RFC 1813 (3.3.7) lets it; we do not.
   */
  readonly rolledBackReads: number;
  /** Reads of a sequence number that no write can have carried yet. */
  readonly phantomReads: number;
  /** Acknowledged writes that a final read no longer found, registers and log together. */
  readonly lostAckedWrites: number;
  /** Reads older than the memory of floors, judged by nothing. Not zero only if a reader hung for very long. */
  readonly unjudgedReads: number;
  /** The first few findings in words. */
  readonly findings: readonly string[];
}

interface Step {
  readonly atMs: number;
  readonly floor: number;
}

interface Register {
  acked: number;
  /** Rising floors, oldest first. */
  steps: Step[];
  /** Reads that began before this instant can no longer be judged. */
  forgottenBeforeMs: number;
}

const stepsMax = 16384;
const findingsMax = 20;

export class HistoryChecker {
  readonly #registers = new Map<string, Register>();
  #ackedWrites = 0;
  #reads = 0;
  #staleReads = 0;
  #rolledBackReads = 0;
  #phantomReads = 0;
  #lostAckedWrites = 0;
  #unjudgedReads = 0;
  readonly #findings: string[] = [];

  add(operation: Operation): void {
    const register = this.#register(operation.key);
    if (operation.kind === "write") this.#addWrite(register, operation);
    else this.#addRead(register, operation);
  }

  /** A read made while no write is in flight, after everything else: what is there must be what was acknowledged last. */
  addFinalRead(key: string, seq: number): void {
    const { acked } = this.#register(key);
    if (seq >= acked) return;
    this.#lostAckedWrites += acked - seq;
    this.#find(`${key}: ${acked} was acknowledged, ${seq} is there`);
  }

  /** Log records that had been acknowledged and are missing or damaged. */
  addLostRecords(key: string, count: number): void {
    if (count === 0) return;
    this.#lostAckedWrites += count;
    this.#find(`${key}: ${count} acknowledged records are missing`);
  }

  verdict(): Verdict {
    return {
      ackedWrites: this.#ackedWrites,
      reads: this.#reads,
      staleReads: this.#staleReads,
      rolledBackReads: this.#rolledBackReads,
      phantomReads: this.#phantomReads,
      lostAckedWrites: this.#lostAckedWrites,
      unjudgedReads: this.#unjudgedReads,
      findings: [...this.#findings],
    };
  }

  #register(key: string): Register {
    const known = this.#registers.get(key);
    if (known !== undefined) return known;
    const created: Register = { acked: 0, steps: [], forgottenBeforeMs: Number.NEGATIVE_INFINITY };
    this.#registers.set(key, created);
    return created;
  }

  #addWrite(register: Register, write: WriteDone): void {
    this.#ackedWrites += 1;
    if (write.seq !== register.acked + 1) {
      throw new Error(`${write.key}: write ${write.seq} acknowledged after ${register.acked}`);
    }
    register.acked = write.seq;
    raise(register, write.completedAtMs, write.seq);
  }

  #addRead(register: Register, read: ReadDone): void {
    this.#reads += 1;
    // One write may be in flight, and its effect may show before its acknowledgement.
    if (read.seq > register.acked + 1) {
      this.#phantomReads += 1;
      this.#find(
        `${read.key}: read ${read.seq}, though ${register.acked} was the last acknowledged`,
      );
      return;
    }
    if (read.invokedAtMs < register.forgottenBeforeMs) {
      this.#unjudgedReads += 1;
      return;
    }
    const floor = floorAt(register, read.invokedAtMs);
    if (read.seq < floor) {
      const isRollback = floor > register.acked && read.seq === register.acked;
      if (isRollback) this.#rolledBackReads += 1;
      else this.#staleReads += 1;
      this.#find(
        `${read.key}: read ${read.seq} at ${read.invokedAtMs}, the floor was ${floor}, ${register.acked} is acknowledged`,
      );
    }
    raise(register, read.completedAtMs, read.seq);
  }

  #find(text: string): void {
    if (this.#findings.length < findingsMax) this.#findings.push(text);
  }
}

function raise(register: Register, atMs: number, seq: number): void {
  const last = register.steps.at(-1);
  if (last !== undefined && seq <= last.floor) return;
  register.steps.push({ atMs, floor: seq });
  if (register.steps.length <= stepsMax) return;
  register.steps = register.steps.slice(stepsMax / 2);
  const oldest = register.steps[0];
  if (oldest !== undefined) register.forgottenBeforeMs = oldest.atMs;
}

/** The floor that held just before `atMs`: something completed at the same instant may be concurrent. */
function floorAt(register: Register, atMs: number): number {
  const { steps } = register;
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const step = steps[middle];
    if (step !== undefined && step.atMs < atMs) low = middle + 1;
    else high = middle;
  }
  return steps[low - 1]?.floor ?? 0;
}
