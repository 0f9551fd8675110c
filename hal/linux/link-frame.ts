/** What every link shares: the size of a frame and the counters. */
import type { LinkCounters } from "../port/link.ts";

/** One sector of the disk link less its length field; the longest beat is 387 bytes. */
export const linkFrameBytesMax = 510;

export type MutableCounters = { -readonly [name in keyof LinkCounters]: LinkCounters[name] };

export function newCounters(): MutableCounters {
  return { sent: 0, received: 0, dropped: 0, malformed: 0 };
}

/** A frame that no link can carry is a broken invariant of the caller. */
export function assertFrame(frame: Uint8Array): void {
  if (frame.length > 0 && frame.length <= linkFrameBytesMax) return;
  throw new RangeError(`frame of ${frame.length} bytes, expected 1 to ${linkFrameBytesMax}`);
}
