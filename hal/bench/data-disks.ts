/**
 * The data disks of a controller: one block service process holds their sessions, reservations and I/O alike, and each disk can be
 * made a local block device (data-disk.ts). Disks come and go with the virtual servers that they belong to.
 */
import { readdirSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { crc32 } from "node:zlib";
import type { Config } from "../../firmware-ts/schema/config.ts";
import type { Definition } from "../../firmware-ts/schema/definition.ts";
import { done, explain, failed, good, type Outcome } from "../../firmware-ts/schema/outcome.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
} from "../../firmware-ts/schema/reservation.ts";
import { Attachment } from "../block/attach.ts";
import { BlockServiceClient } from "../block/service/client.ts";
import type { DiskSpec } from "../block/service/protocol.ts";
import { startOrdinary } from "../linux/ordinary.ts";
import { giveRealTimePriority, realTimeFlag, takeBackRealTimePriority } from "../linux/realtime.ts";
import type { MachineHandlers } from "../port/machine.ts";
import type { BlockService, Disks } from "../port/storage.ts";
import { DataDisk } from "./data-disk.ts";
import { Hurry } from "./hurry.ts";
import { sessionOf } from "./numbering.ts";
import { isidOf, portalOf } from "./portal.ts";
import { priorities } from "./priorities.ts";

/** How long a disk is waited for before the controller goes on without it. */
export const openWaitMs = 2000;

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
  /**
   * Opens the disks of a virtual server's volumes and closes those that it has no more; a disk that is not there is waited for in the
   * background. Idempotent. Faults: `stillMounted`, `refused` (another virtual server has it), the service's own.
   */
  define(definition: Definition, waitMs: number): Promise<Outcome>;
  /** Closes all disks of a number. Idempotent. Faults: `stillMounted`, the service's own. */
  forget(number: number): Promise<Outcome>;
}

/** Starts the block service and opens every data disk of the definitions. Fault: the service's own. */
export async function openDataDisks(
  config: Config,
  definitions: readonly Definition[],
  handlers: MachineHandlers,
): Promise<Outcome<DataDisks>> {
  const nbdSocketPath = `${config.controller.runDir}/nbd.sock`;
  let disks: BenchDataDisks | undefined;
  const client = await BlockServiceClient.start(nbdSocketPath, {
    path: (serial, up, reason) => disks?.find(serial)?.onPath(up, reason),
    fenced: (serial, reason) => disks?.find(serial)?.onFenced(reason),
    nbdFault: (reason, detail) => handlers.log(`nbd: ${reason}: ${detail}`),
    ended: (reason) => {
      // Every volume has lost its device; starting anew is the clean way back.
      handlers.log(`the block service ${reason}; this controller stops`);
      process.exit(70);
    },
  });
  if (!client.ok) return client;
  disks = new BenchDataDisks(config, client.value, nbdSocketPath, handlers);
  const opened = Promise.all(definitions.map((each) => disks.define(each, openWaitMs)));
  await disks.removeLeftovers(
    definitions.flatMap(({ server }) => server.volumes.map((v) => v.disk)),
  );
  // A disk that is away must not keep the controller from serving the others.
  const patience = delay(openWaitMs + 500, [], { ref: false });
  for (const outcome of await Promise.race([opened, patience]))
    if (!outcome.ok) handlers.log(explain(outcome.fault));
  return good(disks);
}

interface Owned {
  readonly number: number;
  readonly disk: DataDisk;
}

class BenchDataDisks implements DataDisks {
  readonly #config: Config;
  readonly #service: BlockServiceClient;
  readonly #nbdSocketPath: string;
  readonly #handlers: MachineHandlers;
  readonly #owned = new Map<string, Owned>();
  readonly #hurry: Hurry;

