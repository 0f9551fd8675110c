/**
 * An iSCSI session with one connection: commands in flight within the target's window, data both ways, deadlines, and
 * the way back after a loss (RFC 7143).
 *
 * Glossary: CmdSN numbers commands, and the target says up to which number it takes them (the window); R2T is the
 * target's call for data of a write.
 *
 * Obligations: a result other than `answered` is given only when the command can no longer take effect: its abort was
 * confirmed, or its connection is gone and `up` is reported only after a new login, which ends all tasks of the old session
 * (RFC 7143 6.3.5). So a caller that repeats a write cannot be overtaken by the first.
 */
import type { Placement } from "../../../firmware-ts/wire/iscsi/framing.ts";
import {
  AsyncEvent,
  LogoutReason,
  RESERVED_TAG,
  type Response,
  TaskAttribute,
  TaskFunction,
  TaskResponse,
} from "../../../firmware-ts/wire/iscsi/pdu.ts";
import { serialAdd, serialDistance } from "../../../firmware-ts/wire/iscsi/serial.ts";
import { Status } from "../../../firmware-ts/wire/scsi/codes.ts";
import { decodeSense } from "../../../firmware-ts/wire/scsi/sense.ts";
import { IscsiConnection, type IscsiIdentity } from "./connection.ts";
import { Exchanges } from "./exchanges.ts";
import type { CommandRequest, CommandResult, Task } from "./task.ts";

export interface SessionTiming {
  /** TCP and login together. */
  readonly loginTimeoutMs: number;
  /** Silence after which the target is asked whether it lives, and how long it may take to answer. */
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  /** How long an ABORT TASK may take before the whole connection is given up. */
  readonly abortTimeoutMs: number;
  /** Pause before the first and before any later attempt to log in again; it doubles in between. */
  readonly reconnectFirstMs: number;
  readonly reconnectMaxMs: number;
}

export const defaultSessionTiming: SessionTiming = {
  loginTimeoutMs: 2000,
  keepaliveMs: 500,
  keepaliveTimeoutMs: 1500,
  abortTimeoutMs: 500,
  reconnectFirstMs: 10,
  reconnectMaxMs: 500,
};

export interface SessionHandlers {
  /** Logged in, for the first time or again. */
  readonly up: () => void;
  /** Every command has its result. Also called for each failed attempt to log in. */
  readonly down: (reason: string) => void;
}

export interface SessionCounters {
  logins: number;
  losses: number;
  commands: number;
  timeouts: number;
}

const empty = Buffer.alloc(0);
const dataInOpcode = 0x25;

export class IscsiSession {
  readonly counters: SessionCounters = { logins: 0, losses: 0, commands: 0, timeouts: 0 };
  readonly #identity: IscsiIdentity;
  readonly #timing: SessionTiming;
  readonly #handlers: SessionHandlers;
  #connection: IscsiConnection | undefined;
  #closing = false;
  #reconnect: NodeJS.Timeout | undefined;
  #keepalive: NodeJS.Timeout | undefined;
  #pauseMs: number;
  #tag = 0;
  #cmdSn = 0;
  #maxCmdSn = 0;
  #expStatSn = 0;
  #heard = false;
  #pinged = false;
  readonly #tasks = new Map<number, Task>();
  /** Commands that wait for the window, in order. */
  #waiting: Task[] = [];
  readonly #exchanges = new Exchanges();

  constructor(identity: IscsiIdentity, timing: SessionTiming, handlers: SessionHandlers) {
    this.#identity = identity;
    this.#timing = timing;
    this.#handlers = handlers;
    this.#pauseMs = timing.reconnectFirstMs;
  }

  /** Logs in, and from then on again after every loss, until `close`. */
  start(): void {
    void this.#connect();
  }

  get up(): boolean {
    return this.#connection !== undefined;
  }

