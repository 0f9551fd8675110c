/**
 * The data disks of a controller: one block service process holds their sessions, reservations and I/O alike, and each disk can be
 * made a local block device.
 *
 * Obligations: I/O flows only while the disk itself says that our key holds it: verified at attach, and again in every new
 * session before a single write of it is let through. A path that comes back to a disk that is no longer ours is
 * reported as fenced.
 */
import { crc32 } from "node:zlib";
import type { Config } from "../../firmware-ts/schema/config.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type { ReservationKey } from "../../firmware-ts/schema/reservation.ts";
import { Attachment } from "../block/attach.ts";
import { BlockServiceClient } from "../block/service/client.ts";
import type { MachineHandlers } from "../port/machine.ts";
import type { BlockService, Disks } from "../port/storage.ts";
import { isidOf, portalOf } from "./portal.ts";

const type = "exclusiveAccessRegistrantsOnly";

/** A session that is back within this time was a reconnect, not a lost path. */
const pathGraceMs = 150;

/** How long `open` waits for a disk before the controller starts without it. */
const openWaitMs = 2000;

const verifyMs = 1000;

/** A lost path is noticed within keepalive plus its timeout even when no command is under way. */
const timing = {
  commandTimeoutMs: 2000,
  loginTimeoutMs: 1000,
  keepaliveMs: 100,
  keepaliveTimeoutMs: 200,
  reconnectFirstMs: 10,
  reconnectMaxMs: 200,
} as const;

export interface DataDisks extends Disks, BlockService {
  /** Whether the disk says, or does not deny, that it is held under our key. Asks, and changes nothing. */
  isOurs(serial: string): Promise<boolean>;
}

interface Disk {
  readonly serial: string;
  key: ReservationKey | undefined;
  attachment: Attachment | undefined;
  attached: boolean;
  up: boolean;
  told: boolean;
  grace: NodeJS.Timeout | undefined;
}

/** Starts the block service and opens every data disk of the configuration. Fault: the service's own. */
export async function openDataDisks(
  config: Config,
  handlers: MachineHandlers,
): Promise<Outcome<DataDisks>> {
  const runDir = config.controller.runDir;
  const nbdSocketPath = `${runDir}/nbd.sock`;
  const disks = new Map<string, Disk>();
  const client = await BlockServiceClient.start(nbdSocketPath, {
    path: (serial, up, reason) => {
      const disk = disks.get(serial);
      if (disk) onPath(disk, up, reason);
    },
    fenced: (serial, reason) => {
      if (disks.get(serial)?.attached) handlers.diskFenced(serial, reason);
    },
    nbdFault: (reason, detail) => handlers.log(`nbd: ${reason}: ${detail}`),
    ended: (reason) => {
      // Every volume has lost its device; starting anew is the clean way back.
      handlers.log(`the block service ${reason}; this controller stops`);
      process.exit(70);
    },
  });
  if (!client.ok) return client;
  const service = client.value;

  function onPath(disk: Disk, up: boolean, reason: string): void {
    disk.up = up;
    clearTimeout(disk.grace);
    if (up) {
      if (disk.attached) void verifyAgain(disk);
      if (disk.told) handlers.diskPath(disk.serial, true, reason);
      disk.told = false;
    } else {
      disk.grace = setTimeout(() => {
        disk.told = true;
        handlers.diskPath(disk.serial, false, reason);
      }, pathGraceMs);
    }
  }

  async function verifyAgain(disk: Disk): Promise<void> {
    const allowed = await allow(disk);
    if (allowed.ok || !disk.attached || !disk.up) return;
    handlers.log(`disk ${disk.serial}: ${explain(allowed.fault)}`);
    if (allowed.fault.code === "fenced") handlers.diskFenced(disk.serial, "no longer ours");
  }

  function allow(disk: Disk): ReturnType<typeof service.allow> {
    if (disk.key === undefined)
      return Promise.resolve(failed("attachFailed", `attach ${disk.serial}`, "never claimed"));
    return service.allow(disk.serial, { key: disk.key, type }, verifyMs);
  }

  function find(serial: string): Disk {
    const disk = disks.get(serial);
    if (!disk) throw new Error(`data disk ${serial} is not in the configuration`);
    return disk;
  }

  await openAll(config, service, disks, nbdSocketPath, handlers);

  return good({
    reserve(serial, command, deadlineMs) {
      const disk = find(serial);
      if (command.op === "register") disk.key = command.key;
      // The service lets no more I/O through before it sends a release.
      if (command.op === "release") disk.attached = false;
      return service.reserve(serial, command, deadlineMs);
    },
    async attach(serial) {
      const disk = find(serial);
      if (!disk.attachment)
        return failed("diskLost", `attach ${serial}`, "the disk was never seen since the start");
      const allowed = await allow(disk);
      if (!allowed.ok) return allowed;
      disk.attached = true;
      const attached = await disk.attachment.attach();
      return attached.ok ? good({ path: attached.value, ...allowed.value }) : attached;
    },
    async isOurs(serial) {
      const answer = await service.reserve(serial, { op: "readReservation" }, verifyMs);
      return answer.status !== "reservation" || answer.holder?.key === find(serial).key;
    },
    refuse(serial) {
      find(serial).attached = false;
      // The answer says when nothing is under way any more; nobody waits for that here.
      void service.forbid(serial);
    },
    async detach(serial) {
      const disk = find(serial);
      const detached = disk.attachment ? await disk.attachment.detach() : done;
      if (!detached.ok) return detached;
      disk.attached = false;
      return await service.forbid(serial);
    },
    async close() {
      for (const disk of disks.values()) {
        clearTimeout(disk.grace);
        await disk.attachment?.close();
      }
      await service.close();
    },
  });
}

