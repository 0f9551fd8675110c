/**
 * What of the reservations outlives a loss of power (APTPL, SPC-4 5.12.5): a record, and where it is kept.
 *
 * Obligations: `save` calls `done` only when the record would survive a loss of power. PRgeneration is not kept:
 * it starts from zero after power-on (SPC-4 6.15.2).
 */
import { z } from "zod";
import type { ReservationType } from "../../../firmware-ts/wire/scsi/reservation.ts";
import { nexusOf } from "./nexus.ts";
import { NO_RESERVATIONS, REGISTRATIONS_MAX, type Reservations } from "./reservations.ts";

const registration = z.strictObject({
  name: z.string().min(1).max(223),
  isid: z.string().regex(/^[0-9a-f]{12}$/),
  targetPort: z.int().min(1).max(0xffff),
  key: z.string().regex(/^0x[0-9a-f]{1,16}$/),
  allTargetPorts: z.boolean(),
});

const types = [1, 3, 5, 6, 7, 8] as const satisfies readonly ReservationType[];

/** The record as JSON. `reservation.holder` is an index into `registrations`. */
const aptplRecord = z.strictObject({
  version: z.literal(1),
  registrations: z.array(registration).max(REGISTRATIONS_MAX),
  reservation: z.nullable(z.strictObject({ type: z.literal(types), holder: z.int().min(0) })),
});
export type AptplRecord = z.infer<typeof aptplRecord>;

/** Keeps one disk's record. */
export interface AptplStore {
  save(record: AptplRecord, done: (error: Error | null) => void): void;
}

/** What has to be kept of this state: nothing unless the last registration asked for it. */
export const recordOf = (state: Reservations): AptplRecord => {
  const kept = state.aptpl ? [...state.registrations.values()] : [];
  const found = kept.findIndex(({ nexus }) => nexus.id === state.reservation?.holder);
  // With "all registrants" the nexus that reserved may be gone; any registrant stands for it.
  const holder = Math.max(found, 0);
  return {
    version: 1,
    registrations: kept.map(({ nexus, key, allTargetPorts }) => ({
      ...nexus.initiator,
      targetPort: nexus.targetPort,
      key: `0x${key.toString(16)}`,
      allTargetPorts,
    })),
    reservation:
      state.reservation === null || kept.length === 0
        ? null
        : { type: state.reservation.type, holder },
  };
};

/** The reservations with which a disk powers on. */
export const restored = (record: AptplRecord): Reservations => {
  const registrations = record.registrations.map(
    ({ name, isid, targetPort, key, allTargetPorts }) => ({
      nexus: nexusOf({ name, isid }, targetPort),
      key: BigInt(key),
      allTargetPorts,
    }),
  );
  const holder = record.reservation === null ? undefined : registrations[record.reservation.holder];
  return {
    ...NO_RESERVATIONS,
    aptpl: registrations.length > 0,
    registrations: new Map(registrations.map((entry) => [entry.nexus.id, entry])),
    reservation:
      record.reservation === null || holder === undefined
        ? null
        : { type: record.reservation.type, holder: holder.nexus.id },
  };
};

/** Reads a record; the problem in words when it is none. */
export const parseAptpl = (
  text: string,
):
  | { readonly ok: true; readonly record: AptplRecord }
  | { readonly ok: false; readonly problem: string } => {
  try {
    const parsed = aptplRecord.safeParse(JSON.parse(text));
    if (!parsed.success) return { ok: false, problem: z.prettifyError(parsed.error) };
    const { registrations, reservation } = parsed.data;
    return reservation !== null && reservation.holder >= registrations.length
      ? { ok: false, problem: "the reservation's holder is not among the registrations" }
      : { ok: true, record: parsed.data };
  } catch (error) {
    return { ok: false, problem: `not JSON: ${String(error)}` };
  }
};
