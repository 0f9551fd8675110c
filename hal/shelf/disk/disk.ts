/**
 * One disk of the shelf: a direct access block device after SPC-4, SBC-3 and SAM-5, with its task set,
 * reservations and unit attentions.
 *
 * It does no I/O of its own, has no clock and no randomness: the medium and the store for APTPL are handed in, and
 * everything happens inside calls. The iSCSI target and the simulator run the same class.
 *
 * A command goes through these states:
 *
 *     held ──release──▶ (entry checks) ──▶ waiting ──supply──▶ queued ──▶ running ──▶ done
 *       │                     │               │                  │           ▲          ▲
 *       │                     └─ no data ─────┼──────────────────┘           │          │
 *       └────────── abort ────────────────────┴──────────────────┴── abort: waits until it has run
 *
 * The argument for the fence (the reason this class exists): a PERSISTENT RESERVE OUT runs alone, after everything
 * that was running has finished with the medium. Whatever has not started by then is checked against the new
 * reservations when it starts, or, with PREEMPT AND ABORT, is aborted. So once a PREEMPT has completed, no earlier
 * command of the preempted nexus can still change the medium. It does not wait for commands that are held or wait
 * for data, so a frozen initiator cannot delay it. SPC-4 5.12.1 permits both: a reservation may apply to commands
 * that were in the task set before it, and must apply to those received after it completed.
 */
import { decodeCdb } from "../../../firmware-ts/wire/scsi/cdb.ts";
import { Asc, SenseKey } from "../../../firmware-ts/wire/scsi/codes.ts";
import { type Command, transferOf } from "../../../firmware-ts/wire/scsi/command.ts";
import { encodeReportLuns } from "../../../firmware-ts/wire/scsi/lun.ts";
import { encodeCapacity10, encodeCapacity16 } from "../../../firmware-ts/wire/scsi/parameters.ts";
import { ReserveOut } from "../../../firmware-ts/wire/scsi/reservation.ts";
import { encodeSense } from "../../../firmware-ts/wire/scsi/sense.ts";
import { isConflict } from "./access.ts";
import { type AptplStore, recordOf } from "./aptpl.ts";
import { Attentions } from "./attentions.ts";
import { check, type Extent, extentOf, isBlockCommand, perform } from "./blocks.ts";
import {
  answerInquiry,
  answerModeSense,
  answerSupportedOpcodes,
  capacityOf,
  type Identity,
} from "./identity.ts";
import type { Medium } from "./medium.ts";
import type { Nexus } from "./nexus.ts";
import { NO_RESERVATIONS, type Reservations } from "./reservations.ts";
import { answerReserveIn, carryOut, prepareReserveOut } from "./reserve-commands.ts";
import {
  checkCondition,
  good,
  illegalRequest,
  invalidField,
  type Result,
  reservationConflict,
  taskAborted,
  withData,
} from "./result.ts";

/** Where a command's demands and its end are told. */
export interface TaskSink {
  /** The command takes `bytes` bytes of data; `Disk.supply` brings them. */
  needData(task: Task, bytes: number): void;
  /** The command has ended; null when it was aborted so that the initiator gets no answer. */
  complete(task: Task, result: Result | null): void;
}

/** A command as it arrives. `offeredBytes` is what the initiator is prepared to send. */
export interface TaskRequest {
  readonly nexus: Nexus;
  readonly cdb: Buffer;
  readonly offeredBytes: number;
  /** SAM-5 8.6.3: everything before it first, everything after it later. */
  readonly ordered: boolean;
}

const NO_DATA = Buffer.alloc(0);
const NO_EXTENT: Extent = { start: 0, end: 0, writes: false };

/** A command in the task set. Callers treat it as a handle. */
export class Task {
  readonly request: TaskRequest;
  readonly sink: TaskSink;
  state: "held" | "waiting" | "queued" | "running" | "done" = "held";
  command: Command = { name: "testUnitReady" };
  data: Buffer = NO_DATA;
  /** Bytes the command takes from the initiator, known once it has entered. */
  outBytes = 0;
  extent: Extent = NO_EXTENT;
  /** Runs alone: PERSISTENT RESERVE OUT and ordered commands. */
  alone = false;
  /** The reservations that the command was last checked against. */
  checkedAgainst: Reservations = NO_RESERVATIONS;
  /** Set by an abort while running: how it ends, and whom to tell. */
  aborted: "no" | "silently" | "withStatus" = "no";
  readonly whenDone: (() => void)[] = [];

