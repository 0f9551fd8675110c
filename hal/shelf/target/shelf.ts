/**
 * The shelf as a whole: disks on their media, the portal that serves them, and the faults that befall them.
 */
import { performance } from "node:perf_hooks";
import { z } from "zod";
import { type AptplRecord, type AptplStore, restored } from "../disk/aptpl.ts";
import { Disk } from "../disk/disk.ts";
import { type Medium, MemoryMedium, writeThrough } from "../disk/medium.ts";
import { isHolder } from "../disk/reservations.ts";
import { parseShelfConfig, type ShelfConfig, type ShelfSettings } from "./config.ts";
import type { Connection } from "./connection.ts";
import { ShelfError } from "./errors.ts";
import { type Fault, type FaultRequest, Faults, faultRequest } from "./faults.ts";
import { AptplFile, FileMedium } from "./files.ts";
import { Portal } from "./portal.ts";
import { newCounters, type Unit } from "./unit.ts";

const VENDOR = "DYAD";
const PRODUCT = "SHELF DISK";
const REVISION = "1";

/** Registrations and their holder, as the status shows them. */
export interface ReservationStatus {
  readonly generation: number;
  readonly aptpl: boolean;
  readonly type: number | null;
  readonly registrations: readonly {
    readonly initiator: string;
    readonly isid: string;
    readonly targetPort: number;
    readonly key: string;
    readonly holder: boolean;
  }[];
}

interface SessionStatus {
  readonly initiator: string;
  readonly isid: string;
  readonly target: string | null;
  readonly peer: string;
  readonly commands: number;
  readonly ignoredRequests: number;
  readonly lateData: number;
  readonly badTransfers: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly blackholed: boolean;
}

export interface ShelfStatus {
  readonly port: number;
  readonly disks: readonly (Readonly<Unit["counters"]> &
    ReservationStatus & {
      readonly serial: string;
      readonly lun: number;
      readonly sizeBytes: number;
      readonly tasks: number;
    })[];
  readonly sessions: readonly SessionStatus[];
  readonly faults: readonly Fault[];
  /** Connections that ended, by reason. */
  readonly endings: Readonly<Record<string, number>>;
}

/** A running shelf. */
export interface Shelf {
  readonly port: number;
  /** Puts a fault in force at once; returns its id. Throws ShelfError CONTROL on a wrong request. */
  setFault(request: FaultRequest): string;
  /** Lifts one fault or all; returns the ids. */
  clearFault(id?: string): readonly string[];
  status(): ShelfStatus;
  /** Connections in any phase, logged in or not. */
  connectionCount(): number;
  /** Resets every connection and stops listening. Reservations with APTPL stay in their files. */
  close(): Promise<void>;
}

/** A store for disks without a file: it forgets with the process. */
const memoryStore: AptplStore = { save: (_, done) => done(null) };

interface OpenDisk {
  readonly unit: Unit;
  readonly close: () => void;
}

const openDisk = async (
  settings: ShelfSettings,
  config: ShelfSettings["disks"][number],
): Promise<OpenDisk> => {
  const { serial, lun, sizeBytes, blockBytes, backingFile, aptplFile, writeCache } = config;
  const file = aptplFile === undefined ? null : new AptplFile(aptplFile);
  const record: AptplRecord | null = file === null ? null : await file.load();
  const onDisk = backingFile === undefined ? null : new FileMedium(backingFile, sizeBytes);
  const cached: Medium = onDisk ?? new MemoryMedium(sizeBytes);
  const medium = writeCache ? cached : writeThrough(cached);
  const disk = new Disk({
    identity: {
      serial,
      vendor: VENDOR,
      product: PRODUCT,
      revision: REVISION,
      blockBytes,
      blocks: sizeBytes / blockBytes,
      targetNames: settings.targets,
      writeCache,
    },
    medium,
    store: file ?? memoryStore,
    luns: () => settings.disks.map((other) => other.lun),
    ...(record === null ? {} : { reservations: restored(record) }),
  });
  return {
    unit: { lun, serial, disk, counters: newCounters() },
    close: () => onDisk?.close(),
  };
};

