/** Persistent reservation commands and answers (SPC-4 5.9, 6.15, 6.16), as the decisions see them. */

/** An 8-byte reservation key as 16 hexadecimal digits; all zeros means "no key". */
export type ReservationKey = string;

/** SPC-4 table 63. Data disks are held `exclusiveAccessRegistrantsOnly`, coordinators `writeExclusiveAllRegistrants`. */
export type ReservationType =
  | "writeExclusive"
  | "exclusiveAccess"
  | "writeExclusiveRegistrantsOnly"
  | "exclusiveAccessRegistrantsOnly"
  | "writeExclusiveAllRegistrants"
  | "exclusiveAccessAllRegistrants";

export type ReservationCommand =
  | { readonly op: "register"; readonly key: ReservationKey } // REGISTER AND IGNORE EXISTING KEY, APTPL=1
  | { readonly op: "unregister" }
  | { readonly op: "readKeys" }
  | { readonly op: "readReservation" }
  | { readonly op: "reserve"; readonly key: ReservationKey; readonly type: ReservationType }
  | { readonly op: "release"; readonly key: ReservationKey; readonly type: ReservationType }
  | {
      readonly op: "preempt"; // PREEMPT AND ABORT
      readonly key: ReservationKey;
      readonly victim: ReservationKey;
      readonly type: ReservationType;
    };

/** `conflict` is the disk's refusal (RESERVATION CONFLICT); `failed` covers every other status, a deadline or a lost path. */
export type ReservationAnswer =
  | { readonly status: "good" }
  | {
      readonly status: "keys";
      readonly generation: number;
      readonly keys: readonly ReservationKey[];
    }
  | {
      readonly status: "reservation";
      readonly generation: number;
      /** Absent when nobody holds the disk. For all-registrants types the key is zero (SPC-4 6.15.3). */
      readonly holder?:
        | { readonly key: ReservationKey; readonly type: ReservationType }
        | undefined;
    }
  | { readonly status: "conflict" }
  | { readonly status: "failed"; readonly reason: string };
