/** What the commands and the I/O of a disk behind iSCSI may take. */
import { defaultSessionTiming, type SessionTiming } from "./session.ts";

export interface IscsiDiskTiming extends SessionTiming {
  /** One command; then it is aborted. */
  readonly commandTimeoutMs: number;
  /** One I/O with all its repetitions and waits; then it fails. */
  readonly ioTimeoutMs: number;
  /** How long the I/O of a disk that another controller has taken is not answered, unless the disk is given up before. */
  readonly fencedSilenceMs: number;
}

export const defaultDiskTiming: IscsiDiskTiming = {
  ...defaultSessionTiming,
  commandTimeoutMs: 3000,
  ioTimeoutMs: 30_000,
  // Longer than any gate of a controller that has lost lives with the default times, and short for whoever waits for a dead volume.
  fencedSilenceMs: 2000,
};
