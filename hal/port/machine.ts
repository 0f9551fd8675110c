/** Everything that the main loop of one controller touches, put together by the wiring of a HAL. */
import type { VirtualServerConfig } from "../../firmware-ts/schema/config.ts";
import type { Definition, RecordedState } from "../../firmware-ts/schema/definition.ts";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { UsageStatus } from "../../firmware-ts/schema/status.ts";
import type { Addresses, Connection } from "./addresses.ts";
import type { BlockService, Disks, FileSystems } from "./storage.ts";

/** File services by the name of their virtual server. */
export interface FileServices {
  /** Starts serving its volumes, which are mounted where `mountPath` says, and waits until each export and each share answers. Idempotent. */
  start(server: VirtualServerConfig, limitMs: number): Promise<Outcome>;
  /** Ends it without waiting: from now on it answers nothing, whatever becomes of the calls it is in. */
  kill(name: string): void;
  /** Ends it; when it settles well nothing of it holds the volume any more. Idempotent. */
  stop(name: string, limitMs: number): Promise<Outcome>;
  /** Gets ready for a start that may come at any time. */
  prepare(name: string): Promise<Outcome>;
  close(): Promise<void>;
}

/** What the last owner left on the volume for the next one. */
export interface ServiceState {
  /** Clients that were connected: their connections are tickled. */
  readonly connections: readonly Connection[];
}

export interface ServiceStates {
  /** Reads it; a missing or damaged record is an empty one, said in `note`. */
  load(mountPath: string): Promise<{ readonly state: ServiceState; readonly note?: string }>;
  /** Replaces it, atomically. */
  save(mountPath: string, state: ServiceState): Promise<Outcome>;
}

/** A virtual server's own network on this controller (US 7,200,622 claim 1: network processing unit, routing table). */
export interface ServerPlace {
  readonly addresses: Addresses;
  /** Its interface. */
  readonly nic: string;
  /** Makes its interface what it was, should somebody have set it down or taken it away. Fault `addressFailed`. */
  restore(): Outcome;
  /** Puts its routes and rules into its own routing table; its addresses must be there. Idempotent. Faults: `badInput`, `addressFailed`. */
  route(): Promise<Outcome>;
}

export interface Machine {
  /**
   * Gets a virtual server ready to be served here, or changes what is ready to what it is to be from now on: place, disks, file service. Beside what runs of it:
   * limits hold at once, addresses that it has no more are taken off, routes and rules are put right; new addresses and exports are for its next start. A limit
   * that the kernel refuses is a warning, because the virtual server can be served without. Idempotent, also
   * after a fault half-way. Nobody else notices. Faults: `refused` (it contradicts what is here), `stillMounted` (a volume that it is to have no
   * more is in use; nothing was changed), `timeout`, and those of the parts.
   */
  define(definition: Definition, limitMs: number): Promise<Outcome>;
  /**
   * Removes all of a virtual server from this controller. What is not there is a success, what has that name under another number is left alone. Faults:
   * `stillMounted` (one of its volumes is in use; nothing was removed), `timeout`, and those of the parts.
   */
  forget(number: number, name: string, limitMs: number): Promise<Outcome>;
  readonly disks: Disks;
  readonly block: BlockService;
  readonly fileSystems: FileSystems;
  readonly services: FileServices;
  readonly states: ServiceStates;
  /** Where a virtual server lives on this controller. */
  place(name: string): ServerPlace;
  /** What its programs use and have used; undefined for one that is not here. Takes 0.3 ms. */
  usage(name: string): UsageStatus | undefined;
  /**
   * What the kernel says of it at this moment, for the common volume: mounts, routes, devices. Empty where it is not served; takes less than a
   * millisecond, and never fails: what cannot be read is said in its place.
   */
  placeState(server: VirtualServerConfig): RecordedState;
  /** Ports at which a virtual server's file services have their clients. */
  servicePorts(server: VirtualServerConfig): readonly number[];
  /** Where the volume of a disk is mounted. */
  mountPath(server: VirtualServerConfig, disk: string): string;
  /** Keeps the main loop from waiting behind ordinary programs; children stay ordinary. */
  realTime(): Outcome;
  close(): Promise<void>;
}

/** What the machine reports by itself. */
export interface MachineHandlers {
  readonly diskPath: (serial: string, up: boolean, reason: string) => void;
  readonly diskFenced: (serial: string, reason: string) => void;
  /** The block device of a disk that is attached is gone, the disk is not. */
  readonly deviceLost: (serial: string, reason: string) => void;
  /** The file system of a disk that is ours is read-only, shut, or not mounted any more; told once. */
  readonly volumeFailed: (serial: string, reason: string) => void;
  readonly serviceExited: (virtualServer: string, reason: string) => void;
  /** A file service that has served lives and does not answer; told again and again as long as that is so. */
  readonly serviceHung: (virtualServer: string, reason: string) => void;
  /** An address that was put on the interface of a virtual server is gone from it, or the interface is; told again and again. */
  readonly addressLost: (virtualServer: string, reason: string) => void;
  readonly carrier: (up: boolean) => void;
  /** Something that an operator should know and that changes no decision. `code` is stable and dotted. */
  readonly warning: (code: string, message: string) => void;
  readonly log: (message: string) => void;
}
