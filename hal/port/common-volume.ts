/**
 * The common volume: where both controllers find what each virtual server is (docs/design/0027-common-volume.md). Read by the main process over sessions
 * of its own; written through the beat process, whose nexus is registered on the coordinator disks.
 */
import type { VolumeView } from "../../firmware-ts/schema/definition.ts";
import type { Outcome } from "../../firmware-ts/schema/outcome.ts";

export interface CommonVolume {
  /**
   * Reads all records of a majority of the coordinator disks; thorough: of all that answer within the limit, if they are a majority. So what only one disk
   * has is found for certain, if that one can be read. Faults: `diskLost` (no majority can be read), `timeout`.
   */
  read(limitMs: number, isThorough?: boolean): Promise<Outcome<VolumeView>>;
  close(): Promise<void>;
}