/** Opens all disks and prepares their devices, so that a takeover finds everything but the device itself. */
async function openAll(
  config: Config,
  service: BlockServiceClient,
  disks: Map<string, Disk>,
  nbdSocketPath: string,
  handlers: MachineHandlers,
): Promise<void> {
  const serials = config.virtualServers.flatMap((server) => server.volumes.map((v) => v.disk));
  const open = async (serial: string, index: number) => {
    const disk: Disk = {
      serial,
      key: undefined,
      attachment: undefined,
      attached: false,
      up: true,
      told: false,
      grace: undefined,
    };
    disks.set(serial, disk);
    const spec = {
      ...portalOf(config.shelf.portal),
      serial,
      targetName: config.shelf.target,
      initiatorName: config.shelf.initiatorName,
      // Coordinators have the first numbers; they are other nexuses anyway, under another name.
      isid: isidOf(config.shelf.coordinators.length + index),
      exported: true,
      timing,
    };
    let opened = await service.open(spec, openWaitMs);
    if (!opened.ok || opened.value.sizeBytes === 0) {
      handlers.diskPath(serial, false, "not found at start");
      disk.told = true;
      // The device needs the disk's size; the service keeps trying, and so do we, in the background.
      do opened = await service.open(spec, openWaitMs);
      while (!opened.ok || opened.value.sizeBytes === 0);
      handlers.diskPath(serial, true, "found");
      disk.told = false;
    }
    disk.attachment = new Attachment({
      // The state directory is what two controllers on one machine never share.
      name: `${crc32(config.controller.stateDir).toString(16)}-${config.controller.id}-${serial}`,
      nbdSocketPath,
      exportName: serial,
      folder: `${config.controller.runDir}/disks`,
      sizeBytes: opened.value.sizeBytes,
      blockSizeBytes: opened.value.blockSizeBytes,
      onLost: (reason) => {
        if (disk.attached) handlers.deviceLost(serial, reason);
        // Nobody uses it, and the next attach makes it anew.
        else handlers.log(`disk ${serial}: ${reason}`);
      },
    });
    const prepared = await disk.attachment.prepare();
    if (!prepared.ok) handlers.log(`disk ${serial}: ${explain(prepared.fault)}`);
  };
  const all = Promise.all(serials.map(open));
  // A disk that is away must not keep the controller from serving the others.
  const patience = new Promise((resolve) => setTimeout(resolve, openWaitMs + 500).unref());
  await Promise.race([all, patience]);
}
