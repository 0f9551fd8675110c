/**
 * What a mirror asks of whoever keeps its metadata, and tells whoever decides.
 *
 * Glossary: *leg*: one of the two replicas; *grain*: what one bit of the dirty map stands for; *extent*: what the activity log knows as
 * one; *primary's death*: this process, or all of this controller, ends without a word.
 */
import type { Outcome } from "../../../firmware-ts/schema/outcome.ts";

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/**
 * What may differ between the legs. Calls take effect in the order in which they were made: a mark behind a `clean` of the same range
 * leaves it dirty.
 */
export interface DirtyPort {
  /** Bytes of a grain: a power of two, at least a block. Ranges that are handed in are widened to whole grains. */
  readonly grainBytes: number;
  /** Settles when the marks outlive the primary's death. Undefined when they do so already. */
  mark(ranges: readonly Range[]): Promise<Outcome> | undefined;
  /** The ranges, whole grains, are the same on both legs again, durably. */
  clean(ranges: readonly Range[]): Promise<Outcome>;
  /** The first dirty grains at or behind an offset, neighbours together. No byte of it lies behind the end of the disk, whose last grain may be short. */
  next(fromBytes: number): Range | undefined;
  readonly dirtyBytes: number;
}

/** Where writes may have been under way when the primary died. */
export interface ActivityPort {
  /** Bytes of an extent: a power of two. */
  readonly extentBytes: number;
  /**
   * Settles when every extent of the range is in the log on the disk. Undefined when it is already: nothing is waited for. One that needs
   * room calls `flush` of the mirror, after which extents may rest; a flush waits for no write.
   */
  activate(range: Range): Promise<Outcome> | undefined;
  /** What was written to these extents is durable on all legs and nothing is under way to them: they may leave the log. */
  mayRest(extents: readonly number[]): void;
}

export type LegName = "local" | "remote";

/**
 * `inSync`: has everything that was acknowledged. `lost`: had a fault; what is asked is held until somebody decides. `settling`: a decision
 * is being carried out. `out`: not written to; what it lacks is dirty. `target`: written to, and lacks what is dirty.
 */
export type LegState = "inSync" | "lost" | "settling" | "out" | "target";

export interface MirrorHandlers {
  /**
   * A leg had a fault: once for each loss, in the turn in which it was found. One that was `inSync` waits for `continueWithout`, `legBack`
   * or `fail`. One that was a `target` is left without being asked: it was not complete.
   */
  readonly legLost: (leg: LegName, reason: string) => void;
}
