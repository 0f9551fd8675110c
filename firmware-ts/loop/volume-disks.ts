/**
 * Writes records of the common volume to all coordinator disks at once. A disk is given one record at a time, and the next when nothing of the last
 * can happen any more: a writing that was given up here and is late there must not be overtaken by the one after it, and then undo it.
 *
 * What was asked for under one registration on a disk is never written under the next: in between the partner may have taken the pair over, and
 * what was true then is not known to be true now. Only the disk sees that we were out, and it has just forgotten it.
 */
import type { RecordWritten, VolumeRecord, VolumeWritten } from "../schema/definition.ts";
import { Waiting } from "./waiting.ts";

export interface VolumeDisksHost {
  /** A timer of this process. */
  after(delayMs: number, run: () => void): void;
  /** `settle` is called once, when nothing of this writing can happen any more. Nothing is sent to the disk when `isWanted` says no. */
  writeRecord(
    serial: string,
    record: VolumeRecord,
    isWanted: () => boolean,
    settle: (result: RecordWritten) => void,
  ): void;
}

/** Twice as many as there are numbers. What waits behind a disk that hangs ends with its deadline. */
const waitingMax = 128;

class Writing {
  readonly record: VolumeRecord;
  readonly #settle: (written: VolumeWritten) => void;
  readonly #majority: number;
  readonly #total: number;
  #accepted = 0;
  #refused = 0;
  #overtaken = 0;
  #left: number;
  #isTold = false;
  /** A disk that has not begun does not begin any more, and to one that has nothing more is sent: whoever asked may have let the partner write since. */
  isGivenUp = false;

  constructor(record: VolumeRecord, total: number, settle: (written: VolumeWritten) => void) {
    this.record = record;
    this.#settle = settle;
    this.#total = total;
    this.#left = total;
    this.#majority = Math.floor(total / 2) + 1;
  }

  /** Told as soon as it is decided: a majority has it, and the others shall have it too; or none can have it any more. */
  count(result: RecordWritten): void {
    this.#left -= 1;
    if (result === "accepted") this.#accepted += 1;
    else if (result === "refused") this.#refused += 1;
    else if (result === "overtaken") this.#overtaken += 1;
    if (this.#accepted >= this.#majority) this.#tell();
    else if (this.#accepted + this.#left < this.#majority) this.giveUp();
  }

  giveUp(): void {
    this.isGivenUp = true;
    this.#tell();
  }

  #tell(): void {
    if (this.#isTold) return;
    this.#isTold = true;
    this.#settle({
      accepted: this.#accepted,
      refused: this.#refused,
      overtaken: this.#overtaken,
      total: this.#total,
    });
  }
}

interface Disk {
  readonly serial: string;
  readonly waiting: Waiting<Writing>;
  isBusy: boolean;
  /** Counts registrations that were asked for. */
  registration: number;
}

export class VolumeDisks {
  readonly #disks: readonly Disk[];
  readonly #host: VolumeDisksHost;

  constructor(serials: readonly string[], host: VolumeDisksHost) {
    this.#host = host;
    this.#disks = serials.map((serial) => ({
      serial,
      waiting: new Waiting(),
      isBusy: false,
      registration: 0,
    }));
  }

  /** `settle` is called once: when it is decided, or after `deadlineMs` with what is known by then. What is over already is not begun. */
  write(record: VolumeRecord, deadlineMs: number, settle: (written: VolumeWritten) => void): void {
    const writing = new Writing(record, this.#disks.length, settle);
    if (deadlineMs <= 0) return writing.giveUp();
    this.#host.after(deadlineMs, () => writing.giveUp());
    for (const disk of this.#disks) {
      if (disk.waiting.length >= waitingMax) writing.count("failed");
      else disk.waiting.push(writing);
    }
    for (const disk of this.#disks) this.#next(disk);
  }

  /** A registration on this disk is about to be asked for: of what was asked for before, it gets nothing that has not been sent. */
  registering(serial: string): void {
    const disk = this.#disks.find((each) => each.serial === serial);
    if (!disk) throw new Error(`common volume: ${serial} is no coordinator disk`);
    disk.registration += 1;
    for (let left = disk.waiting.length; left > 0; left -= 1) disk.waiting.shift()?.count("failed");
  }

  #next(disk: Disk): void {
    if (disk.isBusy) return;
    let writing = disk.waiting.shift();
    while (writing?.isGivenUp) {
      writing.count("failed");
      writing = disk.waiting.shift();
    }
    if (!writing) return;
    const begun = writing;
    const { registration } = disk;
    const isWanted = () => !begun.isGivenUp && disk.registration === registration;
    disk.isBusy = true;
    this.#host.writeRecord(disk.serial, begun.record, isWanted, (result) => {
      disk.isBusy = false;
      begun.count(result);
      this.#next(disk);
    });
  }
}
