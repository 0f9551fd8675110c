/**
 * The shelf of a world: the SPC-4 reservation model of hal/shelf, with paths that can be cut per controller and disks that
 * can die. Commands act at the instant at which they reach the disk, whatever becomes of the one who sent them. A third initiator, which is
 * not of this pair, may send some too.
 */

import type { Beat } from "../../firmware-ts/schema/beat.ts";
import type { VolumeRecord } from "../../firmware-ts/schema/definition.ts";
import type { ControllerId } from "../../firmware-ts/schema/ids.ts";
import type {
  ReservationAnswer,
  ReservationCommand,
  ReservationType as TypeName,
} from "../../firmware-ts/schema/reservation.ts";
import { emptyPair, type Slot, type SlotPair } from "../../firmware-ts/wire/common-volume.ts";
import { ReservationType, ReserveOut } from "../../firmware-ts/wire/scsi/reservation.ts";
import { isConflict } from "../shelf/disk/access.ts";
import { type Nexus, nexusOf } from "../shelf/disk/nexus.ts";
import { NO_RESERVATIONS, type Reservations, reserveOut } from "../shelf/disk/reservations.ts";

/** Who may have a nexus to a disk. */
export type Initiator = ControllerId | "stranger";

/** What a performed command changed, for the checker. */
export interface Change {
  readonly serial: string;
  readonly by: ControllerId;
  readonly command: ReservationCommand;
  readonly before: Holder | undefined;
  readonly after: Holder | undefined;
}

/** `failed`: no answer. `preempted`: an attention, once. `conflict`: the reservation of another. */
export type IoRefusal = "failed" | "preempted" | "conflict";

export interface Holder {
  readonly by: Initiator;
  readonly key: string;
}

interface SimDisk {
  reservations: Reservations;
  alive: boolean;
  slowMs: number;
  readonly paths: Record<ControllerId, boolean>;
  readonly slots: Record<ControllerId, Beat | undefined>;
  /** Records of the common volume, by number, on a coordinator disk. */
  readonly volume: Map<number, SlotPair>;
  /** Files of the volume on it, as far as they have reached the disk. */
  readonly cells: Map<string, number>;
  /** Owed to a nexus whose registration was taken away: its next command is not performed, and is told so (SAM-5 5.14). */
  readonly attentions: Set<ControllerId>;
  /** Rises when the commands of a nexus that are under way are aborted. */
  readonly aborts: Record<ControllerId, number>;
}

/** Whether the commands of a controller reach a disk that answers. */
function isReachable({ alive, paths }: SimDisk, who: ControllerId): boolean {
  return alive && (who === "a" ? paths.a : paths.b);
}

const noKey = "0000000000000000";

const oneBlock = {
  name: "write",
  cdbBytes: 10,
  lba: 0,
  blocks: 1,
  protect: 0,
  dpo: false,
  fua: false,
} as const;

const oneRead = { ...oneBlock, name: "read" } as const;

/** The main process reads over sessions of its own, which are registered nowhere. */
const reader = "unregistered";

const torn: Slot = { kind: "damaged", ours: true, reason: "torn or damaged" };

/**
 * What becomes of the next records that a controller writes to a disk: nothing is written; half of it; all, and the answer is lost. Or of its next
 * readings: no answer.
 */
export interface RecordTrouble {
  readonly how: "failed" | "torn" | "unheard" | "unread";
  left: number;
}

export class Shelf {
  /** By disk and controller. */
  readonly #recordTroubles = new Map<string, RecordTrouble>();
  readonly #disks = new Map<string, SimDisk>();
  /** Called when a nexus lost its registration to another one. */
  onFenced: (serial: string, victim: ControllerId) => void = () => undefined;
  /** Called when a reservation command met the attention of a preempted nexus. */
  onAttention: (serial: string, who: ControllerId) => void = () => undefined;
  onChange: (change: Change) => void = () => undefined;
  /** Rises with every change of a reservation. */
  changes = 0;
  anySlow = false;
  readonly #blind: Record<ControllerId, boolean> = { a: false, b: false };

