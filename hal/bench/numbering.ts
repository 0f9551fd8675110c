/**
 * What must not change while a virtual server or a volume is there, whatever comes and goes beside it: functions of the number of the one and the id
 * of the other (schema/definition), never of a position in a list.
 */
import { type Config, volumesMax } from "../../firmware-ts/schema/config.ts";

/** The export's id, which is part of every file handle that clients hold. From 1. */
export function exportIdOf(number: number, volume: number): number {
  return number * volumesMax + volume;
}

/** Which session to the shelf a volume's disk has; coordinators have the first ones, and are other nexuses anyway, under another name. */
export function sessionOf({ shelf }: Pick<Config, "shelf">, number: number, volume: number) {
  return shelf.coordinators.length + number * volumesMax + volume - 1;
}

/** Locally administered, and of one controller: a standby that says something by itself must not move the other's port in the switch. */
export function macOf({ pair, controller }: Pick<Config, "pair" | "controller">, number: number) {
  const side = controller.id === "a" ? 1 : 2;
  return Uint8Array.of(0x02, 0xdd, pair.id >> 8, pair.id & 0xff, side, number + 1);
}
