/**
 * The SCSI commands of one session: from their PDU, through injected faults and data collection, to the disk and
 * back.
 *
 * Obligations: every command ends exactly once, in an answer or in a silent abort, and gives its place in the
 * window back then. Memory for incoming and outgoing data is bounded; beyond it commands end in BUSY.
 */
import type { SessionParameters } from "../../../firmware-ts/wire/iscsi/parameters.ts";
import {
  type DataOut,
  type ScsiCommand,
  TaskAttribute,
} from "../../../firmware-ts/wire/iscsi/pdu.ts";
import { Asc, SenseKey, Status } from "../../../firmware-ts/wire/scsi/codes.ts";
import type { Task, TaskSink } from "../disk/disk.ts";
import type { Nexus } from "../disk/nexus.ts";
import { checkCondition, illegalRequest, type Result } from "../disk/result.ts";
import { classOf, type FaultAction, type Faults } from "./faults.ts";
import { type ReplyPort, reply } from "./reply.ts";
import { type Taken, Transfer } from "./transfer.ts";
import { answerNoUnit, countEnd, type Unit } from "./unit.ts";

/** Data on its way in, for one session. */
export const INCOMING_BYTES_MAX = 128 * 1024 * 1024;
/** Data waiting to be sent, for one session. */
export const OUTGOING_BYTES_MAX = 128 * 1024 * 1024;
/** Commands of one session; above the window, since immediate commands are not counted there. */
export const COMMANDS_MAX = 512;

const busy: Result = { status: Status.busy };
const unreachable = illegalRequest(Asc.logicalUnitNotSupported);
const dataPhaseError = checkCondition(SenseKey.abortedCommand, Asc.dataPhaseError);
const NO_DATA = Buffer.alloc(0);

/** What a session provides to its commands. */
export interface CommandHost extends ReplyPort {
  readonly nexus: Nexus;
  readonly parameters: SessionParameters;
  readonly faults: Faults;
  unit(lun: number): Unit | undefined;
  luns(): readonly number[];
  /** Bytes accepted for sending and not yet sent. */
  outgoingBytes(): number;
  newTransferTag(): number;
  /** The command no longer occupies a place in the window. */
  ended(): void;
  /** The initiator broke the protocol; the connection will be closed. */
  violation(problem: string): void;
}

/** One command. It is the disk's sink for the task it becomes. */
class Command implements TaskSink {
  readonly request: ScsiCommand;
  readonly unit: Unit | undefined;
  immediate: Buffer;
  task: Task | null = null;
  transfer: Transfer | null = null;
  /** Unsolicited data that came before the disk asked, while a fault delays the command. */
  early: { readonly header: DataOut; readonly data: Buffer }[] = [];
  earlyBytes = 0;
  outBytes = 0;
  refusal: Result | null = null;
  delayedBy: string | null = null;
  timer: NodeJS.Timeout | null = null;
  readonly #commands: Commands;

  constructor(request: ScsiCommand, immediate: Buffer, unit: Unit | undefined, owner: Commands) {
    this.request = request;
    this.immediate = immediate;
    this.unit = unit;
    this.#commands = owner;
  }

  needData(task: Task, bytes: number): void {
    this.#commands.needData(this, task, bytes);
  }

  complete(task: Task, result: Result | null): void {
    this.outBytes = task.outBytes;
    this.#commands.end(this, this.refusal ?? result);
  }
}

/** See the module's description. */
export class Commands {
  readonly #host: CommandHost;
  readonly #byTag = new Map<number, Command>();
  #incomingBytes = 0;
  /** Commands that ended because their data came wrong. */
  badTransfers = 0;

  constructor(host: CommandHost) {
    this.#host = host;
  }

  get size(): number {
    return this.#byTag.size;
  }

