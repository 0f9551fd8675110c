/**
 * The disk link: each controller has a sector of its own on every coordinator disk, writes its beats there and polls the
 * partner's. It is slow, but it is the one link that is cut exactly when the disks are, and a write that the disk lets
 * through proves that our registration stands.
 *
 *     sector 8: controller a      sector 16: controller b      each: 2 bytes length, frame, zeros
 *
 * Obligations. No disk waits for another: a command has a deadline after which it counts as late, and a disk that still
 * works on one gets no second of its kind. What a sector held before we first looked is as old as
 * the last life of the partner: a remnant. Only a change is a beat.
 */
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { partnerOf } from "../../firmware-ts/schema/ids.ts";
import type { DiskLinkHandlers, Link, LinkCounters } from "../port/link.ts";
import { assertFrame, linkFrameBytesMax, type MutableCounters, newCounters } from "./link-frame.ts";

/** One coordinator disk: sectors of 512 bytes. A promise settles within the disk's own limits and never rejects. */
export interface DiskSlots {
  /** Undefined when it could not be read. */
  read(lba: number): Promise<Uint8Array | undefined>;
  /** `conflict` is RESERVATION CONFLICT: we were preempted there. */
  write(lba: number, sector: Uint8Array): Promise<"good" | "conflict" | "failed">;
}

export interface DiskLinkOptions {
  readonly me: ControllerId;
  /** The coordinator disks, in any order. */
  readonly slots: readonly DiskSlots[];
  /** Time between two looks at the partner's sectors. */
  readonly periodMs: number;
  readonly handlers: DiskLinkHandlers;
}

/** Not sector 0: partition tables and whoever looks for them live there. Apart, in case a disk's true sectors have 4 kB. */
const lbaOf = { a: 8, b: 16 } as const;
const sectorBytes = 512;
const lengthBytes = 2;
/** A command that takes longer than this many periods is late: it proves nothing about now. */
const latePeriods = 2;
/** A disk that was not read for this many periods is lost; what it says when it is back was said meanwhile. */
const lostPeriods = 5;
/** Frames of other disks among which a repetition is looked for. */
const recentMax = 8;

interface Disk {
  readonly slots: DiskSlots;
  reading: boolean;
  writing: boolean;
  /** Of the last successful read. */
  readAtMs: number;
  seen: string | undefined;
}

class DiskLink implements Link {
  readonly name = "disk";
  readonly maxFrameBytes = linkFrameBytesMax;
  readonly #options: DiskLinkOptions;
  readonly #disks: readonly Disk[];
  readonly #majority: number;
  readonly #counters: MutableCounters = newCounters();
  readonly #timer: NodeJS.Timeout;
  #recent: readonly string[] = [];
  #up: boolean | undefined;
  #closed = false;

  constructor(options: DiskLinkOptions) {
    this.#options = options;
    const fresh = { reading: false, writing: false, readAtMs: -Infinity, seen: undefined };
    this.#disks = options.slots.map((slots) => ({ slots, ...fresh }));
    this.#majority = Math.floor(options.slots.length / 2) + 1;
    this.#timer = setInterval(() => this.#poll(), options.periodMs);
    this.#poll();
  }

  send(frame: Uint8Array): void {
    assertFrame(frame);
    const sector = new Uint8Array(sectorBytes);
    new DataView(sector.buffer).setUint16(0, frame.length);
    sector.set(frame, lengthBytes);
    const free = this.#disks.filter(({ writing }) => !writing);
    if (free.length > 0) this.#counters.sent++;
    else this.#counters.dropped++;
    this.#writeAll(free, sector);
  }

  counters(): LinkCounters {
    return { ...this.#counters };
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
  }

  /** Reports as soon as the count can no longer matter: a majority either way, all answered, or too late. */
  #writeAll(free: readonly Disk[], sector: Uint8Array): void {
    const { handlers, me, periodMs } = this.#options;
    const sentAtMs = performance.now();
    let accepted = 0;
    let refused = 0;
    let left = free.length;
    let reported = false;
    const report = () => {
      clearTimeout(deadline);
      if (reported || this.#closed) return;
      reported = true;
      handlers.written(sentAtMs, accepted, refused, this.#disks.length);
    };
    const deadline = setTimeout(report, latePeriods * periodMs);
    if (left === 0) return report();
    for (const disk of free) {
      disk.writing = true;
      void disk.slots.write(lbaOf[me], sector).then((result) => {
        disk.writing = false;
        left--;
        if (result === "good") accepted++;
        if (result === "conflict") refused++;
        if (left === 0 || accepted >= this.#majority || refused >= this.#majority) report();
      });
    }
  }

  #poll(): void {
    const lba = lbaOf[partnerOf(this.#options.me)];
    for (const disk of this.#disks) {
      if (disk.reading) continue;
      disk.reading = true;
      void disk.slots.read(lba).then((sector) => {
        disk.reading = false;
        if (sector && !this.#closed) this.#look(disk, sector);
      });
    }
    this.#judge();
  }

  #look(disk: Disk, sector: Uint8Array): void {
    const now = performance.now();
    const fresh = now - disk.readAtMs <= lostPeriods * this.#options.periodMs;
    disk.readAtMs = now;
    this.#judge();
    const text = Buffer.from(sector).toString("latin1");
    const changed = text !== disk.seen;
    disk.seen = text;
    if (!changed) return;
    const length = sector.length === sectorBytes ? ((sector[0] ?? 0) << 8) | (sector[1] ?? 0) : -1;
    if (length === 0) return; // Wiped: the disk was made a coordinator anew.
    if (length < 0 || length > linkFrameBytesMax) {
      this.#counters.malformed++;
      return;
    }
    const frame = sector.slice(lengthBytes, lengthBytes + length);
    if (!fresh) return this.#options.handlers.remnant(frame);
    if (this.#recent.includes(text)) return;
    this.#recent = [text, ...this.#recent.slice(0, recentMax - 1)];
    this.#counters.received++;
    this.#options.handlers.frame(frame);
  }

  /** Carrier: a majority of the disks can be read. */
  #judge(): void {
    const oldest = performance.now() - lostPeriods * this.#options.periodMs;
    const readable = this.#disks.filter(({ readAtMs }) => readAtMs >= oldest).length;
    const up = readable >= this.#majority;
    if (up === this.#up || this.#closed) return;
    this.#up = up;
    const reason = `${readable} of ${this.#disks.length} coordinator disks readable`;
    this.#options.handlers.carrier(up, reason);
  }
}

/** Begins to poll; never fails: without disks it is a link without carrier. */
export function openDiskLink(options: DiskLinkOptions): Link {
  return new DiskLink(options);
}
