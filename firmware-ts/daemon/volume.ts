/** The common volume for the main loop: read over sessions of this process, written by the beat process. */
import type { CommonVolume } from "../../hal/port/common-volume.ts";
import type { FromBeat, ToBeat } from "../loop/channel.ts";
import type { ControllerHost } from "../loop/controller-loop.ts";
import { VolumeRequests } from "../loop/volume-requests.ts";

export interface Volume {
  readonly read: ControllerHost["readVolume"];
  readonly write: ControllerHost["writeVolume"];
  /** The beat process has written. */
  readonly written: (message: Extract<FromBeat, { kind: "volumeWritten" }>) => void;
}

export interface VolumeSetup {
  readonly common: CommonVolume;
  readonly beat: (message: ToBeat) => void;
  /** Coordinator disks. */
  readonly total: number;
}

export function createVolume({ common, beat, total }: VolumeSetup): Volume {
  const requests = new VolumeRequests({
    after(delayMs, run) {
      const timer = setTimeout(run, delayMs);
      return () => clearTimeout(timer);
    },
    beat,
    total,
  });
  return {
    read: (limitMs, settle) => void common.read(limitMs).then(settle),
    write: (record, limitMs, settle) => requests.write(record, limitMs, settle),
    written: (message) => requests.written(message),
  };
}