  constructor(request: TaskRequest, sink: TaskSink) {
    this.request = request;
    this.sink = sink;
  }
}

/** What a disk is made of. `luns` lists the units of its target for REPORT LUNS. */
export interface DiskParts {
  readonly identity: Identity;
  readonly medium: Medium;
  readonly store: AptplStore;
  readonly luns: () => readonly number[];
  /** The reservations to power on with (`aptpl.ts`). */
  readonly reservations?: Reservations;
}

const isApart = (first: Task, second: Task): boolean => {
  if (first.alone || second.alone) return false;
  if (!first.extent.writes && !second.extent.writes) return true;
  return first.extent.end <= second.extent.start || second.extent.end <= first.extent.start;
};

/** See the module's description. */
export class Disk {
  readonly #parts: DiskParts;
  readonly #attentions = new Attentions();
  readonly #tasks = new Set<Task>();
  readonly #running = new Set<Task>();
  #queue: Task[] = [];
  readonly #targetPorts: readonly number[];
  #reservations: Reservations;
  #scanning = false;
  #rescan = false;

  constructor(parts: DiskParts) {
    this.#parts = parts;
    this.#reservations = parts.reservations ?? NO_RESERVATIONS;
    this.#targetPorts = parts.identity.targetNames.map((_, index) => index + 1);
  }

  get identity(): Identity {
    return this.#parts.identity;
  }

  get reservations(): Reservations {
    return this.#reservations;
  }

  /** Commands in the task set, in whatever state. */
  get taskCount(): number {
    return this.#tasks.size;
  }

  /** An I_T nexus came up. */
  connect(nexus: Nexus): void {
    this.#attentions.connect(nexus.id);
  }

  /** An I_T nexus was lost: its commands are aborted and nobody is told (SAM-5 6.4). Registrations stay. */
  disconnect(nexus: Nexus): void {
    this.#attentions.disconnect(nexus.id);
    this.abortTaskSet(nexus, () => {});
  }

  /** Takes a command in. With `held` nothing is looked at until `release`, as if the command were still on its way. */
  submit(request: TaskRequest, sink: TaskSink, held = false): Task {
    const task = new Task(request, sink);
    this.#tasks.add(task);
    if (!held) this.#enter(task);
    return task;
  }

  release(task: Task): void {
    if (task.state === "held") this.#enter(task);
  }

  /** Brings the data a command asked for; ignored when the command is gone. */
  supply(task: Task, data: Buffer): void {
    if (task.state !== "waiting") return;
    if (data.length !== task.outBytes) throw new RangeError("supply: data of the wrong length");
    task.data = data;
    this.#ready(task);
  }

  /** ABORT TASK: `done` runs when the command can have no further effect; false when it was gone already. */
  abort(task: Task, done: (existed: boolean) => void): void {
    if (task.state === "done") done(false);
    else this.#abortAll([task], "silently", () => done(true));
  }

