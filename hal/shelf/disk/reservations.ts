/**
 * Persistent reservations of one disk (SPC-4 5.12): the state, and what each PERSISTENT RESERVE OUT makes of it.
 *
 * Glossary: see `wire/scsi/reservation.ts`. The *actor* is the nexus that sent the command; a *preempted* nexus is
 * one whose registration a PREEMPT took away.
 *
 * Obligations: states are immutable values and `reserveOut` is a pure function, so a caller can tell whether
 * anything changed by comparing references, and can persist a new state before it takes effect.
 */
import { Asc } from "../../../firmware-ts/wire/scsi/codes.ts";
import {
  isAllRegistrants,
  isForRegistrants,
  isReservationType,
  ReservationType,
  ReserveOut,
  type ReserveOutParameters,
  SCOPE_LOGICAL_UNIT,
} from "../../../firmware-ts/wire/scsi/reservation.ts";
import { type Nexus, nexusOf } from "./nexus.ts";

/** More registrations than this end in INSUFFICIENT REGISTRATION RESOURCES (SPC-4 5.12.7). */
export const REGISTRATIONS_MAX = 64;

export interface Registration {
  readonly nexus: Nexus;
  readonly key: bigint;
  readonly allTargetPorts: boolean;
}

/** `holder` is the nexus that reserved; for the "all registrants" types every registrant holds. */
export interface Reservation {
  readonly type: ReservationType;
  readonly holder: string;
}

export interface Reservations {
  readonly generation: number;
  /** Whether the last registration asked to keep all this over a loss of power (SPC-4 5.12.5). */
  readonly aptpl: boolean;
  readonly registrations: ReadonlyMap<string, Registration>;
  readonly reservation: Reservation | null;
}

export const NO_RESERVATIONS: Reservations = {
  generation: 0,
  aptpl: false,
  registrations: new Map(),
  reservation: null,
};

/** A unit attention that a nexus is owed; `code` as in `Asc`. */
export interface Attention {
  readonly nexusId: string;
  readonly code: number;
}

/** What a PERSISTENT RESERVE OUT comes to. */
export type ReserveOutcome =
  | { readonly kind: "conflict" }
  | { readonly kind: "illegal"; readonly code: number }
  | {
      readonly kind: "done";
      readonly state: Reservations;
      readonly attentions: readonly Attention[];
      readonly preempted: readonly string[];
    };

/** A PERSISTENT RESERVE OUT with its parameter list; `targetPorts` are the ports that ALL_TG_PT names. */
export interface ReserveRequest {
  readonly actor: Nexus;
  readonly action: number;
  readonly scope: number;
  readonly type: number;
  readonly parameters: ReserveOutParameters;
  readonly targetPorts: readonly number[];
}

const conflict: ReserveOutcome = { kind: "conflict" };
const illegal = (code: number): ReserveOutcome => ({ kind: "illegal", code });
const done = (
  state: Reservations,
  attentions: readonly Attention[] = [],
  preempted: readonly string[] = [],
): ReserveOutcome => ({ kind: "done", state, attentions, preempted });

/** Whether the nexus holds the reservation (SPC-4 5.12.10). */
export const isHolder = (state: Reservations, nexusId: string): boolean => {
  if (state.reservation === null) return false;
  return isAllRegistrants(state.reservation.type)
    ? state.registrations.has(nexusId)
    : state.reservation.holder === nexusId;
};

const bumped = (state: Reservations): Reservations => ({
  ...state,
  generation: (state.generation + 1) >>> 0,
});

const attend = (
  state: Reservations,
  code: number,
  isOwed: (registration: Registration) => boolean,
): Attention[] =>
  [...state.registrations.values()]
    .filter(isOwed)
    .map(({ nexus }) => ({ nexusId: nexus.id, code }));

