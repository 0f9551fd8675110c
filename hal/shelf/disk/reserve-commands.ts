/** PERSISTENT RESERVE IN and OUT as commands (SPC-4 6.15, 6.16): between their bytes and `reservations.ts`. */
import { Asc } from "../../../firmware-ts/wire/scsi/codes.ts";
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import {
  decodeReserveOut,
  encodeCapabilities,
  encodeFullStatus,
  encodeReadKeys,
  encodeReadReservation,
  isAllRegistrants,
  RESERVE_OUT_BYTES,
  ReserveIn,
  ReserveOut,
  SCOPE_LOGICAL_UNIT,
} from "../../../firmware-ts/wire/scsi/reservation.ts";
import type { Nexus } from "./nexus.ts";
import {
  isHolder,
  type Reservations,
  type ReserveOutcome,
  reserveOut,
  SUPPORTED_TYPES,
} from "./reservations.ts";
import { illegalRequest, invalidField, type Result, withData } from "./result.ts";

type ReserveInCommand = Extract<Command, { name: "persistentReserveIn" }>;
type ReserveOutCommand = Extract<Command, { name: "persistentReserveOut" }>;

const readReservation = (state: Reservations): Buffer => {
  const { generation, reservation } = state;
  if (reservation === null) return encodeReadReservation({ generation, reservation: null });
  const key = isAllRegistrants(reservation.type)
    ? 0n
    : (state.registrations.get(reservation.holder)?.key ?? 0n);
  return encodeReadReservation({
    generation,
    reservation: { key, scope: SCOPE_LOGICAL_UNIT, type: reservation.type },
  });
};

const fullStatus = (state: Reservations): Buffer =>
  encodeFullStatus({
    generation: state.generation,
    entries: [...state.registrations.values()].map(({ nexus, key, allTargetPorts }) => ({
      key,
      allTargetPorts,
      held:
        state.reservation !== null && isHolder(state, nexus.id)
          ? { scope: SCOPE_LOGICAL_UNIT, type: state.reservation.type }
          : null,
      targetPort: nexus.targetPort,
      initiator: nexus.initiator,
    })),
  });

const capabilities = (state: Reservations): Buffer =>
  encodeCapabilities({
    compatibleReservationHandling: false,
    specifyInitiatorPorts: false,
    allTargetPorts: true,
    persistThroughPowerLoss: true,
    persistActivated: state.aptpl,
    allowCommands: 0,
    types: SUPPORTED_TYPES,
  });

/** PERSISTENT RESERVE IN. */
export const answerReserveIn = (state: Reservations, command: ReserveInCommand): Result => {
  const { action, allocationBytes } = command;
  switch (action) {
    case ReserveIn.readKeys: {
      const keys = [...state.registrations.values()].map(({ key }) => key);
      return withData(encodeReadKeys({ generation: state.generation, keys }), allocationBytes);
    }
    case ReserveIn.readReservation:
      return withData(readReservation(state), allocationBytes);
    case ReserveIn.reportCapabilities:
      return withData(capabilities(state), allocationBytes);
    case ReserveIn.readFullStatus:
      return withData(fullStatus(state), allocationBytes);
    default:
      return invalidField;
  }
};

/** What can be said before the parameter list is there: null when the list may come. */
export const prepareReserveOut = (command: ReserveOutCommand): Result | null => {
  // REGISTER AND MOVE is optional and not offered (SPC-4 table 222).
  if (command.action >= ReserveOut.registerAndMove) return invalidField;
  // SPC-4 6.16.2: without SPEC_I_PT the list has exactly 24 bytes; with it we refuse in any case.
  return command.parameterBytes === RESERVE_OUT_BYTES
    ? null
    : illegalRequest(Asc.parameterListLength);
};

/** Carries out a PERSISTENT RESERVE OUT on a state. */
export const carryOut = (
  state: Reservations,
  actor: Nexus,
  command: ReserveOutCommand,
  data: Buffer,
  targetPorts: readonly number[],
): ReserveOutcome => {
  const parameters = decodeReserveOut(data);
  if (!parameters.ok) return { kind: "illegal", code: Asc.parameterListLength };
  const { action, scope, type } = command;
  return reserveOut(state, {
    actor,
    action,
    scope,
    type,
    parameters: parameters.value,
    targetPorts,
  });
};