  constructor(
    config: Config,
    service: BlockServiceClient,
    nbdSocketPath: string,
    handlers: MachineHandlers,
  ) {
    this.#config = config;
    this.#service = service;
    this.#nbdSocketPath = nbdSocketPath;
    this.#handlers = handlers;
    // Where the decisions are ordinary, what hands data on is not before them. The block service has our flags.
    const isRealTime = process.execArgv.includes(realTimeFlag);
    this.#hurry = new Hurry({
      raise: (pid) => (isRealTime ? giveRealTimePriority(pid, priorities.data) : done),
      lower: takeBackRealTimePriority,
      log: handlers.log,
    });
  }

  find(serial: string): DataDisk | undefined {
    return this.#owned.get(serial)?.disk;
  }

  async define({ number, server }: Definition, waitMs: number): Promise<Outcome> {
    const specs = server.volumes.map(({ id, disk }) => this.#specOf(number, id, disk));
    for (const { serial } of specs) {
      const owner = this.#owned.get(serial)?.number ?? number;
      if (owner !== number)
        return failed("refused", `open disk ${serial}`, `virtual server number ${owner} has it`);
    }
    const isWanted = ({ disk }: Owned) =>
      !disk.isClosing && specs.some((spec) => isSame(spec, disk.spec));
    const closed = await this.#close((each) => each.number === number && !isWanted(each));
    if (!closed.ok) return closed;
    const added = specs.filter(({ serial }) => !this.#owned.has(serial));
    const disks = added.map((spec) => this.#add(number, spec));
    await Promise.all(disks.map((disk) => disk.open(waitMs)));
    return done;
  }

  forget(number: number): Promise<Outcome> {
    return this.#close((each) => each.number === number);
  }

  reserve(
    serial: string,
    command: ReservationCommand,
    deadlineMs: number,
  ): Promise<ReservationAnswer> {
    return this.#get(serial).reserve(command, deadlineMs);
  }

  attach(serial: string) {
    return this.#get(serial).attach();
  }

  isOurs(serial: string): Promise<boolean> {
    return this.#get(serial).isOurs();
  }

  refuse(serial: string): void {
    this.#get(serial).refuse();
  }

  detach(serial: string) {
    return this.#get(serial).detach();
  }

  async close(): Promise<void> {
    this.#hurry.close();
    await this.#close(() => true);
    await this.#service.close();
  }

  /** Devices that an earlier life has made of disks that are no virtual server's any more. Never rejects. */
  async removeLeftovers(serials: readonly string[]): Promise<void> {
    const known = new Set(serials.map((serial) => `${this.#nameOf(serial)}.disk`));
    const prefix = this.#nameOf("");
    for (const file of filesIn(this.#folder)) {
      if (!file.startsWith(prefix) || !file.endsWith(".disk") || known.has(file)) continue;
      const name = file.slice(0, -".disk".length);
      const left = new Attachment({ ...this.#attachmentOf(name), ...nothing });
      const removed = await left
        .close()
        .catch((error: unknown) => failed("ioError", "remove what is left of a disk", name, error));
      if (!removed.ok) this.#handlers.log(`${name}: ${explain(removed.fault)}`);
    }
  }

  get #folder(): string {
    return `${this.#config.controller.runDir}/disks`;
  }

  /** The state directory is what two controllers on one machine never share. */
  #nameOf(serial: string): string {
    const { stateDir, id } = this.#config.controller;
    return `${crc32(stateDir).toString(16)}-${id}-${serial}`;
  }

  #attachmentOf(name: string) {
    return {
      name,
      nbdSocketPath: this.#nbdSocketPath,
      folder: this.#folder,
      starting: startOrdinary,
    };
  }

  #specOf(number: number, volume: number, serial: string): DiskSpec {
    const { shelf } = this.#config;
    return {
      ...portalOf(shelf.portal),
      serial,
      targetName: shelf.target,
      initiatorName: shelf.initiatorName,
      isid: isidOf(sessionOf(this.#config, number, volume)),
      exported: true,
      timing,
    };
  }

  #add(number: number, spec: DiskSpec): DataDisk {
    const attachment = this.#attachmentOf(this.#nameOf(spec.serial));
    const [service, hurry, handlers] = [this.#service, this.#hurry, this.#handlers];
    const setup = { spec, service, attachment, hurry, handlers };
    const disk = new DataDisk(setup);
    this.#owned.set(spec.serial, { number, disk });
    return disk;
  }

  /** All of them are tried; the first fault is told. */
  async #close(which: (owned: Owned) => boolean): Promise<Outcome> {
    const outcomes = [...this.#owned.values()].filter(which).map(async ({ disk }) => {
      const closed = await disk.close();
      if (closed.ok) this.#owned.delete(disk.serial);
      return closed;
    });
    return (await Promise.all(outcomes)).find((each) => !each.ok) ?? done;
  }

  #get(serial: string): DataDisk {
    const disk = this.find(serial);
    if (!disk) throw new Error(`data disk ${serial} is no virtual server's`);
    return disk;
  }
}

/** What removes a device needs to know neither of these. */
const nothing = { exportName: "", sizeBytes: 0, blockSizeBytes: 512 } as const;

const isSame = (one: DiskSpec, other: DiskSpec) => JSON.stringify(one) === JSON.stringify(other);

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
