/** A plain iSCSI initiator for tests: every PDU is visible, nothing is retried, and mistakes can be made on purpose. */
import { connect, type Socket } from "node:net";
import {
  type Digests,
  framePdu,
  NO_DIGESTS,
  PduParser,
} from "../../firmware-ts/wire/iscsi/framing.ts";
import { type OwnParameters, offerPairs } from "../../firmware-ts/wire/iscsi/parameters.ts";
import {
  LoginStage,
  RESERVED_TAG,
  type Request,
  type Response,
  TaskAttribute,
} from "../../firmware-ts/wire/iscsi/pdu.ts";
import { encodeRequest } from "../../firmware-ts/wire/iscsi/requests.ts";
import { decodeResponse } from "../../firmware-ts/wire/iscsi/responses.ts";
import { encodeText, type TextPair } from "../../firmware-ts/wire/iscsi/text.ts";
import { encodeCdb } from "../../firmware-ts/wire/scsi/cdb.ts";
import { type Command, transferOf } from "../../firmware-ts/wire/scsi/command.ts";
import { encodeReserveOut, ReserveOut } from "../../firmware-ts/wire/scsi/reservation.ts";
import { decodeSense, type Sense } from "../../firmware-ts/wire/scsi/sense.ts";

export const TARGET = "iqn.2026-11.dyad:shelf";
export const BLOCK_BYTES = 512;

const own: OwnParameters = {
  digests: "refuse",
  receiveDataBytesMax: 65_536,
  initialR2t: true,
  immediateData: true,
  maxBurstBytes: 262_144,
  firstBurstBytes: 65_536,
  outstandingR2tMax: 1,
};

/** How a command ended. */
export interface Ended {
  readonly status: number;
  readonly sense: Sense | null;
  readonly data: Buffer;
}

export interface StartOptions {
  readonly lun?: number;
  readonly data?: Buffer;
  readonly immediateBytes?: number;
  /** The F bit; without it unsolicited data follows. */
  readonly final?: boolean;
}

type Received = Response & { readonly data: Buffer };

export class Initiator {
  readonly name: string;
  readonly isid: string;
  readonly #socket: Socket;
  readonly #inbox: Received[] = [];
  readonly #waiters = new Set<() => void>();
  readonly #parser = new PduParser({ dataBytesMax: 1 << 24, ahsBytesMax: 0 });
  /** Offers digests; takes effect with the login. */
  offer: OwnParameters = own;
  closed = false;
  cmdSn = 1;
  expStatSn = 0;
  #tag = 0;

