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
  readonly carrier: (up: boolean) => void;
}

interface Count {
  accepted: number;
  refused: number;
  failed: number;
  told: boolean;
  readonly tell: (accepted: number, refused: number) => void;
}

export class DiskBeats {
  readonly #setup: DiskBeatsSetup;
  readonly #lastRead: Record<string, Beat | undefined> = {};
  readonly #recent: (Beat | undefined)[] = new Array(recentMax).fill(undefined);
  #carrier: boolean | undefined;

  constructor(setup: DiskBeatsSetup) {
    this.#setup = setup;
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

  poll(): void {
    const { timeline, diskMs, shelf, coordinators } = this.#setup;
    const round = { ok: 0, answered: 0 };
    if (!shelf.anySlow) return timeline.after(diskMs(), () => this.#read(coordinators, round));
    for (const [serials, slowMs] of this.#groups())
      timeline.after(diskMs() + slowMs, () => this.#read(serials, round));
  }

  #read(serials: readonly string[], round: { ok: number; answered: number }): void {
    const { timeline, shelf, me, coordinators, diskMs } = this.#setup;
    let news: [string, Beat | undefined][] | undefined;
    let quiet = 0;
    for (const serial of serials) {
      const read = shelf.readBeat(serial, me, partnerOf(me));
      if (read === "failed") timeline.after(noPathMs, () => this.#answered(round, false, 1));
      else if (read === this.#lastRead[serial]) quiet += 1;
      else {
        news ??= [];
        news.push([serial, read]);
      }
    }
    // All that nobody would notice is left out: an answer like the last one, by disks that all answer.
    const unchanged = quiet === coordinators.length && this.#carrier === true;
    if (unchanged || (quiet === 0 && news === undefined)) return;
    timeline.after(diskMs(), () => {
      for (const [serial, beat] of news ?? []) this.#look(serial, beat);
      this.#answered(round, true, quiet + (news?.length ?? 0));
    });
  }

  #look(serial: string, beat: Beat | undefined): void {
    if (beat === undefined || this.#lastRead[serial] === beat) return;
    this.#lastRead[serial] = beat;
    if (this.#recent.includes(beat)) return;
    this.#recent.shift();
    this.#recent.push(beat);
    this.#setup.frame(beat);
  }

  #answered(round: { ok: number; answered: number }, ok: boolean, count: number): void {
    round.answered += count;
    if (ok) round.ok += count;
    const total = this.#setup.coordinators.length;
    if (round.answered !== total) return;
    const up = 2 * round.ok > total;
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
