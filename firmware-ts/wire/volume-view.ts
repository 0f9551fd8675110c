/**
 * What the coordinator disks say together about each number: the newest whole record that any of those read holds. A record that was
 * accepted lies on a majority, and any two majorities share a disk, so it is found by whoever reads a majority.
 */
import { virtualServersMax } from "../schema/beat.ts";
import { compareWritings, type VolumeRecord, type VolumeView } from "../schema/definition.ts";
import { failed, good, type Outcome } from "../schema/outcome.ts";
import { type Slot, type SlotPair, type Stamp, slotStamp } from "./common-volume.ts";

/** What one disk holds; of a number that is left out, nothing. */
export interface DiskContent {
  readonly serial: string;
  readonly pairs: ReadonlyMap<number, SlotPair>;
}

/** How many troubles are told one by one; the rest are counted. */
const toldMax = 8;

/** The view of those disks that could be read, of `total`. Fault `diskLost`: they are no majority. Their order does not matter. */
export function resolveVolume(disks: readonly DiskContent[], total: number): Outcome<VolumeView> {
  const majority = Math.floor(total / 2) + 1;
  if (disks.length < majority)
    return failed(
      "diskLost",
      "read the common volume",
      `${disks.length} of ${total} coordinator disks can be read, and ${majority} are needed`,
    );
  const records: VolumeRecord[] = [];
  const thin: number[] = [];
  const reserved: number[] = [];
  const reasons: string[] = [];
  for (let number = 0; number < virtualServersMax; number += 1) {
    if (!disks.some(({ pairs }) => pairs.has(number))) continue;
    const newest = newestOfAll(disks, number);
    if (newest?.slot.kind === "record") {
      records.push(newest.slot.record);
      if (holders(disks, number, newest.stamp) < majority) thin.push(number);
    } else if (newest?.slot.kind === "unknown") {
      reserved.push(number);
      reasons.push(`number ${number}: ${newest.slot.reason}; it is left alone`);
    } else if (disks.some(({ pairs }) => isSpent(pairs.get(number)))) {
      reserved.push(number);
      reasons.push(`number ${number}: both of its records are damaged; it is left alone`);
    }
  }
  const damaged = bounded([...reasons, ...disks.toSorted(bySerial).flatMap(troubles)]);
  return good({ records, thin, reserved, damaged });
}

const bySerial = (one: DiskContent, other: DiskContent) => (one.serial < other.serial ? -1 : 1);

function newestOfAll(
  disks: readonly DiskContent[],
  number: number,
): { readonly slot: Slot; readonly stamp: Stamp } | undefined {
  let newest: { slot: Slot; stamp: Stamp } | undefined;
  for (const { pairs } of disks)
    for (const slot of pairs.get(number) ?? []) {
      const stamp = slotStamp(slot);
      if (stamp && (!newest || compareWritings(stamp, newest.stamp) > 0)) newest = { slot, stamp };
    }
  return newest;
}

function holders(disks: readonly DiskContent[], number: number, newest: Stamp): number {
  const holds = (slot: Slot) => {
    const stamp = slotStamp(slot);
    return stamp !== undefined && compareWritings(stamp, newest) === 0;
  };
  return disks.filter(({ pairs }) => pairs.get(number)?.some(holds)).length;
}

/**
 * One writing that was cut short leaves the other slot as it was, of a first record empty. Both spoilt means that there was a record, and that
 * nobody knows what it said: to take the number for free, or what a file says for true, could serve what had been deleted long ago.
 */
function isSpent(pair: SlotPair | undefined): boolean {
  return pair?.every((slot) => slot.kind === "damaged" && slot.ours) ?? false;
}

/** What is no record on one disk, in words. What others have left there comes in great numbers, and is told at once. */
function troubles({ serial, pairs }: DiskContent): string[] {
  const told: string[] = [];
  const strange = new Map<string, number>();
  for (const [number, pair] of pairs)
    for (const [index, slot] of pair.entries()) {
      if (slot.kind !== "damaged") continue;
      if (slot.ours) told.push(`${serial}: slot ${index} of number ${number}: ${slot.reason}`);
      else strange.set(slot.reason, (strange.get(slot.reason) ?? 0) + 1);
    }
  for (const [reason, count] of strange)
    told.push(`${serial}: ${reason}, in ${count} slots, which count as empty`);
  return told;
}

function bounded(told: readonly string[]): readonly string[] {
  if (told.length <= toldMax) return told;
  return [...told.slice(0, toldMax), `and ${told.length - toldMax} more`];
}
