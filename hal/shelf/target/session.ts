/**
 * One session in the full feature phase (RFC 7143 clause 4.2): numbering, commands, task management, text,
 * pings and logout. A session has one connection and is one I_T nexus.
 *
 * Obligations: no I/O of its own; it answers through its `SessionPort`.
 */
import {
  LogoutReason,
  type LogoutRequest,
  LogoutResponse,
  LUN_UNKNOWN,
  type NopOut,
  RESERVED_TAG,
  RejectReason,
  type Request,
  type Response,
  type ScsiCommand,
  TaskFunction,
  type TaskRequest,
  TaskResponse,
  type TextRequest,
} from "../../../firmware-ts/wire/iscsi/pdu.ts";
import { serialAdd } from "../../../firmware-ts/wire/iscsi/serial.ts";
import { decodeText, encodeText, type TextPair } from "../../../firmware-ts/wire/iscsi/text.ts";
import type { Nexus } from "../disk/nexus.ts";
import { type CommandHost, Commands } from "./commands.ts";
import type { Faults } from "./faults.ts";
import type { LoggedIn } from "./login.ts";
import type { Unit } from "./unit.ts";
import { CommandWindow } from "./window.ts";

/** Commands that one session may have in flight. */
export const QUEUE_DEPTH = 128;

const NO_DATA = Buffer.alloc(0);

/** What carries a session. */
export interface SessionPort {
  send(response: Response, data: Buffer): void;
  outgoingBytes(): number;
  /** Ends the connection at once; `problem` is counted. */
  violation(problem: string): void;
  /** Ends the connection after what was sent. */
  finish(): void;
  /** The answer to SendTargets: targets and where this connection reaches them. */
  targets(): readonly TextPair[];
  /** Drops every session (TARGET COLD RESET). */
  dropAll(): void;
}

export interface SessionParts {
  readonly login: LoggedIn;
  /** Null for a discovery session. */
  readonly nexus: Nexus | null;
  readonly units: ReadonlyMap<number, Unit>;
  readonly faults: Faults;
  readonly port: SessionPort;
  readonly cmdSn: number;
  readonly statSn: number;
  readonly queueDepth: number;
}

type Numbered = Exclude<Request, { readonly op: "dataOut" | "snack" | "loginRequest" }>;

