/** What a command's result means: done, refused by a reservation, worth another try, or an error (SAM-5 5.3, SPC-4 4.5). */
import { Asc, SenseKey, Status, statusName } from "../../../firmware-ts/wire/scsi/codes.ts";
import { senseText } from "../../../firmware-ts/wire/scsi/sense.ts";
import type { CommandResult, TransportFailure } from "./task.ts";

export type Verdict =
  | { readonly kind: "good"; readonly data: Buffer }
  /** RESERVATION CONFLICT: the command was not performed. */
  | { readonly kind: "conflict" }
  /** UNIT ATTENTION: something happened before; the command was not performed. */
  | { readonly kind: "attention"; readonly meaning: AttentionMeaning; readonly reason: string }
  /** Not performed, and may well be when tried again. */
  | { readonly kind: "busy"; readonly reason: string }
  | { readonly kind: "error"; readonly reason: string; readonly illegal: boolean }
  | {
      readonly kind: "transport";
      readonly failure: TransportFailure;
      readonly reason: string;
    };

/**
 * `preempted`: another initiator took away our registration or reservation. `unsettled`: what was verified may not be what it
 * was (a reset or power loss, a release, another cache mode). `other`: none of our business.
 */
export type AttentionMeaning = "preempted" | "unsettled" | "other";

function meaningOf(code: number): AttentionMeaning {
  if (code === Asc.registrationsPreempted || code === Asc.reservationsPreempted) return "preempted";
  if (code === Asc.reservationsReleased || code === Asc.modeParametersChanged) return "unsettled";
  // All of 29h: power on, resets, loss of nexus. Without APTPL a power cycle ends every reservation (SPC-4 5.9.5).
  return code >> 8 === Asc.powerOnOrReset >> 8 ? "unsettled" : "other";
}

export function judge(result: CommandResult): Verdict {
  if (result.kind === "transport")
    return { kind: "transport", failure: result.failure, reason: result.detail };
  const { status, data, sense } = result;
  switch (status) {
    case Status.good:
    case Status.conditionMet:
      return { kind: "good", data };
    case Status.reservationConflict:
      return { kind: "conflict" };
    case Status.busy:
    case Status.taskSetFull:
    case Status.taskAborted:
      return { kind: "busy", reason: statusName(status) };
    case Status.checkCondition:
      break;
    default:
      return { kind: "error", reason: statusName(status), illegal: false };
  }
  if (sense === undefined)
    return { kind: "error", reason: "CHECK CONDITION without sense", illegal: false };
  const reason = senseText(sense);
  switch (sense.key) {
    case SenseKey.unitAttention:
      return { kind: "attention", meaning: meaningOf(sense.code), reason };
    case SenseKey.recoveredError:
      return { kind: "good", data };
    case SenseKey.abortedCommand:
      return { kind: "busy", reason };
    default:
      return { kind: "error", reason, illegal: sense.key === SenseKey.illegalRequest };
  }
}
