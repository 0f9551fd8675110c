/**
 * The coordinator disks, over sessions of the beat process alone: the nexus that is registered and races is the nexus that
 * writes the beats, so an accepted beat proves the registration (docs/design/0001).
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
  readonly disks: readonly IscsiDisk[];
  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
  ): Promise<ReservationAnswer>;
  close(): Promise<void>;
}

/** Opens all sessions in the background; a disk that is not there answers `failed` until it is. */
export function openCoordinators(config: Config): Coordinators {
  const { shelf } = config;
  const bySerial = new Map<string, IscsiDisk>();
  shelf.coordinators.forEach((serial, index) => {
    const letIoFlow = (session: number) => void bySerial.get(serial)?.grant(session);
    const disk: IscsiDisk = new IscsiDisk({
      ...portalOf(shelf.portal),
      targetName: shelf.target,
      initiatorName: `${shelf.initiatorName}-beat`,
      isid: isidOf(index),
      serial,
      timing,
      handlers: {
        // Beats are ours to try at any time: whether they may land is the disk's word, and its refusal is what we ask for.
        up: (session) => queueMicrotask(() => letIoFlow(session)),
        fenced: () => queueMicrotask(() => letIoFlow(disk.status().session)),
      },
    });
    bySerial.set(serial, disk);
  });
  return {
    disks: [...bySerial.values()],
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