  /** Sends one command. Resolves in every case; see the module's obligations. */
  command(request: CommandRequest): Promise<CommandResult> {
    if (this.#connection === undefined)
      return Promise.resolve({ kind: "transport", failure: "down", detail: "not logged in" });
    return new Promise((resolve) => {
      const tag = this.#nextTag();
      const task: Task = {
        tag,
        request,
        resolve,
        inbound: request.inBytes ? Buffer.allocUnsafe(request.inBytes) : empty,
        received: 0,
        cmdSn: undefined,
        timer: undefined,
        abort: undefined,
      };
      task.timer = setTimeout(() => this.#expire(task), request.deadlineMs);
      this.#tasks.set(tag, task);
      this.counters.commands += 1;
      if (this.#waiting.length === 0 && this.#windowOpen()) this.#send(task);
      else this.#waiting.push(task);
    });
  }

  /** Aborts every command marked `io` of the unit; their results are `aborted` unless an answer was faster. */
  abortIo(lun: number): void {
    for (const task of [...this.#tasks.values()])
      if (task.request.io && task.request.lun === lun) this.#abort(task, "aborted");
  }

  /** Gives up the connection, as if it had been lost. */
  drop(reason: string): void {
    this.#connection?.close(reason);
  }

  /** Logs out and stays out. Commands without an answer end as `lost`. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    clearTimeout(this.#reconnect);
    const connection = this.#connection;
    if (connection === undefined) return;
    const tag = this.#nextTag();
    const answered = this.#exchanges.answer(tag, this.#timing.abortTimeoutMs);
    connection.send({
      op: "logoutRequest",
      immediate: true,
      taskTag: tag,
      cmdSn: this.#cmdSn,
      expStatSn: this.#expStatSn,
      reason: LogoutReason.closeSession,
      connectionId: 0,
    });
    await answered;
    connection.close("logged out");
  }

  async #connect(): Promise<void> {
    const opened = await IscsiConnection.open(
      this.#identity,
      {
        place: (header, bytes) => this.#place(header, bytes),
        received: (pdu, data) => this.#received(pdu, data),
        closed: (reason) => this.#lost(reason),
      },
      this.#timing.loginTimeoutMs,
    );
    if (this.#closing) {
      if (opened.ok) opened.value.close("closed during the login");
      return;
    }
    if (!opened.ok) {
      this.#scheduleReconnect();
      this.#handlers.down(opened.fault.message);
      return;
    }
    const connection = opened.value;
    this.#connection = connection;
    this.#cmdSn = connection.firstCmdSn;
    this.#maxCmdSn = connection.maxCmdSn;
    this.#expStatSn = connection.expStatSn;
    this.counters.logins += 1;
    this.#heard = true;
    this.#pinged = false;
    this.#keepalive = setTimeout(() => this.#checkLife(), this.#timing.keepaliveMs);
    this.#handlers.up();
  }

  #scheduleReconnect(): void {
    this.#reconnect = setTimeout(() => void this.#connect(), this.#pauseMs);
    this.#pauseMs = Math.min(this.#timing.reconnectMaxMs, this.#pauseMs * 2);
  }

  #lost(reason: string): void {
    if (this.#connection === undefined) return;
    this.#connection = undefined;
    clearTimeout(this.#keepalive);
    this.counters.losses += 1;
    this.#waiting = [];
    for (const task of [...this.#tasks.values()])
      this.#finish(task, { kind: "transport", failure: "lost", detail: reason });
    this.#exchanges.endAll();
    if (!this.#closing) this.#scheduleReconnect();
    this.#handlers.down(reason);
  }

  #checkLife(): void {
    const { keepaliveMs, keepaliveTimeoutMs } = this.#timing;
    if (this.#heard) {
      // Only a session that lasted is a success: a target that drops us after each login is not to be stormed.
      this.#pauseMs = this.#timing.reconnectFirstMs;
      this.#heard = false;
      this.#pinged = false;
      this.#keepalive = setTimeout(() => this.#checkLife(), keepaliveMs);
    } else if (this.#pinged) {
      this.drop(`silent for ${keepaliveMs + keepaliveTimeoutMs} ms`);
    } else {
      this.#pinged = true;
      const tag = this.#nextTag();
      void this.#exchanges.answer(tag, keepaliveTimeoutMs);
      this.#nopOut(tag, RESERVED_TAG, 0);
      this.#keepalive = setTimeout(() => this.#checkLife(), keepaliveTimeoutMs);
    }
  }

  #nopOut(taskTag: number, transferTag: number, lun: number): void {
    this.#connection?.send({
      op: "nopOut",
      immediate: true,
      taskTag,
      cmdSn: this.#cmdSn,
      expStatSn: this.#expStatSn,
      lun,
      transferTag,
    });
  }

  #nextTag(): number {
    do this.#tag = serialAdd(this.#tag, 1);
    while (
      this.#tag === RESERVED_TAG ||
      this.#tasks.has(this.#tag) ||
      this.#exchanges.has(this.#tag)
    );
    return this.#tag;
  }

  #windowOpen(): boolean {
    return serialDistance(this.#cmdSn, this.#maxCmdSn) >= 0;
  }

  #send(task: Task): void {
    const connection = this.#connection;
    if (connection === undefined) throw new Error("iSCSI session: a command without connection");
    const { lun, cdb, out = empty, inBytes = 0 } = task.request;
    const { immediateData, initialR2t, firstBurstBytes, sendDataBytesMax } = connection.parameters;
    const unsolicited = Math.min(out.length, firstBurstBytes);
    const immediate = immediateData ? Math.min(unsolicited, sendDataBytesMax) : 0;
    const follows = !initialR2t && unsolicited > immediate;
    task.cmdSn = this.#cmdSn;
    this.#cmdSn = serialAdd(this.#cmdSn, 1);
    connection.send(
      {
        op: "scsiCommand",
        immediate: false,
        taskTag: task.tag,
        cmdSn: task.cmdSn,
        expStatSn: this.#expStatSn,
        final: !follows,
        read: inBytes > 0,
        write: out.length > 0,
        attribute: TaskAttribute.simple,
        lun,
        expectedBytes: out.length > 0 ? out.length : inBytes,
        cdb,
      },
      out.subarray(0, immediate),
    );
    if (follows) this.#sendData(task, RESERVED_TAG, immediate, unsolicited - immediate);
  }

  /** One sequence of Data-Out PDUs (RFC 7143 11.7). */
  #sendData(task: Task, transferTag: number, offset: number, bytes: number): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const out = task.request.out ?? empty;
    const step = connection.parameters.sendDataBytesMax;
    for (let sent = 0, dataSn = 0; sent < bytes; sent += step, dataSn += 1) {
      const from = offset + sent;
      const to = Math.min(offset + bytes, from + step);
      connection.send(
        {
          op: "dataOut",
          final: to === offset + bytes,
          lun: task.request.lun,
          taskTag: task.tag,
          transferTag,
          expStatSn: this.#expStatSn,
          dataSn,
          offset: from,
        },
        out.subarray(from, to),
      );
    }
  }

  /** Data of a read goes straight to its place; anything odd is left for `#received` to refuse. */
  #place: Placement = (header, bytes) => {
    if ((header.readUInt8(0) & 0x3f) !== dataInOpcode) return undefined;
    const task = this.#tasks.get(header.readUInt32BE(16));
    const offset = header.readUInt32BE(40);
    if (task === undefined || offset !== task.received) return undefined;
    if (offset + bytes > task.inbound.length) return undefined;
    return task.inbound.subarray(offset, offset + bytes);
  };

  #received(pdu: Response, data: Buffer): void {
    this.#heard = true;
    this.#advanceWindow(pdu);
    switch (pdu.op) {
      case "scsiResponse":
        this.#acknowledge(pdu.statSn);
        this.#answered(pdu.taskTag, pdu.response === 0 ? pdu.status : undefined, data);
        break;
      case "dataIn":
        this.#dataIn(pdu, data);
        break;
      case "readyToTransfer":
        this.#readyToTransfer(pdu);
        break;
      case "nopIn":
        if (pdu.taskTag === RESERVED_TAG) {
          // A ping of the target; without a tag of its own it wants no answer (RFC 7143 11.19.1).
          if (pdu.transferTag !== RESERVED_TAG)
            this.#nopOut(RESERVED_TAG, pdu.transferTag, Math.max(0, pdu.lun));
          break;
        }
        this.#acknowledge(pdu.statSn);
        this.#exchanges.end(pdu.taskTag, pdu);
        break;
      case "taskResponse":
      case "logoutResponse":
        this.#acknowledge(pdu.statSn);
        this.#exchanges.end(pdu.taskTag, pdu);
        break;
      case "asyncMessage":
        this.#acknowledge(pdu.statSn);
        if (pdu.event !== AsyncEvent.scsi) this.drop(`asynchronous event ${pdu.event}`);
        break;
      default:
        this.drop(pdu.op === "reject" ? `rejected, reason ${pdu.reason}` : `unexpected ${pdu.op}`);
    }
    this.#sendWaiting();
  }

  #acknowledge(statSn: number): void {
    this.#expStatSn = serialAdd(statSn, 1);
  }

  #advanceWindow({ expCmdSn, maxCmdSn }: Response): void {
    // RFC 7143 4.2.2.1: numbers that contradict each other, and old ones, are ignored.
    if (serialDistance(serialAdd(expCmdSn, -1), maxCmdSn) < 0) return;
    if (serialDistance(this.#maxCmdSn, maxCmdSn) > 0) this.#maxCmdSn = maxCmdSn;
  }

  #sendWaiting(): void {
    if (this.#waiting.length === 0) return;
    let sent = 0;
    while (sent < this.#waiting.length && this.#connection !== undefined && this.#windowOpen()) {
      const task = this.#waiting[sent];
      if (task !== undefined) this.#send(task);
      sent += 1;
    }
    if (sent > 0) this.#waiting = this.#waiting.slice(sent);
  }

  #dataIn(pdu: Response & { op: "dataIn" }, data: Buffer): void {
    const task = this.#tasks.get(pdu.taskTag);
    if (task === undefined) {
      this.#stray(pdu.taskTag);
      return;
    }
    // DataPDUInOrder and DataSequenceInOrder were agreed: each PDU continues where the last one ended.
    if (pdu.offset !== task.received || pdu.offset + data.length > task.inbound.length) {
      this.drop(`Data-In at ${pdu.offset} instead of ${task.received}`);
      return;
    }
    task.received += data.length;
    if (pdu.status === null) return;
    this.#acknowledge(pdu.statSn);
    this.#answered(pdu.taskTag, pdu.status, empty);
  }

  #readyToTransfer(pdu: Response & { op: "readyToTransfer" }): void {
    const task = this.#tasks.get(pdu.taskTag);
    if (task === undefined) {
      this.#stray(pdu.taskTag);
      return;
    }
    const size = task.request.out?.length ?? 0;
    if (pdu.bytes === 0 || pdu.offset + pdu.bytes > size) {
      this.drop(`R2T for ${pdu.bytes} bytes at ${pdu.offset} of ${size}`);
      return;
    }
    this.#sendData(task, pdu.transferTag, pdu.offset, pdu.bytes);
  }