/** Takes registrations away; the reservation goes with its holder, or with the last registrant. */
const without = (state: Reservations, nexusIds: ReadonlySet<string>): Reservations => {
  const registrations = new Map(
    [...state.registrations].filter(([nexusId]) => !nexusIds.has(nexusId)),
  );
  const { reservation } = state;
  const isKept =
    reservation !== null &&
    (isAllRegistrants(reservation.type)
      ? registrations.size > 0
      : registrations.has(reservation.holder));
  return { ...state, registrations, reservation: isKept ? reservation : null };
};

/** SPC-4 5.12.11.2.3: a registrants-only reservation that falls with its holder is announced to the others. */
const unregister = (
  state: Reservations,
  nexusIds: ReadonlySet<string>,
  actor: Nexus,
): ReserveOutcome => {
  const next = bumped(without(state, nexusIds));
  const released = state.reservation !== null && next.reservation === null;
  const isAnnounced =
    released && state.reservation !== null && isForRegistrants(state.reservation.type);
  return done(
    next,
    isAnnounced ? attend(next, Asc.reservationsReleased, ({ nexus }) => nexus.id !== actor.id) : [],
  );
};

/** The nexuses a registration speaks about: the actor's, or all the initiator port's (ALL_TG_PT, SPC-4 6.16.3). */
const subjects = (request: ReserveRequest): Nexus[] =>
  request.parameters.allTargetPorts
    ? request.targetPorts.map((port) => nexusOf(request.actor.initiator, port))
    : [request.actor];

/** REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.12.7, table 50). */
const register = (state: Reservations, request: ReserveRequest): ReserveOutcome => {
  const { actor, parameters } = request;
  const nexuses = subjects(request);
  if (request.action === ReserveOut.register) {
    const known = nexuses.map(({ id }) => state.registrations.get(id)?.key ?? 0n);
    const own = state.registrations.get(actor.id)?.key ?? 0n;
    // Ports that are not registered yet match any key as long as the actor's own port does.
    if (parameters.key !== own || known.some((key) => key !== 0n && key !== parameters.key)) {
      return conflict;
    }
  }
  // The most recent registration decides on APTPL, also when it takes a key away (SPC-4 5.12.5).
  const base = { ...state, aptpl: parameters.aptpl };
  if (parameters.serviceActionKey === 0n) {
    return unregister(base, new Set(nexuses.map(({ id }) => id)), actor);
  }
  const registrations = new Map(state.registrations);
  for (const nexus of nexuses) {
    registrations.set(nexus.id, {
      nexus,
      key: parameters.serviceActionKey,
      allTargetPorts: parameters.allTargetPorts,
    });
  }
  if (registrations.size > REGISTRATIONS_MAX) {
    return illegal(Asc.insufficientRegistrationResources);
  }
  return done(bumped({ ...base, registrations }));
};

/** RESERVE (SPC-4 5.12.9). */
const reserve = (state: Reservations, request: ReserveRequest): ReserveOutcome => {
  if (request.scope !== SCOPE_LOGICAL_UNIT || !isReservationType(request.type)) {
    return illegal(Asc.invalidFieldInCdb);
  }
  if (state.reservation === null) {
    return done({ ...state, reservation: { type: request.type, holder: request.actor.id } });
  }
  const isSame = state.reservation.type === request.type && isHolder(state, request.actor.id);
  return isSame ? done(state) : conflict;
};

/** RELEASE (SPC-4 5.12.11.2.2). */
const release = (state: Reservations, request: ReserveRequest): ReserveOutcome => {
  const { reservation } = state;
  if (reservation === null || !isHolder(state, request.actor.id)) return done(state);
  if (request.scope !== SCOPE_LOGICAL_UNIT || request.type !== reservation.type) {
    return illegal(Asc.invalidRelease);
  }
  return done(
    { ...state, reservation: null },
    isForRegistrants(reservation.type)
      ? attend(state, Asc.reservationsReleased, ({ nexus }) => nexus.id !== request.actor.id)
      : [],
  );
};

