/**
 * Sessions to the coordinator disks. Those of the beat process register, race, and write beats and records: the nexus that is registered is the one
 * that writes, so an accepted write proves the registration (docs/design/0001). Those of the main process read the common volume, and are
 * registered nowhere: a write exclusive reservation lets whoever asks read (SPC-4 5.12.1).
 */
import type { Config } from "../../firmware-ts/schema/config.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import { IscsiDisk } from "../block/iscsi/disk.ts";
import { isidOf, portalOf } from "./portal.ts";

/** Short: a coordinator that is slow must not hold up the majority, and a lost session is made again at once. */
const timing = {
  commandTimeoutMs: 500,
  ioTimeoutMs: 500,
  loginTimeoutMs: 500,
  keepaliveMs: 500,
  keepaliveTimeoutMs: 500,
  abortTimeoutMs: 200,
  reconnectFirstMs: 20,
  reconnectMaxMs: 500,
} as const;

export interface Coordinators {
  /** By serial, in the order of the configuration. */
  readonly disks: ReadonlyMap<string, IscsiDisk>;
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
  ): Promise<ReservationAnswer>;
  close(): Promise<void>;
}

/**
 * Opens all sessions in the background; a disk that is not there answers `failed` until it is. Each role is an initiator of its own:
 * one name and ISID in two places at once would end each other's sessions.
 */
export function openCoordinators(config: Config, role: "beat" | "volume"): Coordinators {
  const { shelf } = config;
  const bySerial = new Map<string, IscsiDisk>();
  shelf.coordinators.forEach((serial, index) => {
    const disk: IscsiDisk = new IscsiDisk({
      ...portalOf(shelf.portal),
      targetName: shelf.target,
      initiatorName: `${shelf.initiatorName}-${role}`,
      isid: isidOf(index),
      serial,
      timing,
      handlers: {
        // Beats are ours to try at any time: whether they may land is the disk's word, and its refusal is what we ask for.
        up: (session) => void disk.grant(session),
        fenced: () => queueMicrotask(() => void disk.grant(disk.status().session)),
      },
    });
    bySerial.set(serial, disk);
  });
  return {
    disks: bySerial,
    reserve(serial, command, deadlineMs) {
      const disk = bySerial.get(serial);
      if (!disk) throw new Error(`coordinators: ${serial} is none of them`);
      return disk.reserve(command, deadlineMs);
    },
    async close() {
      await Promise.all([...bySerial.values()].map((disk) => disk.close()));
    },
  };
}
