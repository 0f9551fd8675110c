/**
 * The common volume for the main loop: read over sessions of this process, written by the beat process. What is written of a virtual server that is served
 * here carries what the kernel says of it at that moment.
 */
import type { CommonVolume } from "../../hal/port/common-volume.ts";
import type { Machine } from "../../hal/port/machine.ts";
import type { FromBeat, ToBeat } from "../loop/channel.ts";
import type { ControllerHost } from "../loop/controller-loop.ts";
import { VolumeRequests } from "../loop/volume-requests.ts";
import type { VolumeRecord } from "../schema/definition.ts";
import { explain } from "../schema/outcome.ts";
import { encodeRecord, withoutState } from "../wire/common-volume.ts";
import { monotonicMs } from "./clock.ts";

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
  readonly machine: Pick<Machine, "placeState">;
  /** Pair id. */
  readonly pair: number;
  readonly log: (message: string) => void;
}

export function createVolume({ common, beat, total, machine, pair, log }: VolumeSetup): Volume {
  const requests = new VolumeRequests({
    after(delayMs, run) {
      const timer = setTimeout(run, delayMs);
      return () => clearTimeout(timer);
    },
    nowMs: monotonicMs,
    beat,
    total,
  });

  /** One that is not served here keeps the state that it was given. */
  function completed(record: VolumeRecord): VolumeRecord {
    const state = machine.placeState(record.definition.server);
    if (state.mounts.length === 0) return record;
    const whole = { ...record, state };
    const fits = encodeRecord(whole, pair);
    if (fits.ok) return whole;
    log(`${explain(fits.fault)}; written without the state`);
    return withoutState(record);
  }

  return {
    read: (limitMs, isThorough, settle) => void common.read(limitMs, isThorough).then(settle),
    write: (record, limitMs, settle) => requests.write(completed(record), limitMs, settle),
    written: (message) => requests.written(message),
  };
}
