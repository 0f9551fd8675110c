/**
 * An iSCSI target that does what a test tells it, right or wrong. It logs in by itself and answers the commands by which a disk
 * is found; reads, writes and everything else go to the test.
 */
import { createServer, type Server, type Socket } from "node:net";
import { framePdu, NO_DIGESTS, PduParser } from "../../firmware-ts/wire/iscsi/framing.ts";
import { answerOffer, type OwnParameters } from "../../firmware-ts/wire/iscsi/parameters.ts";
import {
  LoginStage,
  LoginStatus,
  NO_RESIDUAL,
  RESERVED_TAG,
  type Request,
  type Response,
} from "../../firmware-ts/wire/iscsi/pdu.ts";
import { decodeRequest } from "../../firmware-ts/wire/iscsi/requests.ts";
import { encodeResponse } from "../../firmware-ts/wire/iscsi/responses.ts";
import { decodeText, encodeText } from "../../firmware-ts/wire/iscsi/text.ts";
import { decodeCdb } from "../../firmware-ts/wire/scsi/cdb.ts";
import { Status } from "../../firmware-ts/wire/scsi/codes.ts";
import type { Command } from "../../firmware-ts/wire/scsi/command.ts";
import { encodeVpd, VpdPage } from "../../firmware-ts/wire/scsi/inquiry.ts";
import { encodeReportLuns } from "../../firmware-ts/wire/scsi/lun.ts";
import { encodeCapacity16 } from "../../firmware-ts/wire/scsi/parameters.ts";
import { encodeSense, type Sense } from "../../firmware-ts/wire/scsi/sense.ts";

export const serial = "SCRIPTED-1";
export const blocks = 8192;

export interface Received {
  readonly pdu: Request & { op: "scsiCommand" };
  readonly command: Command;
  /** Immediate data; what follows by Data-Out is the test's to ask for. */
  readonly data: Buffer;
  readonly connection: TargetConnection;
}

type Unnumbered = Response extends infer R
  ? R extends Response
    ? Omit<R, "statSn" | "expCmdSn" | "maxCmdSn">
    : never
  : never;

export class TargetConnection {
  readonly socket: Socket;
  readonly requests: { pdu: Request; data: Buffer }[] = [];
  statSn = 100;
  expCmdSn = 1;
  /** Commands that the initiator may have beyond the last one that came. */
  window = 32;
  /** The highest number that the initiator was ever allowed, and how many commands went beyond it. */
  allowed = 1;
  trespasses = 0;
  isid = "";
  tsih = -1;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  send(response: Unnumbered, data: Buffer = Buffer.alloc(0)): void {
    const hasStatus =
      response.op !== "readyToTransfer" && !(response.op === "dataIn" && response.status === null);
    const numbered = {
      ...response,
      statSn: this.statSn,
      expCmdSn: this.expCmdSn,
      maxCmdSn: this.expCmdSn + this.window - 1,
    } as Response;
    if (hasStatus) this.statSn += 1;
    this.allowed = Math.max(this.allowed, numbered.maxCmdSn);
    for (const part of framePdu(encodeResponse(numbered), data, NO_DIGESTS))
      this.socket.write(part);
  }

  /** Status of a command, with sense for CHECK CONDITION. */
  status(taskTag: number, status: number = Status.good, sense?: Sense): void {
    const bytes = sense ? encodeSense(sense) : Buffer.alloc(0);
    const length = Buffer.alloc(sense ? 2 : 0);
    if (sense) length.writeUInt16BE(bytes.length);
    this.send(
      {
        ...{ op: "scsiResponse", response: 0, status, taskTag, expDataSn: 0 },
        residual: NO_RESIDUAL,
      },
      Buffer.concat([length, bytes]),
    );
  }

  dataIn(taskTag: number, data: Buffer, offset = 0, status: number | null = Status.good): void {
    this.send(
      {
        ...{ op: "dataIn", final: true, status, lun: 0, taskTag, transferTag: RESERVED_TAG },
        ...{ dataSn: 0, offset, residual: NO_RESIDUAL },
      },
      data,
    );
  }

  r2t(taskTag: number, offset: number, bytes: number, transferTag = 77): void {
    this.send({ op: "readyToTransfer", lun: 0, taskTag, transferTag, r2tSn: 0, offset, bytes });
  }
}

