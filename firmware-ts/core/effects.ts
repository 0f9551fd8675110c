/**
 * What a controller wants done. Effects are data; one loop performs them in the order of `effectRank` (persist → fence →
 * act → announce) and reports every outcome as an event with the effect's token.
 */
import type { Definition, VolumeRecord } from "../schema/definition.ts";
import type { PersistentRecord } from "../schema/journal.ts";
import type { ReservationCommand } from "../schema/reservation.ts";
import type { CommandAnswer } from "../schema/status.ts";
import type { GateCommand, Mandate } from "./beat-types.ts";

/** One operator event, before the loop adds sequence, wall clock and controller. */
export interface Report {
  readonly severity: "info" | "warning" | "error";
  readonly code: string;
  readonly message: string;
  readonly detail?: Readonly<Record<string, unknown>> | undefined;
}

/** Work on a virtual server's parts. Works of one virtual server are performed one after another, in order. */
export type Work =
  | { readonly op: "attach" | "detach"; readonly disk: string }
  | { readonly op: "mount" | "flush"; readonly disk: string }
  /** Complete on the disk, and shut for writing until it is mounted anew. */
  | { readonly op: "seal"; readonly disk: string }
  /** Ends a mount without writing to it. */
  | { readonly op: "abandon"; readonly disk: string }
  | { readonly op: "startService" }
  /**
   * `kill`: nothing is flushed and nobody is asked, because the volume is no longer ours, or out of reach. Value: clients that the volume
   * does not know of (wire/clients).
   */
  | { readonly op: "stopService" | "killService" }
  | { readonly op: "addAddresses" }
  /** With their prefix lengths, and whether the definition still has them or not. */
  | { readonly op: "removeAddresses"; readonly addresses: readonly string[] }
  /**
   * Gratuitous ARP, and tickles to the clients that the last owner left in its service state: says to the network that the address is
   * here. `clients`: those that the last owner could not leave there.
   */
  | { readonly op: "announce"; readonly clients?: string | undefined };

/** What is done to a virtual server as a whole. It stands in line with its works. */
export type Lifecycle =
  /**
   * Place, disks and spare as the definition says, made or changed. Beside one that runs only what can be changed beside it; the next start of its
   * service uses the rest.
   */
  | { readonly op: "define"; readonly definition: Definition }
  /** Its place is removed and its disks are closed. */
  | { readonly op: "forget"; readonly number: number };

export type Effect =
  | { readonly kind: "persist"; readonly record: PersistentRecord }
  | { readonly kind: "gate"; readonly command: GateCommand }
  | {
      readonly kind: "reserve";
      readonly token: string;
      readonly serial: string;
      readonly command: ReservationCommand;
      readonly deadlineMs: number;
    }
  | {
      readonly kind: "work";
      readonly token: string;
      readonly virtualServer: string;
      readonly work: Work;
      readonly limitMs: number;
    }
  /** What a majority of the coordinator disks says on the common volume; thorough: all that answer in time, if they are a majority. */
  | {
      readonly kind: "volumeRead";
      readonly token: string;
      readonly limitMs: number;
      readonly isThorough: boolean;
    }
  /** The host fills in the state of what is served here. */
  | {
      readonly kind: "volumeWrite";
      readonly token: string;
      readonly record: VolumeRecord;
      readonly limitMs: number;
    }
  | {
      readonly kind: "define";
      readonly token: string;
      readonly definition: Definition;
      readonly limitMs: number;
    }
  | {
      readonly kind: "forget";
      readonly token: string;
      readonly number: number;
      readonly name: string;
      readonly limitMs: number;
    }
  | { readonly kind: "mandate"; readonly mandate: Mandate }
  /** `contact` is the partner view's: in another contact the grant is void. */
  | { readonly kind: "grant"; readonly on: boolean; readonly contact: number }
  | { readonly kind: "answer"; readonly id: number; readonly answer: CommandAnswer }
  | { readonly kind: "report"; readonly report: Report }
  | { readonly kind: "exit"; readonly code: number; readonly reason: string };

/** Order within one step. Closing a gate is fencing ourselves, hence before anything else touches the world. */
export function effectRank(effect: Effect): number {
  switch (effect.kind) {
    case "persist":
      return 0;
    case "gate":
      return effect.command.kind === "gateClose" ? 1 : 4;
    case "grant":
      return 2;
    case "reserve":
      return 3;
    case "work":
    case "define":
    case "forget":
      return 5;
    case "mandate":
      return 6;
    case "answer":
    case "report":
      return 7;
    // Nobody waits for it, and it waits for nobody.
    case "volumeRead":
    case "volumeWrite":
      return 8;
    case "exit":
      return 9;
    default:
      return unknownEffect(effect);
  }
}

function unknownEffect(effect: never): never {
  throw new Error(`effectRank: unknown effect ${JSON.stringify(effect)}`);
}
