/**
 * The disk link of one controller: its beats are written to a slot on every coordinator disk, the partner's are polled there. What is
 * true of all disks at once is one event: only a disk that is slow or dead is dealt with on its own.
 */
import type { Timing } from "../../firmware-ts/core/timing.ts";
import type { Beat } from "../../firmware-ts/schema/beat.ts";
import { type ControllerId, partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { Shelf } from "./shelf.ts";
import type { Timeline } from "./timeline.ts";

/** What a command to an unreachable disk takes to fail. */
export const noPathMs = 20;

/** Beats that were taken lately: the same one lies on every disk. */
const recentMax = 4;

export interface DiskBeatsSetup {
  readonly me: ControllerId;
  readonly timing: Timing;
  readonly coordinators: readonly string[];
  readonly timeline: Timeline;
  readonly shelf: Shelf;
  readonly diskMs: () => number;
  readonly frame: (beat: Beat) => void;
  /** What a disk held when it was first looked at, or again after an absence. */
  readonly remnant: (beat: Beat) => void;
  readonly carrier: (up: boolean) => void;
}

/** Time between two looks at the partner's slots, as on the bench (hal/bench/beat-machine). */
export const pollEveryMs = (timing: Timing) => timing.diskBeatIntervalMs;

/** As in the driver (hal/linux/disk-link). */
const lostPeriods = 5;

interface Count {
  accepted: number;
  refused: number;
  failed: number;
  told: boolean;
  readonly tell: (accepted: number, refused: number) => void;
}

export class DiskBeats {
  readonly #setup: DiskBeatsSetup;
  readonly #seen: Record<string, Beat | undefined> = {};
  /** When each disk was read last. */
  readonly #readAtMs: Record<string, number> = {};
  /** Disks that still work on a read: they get no second one. */
  readonly #reading = new Set<string>();
  readonly #recent: (Beat | undefined)[] = new Array(recentMax).fill(undefined);
  #carrier: boolean | undefined;

  constructor(setup: DiskBeatsSetup) {
    this.#setup = setup;
    for (const serial of setup.coordinators) this.#readAtMs[serial] = Number.NEGATIVE_INFINITY;
  }

  poll(): void {
    const { timeline, diskMs, shelf, coordinators } = this.#setup;
    if (!shelf.anySlow && this.#reading.size === 0)
      timeline.after(diskMs(), () => this.#read(coordinators));
    else
      for (const [serials, slowMs] of this.#groups()) {
        const free = serials.filter((serial) => !this.#reading.has(serial));
        if (slowMs > 0) for (const serial of free) this.#reading.add(serial);
        timeline.after(diskMs() + slowMs, () => this.#read(free));
      }
    this.#judge();
  }

  /** Disks that answer alike travel together; a slow one goes alone. */
  #groups(): readonly (readonly [readonly string[], number])[] {
    const { coordinators, shelf } = this.#setup;
    const quick = coordinators.filter((serial) => shelf.slowMs(serial) === 0);
    const slow = coordinators.filter((serial) => shelf.slowMs(serial) > 0);
    return [
      [quick, 0] as const,
      ...slow.map((serial) => [[serial], shelf.slowMs(serial)] as const),
    ];
  }

  /** All that nobody would notice is left out: a word that was read before is not carried back. */
  #read(serials: readonly string[]): void {
    const { timeline, shelf, me, diskMs } = this.#setup;
    const { nowMs } = timeline;
    let news: [string, Beat, boolean][] | undefined;
    for (const serial of serials) {
      this.#reading.delete(serial);
      const read = shelf.readBeat(serial, me, partnerOf(me));
      if (read === "failed") continue;
      const isFresh = nowMs - (this.#readAtMs[serial] ?? 0) <= this.#lostMs;
      this.#readAtMs[serial] = nowMs;
      if (read === undefined || read === this.#seen[serial]) continue;
      this.#seen[serial] = read;
      news ??= [];
      news.push([serial, read, isFresh]);
    }
    if (this.#carrier !== true) this.#judge();
    if (!news) return;
    const found = news;
    timeline.after(diskMs(), () => {
      for (const [, beat, isFresh] of found) this.#look(beat, isFresh);
    });
  }

  #look(beat: Beat, isFresh: boolean): void {
    if (!isFresh) return this.#setup.remnant(beat);
    if (this.#recent.includes(beat)) return;
    this.#recent.shift();
    this.#recent.push(beat);
    this.#setup.frame(beat);
  }

  /** A disk that was not read for so long is lost; what it says when it is back was said meanwhile. */
  get #lostMs(): number {
    return lostPeriods * pollEveryMs(this.#setup.timing);
  }

  /** Carrier: a majority of the disks can be read. */
  #judge(): void {
    const { timeline, coordinators } = this.#setup;
    const oldestMs = timeline.nowMs - this.#lostMs;
    let readable = 0;
    for (const serial of coordinators) if ((this.#readAtMs[serial] ?? 0) >= oldestMs) readable += 1;
    const up = 2 * readable > coordinators.length;
    if (this.#carrier === up) return;
    this.#carrier = up;
    this.#setup.carrier(up);
  }

  write(beat: Beat, tell: (accepted: number, refused: number) => void): void {
    const { timeline, timing, diskMs, shelf, coordinators } = this.#setup;
    const count: Count = { accepted: 0, refused: 0, failed: 0, told: false, tell };
    if (!shelf.anySlow)
      return timeline.after(diskMs(), () => this.#arrive(coordinators, beat, count));
    let late = false;
    for (const [serials, slowMs] of this.#groups()) {
      late ||= slowMs > 0;
      timeline.after(diskMs() + slowMs, () => this.#arrive(serials, beat, count));
    }
    if (late) timeline.after(5 * timing.diskBeatIntervalMs, () => this.#report(count));
  }

  #arrive(serials: readonly string[], beat: Beat, count: Count): void {
    const { timeline, shelf, me, diskMs } = this.#setup;
    let accepted = 0;
    let refused = 0;
    for (const serial of serials) {
      const result = shelf.writeBeat(serial, me, beat);
      if (result === "accepted") accepted += 1;
      else if (result === "refused") refused += 1;
      else timeline.after(noPathMs, () => this.#count(count, 0, 0, 1));
    }
    if (accepted + refused > 0)
      timeline.after(diskMs(), () => this.#count(count, accepted, refused, 0));
  }

  /** Told as soon as it is decided, or when all have answered. */
  #count(count: Count, accepted: number, refused: number, failed: number): void {
    count.accepted += accepted;
    count.refused += refused;
    count.failed += failed;
    const total = this.#setup.coordinators.length;
    const majority = Math.floor(total / 2) + 1;
    const decided = count.accepted >= majority || count.refused >= majority;
    if (decided || count.accepted + count.refused + count.failed === total) this.#report(count);
  }

  #report(count: Count): void {
    if (count.told) return;
    count.told = true;
    count.tell(count.accepted, count.refused);
  }
}