const reservationStatus = ({ disk }: Unit): ReservationStatus => {
  const state = disk.reservations;
  return {
    generation: state.generation,
    aptpl: state.aptpl,
    type: state.reservation?.type ?? null,
    registrations: [...state.registrations.values()].map(({ nexus, key }) => ({
      initiator: nexus.initiator.name,
      isid: nexus.initiator.isid,
      targetPort: nexus.targetPort,
      key: `0x${key.toString(16)}`,
      holder: isHolder(state, nexus.id),
    })),
  };
};

const sessionStatus = (connection: Connection): SessionStatus[] => {
  const { session } = connection;
  if (session === null) return [];
  return [
    {
      initiator: session.login.initiator,
      isid: session.login.isid,
      target: session.login.target,
      peer: connection.peer,
      commands: session.commandCount,
      ignoredRequests: session.ignoredRequests,
      lateData: session.lateData,
      badTransfers: session.badTransfers,
      bytesIn: connection.bytesIn,
      bytesOut: connection.bytesOut,
      blackholed: connection.isBlackholed,
    },
  ];
};

const statusOf = (
  port: number,
  units: readonly Unit[],
  portal: Portal,
  faults: Faults,
): ShelfStatus => ({
  port,
  disks: units.map((unit) => ({
    serial: unit.serial,
    lun: unit.lun,
    sizeBytes: unit.disk.identity.blocks * unit.disk.identity.blockBytes,
    tasks: unit.disk.taskCount,
    ...unit.counters,
    ...reservationStatus(unit),
  })),
  sessions: [...portal.connections].flatMap(sessionStatus),
  faults: faults.list(),
  endings: portal.endings,
});

/** What a fault does beyond the commands that arrive from now on. */
const enact = (fault: Fault, units: readonly Unit[], portal: Portal): void => {
  if (fault.action.kind === "pathLoss") portal.applyPathFaults();
  if (fault.action.kind !== "diskLoss" || fault.initiator !== undefined) return;
  for (const unit of units) {
    if (fault.disk !== undefined && fault.disk !== unit.serial) continue;
    if (fault.action.mode === "gone") unit.disk.reset(null, () => {});
    else unit.disk.drop(() => {});
  }
};

const lift = (fault: Fault, portal: Portal): void => {
  if (fault.action.kind === "pathLoss") portal.applyPathFaults();
  if (fault.action.kind === "delay") portal.releaseDelayed(fault.id);
};

/** Opens the disks and serves them. Throws ShelfError when the configuration, a file or the port is no good. */
export const startShelf = async (config: ShelfConfig): Promise<Shelf> => {
  const settings = parseShelfConfig(config);
  const opened: OpenDisk[] = [];
  const closeDisks = () => {
    for (const disk of opened) disk.close();
  };
  const faults = new Faults();
  const units = new Map<number, Unit>();
  const portal = new Portal({ settings, units, faults, nowMs: () => performance.now() });
  let port: number;
  try {
    for (const disk of settings.disks) opened.push(await openDisk(settings, disk));
    for (const { unit } of opened) units.set(unit.lun, unit);
    port = await portal.listen();
  } catch (error) {
    closeDisks();
    throw error;
  }
  const list = [...units.values()];
  return {
    port,
    setFault: (request) => {
      const parsed = faultRequest.safeParse(request);
      if (!parsed.success)
        throw new ShelfError("CONTROL", `fault: ${z.prettifyError(parsed.error)}`);
      const fault = faults.set(parsed.data);
      if (fault === undefined) throw new ShelfError("CONTROL", "fault: too many faults in force");
      enact(fault, list, portal);
      return fault.id;
    },
    clearFault: (id) => {
      const lifted = faults.clear(id);
      for (const fault of lifted) lift(fault, portal);
      return lifted.map((fault) => fault.id);
    },
    connectionCount: () => portal.connections.size,
    status: () => statusOf(port, list, portal, faults),
    close: async () => {
      await portal.close();
      await Promise.all(list.map(({ disk }) => new Promise<void>((done) => disk.drop(done))));
      closeDisks();
    },
  };
};