export class Session {
  readonly #parts: SessionParts;
  readonly #window: CommandWindow<{ readonly request: Numbered; readonly data: Buffer }>;
  readonly #commands: Commands | null;
  #statSn: number;
  #transferTag = 0;
  ignoredRequests = 0;
  lateData = 0;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#statSn = parts.statSn;
    this.#window = new CommandWindow(parts.cmdSn, parts.queueDepth);
    this.#commands = parts.nexus === null ? null : new Commands(this.#commandHost(parts.nexus));
  }

  get login(): LoggedIn {
    return this.#parts.login;
  }

  get nexus(): Nexus | null {
    return this.#parts.nexus;
  }

  get commandCount(): number {
    return this.#commands?.size ?? 0;
  }

  /** Commands that ended because their data came wrong. */
  get badTransfers(): number {
    return this.#commands?.badTransfers ?? 0;
  }

  #commandHost(nexus: Nexus): CommandHost {
    const { units, faults, port, login } = this.#parts;
    return {
      nexus,
      parameters: login.parameters,
      faults,
      unit: (lun) => units.get(lun),
      luns: () => [...units.keys()],
      outgoingBytes: () => port.outgoingBytes(),
      newTransferTag: () => this.#newTransferTag(),
      ended: () => this.#window.end(),
      violation: (problem) => port.violation(problem),
      numbers: (withStatus) => this.#numbers(withStatus),
      send: (response, data) => port.send(response, data),
    };
  }

  /** The nexus is up: every disk owes it a unit attention. */
  open(): void {
    const { nexus, units } = this.#parts;
    if (nexus !== null) for (const { disk } of units.values()) disk.connect(nexus);
  }

  /** The nexus is lost: its commands are aborted. Running ones finish with the medium, unanswered. */
  close(): void {
    const { nexus, units } = this.#parts;
    if (nexus === null) return;
    this.#commands?.abortSwallowed(null);
    for (const { disk } of units.values()) disk.disconnect(nexus);
  }

  releaseDelayed(faultId: string): void {
    this.#commands?.releaseDelayed(faultId);
  }

  /** Commands to this unit that a fault swallowed are given up, without an answer. */
  abortSwallowed(unit: Unit | null): void {
    this.#commands?.abortSwallowed(unit);
  }

  place(taskTag: number, transferTag: number, offset: number, bytes: number): Buffer | undefined {
    return this.#commands?.place(taskTag, transferTag, offset, bytes);
  }

  /** Asks the initiator for a sign of life. */
  ping(): void {
    const numbers = { ...this.#numbers(false), statSn: this.#statSn };
    this.#send({
      op: "nopIn",
      ...numbers,
      lun: 0,
      taskTag: RESERVED_TAG,
      transferTag: this.#newTransferTag(),
    });
  }

  /** Takes one request. `header` is only for a rejection to carry. */
  take(request: Request, header: Buffer, data: Buffer): void {
    if (request.op === "dataOut") {
      if (this.#commands?.takeData(request, data) !== true) this.lateData += 1;
      return;
    }
    if (request.op === "snack") {
      this.#reject(RejectReason.commandNotSupported, header);
      return;
    }
    if (request.op === "loginRequest") {
      this.#parts.port.violation("login in the full feature phase");
      return;
    }
    // The answer to our own ping: it need not be numbered, and wants no answer (RFC 7143 11.18).
    if (request.op === "nopOut" && request.taskTag === RESERVED_TAG) return;
    if (request.immediate) {
      this.#carryOut(request, data);
      return;
    }
    const { ready, ignored } = this.#window.accept(request.cmdSn, { request, data });
    if (ignored) this.ignoredRequests += 1;
    for (const next of ready) this.#carryOut(next.request, next.data);
  }

  #carryOut(request: Numbered, data: Buffer): void {
    if (request.op === "scsiCommand") {
      this.#startCommand(request, data);
      return;
    }
    if (!request.immediate) this.#window.end();
    switch (request.op) {
      case "nopOut":
        this.#pong(request, data);
        return;
      case "taskRequest":
        this.#manage(request);
        return;
      case "textRequest":
        this.#text(request, data);
        return;
      case "logoutRequest":
        this.#logout(request);
    }
  }

  #startCommand(request: ScsiCommand, data: Buffer): void {
    if (this.#commands === null) this.#parts.port.violation("command in a discovery session");
    else this.#commands.start(request, data);
  }

  #pong(request: NopOut, data: Buffer): void {
    const echo = data.subarray(0, this.#parts.login.parameters.sendDataBytesMax);
    this.#parts.port.send(
      {
        op: "nopIn",
        ...this.#numbers(true),
        lun: request.lun,
        taskTag: request.taskTag,
        transferTag: RESERVED_TAG,
      },
      echo,
    );
  }

  #manage(request: TaskRequest): void {
    const answer = (response: number) =>
      this.#send({
        op: "taskResponse",
        ...this.#numbers(true),
        response,
        taskTag: request.taskTag,
      });
    const { nexus, units } = this.#parts;
    const commands = this.#commands;
    if (nexus === null || commands === null) {
      answer(TaskResponse.rejected);
      return;
    }
    const unit = units.get(request.lun);
    const done = () => answer(TaskResponse.complete);
    switch (request.function) {
      case TaskFunction.abortTask:
        commands.abort(request.referencedTag, (existed) =>
          answer(existed ? TaskResponse.complete : TaskResponse.noSuchTask),
        );
        return;
      case TaskFunction.targetWarmReset:
      case TaskFunction.targetColdReset:
        this.#resetAll(nexus, request.function === TaskFunction.targetColdReset, done);
        return;
      case TaskFunction.abortTaskSet:
      case TaskFunction.clearTaskSet:
      case TaskFunction.logicalUnitReset:
        if (unit === undefined || request.lun === LUN_UNKNOWN) {
          answer(TaskResponse.noSuchUnit);
          return;
        }
        commands.abortSwallowed(unit);
        if (request.function === TaskFunction.abortTaskSet) unit.disk.abortTaskSet(nexus, done);
        else if (request.function === TaskFunction.clearTaskSet)
          unit.disk.clearTaskSet(nexus, done);
        else unit.disk.reset(nexus, done);
        return;
      default:
        answer(TaskResponse.unsupported);
    }
  }

  #resetAll(nexus: Nexus, isCold: boolean, done: () => void): void {
    const disks = [...this.#parts.units.values()].map(({ disk }) => disk);
    let left = disks.length;
    this.#commands?.abortSwallowed(null);
    const settle = () => {
      left -= 1;
      if (left > 0) return;
      done();
      // A cold reset ends all connections (RFC 7143 11.5.1).
      if (isCold) this.#parts.port.dropAll();
    };
    for (const disk of disks) disk.reset(nexus, settle);
  }

  #text(request: TextRequest, data: Buffer): void {
    const pairs = decodeText(data);
    // Every answer fits one PDU, so there is never a text exchange to continue.
    if (!pairs.ok || request.more || request.transferTag !== RESERVED_TAG) {
      this.#parts.port.violation("text request");
      return;
    }
    const answers = pairs.value.flatMap(([key, value]): readonly TextPair[] =>
      key === "SendTargets" ? this.#sendTargets(value) : [[key, "NotUnderstood"]],
    );
    const text = encodeText(answers);
    if (text.length > this.#parts.login.parameters.sendDataBytesMax) {
      this.#parts.port.violation("text answer exceeds the initiator's segment length");
      return;
    }
    this.#parts.port.send(
      {
        op: "textResponse",
        ...this.#numbers(true),
        final: true,
        more: false,
        lun: 0,
        taskTag: request.taskTag,
        transferTag: RESERVED_TAG,
      },
      text,
    );
  }

  /** RFC 7143 appendix C: all targets, the one named, or in a normal session the present one. */
  #sendTargets(wanted: string): readonly TextPair[] {
    const pairs = this.#parts.port.targets();
    const name = wanted === "" ? this.#parts.login.target : wanted.toLowerCase();
    if (wanted === "All") return pairs;
    const at = pairs.findIndex(([key, value]) => key === "TargetName" && value === name);
    return at < 0 ? [] : pairs.slice(at, at + 2);
  }

  #logout(request: LogoutRequest): void {
    const isRecovery = request.reason === LogoutReason.recovery;
    this.#send({
      op: "logoutResponse",
      ...this.#numbers(true),
      response: isRecovery ? LogoutResponse.recoveryUnsupported : LogoutResponse.success,
      taskTag: request.taskTag,
      time2Wait: 0,
      time2Retain: 0,
    });
    if (!isRecovery) this.#parts.port.finish();
  }

  #reject(reason: number, header: Buffer): void {
    this.#parts.port.send(
      { op: "reject", ...this.#numbers(true), reason, dataSn: 0 },
      Buffer.from(header),
    );
  }

  #send(response: Response): void {
    this.#parts.port.send(response, NO_DATA);
  }

  #numbers(withStatus: boolean) {
    // StatSN is reserved where no status is carried, except in R2T and ping, which show the next one.
    const statSn = this.#statSn;
    if (withStatus) this.#statSn = serialAdd(this.#statSn, 1);
    return { statSn, expCmdSn: this.#window.expected, maxCmdSn: this.#window.max };
  }

  #newTransferTag(): number {
    // FFFFFFFFh names nothing, and must never be given out.
    this.#transferTag = (this.#transferTag + 1) % RESERVED_TAG;
    return this.#transferTag;
  }
}
