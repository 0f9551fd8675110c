/**
 * Reservation keys: who registered, in which pair, at which epoch. Layout of the 8 bytes, most significant first:
 * 0xD7 · controller (1 = a, 2 = b) · pair id (2 bytes) · epoch (4 bytes). A key of another shape is foreign.
 */
import type { ControllerId } from "../schema/ids.ts";
import type { ReservationKey } from "../schema/reservation.ts";

const magic = "d7";

/** Epochs are 32 bits on the disk; at one takeover a second they last 136 years. */
export const epochMax = 0xffff_ffff;

export interface KeyOwner {
  readonly controller: ControllerId;
  readonly pairId: number;
  readonly epoch: number;
}

/** Encodes a key. An epoch or pair id out of range is a broken invariant. */
export function makeKey({ controller, pairId, epoch }: KeyOwner): ReservationKey {
  if (!Number.isInteger(epoch) || epoch < 0 || epoch > epochMax)
    throw new Error(`makeKey: epoch ${epoch} is out of range`);
  if (!Number.isInteger(pairId) || pairId < 1 || pairId > 0xffff)
    throw new Error(`makeKey: pair id ${pairId} is out of range`);
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  return `${magic}${controller === "a" ? "01" : "02"}${hex(pairId, 4)}${hex(epoch, 8)}`;
}

/** Decodes a key; undefined when it is not one of ours (another product, or "no key"). */
export function parseKey(key: ReservationKey): KeyOwner | undefined {
  const match = /^d7(01|02)([0-9a-f]{4})([0-9a-f]{8})$/.exec(key.toLowerCase());
  if (!match) return undefined;
  return {
    controller: match[1] === "01" ? "a" : "b",
    pairId: Number.parseInt(match[2] ?? "", 16),
    epoch: Number.parseInt(match[3] ?? "", 16),
  };
}