  #stray(tag: number): void {
    this.drop(`data for unknown task ${tag}`);
  }

  /** The device's status, or undefined when the target could not deliver the command (response code not 0). */
  #answered(tag: number, status: number | undefined, segment: Buffer): void {
    const task = this.#tasks.get(tag);
    if (task === undefined) {
      this.#stray(tag);
      return;
    }
    if (status === undefined) {
      this.#finish(task, { kind: "transport", failure: "protocol", detail: "target failure" });
      return;
    }
    // RFC 7143 11.4.7: sense data follows a length of two bytes.
    const senseBytes = segment.length >= 2 ? segment.readUInt16BE(0) : 0;
    const sense =
      status === Status.checkCondition
        ? decodeSense(segment.subarray(2, 2 + senseBytes))
        : undefined;
    this.#finish(task, {
      kind: "answered",
      status,
      data: task.inbound.subarray(0, task.received),
      sense: sense?.ok ? sense.value : undefined,
    });
  }

  #finish(task: Task, result: CommandResult): void {
    clearTimeout(task.timer);
    this.#tasks.delete(task.tag);
    task.resolve(result);
  }

  #expire(task: Task): void {
    this.counters.timeouts += 1;
    this.#abort(task, "timeout");
  }

  #abort(task: Task, why: "timeout" | "aborted"): void {
    if (task.abort !== undefined || !this.#tasks.has(task.tag)) return;
    task.abort = why;
    clearTimeout(task.timer);
    if (task.cmdSn === undefined) {
      this.#waiting = this.#waiting.filter((other) => other !== task);
      this.#finish(task, { kind: "transport", failure: why, detail: "never sent" });
      return;
    }
    void this.#abortSent(task, task.cmdSn, why);
  }

  async #abortSent(task: Task, cmdSn: number, why: "timeout" | "aborted"): Promise<void> {
    const connection = this.#connection;
    const tag = this.#nextTag();
    const answered = this.#exchanges.answer(tag, this.#timing.abortTimeoutMs);
    connection?.send({
      op: "taskRequest",
      immediate: true,
      taskTag: tag,
      cmdSn: this.#cmdSn,
      expStatSn: this.#expStatSn,
      function: TaskFunction.abortTask,
      lun: task.request.lun,
      referencedTag: task.tag,
      refCmdSn: cmdSn,
    });
    const reply = await answered;
    if (!this.#tasks.has(task.tag)) return;
    const isGone =
      reply?.op === "taskResponse" &&
      (reply.response === TaskResponse.complete || reply.response === TaskResponse.noSuchTask);
    // Without the target's word the command may still run; only the end of the session ends it for certain.
    if (isGone) this.#finish(task, { kind: "transport", failure: why, detail: "aborted" });
    else connection?.close("an ABORT TASK was not confirmed");
  }
}
