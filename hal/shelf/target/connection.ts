/**
 * One TCP connection: bytes to PDUs, login, then its session. The only place that holds a socket.
 *
 *     login ──▶ full ──▶ closed          stuck: a blackholed initiator came; nothing is answered until it is closed
 *       └─▶ stuck ─────────┘
 *
 * Obligations: whatever comes over the wire ends at worst in a counted problem and a closed connection.
 */
import type { Socket } from "node:net";
import {
  framePdu,
  NO_DIGESTS,
  PduParser,
  type RawPdu,
} from "../../../firmware-ts/wire/iscsi/framing.ts";
import type { OwnParameters } from "../../../firmware-ts/wire/iscsi/parameters.ts";
import {
  type LoginRequest,
  type LoginResponse,
  LoginStatus,
  type Response,
} from "../../../firmware-ts/wire/iscsi/pdu.ts";
import { decodeRequest } from "../../../firmware-ts/wire/iscsi/requests.ts";
import { encodeResponse } from "../../../firmware-ts/wire/iscsi/responses.ts";
import { serialAdd } from "../../../firmware-ts/wire/iscsi/serial.ts";
import type { TextPair } from "../../../firmware-ts/wire/iscsi/text.ts";
import { type LoggedIn, Login, type LoginStep } from "./login.ts";
import type { Session, SessionPort } from "./session.ts";

/** Additional header segments are not needed by anything served here; a few are tolerated. */
const AHS_BYTES_MAX = 256;
const DATA_OUT_OPCODE = 0x05;

/** Any number but zero: with one connection to a session it is never used to find one (RFC 7143 11.12.6). */
const TSIH = 1;
/** How long a connection that is being closed may take to send what is left. */
const LINGER_MS = 5_000;

const loginRefused = (status: number) => `login refused: 0x${status.toString(16).padStart(4, "0")}`;

/** Why connections ended, for the counters. */
export type EndReason = string;

/** What the portal does for a connection. */
export interface ConnectionHost {
  readonly own: OwnParameters;
  readonly targets: readonly string[];
  readonly queueDepth: number;
  /** A login is complete: makes the session, ending an older one of the same name and ISID. */
  openSession(
    login: LoggedIn,
    numbers: { readonly cmdSn: number; readonly statSn: number },
    port: SessionPort,
  ): Session | null;
  targetPairs(socket: Socket): readonly TextPair[];
  /** Whether a fault cuts or blackholes this initiator. */
  pathOf(initiator: string, isid: string): "cut" | "blackhole" | null;
  dropAll(): void;
  ended(connection: Connection, reason: EndReason): void;
}

type Phase = "login" | "stuck" | "full" | "closed";

export class Connection implements SessionPort {
  readonly #socket: Socket;
  readonly #host: ConnectionHost;
  readonly #parser: PduParser;
  readonly #login: Login;
  readonly #withheld: Buffer[] = [];
  #withheldBytes = 0;
  #phase: Phase = "login";
  #session: Session | null = null;
  #statSn = 1;
  #blackholed = false;
  #corked = false;
  /** Set by the portal's sweep. */
  readonly openedMs: number;
  heardMs: number;
  pingedMs: number | null = null;
  bytesIn = 0;
  bytesOut = 0;
  readonly peer: string;
  readonly #nowMs: () => number;

  constructor(socket: Socket, host: ConnectionHost, nowMs: () => number) {
    this.#socket = socket;
    this.#host = host;
    this.#nowMs = nowMs;
    this.openedMs = nowMs();
    this.heardMs = this.openedMs;
    this.peer = `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`;
    this.#login = new Login(host);
    this.#parser = new PduParser(
      { dataBytesMax: host.own.receiveDataBytesMax, ahsBytesMax: AHS_BYTES_MAX },
      (header, bytes) => this.#place(header, bytes),
    );
    socket.setNoDelay(true);
    socket.on("data", (chunk) => this.#receive(chunk));
    socket.on("error", () => this.end("connectionError"));
    socket.on("end", () => this.end("closedByInitiator"));
    socket.on("close", () => this.end("closedByInitiator"));
  }

  get phase(): Phase {
    return this.#phase;
  }

  get session(): Session | null {
    return this.#session;
  }

  get isBlackholed(): boolean {
    return this.#blackholed;
  }

  /** The initiator, once its login has told it. */
  get initiator(): { readonly name: string; readonly isid: string } | null {
    const login = this.#session?.login;
    return login === undefined ? null : { name: login.initiator, isid: login.isid };
  }

