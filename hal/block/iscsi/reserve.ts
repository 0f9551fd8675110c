/** Persistent reservations of a disk (SPC-4 5.9, 6.15, 6.16): commands of the decisions to CDBs, and answers back. */
import { done, failed, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
  ReservationKey,
  ReservationType as TypeName,
} from "../../../firmware-ts/schema/reservation.ts";
import type { Command } from "../../../firmware-ts/wire/scsi/command.ts";
import {
  decodeFullStatus,
  decodeReadKeys,
  decodeReadReservation,
  encodeReserveOut,
  type InitiatorPort,
  isAllRegistrants,
  RESERVE_OUT_BYTES,
  ReservationType,
  ReserveIn,
  ReserveOut,
  SCOPE_LOGICAL_UNIT,
} from "../../../firmware-ts/wire/scsi/reservation.ts";
import type { Verdict } from "./verdict.ts";

/** Sends one command in the session of the I/O. */
export type RunCommand = (
  command: Command,
  transfer: { readonly out?: Buffer; readonly inBytes?: number },
  deadlineMs: number,
) => Promise<Verdict>;

/** What an owner expects to stand on its disk. */
export interface Hold {
  readonly key: ReservationKey;
  readonly type: TypeName;
}

const inBytes = 16 * 1024;
const busyPauseMs = 5;

/** The key as a number; the schema of whoever called has checked its form. */
const keyValue = (key: ReservationKey): bigint => BigInt(`0x${key}`);
const keyText = (key: bigint): ReservationKey => key.toString(16).padStart(16, "0");
const typeName = (type: number): TypeName | undefined =>
  (Object.keys(ReservationType) as TypeName[]).find((name) => ReservationType[name] === type);

const remaining = (start: number, deadlineMs: number) => deadlineMs - (performance.now() - start);

/** Repeats after unit attentions and BUSY: neither has performed the command (SAM-5 5.3.1, 5.14). */
export async function insist(
  run: RunCommand,
  command: Command,
  transfer: { readonly out?: Buffer; readonly inBytes?: number },
  deadlineMs: number,
): Promise<Verdict> {
  const start = performance.now();
  let last: Verdict = { kind: "transport", failure: "timeout", reason: "no time" };
  for (let left = deadlineMs; left > 0; left = remaining(start, deadlineMs)) {
    last = await run(command, transfer, left);
    if (last.kind === "busy") await new Promise((resolve) => setTimeout(resolve, busyPauseMs));
    else if (last.kind !== "attention") return last;
  }
  return last;
}

function askIn(run: RunCommand, action: number, deadlineMs: number): Promise<Verdict> {
  const command = { name: "persistentReserveIn", action, allocationBytes: inBytes } as const;
  return insist(run, command, { inBytes }, deadlineMs);
}

/** Action, type and keys of each PERSISTENT RESERVE OUT. */
function outOf(command: ReservationCommand) {
  switch (command.op) {
    case "register":
      return { action: ReserveOut.registerAndIgnore, serviceKey: command.key, aptpl: true };
    case "unregister":
      // REGISTER AND IGNORE EXISTING KEY with key zero removes this nexus's registration, whatever it is (SPC-4 5.9.11.3).
      return { action: ReserveOut.registerAndIgnore };
    case "reserve":
      return { action: ReserveOut.reserve, key: command.key, type: command.type };
    case "release":
      return { action: ReserveOut.release, key: command.key, type: command.type };
    case "preempt":
      return {
        action: ReserveOut.preemptAndAbort,
        key: command.key,
        serviceKey: command.victim,
        type: command.type,
      };
    default:
      return undefined;
  }
}

const noKey = "0000000000000000";

function problem(verdict: Verdict): ReservationAnswer {
  if (verdict.kind === "conflict") return { status: "conflict" };
  const reason = "reason" in verdict ? verdict.reason : verdict.kind;
  return { status: "failed", reason };
}

export async function performReservation(
  run: RunCommand,
  command: ReservationCommand,
  deadlineMs: number,
): Promise<ReservationAnswer> {
  if (command.op === "readKeys") return readKeys(run, deadlineMs);
  if (command.op === "readReservation") return readReservation(run, deadlineMs);
  const asked = outOf(command);
  if (asked === undefined) throw new Error(`unknown reservation command ${command.op}`);
  const { action, key = noKey, serviceKey = noKey, type, aptpl = false } = asked;
  const out = encodeReserveOut({
    key: keyValue(key),
    serviceActionKey: keyValue(serviceKey),
    specifyInitiatorPorts: false,
    allTargetPorts: false,
    aptpl,
  });
  const verdict = await insist(
    run,
    {
      name: "persistentReserveOut",
      action,
      scope: SCOPE_LOGICAL_UNIT,
      type: type === undefined ? 0 : ReservationType[type],
      parameterBytes: RESERVE_OUT_BYTES,
    },
    { out },
    deadlineMs,
  );
  return verdict.kind === "good" ? { status: "good" } : problem(verdict);
}

async function readKeys(run: RunCommand, deadlineMs: number): Promise<ReservationAnswer> {
  const verdict = await askIn(run, ReserveIn.readKeys, deadlineMs);
  if (verdict.kind !== "good") return problem(verdict);
  const keys = decodeReadKeys(verdict.data);
  if (!keys.ok) return { status: "failed", reason: keys.problem };
  if (!keys.value.complete) return { status: "failed", reason: "more keys than we can read" };
  const { generation } = keys.value;
  return { status: "keys", generation, keys: keys.value.keys.map(keyText) };
}

async function readReservation(run: RunCommand, deadlineMs: number): Promise<ReservationAnswer> {
  const verdict = await askIn(run, ReserveIn.readReservation, deadlineMs);
  if (verdict.kind !== "good") return problem(verdict);
  const read = decodeReadReservation(verdict.data);
  if (!read.ok) return { status: "failed", reason: read.problem };
  const { generation, reservation } = read.value;
  if (reservation === null) return { status: "reservation", generation };
  const type = typeName(reservation.type);
  if (type === undefined)
    return { status: "failed", reason: `unknown reservation type ${reservation.type}` };
  return { status: "reservation", generation, holder: { key: keyText(reservation.key), type } };
}

/**
 * Whether this nexus is registered with the hold's key and holds the reservation of the hold's type, read in one command
 * (READ FULL STATUS), so that no change can come between. Keys alone would not do: they could be a ghost's.
 */
export async function verifyHold(
  run: RunCommand,
  port: InitiatorPort,
  hold: Hold,
  deadlineMs: number,
): Promise<Outcome> {
  const operation = "verify reservation";
  const verdict = await askIn(run, ReserveIn.readFullStatus, deadlineMs);
  if (verdict.kind !== "good") {
    const { status, ...rest } = problem(verdict);
    return failed("diskLost", operation, "reason" in rest ? rest.reason : status);
  }
  const read = decodeFullStatus(verdict.data);
  if (!read.ok) return failed("diskError", operation, read.problem);
  const ours = read.value.entries.filter(
    ({ initiator }) =>
      initiator.name === port.name && initiator.isid.toLowerCase() === port.isid.toLowerCase(),
  );
  const wanted = ReservationType[hold.type];
  const entry = ours.find(({ key }) => key === keyValue(hold.key));
  if (entry === undefined)
    return failed("fenced", operation, `this session is not registered with ${hold.key}`);
  const holder = isAllRegistrants(wanted)
    ? read.value.entries.find(({ held }) => held !== null)
    : entry;
  if (holder?.held?.type !== wanted)
    return failed("fenced", operation, `the ${hold.type} reservation is not ours`);
  return done;
}
