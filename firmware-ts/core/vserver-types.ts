/** Words of the virtual server machine; see core/vserver.ts. */
import type { VirtualServerConfig } from "../schema/config.ts";
import type { Definition } from "../schema/definition.ts";
import type { ReservationKey } from "../schema/reservation.ts";
import type { Effect } from "./effects.ts";
import type { Claim } from "./ownership.ts";
import type { Timing } from "./timing.ts";

/**
 * US 7,124,171 claim 1: the file system sharing routine is (a) attach, (b) mount, (c) export under the floating address.
 * Claim comes from having to fence; `hush` silences the address for a restart in place. The
 * address is put on the NIC before the export, so that the export can be proved at it, behind its closed gate.
 */
export const startSteps = [
  "claim",
  "attach",
  "mount",
  "hush",
  "address",
  "export",
  "open",
  "verify",
] as const;
export type StartStep = (typeof startSteps)[number];

/**
 * The routine backwards. Flush: what is written back before the address falls silent costs nobody anything. An address is silent
 * before anything behind it goes; a disk is released when its file system is sealed: complete on the disk, and shut for writing
 * for good. What is left then (a service without a voice, a mount that writes nothing, an idle device) harms nobody: a partner that waits for
 * the disk need not wait for it.
 */
export const stopSteps = [
  "flush",
  "close",
  "seal",
  "release",
  "unexport",
  "unmount",
  "detach",
] as const;
export type StopStep = (typeof stopSteps)[number];

/** By force: what cannot be sealed is torn off, and released when nothing is mounted from it any more. */
export const forcedStopSteps: readonly StopStep[] = [
  "close",
  "unexport",
  "unmount",
  "release",
  "detach",
];

/** Why a virtual server stops, which decides what happens when it has. */
export type StopReason = "transfer" | "leave" | "fenced" | "failed" | "stopped" | "changed";

/** What a step waits for. */
interface Waiting {
  /** Tokens whose outcome is still to come. */
  readonly pending: readonly string[];
  readonly deadlineMs: number;
}

export type Phase =
  | { readonly kind: "off" }
  | (Waiting & {
      readonly kind: "starting";
      readonly step: StartStep;
      /** When the decision to start was made: what the operator's duration counts from. */
      readonly decidedMs: number;
      /** The address stays closed until then. */
      readonly notBeforeMs: number;
      /** When the gate was opened with its first lease. */
      readonly openedMs?: number | undefined;
      /** The step is begun again then (a refusal that time mends). */
      readonly againAtMs?: number | undefined;
      /** It waits for its turn to claim its disks, or to attach those that it has claimed, and has not begun with that (core/start-window). */
      readonly waitsForTurn?: true | undefined;
      /** When the last turn came. */
      readonly turnMs?: number | undefined;
      /** A service that died is restarted without letting go of the volume. */
      readonly inPlace: boolean;
    })
  | { readonly kind: "serving"; readonly sinceMs: number }
  | (Waiting & {
      readonly kind: "stopping";
      readonly step: StopStep;
      readonly reason: StopReason;
      /** The volume is not ours, or not reachable: nothing is flushed, what is mounted is abandoned. */
      readonly forced: boolean;
      /** The disks are given back: the partner may have them, whatever is left to tidy here. */
      readonly hasLetGo: boolean;
      /** What is left of a released disk could not be put away at once; that has been told. */
      readonly isHeld?: boolean | undefined;
      readonly fault?: string | undefined;
    })
  | { readonly kind: "failed"; readonly fault: string; readonly retryAtMs: number };

export interface VirtualServerState {
  /** Its number. */
  readonly index: number;
  /** What is wanted of it, and what it has or had: `config` follows the definition when nothing runs with the former one any more. */
  readonly definition: Definition;
  readonly config: VirtualServerConfig;
  /** What its place and its disks were last made for here; not whole: that is under way, or has failed. */
  readonly made: { readonly config: VirtualServerConfig; readonly isWhole: boolean } | undefined;
  /** Addresses, with their prefix lengths, that may still be on its interface although nothing uses them. */
  readonly leftover: readonly string[];
  readonly phase: Phase;
  /** Ownership of each disk under `key`. */
  readonly claims: Readonly<Record<string, Claim>>;
  readonly key: ReservationKey | undefined;
  /** Makes every token new, so that an outcome of an earlier step can never be taken for one of this step. */
  readonly round: number;
  /** Failures since the last long stretch of service: the back-off counts from them. */
  readonly failures: number;
  /** Moves in a row that came to nothing, and until when none is begun by itself: what neither controller can start must not go to and fro. */
  readonly movesFailed: number;
  readonly moveNotBeforeMs: number;
  /** How often in a row, and when last, it came here because the partner could not keep it; undefined when it is here for another reason. */
  readonly evacuated?: { readonly times: number; readonly lastMs: number } | undefined;
  readonly lastStartMs?: number | undefined;
  readonly fault?: string | undefined;
  /** Clients that the volume does not know of, from whoever gave it up to whoever serves it next (wire/clients). */
  readonly clients?: string | undefined;
}

/** What the machine needs to know about the world. */
export interface VirtualServerContext {
  readonly nowMs: number;
  readonly timing: Timing;
  /** Disks to which this controller has no path now. */
  readonly pathsDown: readonly string[];
  /** The partner is heard, and in step with us: nothing of an earlier life of it can still be on its way to a disk. */
  readonly partnerInStep: boolean;
}

export type VirtualServerStep = readonly [VirtualServerState, readonly Effect[]];

export function disksOf(config: VirtualServerConfig): string[] {
  return config.volumes.map((volume) => volume.disk);
}