  /** Ends the connection at once, by a reset when `isReset`. Safe to call again. */
  end(reason: EndReason, isReset = false): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#parser.stop();
    this.#withheld.length = 0;
    if (isReset) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
    this.#host.ended(this, reason);
  }

  /** Nothing moves in either direction while this is on; what would have been sent is kept. */
  setBlackholed(isOn: boolean): void {
    if (this.#phase === "stuck" && !isOn) {
      this.end("pathLoss", true);
      return;
    }
    if (this.#blackholed === isOn || this.#phase === "closed") return;
    this.#blackholed = isOn;
    if (isOn) {
      this.#socket.pause();
      return;
    }
    this.heardMs = this.#nowMs();
    this.pingedMs = null;
    this.#withheldBytes = 0;
    this.#write(this.#withheld.splice(0));
    this.#socket.resume();
  }

  send(response: Response, data: Buffer): void {
    if (this.#phase === "closed") return;
    const parameters = this.#session?.login.parameters;
    const digests =
      parameters === undefined
        ? NO_DIGESTS
        : { header: parameters.headerDigest, data: parameters.dataDigest };
    this.#write(framePdu(encodeResponse(response), data, digests));
  }

  outgoingBytes(): number {
    return this.#socket.writableLength + this.#withheldBytes;
  }

  violation(problem: string): void {
    this.end(`protocol: ${problem}`);
  }

  finish(): void {
    this.#endAfterSending("logout");
  }

  targets(): readonly TextPair[] {
    return this.#host.targetPairs(this.#socket);
  }

  dropAll(): void {
    this.#host.dropAll();
  }

  /** Gathers what one turn of the event loop sends into one system call. */
  #write(buffers: readonly Buffer[]): void {
    if (this.#blackholed) {
      for (const buffer of buffers) this.#withheldBytes += buffer.length;
      this.#withheld.push(...buffers);
      return;
    }
    const socket = this.#socket;
    if (!this.#corked) {
      this.#corked = true;
      socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        socket.uncork();
      });
    }
    for (const buffer of buffers) {
      this.bytesOut += buffer.length;
      socket.write(buffer);
    }
  }

  #receive(chunk: Buffer): void {
    if (this.#phase === "closed") return;
    this.bytesIn += chunk.length;
    this.heardMs = this.#nowMs();
    this.pingedMs = null;
    const problem = this.#parser.push(chunk, (pdu) => this.#take(pdu));
    if (problem !== null) this.end(`framing: ${problem}`);
  }

  #place(header: Buffer, bytes: number): Buffer | undefined {
    if (header[0] !== DATA_OUT_OPCODE) return undefined;
    return this.#session?.place(
      header.readUInt32BE(16),
      header.readUInt32BE(20),
      header.readUInt32BE(40),
      bytes,
    );
  }

  #take({ header, data }: RawPdu): void {
    if (this.#phase === "stuck") return;
    const request = decodeRequest(header);
    if (!request.ok) {
      this.end("protocol: unknown operation code");
    } else if (this.#session !== null) {
      this.#session.take(request.value, header, data);
    } else if (request.value.op === "loginRequest") {
      this.#takeLogin(request.value, data);
    } else {
      this.end("protocol: no login");
    }
  }

  #takeLogin(request: LoginRequest, data: Buffer): void {
    const step = this.#login.take(request, data);
    const name = this.#login.initiator;
    const path = name === null ? null : this.#host.pathOf(name, request.isid);
    if (path === "cut") {
      this.end("pathLoss", true);
      return;
    }
    if (path === "blackhole") {
      this.#phase = "stuck";
      this.#socket.pause();
      return;
    }
    if (step.done !== undefined) this.#enterSession(request, step, step.done);
    else this.#answerLogin(request, step, 0);
    if (step.status !== LoginStatus.success) this.#endAfterSending(loginRefused(step.status));
  }

  #enterSession(request: LoginRequest, step: LoginStep, login: LoggedIn): void {
    const numbers = { cmdSn: request.cmdSn, statSn: serialAdd(this.#statSn, 1) };
    const session = this.#host.openSession(login, numbers, this);
    if (session === null) {
      this.#answerLogin(
        request,
        { ...step, status: LoginStatus.outOfResources, transit: false },
        0,
      );
      this.#endAfterSending(loginRefused(LoginStatus.outOfResources));
      return;
    }
    // The answer still goes without digests; they count from the full feature phase on (RFC 7143 13.1).
    this.#answerLogin(request, step, TSIH);
    this.#session = session;
    this.#phase = "full";
    this.#parser.useDigests({
      header: login.parameters.headerDigest,
      data: login.parameters.dataDigest,
    });
    session.open();
  }

  /** What was sent may still leave; a peer that does not take it is not waited for. */
  #endAfterSending(reason: EndReason): void {
    const socket = this.#socket;
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    this.#parser.stop();
    socket.setTimeout(LINGER_MS, () => socket.destroy());
    socket.end(() => socket.destroySoon());
    this.#host.ended(this, reason);
  }

  #answerLogin(request: LoginRequest, step: LoginStep, tsih: number): void {
    const response: LoginResponse = {
      op: "loginResponse",
      statSn: this.#statSn,
      expCmdSn: request.cmdSn,
      maxCmdSn: serialAdd(request.cmdSn, tsih === 0 ? 0 : this.#host.queueDepth - 1),
      transit: step.transit,
      more: false,
      stage: step.stage,
      nextStage: step.nextStage,
      versionMax: 0,
      versionActive: 0,
      isid: request.isid,
      tsih,
      taskTag: request.taskTag,
      status: step.status,
    };
    this.#statSn = serialAdd(this.#statSn, 1);
    this.send(response, step.text);
  }
}