/** CLEAR (SPC-4 5.12.11.2.7). */
const clear = (state: Reservations, request: ReserveRequest): ReserveOutcome =>
  done(
    bumped({ ...state, registrations: new Map(), reservation: null }),
    attend(state, Asc.reservationsPreempted, ({ nexus }) => nexus.id !== request.actor.id),
  );

/** Takes the reservation over (SPC-4 5.12.11.2.5): the old holder and its namesakes lose their registrations. */
const preemptReservation = (
  state: Reservations,
  request: ReserveRequest,
  old: Reservation,
): ReserveOutcome => {
  if (request.scope !== SCOPE_LOGICAL_UNIT || !isReservationType(request.type)) {
    return illegal(Asc.invalidFieldInCdb);
  }
  const { actor, parameters } = request;
  const isVictim = ({ nexus, key }: Registration) =>
    nexus.id !== actor.id && (isAllRegistrants(old.type) || key === parameters.serviceActionKey);
  const victims = new Set(
    [...state.registrations.values()].filter(isVictim).map(({ nexus }) => nexus.id),
  );
  const next = {
    ...bumped(without(state, victims)),
    reservation: { type: request.type, holder: actor.id },
  };
  const changed =
    old.type === request.type
      ? []
      : attend(next, Asc.reservationsReleased, ({ nexus }) => nexus.id !== actor.id);
  return done(
    next,
    [...attend(state, Asc.registrationsPreempted, isVictim), ...changed],
    [...victims],
  );
};

/** PREEMPT and PREEMPT AND ABORT (SPC-4 5.12.11.2.4 to 5.12.11.2.6, table 52). */
const preempt = (state: Reservations, request: ReserveRequest): ReserveOutcome => {
  const { actor, parameters } = request;
  const { reservation } = state;
  const target = parameters.serviceActionKey;
  const ofAll = reservation !== null && isAllRegistrants(reservation.type);
  if (target === 0n && !ofAll) return illegal(Asc.invalidFieldInParameterList);
  const holderKey = reservation === null ? null : state.registrations.get(reservation.holder)?.key;
  if (reservation !== null && (ofAll ? target === 0n : target === holderKey)) {
    return preemptReservation(state, request, reservation);
  }
  const victims = [...state.registrations.values()].filter(({ key }) => key === target);
  if (victims.length === 0) return conflict;
  const victimIds = new Set(victims.map(({ nexus }) => nexus.id));
  return done(
    bumped(without(state, victimIds)),
    attend(
      state,
      Asc.registrationsPreempted,
      ({ nexus }) => victimIds.has(nexus.id) && nexus.id !== actor.id,
    ),
    [...victimIds],
  );
};

/** Carries out a PERSISTENT RESERVE OUT. The caller persists and installs the new state, in that order. */
export const reserveOut = (state: Reservations, request: ReserveRequest): ReserveOutcome => {
  const { action, parameters, actor } = request;
  // SIP_C is zero: registering other initiator ports by TransportID is not offered (SPC-4 6.16.3).
  if (parameters.specifyInitiatorPorts) return illegal(Asc.invalidFieldInParameterList);
  if (action === ReserveOut.register || action === ReserveOut.registerAndIgnore) {
    return register(state, request);
  }
  const own = state.registrations.get(actor.id);
  if (own === undefined || own.key !== parameters.key) return conflict;
  switch (action) {
    case ReserveOut.reserve:
      return reserve(state, request);
    case ReserveOut.release:
      return release(state, request);
    case ReserveOut.clear:
      return clear(state, request);
    case ReserveOut.preempt:
    case ReserveOut.preemptAndAbort:
      return preempt(state, request);
    default:
      return illegal(Asc.invalidFieldInCdb);
  }
};

/** All six types, in the order of their numbers. */
export const SUPPORTED_TYPES: readonly ReservationType[] = Object.values(ReservationType);
