/**
 * Disks of the shelf, as a controller sees them. A disk is named by its serial (VPD page 80h), never by the order in
 * which it appeared. Reservation commands and I/O of one disk travel in the same I_T nexus (SPC-4 5.9.1).
 */
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { Foreseen } from "../../firmware-ts/schema/range.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";

export interface Disks {
  /**
   * One persistent reservation command. Unit attentions are retried inside; `deadlineMs` bounds everything. Of the commands for one disk, a
   * change is performed when all that were asked before it are answered, and a reading when all changes before it are.
   */
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
  ): Promise<ReservationAnswer>;
  close(): Promise<void>;
}

/** A disk as a block device of this controller. */
export interface LocalDevice {
  readonly path: string;
  /** Whether acknowledged writes may be lost with the disk's power before a flush. */
  readonly writeCache: boolean;
  /** What is about to be read of it, for whoever can have it read in advance: a hint, soon there or never. Does not reject. */
  readonly foreseen?: Promise<Foreseen | undefined>;
}

export interface BlockService {
  /** Makes the disk a local block device. Nothing is read through it before ownership. Idempotent. */
  attach(serial: string): Promise<Outcome<LocalDevice>>;
  /**
   * Refuses all I/O of the disk from now on, also what waits for a lost path, until it is attached again: a file system that is to be
   * abandoned must not wait for a disk that may never answer.
   */
  refuse(serial: string): void;
  /** Removes the device; succeeds only when the kernel says that nothing holds it. Idempotent. */
  detach(serial: string): Promise<Outcome>;
}

export interface FileSystems {
  /** Mounts (journal replay included) and verifies with the kernel. Already mounted from this device is a success. */
  mount(device: LocalDevice, path: string): Promise<Outcome>;
  /** Writes back what is dirty, while the file system goes on being used: what an unmount has left to do is then little. */
  flush(path: string): Promise<Outcome>;
  /**
   * Writes everything back, marks the file system clean and shuts it for good, in one call that the kernel makes atomic (EXT4_IOC_SHUTDOWN,
   * DEFAULT). Whoever still has files open gets EIO from then on. Not mounted is a success. Fault `diskError`: not everything was written.
   */
  seal(path: string): Promise<Outcome>;
  /**
   * Shuts the file system down without writing back (EXT4_IOC_SHUTDOWN, NOLOGFLUSH), then unmounts: what is sealed, or what a fenced owner
   * must not write. `stillMounted` when the kernel says so. Not mounted is a success.
   */
  abandon(path: string): Promise<Outcome>;
  /** Source device of the mount, or undefined. Read from the kernel. */
  mountedFrom(path: string): Outcome<string | undefined>;
}
