/** A block service with one exported disk, which is opened at a scripted target. */
import { join } from "node:path";
import { encodeFullStatus, ReservationType } from "../../firmware-ts/wire/scsi/reservation.ts";
import type { ServiceMessage } from "../../hal/block/service/protocol.ts";
import { BlockServiceCore } from "../../hal/block/service/service.ts";
import { limitsMs, patientDisk } from "../support/limits.ts";
import { type ScriptedTarget, serial } from "./initiator-target.ts";

export const key = "00000000000a0001";
export const type = "exclusiveAccessRegistrantsOnly";
const port = { name: "iqn.2026-11.test:i", isid: "4000d1ad0001" };

export const nbdPath = (folder: string) => join(folder, "nbd.sock");

/** Its answers and events are added to `said`. */
export async function openService(
  folder: string,
  target: ScriptedTarget,
  said: ServiceMessage[],
): Promise<BlockServiceCore> {
  const core = new BlockServiceCore((message) => said.push(message));
  await core.handle({ op: "listen", id: 1, path: nbdPath(folder) });
  await core.handle({
    ...({ op: "open", id: 2, waitMs: limitsMs.condition } as const),
    disk: {
      ...{ serial, host: "127.0.0.1", port: target.port, targetName: "iqn.2026-11.test:t" },
      ...{ initiatorName: port.name, isid: port.isid, exported: true },
      timing: patientDisk,
    },
  });
  return core;
}

/** Lets I/O flow, if the disk says that we hold it. */
export const allow = (core: BlockServiceCore) =>
  core.handle({ op: "allow", id: 3, serial, hold: { key, type }, deadlineMs: limitsMs.condition });

/** READ FULL STATUS of a disk that we hold. */
export function heldByUs(): Buffer {
  const held = { scope: 0, type: ReservationType[type] };
  const entry = { key: BigInt(`0x${key}`), allTargetPorts: false, held, targetPort: 1 };
  return encodeFullStatus({ generation: 1, entries: [{ ...entry, initiator: port }] });
}

/** How reservation commands were answered, in turn. */
export const answersIn = (said: readonly ServiceMessage[]) =>
  said.flatMap((each) => (each.kind === "answer" ? [each.answer.status] : []));
