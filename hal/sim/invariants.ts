/** What must never happen (SAFETY), as far as it can be seen from outside; looked at after every event of a world. */
import type { ControllerState } from "../../firmware-ts/core/controller-state.ts";
import type { Effect } from "../../firmware-ts/core/effects.ts";
import type { ControllerEvent } from "../../firmware-ts/core/events.ts";
import { parseKey } from "../../firmware-ts/core/keys.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type { Kernel } from "./kernel.ts";
import type { Change, Shelf } from "./shelf.ts";

/** A controller, as far as its decisions can be seen. */
interface Decider {
  readonly alive: boolean;
  readonly state: Pick<ControllerState, "mode" | "coordinatorKey">;
}

export interface Watched {
  readonly nowMs: number;
  readonly kernels: Readonly<Record<ControllerId, Kernel>>;
  readonly controllers: Readonly<Partial<Record<ControllerId, Decider>>>;
  readonly shelf: Shelf;
  readonly addresses: readonly string[];
  readonly dataDisks: readonly string[];
  readonly coordinators: readonly string[];
}

export class Violation extends Error {}

/** Looks at everything that is true of an instant; called when something has changed that these speak of. */
export function checkNow(world: Watched): void {
  neverTwoAnswers(world);
  neverTwoWriters(world);
  majoritySurvives(world);
}

/** An address is answered by at most one kernel. */
function neverTwoAnswers({ kernels, addresses, nowMs }: Watched): void {
  const { a, b } = kernels;
  for (const address of addresses)
    if (a.isOpen(address, nowMs) && b.isOpen(address, nowMs))
      throw new Violation(`neverTwoAnswers: ${address} is open on both`);
}

/** A disk is mounted and writable on at most one. What is sealed is not: its kernel writes nothing, whatever the disk would take. */
function neverTwoWriters({ kernels, shelf, dataDisks }: Watched): void {
  for (const disk of dataDisks) {
    const writes = (who: ControllerId) => {
      const { mounted, sealed } = kernels[who];
      return mounted.has(disk) && !sealed.has(disk) && shelf.mayWrite(disk, who);
    };
    if (writes("a") && writes("b")) throw new Violation(`neverTwoWriters: ${disk}`);
  }
}

/** Two who believe that they won, with a registration on a majority each, cannot both be right. */
function majoritySurvives({ controllers, coordinators, shelf }: Watched): void {
  const winners = (["a", "b"] as const).filter((who) => {
    const controller = controllers[who];
    if (!controller?.alive || controller.state.mode !== "alone") return false;
    const standing = coordinators.filter((disk) =>
      shelf.keys(disk).includes(controller.state.coordinatorKey),
    );
    return 2 * standing.length > coordinators.length;
  });
  if (winners.length > 1) throw new Violation("majoritySurvives: both won the coordinator disks");
}

/** Looks at one change of a reservation. */
export function checkChange(world: Watched, change: Change): void {
  if (!world.dataDisks.includes(change.serial)) return;
  releaseOnlyWhenGone(world, change);
  epochsOnlyRiseOnDisks(change);
}

/** A data disk is let go only when nothing is mounted from it, or what is mounted is sealed. */
function releaseOnlyWhenGone({ kernels }: Watched, { command, by, serial }: Change): void {
  const letsGo = command.op === "release" || command.op === "unregister";
  const { mounted, sealed } = kernels[by];
  if (letsGo && mounted.has(serial) && !sealed.has(serial))
    throw new Violation(`releaseOnlyWhenGone: ${by} lets go of ${serial}, still mounted`);
}

/** A data disk changes hands upwards. */
function epochsOnlyRiseOnDisks({ before, after, serial }: Change): void {
  if (!after || !before || after.by === before.by) return;
  const now = parseKey(after.key)?.epoch ?? 0;
  const then = parseKey(before.key)?.epoch ?? 0;
  if (now <= then)
    throw new Violation(`epochsOnlyRise: ${serial} went from epoch ${then} to ${now}`);
}

/** What a controller remembers never falls. */
export function epochsOnlyRiseInRecords(who: ControllerId, before: number, after: number): void {
  if (after < before)
    throw new Violation(`epochsOnlyRise: ${who} remembers ${after} after a higher one`);
}

/** An override is recorded with who, why and what it overrode. */
export function forcedIsAudited(event: ControllerEvent, effects: readonly Effect[]): void {
  if (event.kind !== "command" || !event.command.request.force) return;
  const answer = effects.find((effect) => effect.kind === "answer")?.answer;
  const overridden = answer?.accepted && answer.vetoes.some(({ severity }) => severity === "soft");
  if (!overridden || event.command.request.dryRun) return;
  const { by, request } = event.command;
  const audited = effects.some(
    (effect) =>
      effect.kind === "report" &&
      effect.report.code === "command.forced" &&
      effect.report.detail?.by === by &&
      effect.report.detail.reason === request.reason,
  );
  if (!audited) throw new Violation(`forcedIsAudited: ${event.command.kind} left no trace`);
}