  /** ABORT TASK SET: all commands of this nexus (SAM-5 7.3). */
  abortTaskSet(nexus: Nexus, done: () => void): void {
    const own = [...this.#tasks].filter(({ request }) => request.nexus.id === nexus.id);
    this.#abortAll(own, "silently", done);
  }

  /** CLEAR TASK SET: all commands (SAM-5 7.5); other nexuses are told by TASK ABORTED, as the TAS bit says. */
  clearTaskSet(actor: Nexus, done: () => void): void {
    this.#abortForActor([...this.#tasks], actor, done);
  }

  /** LOGICAL UNIT RESET (SAM-5 6.3.3): aborts everything; reservations stay, every nexus is told. */
  reset(actor: Nexus | null, done: () => void): void {
    this.#attentions.addAll(Asc.logicalUnitReset);
    if (actor === null) this.#abortAll([...this.#tasks], "withStatus", done);
    else this.#abortForActor([...this.#tasks], actor, done);
  }

  /** Aborts everything and tells nobody; `done` runs when nothing is at work on the medium. */
  drop(done: () => void): void {
    this.#abortAll([...this.#tasks], "silently", done);
  }

  #abortForActor(tasks: readonly Task[], actor: Nexus, done: () => void): void {
    const isOwn = ({ request }: Task) => request.nexus.id === actor.id;
    const others = tasks.filter((task) => !isOwn(task));
    this.#abortAll(tasks.filter(isOwn), "silently", () =>
      this.#abortAll(others, "withStatus", done),
    );
  }

  #abortAll(tasks: readonly Task[], how: "silently" | "withStatus", done: () => void): void {
    const doomed = new Set(tasks);
    // None of them may start because another one makes room.
    this.#queue = this.#queue.filter((task) => !doomed.has(task));
    let left = 1;
    const settle = () => {
      left -= 1;
      if (left === 0) done();
    };
    for (const task of tasks) {
      if (task.state === "running") {
        left += 1;
        task.aborted = how;
        task.whenDone.push(settle);
      } else if (task.state !== "done") {
        task.aborted = how;
        this.#finish(task, taskAborted);
      }
    }
    settle();
  }

  /** Entry checks, in the order of SAM-5 5.14 and SPC-4 5.12.1: attention, operation code, reservation, fields. */
  #enter(task: Task): void {
    const { nexus, cdb } = task.request;
    task.state = "waiting";
    const parsed = decodeCdb(cdb);
    const name = parsed.ok ? parsed.command.name : "";
    const isExempt = name === "inquiry" || name === "reportLuns" || name === "requestSense";
    const owed = isExempt ? undefined : this.#attentions.take(nexus.id);
    if (owed !== undefined) {
      this.#finish(task, checkCondition(SenseKey.unitAttention, owed));
    } else if (!parsed.ok) {
      const isOpcode = parsed.problem === "opcode";
      this.#finish(task, isOpcode ? illegalRequest(Asc.invalidOpcode) : invalidField);
    } else {
      this.#admit(task, parsed.command);
    }
  }

  #admit(task: Task, command: Command): void {
    task.command = command;
    task.outBytes = transferOf(command, this.identity.blockBytes).out;
    task.checkedAgainst = this.#reservations;
    const refusal = isConflict(this.#reservations, task.request.nexus.id, command)
      ? reservationConflict
      : this.#refusal(task, command);
    if (refusal !== null) this.#finish(task, refusal);
    else if (task.outBytes === 0) this.#ready(task);
    else task.sink.needData(task, task.outBytes);
  }

  #refusal(task: Task, command: Command): Result | null {
    const problem = isBlockCommand(command)
      ? check(command, this.identity)
      : command.name === "persistentReserveOut"
        ? prepareReserveOut(command)
        : null;
    if (problem !== null) return problem;
    // Plain data may be offered in excess (RFC 7143 11.4.5.2); a parameter list or a compare must fit exactly.
    const { offeredBytes } = task.request;
    switch (command.name) {
      case "write":
      case "verify":
        return offeredBytes >= task.outBytes ? null : illegalRequest(Asc.informationUnitInvalid);
      case "compareAndWrite":
        // More blocks than its one-byte field can say show up as such a mismatch.
        return offeredBytes === task.outBytes ? null : invalidField;
      default:
        return task.outBytes === 0 || offeredBytes === task.outBytes
          ? null
          : illegalRequest(Asc.informationUnitInvalid);
    }
  }

  #ready(task: Task): void {
    const { command } = task;
    if (isBlockCommand(command)) {
      task.extent = extentOf(command, task.data, this.identity);
      task.alone = task.request.ordered;
    } else if (command.name === "persistentReserveOut") {
      task.alone = true;
    } else {
      task.state = "running";
      this.#finish(task, this.#answer(task, command));
      return;
    }
    task.state = "queued";
    this.#queue.push(task);
    this.#scan();
  }

  /** Starts whatever may start. Commands that complete at once call back into here, hence the flags. */
  #scan(): void {
    if (this.#scanning) {
      this.#rescan = true;
      return;
    }
    this.#scanning = true;
    do {
      this.#rescan = false;
      const next = this.#queue.find((task, index) => this.#mayStart(task, index));
      if (next !== undefined) {
        this.#queue = this.#queue.filter((task) => task !== next);
        this.#rescan = true;
        this.#start(next);
      }
    } while (this.#rescan);
    this.#scanning = false;
  }

  #mayStart(task: Task, index: number): boolean {
    for (const running of this.#running) if (!isApart(task, running)) return false;
    for (let before = 0; before < index; before++) {
      const earlier = this.#queue[before];
      if (earlier !== undefined && !isApart(task, earlier)) return false;
    }
    return true;
  }

  #start(task: Task): void {
    const { command, request } = task;
    task.state = "running";
    this.#running.add(task);
    const isStale = task.checkedAgainst !== this.#reservations;
    if (isStale && isConflict(this.#reservations, request.nexus.id, command)) {
      this.#finish(task, reservationConflict);
    } else if (command.name === "persistentReserveOut") {
      this.#reserve(task, command);
    } else if (isBlockCommand(command)) {
      perform(command, task.data, this.identity, this.#parts.medium, (result) =>
        this.#finish(task, result),
      );
    } else {
      throw new Error(`start: ${command.name} has no business in the queue`);
    }
  }

  #reserve(task: Task, command: Extract<Command, { name: "persistentReserveOut" }>): void {
    const before = this.#reservations;
    const { nexus } = task.request;
    const outcome = carryOut(before, nexus, command, task.data, this.#targetPorts);
    if (outcome.kind !== "done") {
      const isConflicting = outcome.kind === "conflict";
      this.#finish(task, isConflicting ? reservationConflict : illegalRequest(outcome.code));
      return;
    }
    const install = () => {
      this.#reservations = outcome.state;
      for (const { nexusId, code } of outcome.attentions) this.#attentions.add(nexusId, code);
      if (command.action === ReserveOut.preemptAndAbort)
        this.#abortPreempted(task, outcome.preempted);
      this.#finish(task, good);
    };
    // Persist first: a registration that was acknowledged must be there after a loss of power.
    const isKept = outcome.state.aptpl || before.aptpl;
    if (!isKept || outcome.state === before) {
      install();
      return;
    }
    this.#parts.store.save(recordOf(outcome.state), (error) => {
      if (error === null) install();
      else this.#finish(task, checkCondition(SenseKey.hardwareError, Asc.internalTargetFailure));
    });
  }

  /** The PREEMPT AND ABORT runs alone, so what it aborts has not touched the medium. */
  #abortPreempted(actor: Task, preempted: readonly string[]): void {
    const victims = [...this.#tasks].filter(
      (task) => task !== actor && preempted.includes(task.request.nexus.id),
    );
    this.#abortForActor(victims, actor.request.nexus, () => {});
  }

  #finish(task: Task, result: Result): void {
    if (task.state === "queued") this.#queue = this.#queue.filter((queued) => queued !== task);
    const wasRunning = this.#running.delete(task);
    task.state = "done";
    this.#tasks.delete(task);
    const outcome = { no: result, silently: null, withStatus: taskAborted }[task.aborted];
    task.sink.complete(task, outcome);
    for (const tell of task.whenDone) tell();
    if (wasRunning || this.#queue.length > 0) this.#scan();
  }

  /** Commands that need no medium. */
  #answer(task: Task, command: Command): Result {
    const { nexus } = task.request;
    switch (command.name) {
      case "inquiry":
        return answerInquiry(this.identity, nexus.targetPort, command);
      case "requestSense": {
        const code = this.#attentions.take(nexus.id);
        const key = code === undefined ? SenseKey.noSense : SenseKey.unitAttention;
        const format = command.descriptor ? "descriptor" : "fixed";
        const sense = encodeSense({ key, code: code ?? Asc.none }, format);
        return withData(sense, command.allocationBytes);
      }
      case "reportLuns":
        // SELECT REPORT 00h and 02h list addressable units, 01h well known ones, of which there are none.
        if (command.select > 2) return invalidField;
        return withData(
          encodeReportLuns(command.select === 1 ? [] : this.#parts.luns()),
          command.allocationBytes,
        );
      case "readCapacity10":
        return withData(encodeCapacity10(capacityOf(this.identity)));
      case "readCapacity16":
        return withData(encodeCapacity16(capacityOf(this.identity)), command.allocationBytes);
      case "modeSense":
        return answerModeSense(this.identity, command);
      case "reportSupportedOpcodes":
        return answerSupportedOpcodes(command);
      case "persistentReserveIn":
        return answerReserveIn(this.#reservations, command);
      default:
        // TEST UNIT READY, and START STOP UNIT of a unit that is always ready.
        return good;
    }
  }
}