const own: OwnParameters = {
  digests: "refuse",
  receiveDataBytesMax: 65_536,
  initialR2t: false,
  immediateData: true,
  maxBurstBytes: 262_144,
  firstBurstBytes: 65_536,
  outstandingR2tMax: 1,
};

export class ScriptedTarget {
  readonly connections: TargetConnection[] = [];
  readonly #server: Server;
  parameters: OwnParameters = own;
  loginStatus: number = LoginStatus.success;
  /** Answers a login request itself when it returns true. */
  onLogin: (connection: TargetConnection) => boolean = () => false;
  onCommand: (received: Received) => void = ({ pdu, connection }) => connection.status(pdu.taskTag);
  /** Everything that is neither login nor command. */
  onOther: (pdu: Request, data: Buffer, connection: TargetConnection) => void = () => {};

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<ScriptedTarget> {
    const server = createServer({ noDelay: true });
    const target = new ScriptedTarget(server);
    server.on("connection", (socket) => target.#accept(socket));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return target;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("not listening");
    return address.port;
  }

  get last(): TargetConnection {
    const last = this.connections.at(-1);
    if (last === undefined) throw new Error("no connection");
    return last;
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(socket: Socket): void {
    const connection = new TargetConnection(socket);
    this.connections.push(connection);
    const parser = new PduParser({ dataBytesMax: 1024 * 1024, ahsBytesMax: 0 });
    socket.on("error", () => {});
    socket.on("data", (chunk: Buffer) => {
      const problem = parser.push(chunk, ({ header, data }) => {
        const request = decodeRequest(header);
        if (!request.ok) throw new Error(request.problem);
        this.#received(connection, request.value, Buffer.from(data));
      });
      if (problem) throw new Error(problem);
    });
  }

  #received(connection: TargetConnection, pdu: Request, data: Buffer): void {
    connection.requests.push({ pdu, data });
    if (pdu.op === "loginRequest") return this.#login(connection, pdu, data);
    if (pdu.op !== "scsiCommand") {
      if (pdu.op === "logoutRequest")
        connection.send({
          ...{ op: "logoutResponse", response: 0, taskTag: pdu.taskTag },
          ...{ time2Wait: 0, time2Retain: 0 },
        });
      else this.onOther(pdu, data, connection);
      return;
    }
    if (!pdu.immediate) connection.expCmdSn = pdu.cmdSn + 1;
    if (pdu.cmdSn > connection.allowed) connection.trespasses += 1;
    const decoded = decodeCdb(pdu.cdb);
    if (!decoded.ok) throw new Error("a CDB that nobody knows");
    const found = inspection(decoded.command);
    if (found) connection.dataIn(pdu.taskTag, found);
    else this.onCommand({ pdu, command: decoded.command, data, connection });
  }

  #login(connection: TargetConnection, pdu: Request & { op: "loginRequest" }, data: Buffer): void {
    connection.isid = pdu.isid;
    connection.tsih = pdu.tsih;
    if (this.onLogin(connection)) return;
    const text = decodeText(data);
    if (!text.ok) throw new Error(text.problem);
    const answer = answerOffer(text.value, this.parameters);
    if (!answer.ok) throw new Error(answer.problem);
    connection.send(
      {
        ...{ op: "loginResponse", transit: true, more: false, isid: pdu.isid, tsih: 1 },
        ...{ stage: LoginStage.operational, nextStage: LoginStage.fullFeature },
        ...{ versionMax: 0, versionActive: 0, taskTag: pdu.taskTag, status: this.loginStatus },
      },
      encodeText(answer.value.answers),
    );
  }
}

/** What a disk answers to those who look for it. */
function inspection(command: Command): Buffer | undefined {
  if (command.name === "reportLuns") return encodeReportLuns([5]);
  if (command.name === "inquiry" && command.page === VpdPage.serial)
    return encodeVpd(VpdPage.serial, Buffer.from(serial));
  if (command.name === "inquiry") return encodeVpd(command.page ?? 0, Buffer.alloc(60));
  if (command.name === "testUnitReady") return Buffer.alloc(0);
  if (command.name === "readCapacity16")
    return encodeCapacity16({
      ...{ blocks, blockBytes: 512, physicalExponent: 0, thin: false, unmappedReadsZeros: false },
    });
  return undefined;
}