  constructor(serials: readonly string[]) {
    for (const serial of serials)
      this.#disks.set(serial, {
        reservations: NO_RESERVATIONS,
        alive: true,
        slowMs: 0,
        paths: { a: true, b: true },
        slots: { a: undefined, b: undefined },
        volume: new Map(),
        cells: new Map(),
        attentions: new Set(),
        aborts: { a: 0, b: 0 },
      });
  }

  #disk(serial: string): SimDisk {
    const disk = this.#disks.get(serial);
    if (!disk) throw new Error(`shelf: no disk ${serial}`);
    return disk;
  }

  setAlive(serial: string, alive: boolean): void {
    this.#disk(serial).alive = alive;
  }

  setPath(serial: string, who: ControllerId, up: boolean): void {
    this.#disk(serial).paths[who] = up;
  }

  /** Whether the beats of the partner can be read at all; writes and reservations pass in any case. */
  setBlind(who: ControllerId, blind: boolean): void {
    this.#blind[who] = blind;
  }

  /** Commands to this disk take so much longer to reach it. */
  setSlow(serial: string, ms: number): void {
    this.#disk(serial).slowMs = ms;
    this.anySlow = [...this.#disks.values()].some((disk) => disk.slowMs > 0);
  }

  slowMs(serial: string): number {
    return this.anySlow ? (this.#disks.get(serial)?.slowMs ?? 0) : 0;
  }

  has(serial: string): boolean {
    return this.#disks.has(serial);
  }

  reachable(serial: string, who: ControllerId): boolean {
    const disk = this.#disks.get(serial);
    return disk !== undefined && isReachable(disk, who);
  }

  /** Performs a command of `who` now; undefined when the disk cannot be reached and will not answer. */
  perform(
    serial: string,
    who: ControllerId,
    command: ReservationCommand,
  ): ReservationAnswer | undefined {
    if (!this.reachable(serial, who)) return undefined;
    const disk = this.#disk(serial);
    // The attention is heard out and the command repeated, all inside.
    if (disk.attentions.delete(who)) this.onAttention(serial, who);
    if (command.op === "readKeys" || command.op === "readReservation")
      return performOn(disk.reservations, who, command).answer;
    return this.#change(serial, disk, who, command);
  }

  #change(
    serial: string,
    disk: SimDisk,
    who: ControllerId,
    command: Exclude<ReservationCommand, { op: "readKeys" | "readReservation" }>,
  ): ReservationAnswer {
    const before = this.holder(serial);
    const { reservations, answer, preempted } = performOn(disk.reservations, who, command);
    if (answer.status !== "good") return answer;
    disk.reservations = reservations;
    this.changes += 1;
    // Whoever lets go of a disk has waited for its I/O there, or had it aborted.
    if (command.op === "release" || command.op === "unregister") disk.aborts[who] += 1;
    this.onChange({ serial, by: who, command, before, after: this.holder(serial) });
    this.#fence(serial, disk, who, preempted);
    return answer;
  }

  #fence(serial: string, disk: SimDisk, by: Initiator, preempted: readonly Initiator[]): void {
    for (const victim of preempted) {
      if (victim === by || victim === "stranger") continue;
      disk.attentions.add(victim);
      disk.aborts[victim] += 1;
      this.onFenced(serial, victim);
    }
  }

  /** A command of an initiator that is not of this pair: what it may do is for nobody here to judge. */
  stranger(serial: string, command: ReservationCommand): ReservationAnswer {
    const disk = this.#disk(serial);
    const { reservations, answer, preempted } = performOn(disk.reservations, "stranger", command);
    if (reservations !== disk.reservations) this.changes += 1;
    disk.reservations = reservations;
    this.#fence(serial, disk, "stranger", preempted);
    return answer;
  }

  keys(serial: string): string[] {
    return [...this.#disk(serial).reservations.registrations.values()].map(({ key }) => text(key));
  }

  isRegistered(serial: string, who: ControllerId): boolean {
    return this.#disk(serial).reservations.registrations.has(nexusFor(who).id);
  }

  /** The one holder of a disk; undefined for all-registrants reservations and free disks. */
  holder(serial: string): Holder | undefined {
    const { reservation, registrations } = this.#disk(serial).reservations;
    if (!reservation || reservation.type >= 7) return undefined;
    const registration = registrations.get(reservation.holder);
    if (!registration) throw new Error(`shelf: ${serial} is held by nobody who is registered`);
    return { by: initiatorOf(reservation.holder), key: text(registration.key) };
  }

  /** Whether a write of `who` would be let through, path or no path. */
  mayWrite(serial: string, who: ControllerId): boolean {
    return !isConflict(this.#disk(serial).reservations, nexusFor(who).id, oneBlock);
  }

  /** Writes a beat into the writer's slot. */
  writeBeat(serial: string, who: ControllerId, beat: Beat): "accepted" | "refused" | "failed" {
    const disk = this.#disk(serial);
    if (!isReachable(disk, who)) return "failed";
    if (isConflict(disk.reservations, nexusFor(who).id, oneBlock)) return "refused";
    if (who === "a") disk.slots.a = beat;
    else disk.slots.b = beat;
    return "accepted";
  }

  spoilRecords(serial: string, who: ControllerId, trouble: RecordTrouble | undefined): void {
    if (trouble) this.#recordTroubles.set(`${serial} ${who}`, trouble);
    else this.#recordTroubles.delete(`${serial} ${who}`);
  }

  /** Whether this writing, or reading, is spoilt so: counted when it is. */
  #isSpoilt(serial: string, who: ControllerId, how: RecordTrouble["how"]): boolean {
    if (this.#recordTroubles.size === 0) return false;
    const trouble = this.#recordTroubles.get(`${serial} ${who}`);
    if (trouble?.how !== how || trouble.left === 0) return false;
    trouble.left -= 1;
    return true;
  }

  /** All records of a disk, as they are now. Write exclusive reservations let whoever asks read. */
  readVolume(serial: string, who: ControllerId): ReadonlyMap<number, SlotPair> | "failed" {
    const disk = this.#disk(serial);
    if (!isReachable(disk, who) || this.#isSpoilt(serial, who, "unread")) return "failed";
    return isConflict(disk.reservations, reader, oneRead) ? "failed" : new Map(disk.volume);
  }

  /** The records of one number, read by the nexus that writes beats. */
  readPair(serial: string, who: ControllerId, number: number): SlotPair | "failed" {
    const disk = this.#disk(serial);
    if (!isReachable(disk, who) || isConflict(disk.reservations, nexusFor(who).id, oneRead))
      return "failed";
    return disk.volume.get(number) ?? emptyPair;
  }

  /** A record begins to be written: from now until `endRecord` its slot is torn. */
  beginRecord(
    serial: string,
    who: ControllerId,
    number: number,
    slot: 0 | 1,
  ): "begun" | "refused" | "failed" {
    const disk = this.#disk(serial);
    if (!isReachable(disk, who) || this.#isSpoilt(serial, who, "failed")) return "failed";
    if (!this.mayWrite(serial, who)) return "refused";
    this.#putSlot(disk, number, slot, torn);
    return "begun";
  }

  /** The last of its bytes is on the disk; false when it is not, or nobody hears of it. */
  endRecord(serial: string, record: VolumeRecord, slot: 0 | 1): boolean {
    const disk = this.#disk(serial);
    if (!disk.alive || this.#isSpoilt(serial, record.owner, "torn")) return false;
    this.#putSlot(disk, record.definition.number, slot, { kind: "record", record });
    return !this.#isSpoilt(serial, record.owner, "unheard");
  }

  #putSlot({ volume }: SimDisk, number: number, slot: 0 | 1, content: Slot): void {
    const [first, second] = volume.get(number) ?? emptyPair;
    volume.set(number, slot === 0 ? [content, second] : [first, content]);
  }

  /** What lies on a disk, whether it can be reached or not. */
  volumeOf(serial: string): ReadonlyMap<number, SlotPair> {
    return this.#disk(serial).volume;
  }

  /** Writes a file's content to a data disk. */
  writeCell(serial: string, who: ControllerId, name: string, value: number): IoRefusal | "good" {
    const refusal = this.#refusal(serial, who);
    if (refusal) return refusal;
    this.#disk(serial).cells.set(name, value);
    return "good";
  }

  /** Reads a file's content; 0 was never written. */
  readCell(serial: string, who: ControllerId, name: string): number | IoRefusal {
    return this.#refusal(serial, who) ?? this.#disk(serial).cells.get(name) ?? 0;
  }

  /** Why a disk does not do what a nexus asks for. An exclusive reservation refuses reads as well as writes. */
  #refusal(serial: string, who: ControllerId): IoRefusal | undefined {
    if (!this.reachable(serial, who)) return "failed";
    if (this.#disk(serial).attentions.delete(who)) return "preempted";
    return this.mayWrite(serial, who) ? undefined : "conflict";
  }

  /** Compared before and after a wait: a command whose number has changed was aborted meanwhile. */
  aborts(serial: string, who: ControllerId): number {
    return this.#disk(serial).aborts[who];
  }

  /** A controller logs in anew: what it had under way is aborted, and a new session owes it nothing of this kind. */
  newSessions(who: ControllerId): void {
    for (const disk of this.#disks.values()) {
      disk.aborts[who] += 1;
      disk.attentions.delete(who);
    }
  }

  readBeat(
    serial: string,
    reader: ControllerId,
    writer: ControllerId,
  ): Beat | undefined | "failed" {
    const disk = this.#disk(serial);
    if (this.#blind[reader] || !isReachable(disk, reader)) return "failed";
    return writer === "a" ? disk.slots.a : disk.slots.b;
  }
}

export interface Performed {
  readonly reservations: Reservations;
  readonly answer: ReservationAnswer;
  readonly preempted: readonly Initiator[];
}

/** One command of a controller on the reservations of a disk, as a pure function. */
export function performOn(
  reservations: Reservations,
  who: Initiator,
  command: ReservationCommand,
): Performed {
  const same = { reservations, preempted: [] };
  const { generation, registrations } = reservations;
  if (command.op === "readKeys") {
    const keys = [...registrations.values()].map(({ key }) => text(key));
    return { ...same, answer: { status: "keys", generation, keys } };
  }
  if (command.op === "readReservation")
    return {
      ...same,
      answer: { status: "reservation", generation, holder: readHolder(reservations) },
    };
  const outcome = reserveOut(reservations, {
    actor: nexusFor(who),
    targetPorts: [1],
    ...partsOf(command),
  });
  if (outcome.kind === "conflict") return { ...same, answer: { status: "conflict" } };
  if (outcome.kind === "illegal") {
    const reason = `illegal request ${outcome.code.toString(16)}`;
    return { ...same, answer: { status: "failed", reason } };
  }
  const preempted = outcome.preempted.map(initiatorOf);
  return { reservations: outcome.state, answer: { status: "good" }, preempted };
}

function readHolder({ reservation, registrations }: Reservations) {
  if (!reservation) return undefined;
  const key =
    reservation.type >= 7 ? noKey : text(registrations.get(reservation.holder)?.key ?? 0n);
  return { key, type: nameOf(reservation.type) };
}

const nexuses: Record<Initiator, Nexus> = {
  a: nexusOf({ name: "iqn.2026-11.test:a", isid: "000000000001" }, 1),
  b: nexusOf({ name: "iqn.2026-11.test:b", isid: "000000000002" }, 1),
  stranger: nexusOf({ name: "iqn.2026-11.test:stranger", isid: "000000000003" }, 1),
};

function nexusFor(who: Initiator): Nexus {
  if (who === "stranger") return nexuses.stranger;
  return who === "a" ? nexuses.a : nexuses.b;
}

function initiatorOf(nexus: string): Initiator {
  if (nexus === nexuses.a.id) return "a";
  return nexus === nexuses.b.id ? "b" : "stranger";
}

const text = (key: bigint) => key.toString(16).padStart(16, "0");
const value = (key: string) => BigInt(`0x${key}`);

function nameOf(type: number): TypeName {
  const found = (Object.keys(ReservationType) as TypeName[]).find(
    (n) => ReservationType[n] === type,
  );
  if (!found) throw new Error(`shelf: no reservation type ${type}`);
  return found;
}

/** The same translation as hal/block/iscsi/reserve.ts makes on the wire. */
function partsOf(command: Exclude<ReservationCommand, { op: "readKeys" | "readReservation" }>) {
  const parts = (action: number, key: string, serviceKey: string, type: number) => ({
    action,
    scope: 0,
    type,
    parameters: {
      key: value(key),
      serviceActionKey: value(serviceKey),
      specifyInitiatorPorts: false,
      allTargetPorts: false,
      aptpl: true,
    },
  });
  switch (command.op) {
    case "register":
      return parts(ReserveOut.registerAndIgnore, noKey, command.key, 0);
    case "unregister":
      return parts(ReserveOut.registerAndIgnore, noKey, noKey, 0);
    case "reserve":
      return parts(ReserveOut.reserve, command.key, noKey, ReservationType[command.type]);
    case "release":
      return parts(ReserveOut.release, command.key, noKey, ReservationType[command.type]);
    case "preempt":
      return parts(
        ReserveOut.preemptAndAbort,
        command.key,
        command.victim,
        ReservationType[command.type],
      );
    default:
      throw new Error(`shelf: unknown command ${JSON.stringify(command)}`);
  }
}