  /** Takes a command and the data that came with it. */
  start(request: ScsiCommand, data: Buffer): void {
    const { parameters } = this.#host;
    const isSolicited = !request.write || (data.length > 0 && !parameters.immediateData);
    if (this.#byTag.has(request.taskTag)) {
      this.#host.violation("task tag in use");
    } else if (data.length > 0 && (isSolicited || data.length > parameters.firstBurstBytes)) {
      this.#host.violation("immediate data that was not agreed on");
    } else if (!request.final && (parameters.initialR2t || !request.write)) {
      this.#host.violation("unsolicited data that was not agreed on");
    } else {
      this.#run(new Command(request, data, this.#host.unit(request.lun), this));
    }
  }

  #run(command: Command): void {
    const { request, unit } = command;
    this.#byTag.set(request.taskTag, command);
    if (unit === undefined) {
      this.end(command, answerNoUnit(request.cdb, this.#host.luns()));
      return;
    }
    unit.counters.commands += 1;
    const isOverloaded =
      this.#byTag.size > COMMANDS_MAX || this.#host.outgoingBytes() > OUTGOING_BYTES_MAX;
    if (isOverloaded) {
      this.end(command, busy);
      return;
    }
    const { delay, fate } = this.#faultsFor(command, unit);
    if (fate !== undefined) this.#suffer(command, unit, fate);
    else if (delay?.action.kind === "delay")
      this.#delay(command, unit, delay.id, delay.action.delayMs);
    else this.#submit(command, unit, false);
  }

  #faultsFor(command: Command, unit: Unit) {
    const { faults, nexus } = this.#host;
    if (faults.size === 0) return {};
    return faults.forCommand({
      initiator: nexus.initiator.name,
      isid: nexus.initiator.isid,
      disk: unit.serial,
      operation: classOf(command.request.cdb),
    });
  }

