/**
 * Copies what is dirty from the leg that has everything to the target, while writes go on; and compares the legs. Both can be stopped and
 * begun again at any time: a resync finds what is left in the dirty map, where a piece is clean only when its copy is durable.
 */
import type { MirrorDevice } from "./mirror-device.ts";
import { Pace, type PaceOptions } from "./pace.ts";
import type { DirtyPort, LegName, Range } from "./ports.ts";

export interface ResyncProgress {
  readonly copiedBytes: number;
  readonly dirtyBytes: number;
  readonly bytesPerSecond: number;
}

/** `complete`: nothing is dirty any more, so the leg can be `joined`. `lost`: a leg was; the mirror has said so. */
export type ResyncEnd = "complete" | "stopped" | "lost";

interface ResyncOptions {
  readonly mirror: MirrorDevice;
  readonly dirty: DirtyPort;
  readonly pace?: Partial<PaceOptions>;
  /** Bytes of one copy: as long a write to them may have to wait. */
  readonly copyBytes?: number;
  /** Copies between two flushes of the target. */
  readonly batchBytes?: number;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** One resync of the leg that is attached when it is made. */
export class Resync {
  readonly #mirror: MirrorDevice;
  readonly #dirty: DirtyPort;
  readonly #pace: Pace;
  readonly #copyBytes: number;
  readonly #batchBytes: number;
  readonly #attachment: number;
  #copiedBytes = 0;
  #stopping = false;

  constructor({
    mirror,
    dirty,
    pace,
    copyBytes = 256 * 1024,
    batchBytes = 16 * 1024 * 1024,
  }: ResyncOptions) {
    this.#mirror = mirror;
    this.#dirty = dirty;
    this.#pace = new Pace(performance.now(), pace);
    this.#copyBytes = Math.max(copyBytes, dirty.grainBytes);
    this.#batchBytes = batchBytes;
    this.#attachment = mirror.attachment;
  }

  get progress(): ResyncProgress {
    const { bytesPerSecond } = this.#pace;
    return { copiedBytes: this.#copiedBytes, dirtyBytes: this.#dirty.dirtyBytes, bytesPerSecond };
  }

  /** Ends `run` behind the copy that is under way. */
  stop(): void {
    this.#stopping = true;
  }

  async run(): Promise<ResyncEnd> {
    this.#mirror.onLatency = (latencyMs) => this.#pace.note(latencyMs);
    try {
      for (;;) {
        const end = await this.#pass();
        if (end !== undefined) return end;
        if (this.#dirty.next(0) === undefined) return "complete";
      }
    } finally {
      this.#mirror.onLatency = undefined;
    }
  }

  /** Once through the disk, in batches. */
  async #pass(): Promise<ResyncEnd | undefined> {
    let batch: Range[] = [];
    let bytes = 0;
    let at = 0;
    for (;;) {
      const range = this.#stopping ? undefined : this.#nextFrom(at);
      if (range === undefined || bytes >= this.#batchBytes) {
        if (batch.length > 0 && !(await this.#mirror.settle(this.#attachment, batch)).ok)
          return "lost";
        batch = [];
        bytes = 0;
        if (range === undefined) return this.#stopping ? "stopped" : undefined;
      }
      if ((await this.#mirror.copy(this.#attachment, range)) !== "done") return "lost";
      batch.push(range);
      bytes += range.length;
      at = range.offset + range.length;
      this.#copiedBytes += range.length;
      await this.#wait(this.#pace.copied(performance.now(), range.length));
    }
  }

  #nextFrom(at: number): Range | undefined {
    const dirty = this.#dirty.next(at);
    if (dirty === undefined) return undefined;
    const { grainBytes } = this.#dirty;
    const length = Math.min(
      dirty.length,
      this.#copyBytes - (this.#copyBytes % grainBytes),
      this.#mirror.sizeBytes - dirty.offset,
    );
    return { offset: dirty.offset, length };
  }

  /** A timer's millisecond is more than most copies owe: what is less is owed on. */
  async #wait(ms: number): Promise<void> {
    if (ms >= 1) await pause(ms);
  }
}

export interface VerifyReport {
  readonly comparedBytes: number;
  readonly differentBytes: number;
  /** The first of them; the rest is only counted. */
  readonly differences: readonly Range[];
  /** False when it was stopped, or a leg was lost. */
  readonly complete: boolean;
}

const differencesMax = 1000;

/**
 * Compares the whole disk, piece by piece, with no change under way to the piece. NBD has no checksums to ask for, so the bytes themselves
 * are compared. With `repairFrom` what differs is copied from that leg: who is right is for people to say.
 */
export async function verify(
  mirror: MirrorDevice,
  options: {
    readonly pieceBytes: number;
    readonly repairFrom?: LegName;
    readonly pace?: Partial<PaceOptions>;
    readonly isWanted?: () => boolean;
  },
): Promise<VerifyReport> {
  const pace = new Pace(performance.now(), options.pace);
  const differences: Range[] = [];
  let [compared, different] = [0, 0];
  mirror.onLatency = (latencyMs) => pace.note(latencyMs);
  try {
    while (compared < mirror.sizeBytes && (options.isWanted?.() ?? true)) {
      const length = Math.min(options.pieceBytes, mirror.sizeBytes - compared);
      const range = { offset: compared, length };
      const outcome = await mirror.compare(range, options.repairFrom);
      if (outcome === "left") break;
      compared += length;
      if (outcome === "different") {
        different += length;
        if (differences.length < differencesMax) differences.push(range);
      }
      const waitMs = pace.copied(performance.now(), length);
      if (waitMs >= 1) await pause(waitMs);
    }
  } finally {
    mirror.onLatency = undefined;
  }
  const complete = compared >= mirror.sizeBytes;
  return { comparedBytes: compared, differentBytes: different, differences, complete };
}
