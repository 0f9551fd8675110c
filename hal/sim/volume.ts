/**
 * The common volume in a world: how a controller writes a record to a coordinator disk, and reads what a majority holds. Records are kept as
 * they are; the bytes of a slot, and what is left of one that was cut short, are tried where the codec is (wire/common-volume).
 */
import type {
  RecordWritten,
  VolumeRecord,
  VolumeView,
} from "../../firmware-ts/schema/definition.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import { failed, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import { slotStamp, slotToWrite, stampOf } from "../../firmware-ts/wire/common-volume.ts";
import { type DiskContent, resolveVolume } from "../../firmware-ts/wire/volume-view.ts";
import { noPathMs } from "./disk-beats.ts";
import type { Process } from "./process.ts";
import type { Shelf } from "./shelf.ts";
import { doWatched, type StepWatch } from "./steps.ts";
import type { Channel, Timeline } from "./timeline.ts";

interface Side {
  readonly me: ControllerId;
  readonly timeline: Timeline;
  readonly shelf: Shelf;
  readonly process: Process;
  /** One way of a disk command. */
  readonly diskMs: () => number;
  readonly watch?: StepWatch | undefined;
}

/** What an I/O with all its repetitions may take; then it is aborted, as on the bench (hal/bench/coordinators). */
const ioMs = 500;

/** What a disk takes to put a slot on stable storage. */
const mediumMs = 0.1;

/**
 * Reads the pair, chooses the slot, and writes it. What dies meanwhile leaves a torn slot: the disk, the writer with its session, or the writer's
 * right to be there (PREEMPT AND ABORT).
 */
export function writeRecord(
  from: Side & { readonly way: Channel },
  serial: string,
  record: VolumeRecord,
  isWanted: () => boolean,
  settle: (result: RecordWritten) => void,
): void {
  const { me, timeline, shelf, process, diskMs } = from;
  const { number } = record.definition;
  const session = openCommand(from, from.way, serial, () => end("failed"));
  let isSettled = false;
  const end = (result: RecordWritten) => {
    if (isSettled) return;
    isSettled = true;
    process.give(() => settle(result));
  };
  const answer = (result: RecordWritten) =>
    timeline.after(result === "failed" ? noPathMs : diskMs(), () => end(result));
  const write = (slot: 0 | 1) =>
    session.send(() => {
      const begun = shelf.beginRecord(serial, me, number, slot);
      if (begun !== "begun") return answer(begun);
      const aborts = shelf.aborts(serial, me);
      timeline.after(mediumMs, () => {
        const isOurs = () => process.alive && aborts === shelf.aborts(serial, me);
        const deed = { who: me, name: "disk", args: [serial, { op: "writeRecord", number, slot }] };
        const land = () => isOurs() && shelf.endRecord(serial, record, slot);
        answer(doWatched(from.watch, deed, isOurs, land) ? "accepted" : "failed");
      });
    });
  session.send(() => {
    const pair = shelf.readPair(serial, me, number);
    if (pair === "failed") return answer("failed");
    timeline.after(diskMs(), () =>
      process.give(() => {
        const [first, second] = pair;
        const slot = slotToWrite([slotStamp(first), slotStamp(second)], stampOf(record));
        if (slot === "overtaken") end("overtaken");
        else if (isWanted()) write(slot);
        else end("failed");
      }),
    );
  });
}

/**
 * Commands of one nexus to one disk, in order. Nothing of them happens after `ioMs`, when they are aborted and `late` is called, nor when
 * somebody has aborted them before they are acted upon.
 */
function openCommand(
  { me, timeline, shelf }: Side,
  way: Channel,
  serial: string,
  late: () => void,
): { send(act: () => void): void } {
  let isLate = false;
  timeline.after(ioMs, () => {
    isLate = true;
    late();
  });
  return {
    send: (act) =>
      way.send(() => {
        if (isLate) return;
        const slowMs = shelf.slowMs(serial);
        if (slowMs === 0) return act();
        const aborts = shelf.aborts(serial, me);
        timeline.after(slowMs, () => {
          if (!isLate && aborts === shelf.aborts(serial, me)) act();
        });
      }),
  };
}

interface Reading extends Side {
  readonly coordinators: readonly string[];
  readonly way: (serial: string) => Channel;
  /** A timer of the process that reads. */
  readonly after: (delayMs: number, run: () => void) => () => void;
}

/** Reads all disks at once; answered as soon as a majority is read, or can be read no more; thorough: when all have answered. */
export function readVolume(
  from: Reading,
  limitMs: number,
  isThorough: boolean,
  settle: (outcome: Outcome<VolumeView>) => void,
): void {
  const { me, timeline, shelf, process, coordinators, diskMs } = from;
  const total = coordinators.length;
  const majority = Math.floor(total / 2) + 1;
  const read: DiskContent[] = [];
  let left = total;
  let isSettled = false;
  const end = (outcome: Outcome<VolumeView>) => {
    if (isSettled) return;
    isSettled = true;
    stop();
    settle(outcome);
  };
  const late = () =>
    failed("timeout", "read the common volume", `no majority within ${limitMs} ms`);
  const stop = from.after(limitMs, () =>
    end(read.length >= majority ? resolveVolume(read, total) : late()),
  );
  const count = (content: DiskContent | undefined) =>
    process.give(() => {
      left -= 1;
      if (content) read.push(content);
      const isEnough = isThorough ? left === 0 : read.length >= majority;
      if (isEnough || read.length + left < majority) end(resolveVolume(read, total));
    });
  for (const serial of coordinators) {
    let isCounted = false;
    const once = (content: DiskContent | undefined) => {
      if (!isCounted) count(content);
      isCounted = true;
    };
    const session = openCommand(from, from.way(serial), serial, () => once(undefined));
    session.send(() => {
      const pairs = shelf.readVolume(serial, me);
      if (pairs === "failed") timeline.after(noPathMs, () => once(undefined));
      else timeline.after(diskMs(), () => once({ serial, pairs }));
    });
  }
}

/** What a majority of the disks hold at this instant, as far as a controller can reach them. */
export function volumeNow(
  shelf: Shelf,
  me: ControllerId,
  coordinators: readonly string[],
): Outcome<VolumeView> {
  const read: DiskContent[] = [];
  for (const serial of coordinators) {
    const pairs = shelf.readVolume(serial, me);
    if (pairs !== "failed") read.push({ serial, pairs });
  }
  return resolveVolume(read, coordinators.length);
}