  #suffer(command: Command, unit: Unit, action: FaultAction): void {
    unit.counters.faulted += 1;
    if (action.kind === "error") {
      const { status, senseKey, asc, ascq } = action;
      const isCheck = status === Status.checkCondition;
      this.end(command, isCheck ? checkCondition(senseKey, (asc << 8) | ascq) : { status });
      return;
    }
    const isSilent =
      (action.kind === "pathLoss" && action.mode === "blackhole") ||
      (action.kind === "diskLoss" && action.mode === "hang");
    // A silent one stays in the table, unanswered, until it is aborted or the session ends.
    if (!isSilent) this.end(command, unreachable);
  }

  #delay(command: Command, unit: Unit, faultId: string, delayMs: number): void {
    unit.counters.faulted += 1;
    command.delayedBy = faultId;
    this.#submit(command, unit, true);
    command.timer = setTimeout(() => this.#release(command, unit), delayMs);
  }

  #release(command: Command, unit: Unit): void {
    if (command.timer !== null) clearTimeout(command.timer);
    command.timer = null;
    command.delayedBy = null;
    if (command.task !== null) unit.disk.release(command.task);
  }

  /** A fault was lifted: what it delayed goes on now. */
  releaseDelayed(faultId: string): void {
    for (const command of [...this.#byTag.values()]) {
      const { unit } = command;
      if (command.delayedBy === faultId && unit !== undefined) this.#release(command, unit);
    }
  }

  #submit(command: Command, unit: Unit, held: boolean): void {
    const { request } = command;
    const task = unit.disk.submit(
      {
        nexus: this.#host.nexus,
        cdb: request.cdb,
        offeredBytes: request.write ? request.expectedBytes : 0,
        ordered: request.attribute === TaskAttribute.ordered,
      },
      command,
      held,
    );
    command.task = task;
  }

  /** The disk asks for a command's data. */
  needData(command: Command, task: Task, bytes: number): void {
    const { parameters } = this.#host;
    const { request } = command;
    command.task = task;
    if (this.#incomingBytes + bytes > INCOMING_BYTES_MAX) {
      command.refusal = busy;
      command.unit?.disk.abort(task, () => {});
      return;
    }
    this.#incomingBytes += bytes;
    const transfer = new Transfer(
      {
        bytes,
        unsolicitedEnd: Math.min(parameters.firstBurstBytes, request.expectedBytes),
        burstBytesMax: parameters.maxBurstBytes,
        newTag: () => this.#host.newTransferTag(),
      },
      command.immediate,
    );
    command.transfer = transfer;
    command.immediate = NO_DATA;
    this.#advance(command, transfer.begin(request.final));
    for (const { header, data } of command.early.splice(0)) {
      this.#advance(command, transfer.take(header, data));
    }
  }

  #advance(command: Command, taken: Taken): void {
    const { request, task, transfer, unit } = command;
    if (taken.kind === "violation") {
      this.#failTransfer(command);
    } else if (taken.kind === "want") {
      this.#host.send(
        {
          op: "readyToTransfer",
          ...this.#host.numbers(false),
          lun: request.lun,
          taskTag: request.taskTag,
          ...taken.want,
        },
        NO_DATA,
      );
    } else if (taken.kind === "complete" && task !== null && transfer !== null) {
      unit?.disk.supply(task, transfer.buffer);
    }
  }

  /** Data that is not what was due ends its command, not the connection: the framing is intact (RFC 7143 7.8). */
  #failTransfer(command: Command): void {
    this.badTransfers += 1;
    command.refusal = dataPhaseError;
    if (command.task !== null) command.unit?.disk.abort(command.task, () => {});
  }

  /** Where the data of a Data-Out PDU may be put; see `Placement` of the parser. */
  place(taskTag: number, transferTag: number, offset: number, bytes: number): Buffer | undefined {
    const transfer = this.#byTag.get(taskTag)?.transfer;
    return transfer?.place({ transferTag, offset }, bytes);
  }

  /** Takes a Data-Out PDU; false when its command is gone, which is no error: it may have been aborted. */
  takeData(header: DataOut, data: Buffer): boolean {
    const command = this.#byTag.get(header.taskTag);
    if (command === undefined) return false;
    if (command.transfer !== null) {
      this.#advance(command, command.transfer.take(header, data));
      return true;
    }
    command.earlyBytes += data.length;
    if (command.request.final || command.earlyBytes > this.#host.parameters.firstBurstBytes) {
      this.#host.violation("Data-Out that nobody asked for");
    } else {
      command.early.push({ header, data: Buffer.from(data) });
    }
    return true;
  }

  /** Ends a command; null is a silent abort. */
  end(command: Command, result: Result | null): void {
    const { request, unit } = command;
    if (this.#byTag.get(request.taskTag) !== command) return;
    this.#byTag.delete(request.taskTag);
    if (command.timer !== null) clearTimeout(command.timer);
    if (command.transfer !== null) this.#incomingBytes -= command.transfer.buffer.length;
    if (unit !== undefined) this.#count(command, unit, result);
    if (!request.immediate) this.#host.ended();
    if (result === null) return;
    reply(
      {
        taskTag: request.taskTag,
        lun: request.lun,
        expectedBytes: request.expectedBytes,
        isRead: request.read,
        outBytes: command.outBytes,
        segmentBytesMax: this.#host.parameters.sendDataBytesMax,
        burstBytesMax: this.#host.parameters.maxBurstBytes,
      },
      result,
      this.#host,
    );
  }

  #count(command: Command, unit: Unit, result: Result | null): void {
    const { counters } = unit;
    countEnd(counters, result);
    if (result?.status !== Status.good) return;
    const kind = classOf(command.request.cdb);
    if (kind === "read") {
      counters.reads += 1;
      counters.readBytes += result.data?.length ?? 0;
    } else if (kind === "write") {
      counters.writes += 1;
      counters.writtenBytes += command.outBytes;
    }
  }

  /** ABORT TASK; `done` runs when the command can have no further effect. */
  abort(taskTag: number, done: (existed: boolean) => void): void {
    const command = this.#byTag.get(taskTag);
    if (command === undefined) {
      done(false);
    } else if (command.task === null || command.unit === undefined) {
      this.end(command, null);
      done(true);
    } else {
      command.unit.disk.abort(command.task, done);
    }
  }

  /** Ends commands that a fault swallowed; those the disk knows are the disk's to abort. */
  abortSwallowed(unit: Unit | null): void {
    for (const command of [...this.#byTag.values()]) {
      const isMeant = unit === null || command.unit === unit;
      if (command.task === null && isMeant) this.end(command, null);
    }
  }
}