  private constructor(socket: Socket, name: string, isid: string) {
    this.#socket = socket;
    this.name = name;
    this.isid = isid;
    socket.on("data", (chunk) => {
      this.#parser.push(chunk, ({ header, data }) => {
        const response = decodeResponse(header);
        if (!response.ok) throw new Error(response.problem);
        this.#inbox.push({ ...response.value, data: Buffer.from(data) });
      });
      this.#wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
      this.#wake();
    });
  }

  static async connect(port: number, name: string, isid = "400001370000"): Promise<Initiator> {
    const socket = connect(port, "127.0.0.1");
    await new Promise((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new Initiator(socket, `iqn.2026-11.test:${name}`, isid);
  }

  /** Connects, logs in and takes the unit attentions of the given units. */
  static async login(
    port: number,
    name: string,
    luns: readonly number[] = [0],
  ): Promise<Initiator> {
    const initiator = await Initiator.connect(port, name);
    const response = await initiator.logIn();
    if (response?.op !== "loginResponse" || response.status !== 0) throw new Error("login failed");
    for (const lun of luns) await initiator.command({ name: "testUnitReady" }, { lun });
    return initiator;
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  /** The first received PDU that fits, taken out; null when the connection ended first. */
  async receive(fits: (response: Received) => boolean = () => true): Promise<Received | null> {
    for (;;) {
      const at = this.#inbox.findIndex(fits);
      const [found] = at < 0 ? [] : this.#inbox.splice(at, 1);
      if (found !== undefined) return found;
      if (this.closed) return null;
      await new Promise<void>((resolve) => {
        const waiter = () => {
          this.#waiters.delete(waiter);
          resolve();
        };
        this.#waiters.add(waiter);
      });
    }
  }

  /** PDUs that came and were not asked for. */
  get unread(): readonly Received[] {
    return this.#inbox;
  }

  send(request: Request, data: Buffer = Buffer.alloc(0), digests = NO_DIGESTS): void {
    for (const buffer of framePdu(encodeRequest(request), data, digests))
      this.#socket.write(buffer);
  }

  /** What comes from now on carries these digests. */
  useDigests(digests: Digests): void {
    this.#parser.useDigests(digests);
  }

  sendRaw(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  /** Stops reading, as a frozen machine would. */
  pause(): void {
    this.#socket.pause();
  }

  end(): void {
    this.#socket.destroy();
  }

  /** One login request straight to the full feature phase. */
  async logIn(pairs: readonly TextPair[] = this.loginPairs()): Promise<Received | null> {
    this.send(
      {
        op: "loginRequest",
        immediate: true,
        taskTag: 0,
        cmdSn: this.cmdSn,
        expStatSn: this.expStatSn,
        transit: true,
        more: false,
        stage: LoginStage.operational,
        nextStage: LoginStage.fullFeature,
        versionMax: 0,
        versionMin: 0,
        isid: this.isid,
        tsih: 0,
        connectionId: 1,
      },
      encodeText(pairs),
    );
    return this.receive((response) => response.op === "loginResponse");
  }

  loginPairs(target = TARGET): readonly TextPair[] {
    return [
      ["InitiatorName", this.name],
      ["TargetName", target],
      ["SessionType", "Normal"],
      ...offerPairs(this.offer),
    ];
  }

  /** Sends a command with its data, or part of it, as immediate data; returns its tag. */
  start(command: Command, options: StartOptions = {}): number {
    const data = options.data ?? Buffer.alloc(0);
    const transfer = transferOf(command, BLOCK_BYTES);
    this.#tag += 1;
    this.send(
      {
        op: "scsiCommand",
        immediate: false,
        final: options.final ?? true,
        read: transfer.in > 0,
        write: data.length > 0,
        attribute: TaskAttribute.simple,
        lun: options.lun ?? 0,
        taskTag: this.#tag,
        expectedBytes: data.length > 0 ? data.length : transfer.in,
        cmdSn: this.cmdSn,
        expStatSn: this.expStatSn,
        cdb: encodeCdb(command),
      },
      data.subarray(0, options.immediateBytes ?? data.length),
    );
    this.cmdSn += 1;
    return this.#tag;
  }

  /** Sends any descriptor block, prepared to read up to 64 KiB. */
  startRaw(cdb: Buffer, lun = 0): number {
    this.#tag += 1;
    this.send({
      op: "scsiCommand",
      immediate: false,
      final: true,
      read: true,
      write: false,
      attribute: TaskAttribute.simple,
      lun,
      taskTag: this.#tag,
      expectedBytes: 65_536,
      cmdSn: this.cmdSn,
      expStatSn: this.expStatSn,
      cdb,
    });
    this.cmdSn += 1;
    return this.#tag;
  }

  /** Waits for a command's end, sending data as it is asked for; null when the connection ends first. */
  async finish(tag: number, data: Buffer = Buffer.alloc(0)): Promise<Ended | null> {
    const received: Buffer[] = [];
    for (;;) {
      const response = await this.receive((next) => "taskTag" in next && next.taskTag === tag);
      if (response === null) return null;
      if (response.op === "readyToTransfer") {
        this.sendData(tag, response.transferTag, response.offset, data, response.bytes);
      } else if (response.op === "dataIn") {
        received.push(response.data);
        if (response.status !== null) {
          return { status: response.status, sense: null, data: Buffer.concat(received) };
        }
      } else if (response.op === "scsiResponse") {
        const sense = response.data.length > 2 ? decodeSense(response.data.subarray(2)) : null;
        return {
          status: response.status,
          sense: sense?.ok === true ? sense.value : null,
          data: Buffer.concat(received),
        };
      }
    }
  }

  sendData(tag: number, transferTag: number, offset: number, data: Buffer, bytes: number): void {
    this.send(
      {
        op: "dataOut",
        final: true,
        lun: 0,
        taskTag: tag,
        transferTag,
        expStatSn: this.expStatSn,
        dataSn: 0,
        offset,
      },
      data.subarray(offset, offset + bytes),
    );
  }

  /** A command from start to end. */
  command(command: Command, options: StartOptions = {}): Promise<Ended | null> {
    return this.finish(this.start(command, options), options.data);
  }

  write(lba: number, data: Buffer, lun = 0): Promise<Ended | null> {
    return this.command(writeCommand(lba, data), { lun, data });
  }

  read(lba: number, blocks = 1, lun = 0): Promise<Ended | null> {
    return this.command(
      { name: "read", cdbBytes: 10, protect: 0, dpo: false, fua: false, lba, blocks },
      { lun },
    );
  }

  reserveOut(
    action: keyof typeof ReserveOut,
    keys: { readonly key?: bigint; readonly target?: bigint },
    options: { readonly type?: number; readonly aptpl?: boolean; readonly lun?: number } = {},
  ): Promise<Ended | null> {
    const data = encodeReserveOut({
      key: keys.key ?? 0n,
      serviceActionKey: keys.target ?? 0n,
      specifyInitiatorPorts: false,
      allTargetPorts: false,
      aptpl: options.aptpl ?? false,
    });
    const command: Command = {
      name: "persistentReserveOut",
      action: ReserveOut[action],
      scope: 0,
      type: options.type ?? 0,
      parameterBytes: data.length,
    };
    return this.command(command, { lun: options.lun ?? 0, data });
  }

  /** A ping and its echo: everything sent before has been taken in. */
  async ping(text = "are you there"): Promise<Received | null> {
    this.#tag += 1;
    const tag = this.#tag;
    this.send(
      {
        op: "nopOut",
        immediate: true,
        lun: 0,
        taskTag: tag,
        transferTag: RESERVED_TAG,
        cmdSn: this.cmdSn,
        expStatSn: this.expStatSn,
      },
      Buffer.from(text),
    );
    return this.receive((next) => next.op === "nopIn" && next.taskTag === tag);
  }
}

export const writeCommand = (lba: number, data: Buffer): Command => ({
  name: "write",
  cdbBytes: 10,
  protect: 0,
  dpo: false,
  fua: false,
  lba,
  blocks: data.length / BLOCK_BYTES,
});
