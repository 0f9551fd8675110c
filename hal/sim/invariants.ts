/** What must never happen (SAFETY), as far as it can be seen from outside; looked at after every event of a world. */
import { parseKey } from "../../firmware-ts/core/keys.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Controller } from "./controller.ts";
import type { Kernel } from "./kernel.ts";
import type { Change, Shelf } from "./shelf.ts";

export interface Watched {
  readonly nowMs: number;
  readonly kernels: Readonly<Record<ControllerId, Kernel>>;
  readonly controllers: Readonly<Partial<Record<ControllerId, Controller>>>;
  readonly shelf: Shelf;
  readonly addresses: readonly string[];
  readonly dataDisks: readonly string[];
  readonly coordinators: readonly string[];
}

export class Violation extends Error {}

/** An address is answered by at most one kernel; a disk is mounted and writable on at most one. */
export function checkNow(world: Watched): void {
  const { a, b } = world.kernels;
  for (const address of world.addresses)
    if (a.isOpen(address, world.nowMs) && b.isOpen(address, world.nowMs))
      throw new Violation(`neverTwoAnswers: ${address} is open on both`);
  for (const disk of world.dataDisks) {
    const writes = (who: ControllerId) =>
      world.kernels[who].mounted.has(disk) && world.shelf.mayWrite(disk, who);
    if (writes("a") && writes("b")) throw new Violation(`neverTwoWriters: ${disk}`);
  }
  checkMajority(world);
}

/** Two who believe that they won, with a registration on a majority each, cannot both be right. */
function checkMajority(world: Watched): void {
  const alone = (["a", "b"] as const).filter((who) => {
    const controller = world.controllers[who];
    if (!controller?.alive || controller.state.mode !== "alone") return false;
    const standing = world.coordinators.filter((disk) =>
      world.shelf.keys(disk).includes(controller.state.coordinatorKey),
    );
    return 2 * standing.length > world.coordinators.length;
  });
  if (alone.length > 1) throw new Violation("majoritySurvives: both won the coordinator disks");
}

/** A data disk is released only when nothing is mounted from it; its epoch never falls, and a preemption raises it. */
export function checkChange(world: Watched, change: Change): void {
  const { command, before, after, by, serial } = change;
  if (!world.dataDisks.includes(serial)) return;
  const letsGo = command.op === "release" || command.op === "unregister";
  if (letsGo && world.kernels[by].mounted.has(serial))
    throw new Violation(`releaseOnlyWhenGone: ${by} lets go of ${serial}, still mounted`);
  if (!after || !before || after.by === before.by) return;
  const now = parseKey(after.key)?.epoch ?? 0;
  const then = parseKey(before.key)?.epoch ?? 0;
  if (now <= then)
    throw new Violation(`epochsOnlyRise: ${serial} went from epoch ${then} to ${now}`);
}
