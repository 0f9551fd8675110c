/**
 * Which commands a persistent reservation lets through (SPC-4 5.12.1 tables 48 and 49, SBC-3 4.17 table 13).
 *
 *     command needs        │ write exclusive    │ exclusive access
 *     ─────────────────────┼────────────────────┼──────────────────
 *     nothing              │ all                │ all
 *     reading              │ all                │ those with access
 *     writing              │ those with access  │ those with access
 *
 * Those with access: the holder; for the "registrants only" and "all registrants" types every registrant.
 */
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import { isExclusiveAccess, isForRegistrants } from "../../../firmware-ts/wire/scsi/reservation.ts";
import { isHolder, type Reservations } from "./reservations.ts";

/** What the command needs of the disk, as the tables class it. */
export const needOf = (command: Command): "nothing" | "reading" | "writing" => {
  switch (command.name) {
    case "testUnitReady":
    case "requestSense":
    case "inquiry":
    case "reportLuns":
    case "readCapacity10":
    case "readCapacity16":
    case "persistentReserveIn":
    // Its own rules are in `reservations.ts`.
    case "persistentReserveOut":
      return "nothing";
    case "read":
    case "verify":
    case "prefetch":
    case "modeSense":
    case "reportSupportedOpcodes":
      return "reading";
    case "write":
    case "compareAndWrite":
    case "writeSame":
    case "unmap":
    case "synchronizeCache":
      return "writing";
    case "startStopUnit":
      return command.start && command.powerCondition === 0 ? "nothing" : "writing";
  }
};

/** Whether the command of this nexus must end in RESERVATION CONFLICT. */
export const isConflict = (state: Reservations, nexusId: string, command: Command): boolean => {
  const { reservation } = state;
  if (reservation === null) return false;
  const need = needOf(command);
  if (need === "nothing" || (need === "reading" && !isExclusiveAccess(reservation.type))) {
    return false;
  }
  const hasAccess =
    isHolder(state, nexusId) ||
    (isForRegistrants(reservation.type) && state.registrations.has(nexusId));
  return !hasAccess;
};
