/**
 * One TCP connection to an iSCSI target: the bytes, the PDUs, and the login (RFC 7143 clauses 6 and 7).
 *
 * Obligations: `closed` is called exactly once, with the reason, after which nothing more is delivered. A PDU that cannot
 * be understood ends the connection: at error recovery level 0 there is nothing else to do (RFC 7143 7.1.4).
 */
import { connect as connectTcp, type Socket } from "node:net";
import { failed, good, type Outcome } from "../../../firmware-ts/schema/outcome.ts";
import {
  framePdu,
  NO_DIGESTS,
  PduParser,
  type Placement,
} from "../../../firmware-ts/wire/iscsi/framing.ts";
import {
  acceptAnswers,
  DEFAULT_PARAMETERS,
  type OwnParameters,
  offerPairs,
  type SessionParameters,
} from "../../../firmware-ts/wire/iscsi/parameters.ts";
import {
  type LoginResponse,
  LoginStage,
  LoginStatus,
  type Request,
  type Response,
} from "../../../firmware-ts/wire/iscsi/pdu.ts";
import { encodeRequest } from "../../../firmware-ts/wire/iscsi/requests.ts";
import { decodeResponse } from "../../../firmware-ts/wire/iscsi/responses.ts";
import {
  decodeText,
  encodeText,
  TEXT_BYTES_MAX,
  type TextPair,
} from "../../../firmware-ts/wire/iscsi/text.ts";

/** Who logs in where. Name, ISID and portal group make the I_T nexus: use one pair in one place at a time. */
export interface IscsiIdentity {
  readonly host: string;
  readonly port: number;
  readonly targetName: string;
  readonly initiatorName: string;
  /** Twelve hexadecimal digits. */
  readonly isid: string;
}

/** What this initiator proposes. Unsolicited data up to the first burst spares small writes the round trip of an R2T. */
const own: OwnParameters = {
  digests: "refuse",
  receiveDataBytesMax: 1024 * 1024,
  initialR2t: false,
  immediateData: true,
  maxBurstBytes: 1024 * 1024,
  firstBurstBytes: 256 * 1024,
  outstandingR2tMax: 4,
};

/** Exchanges of one login. A target that wants more is not negotiating but looping. */
const loginRoundsMax = 16;
const empty = Buffer.alloc(0);

export interface ConnectionSink {
  /** Where the data of a PDU shall go, see `Placement`. */
  readonly place: Placement;
  readonly received: (pdu: Response, data: Buffer) => void;
  readonly closed: (reason: string) => void;
}

export class IscsiConnection {
  /** Agreed at login. */
  parameters: SessionParameters = DEFAULT_PARAMETERS;
  /** Numbers with which the full feature phase begins. */
  firstCmdSn = 1;
  expStatSn = 0;
  maxCmdSn = 1;
  #sink: ConnectionSink;
  readonly #socket: Socket;
  readonly #parser: PduParser;
  #corked = false;
  #closed = false;
  #loginReply: ((answer: { pdu: LoginResponse; data: Buffer } | string) => void) | undefined;

  private constructor(socket: Socket, sink: ConnectionSink) {
    this.#socket = socket;
    this.#sink = sink;
    const limits = { dataBytesMax: own.receiveDataBytesMax, ahsBytesMax: 0 };
    this.#parser = new PduParser(limits, (header, bytes) => this.#sink.place(header, bytes));
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("error", (cause) => this.close(`socket: ${cause.message}`));
    socket.on("close", () => this.close("the target closed the connection"));
  }

  /** Connects and logs in. One deadline for both. */
  static async open(
    identity: IscsiIdentity,
    sink: ConnectionSink,
    deadlineMs: number,
  ): Promise<Outcome<IscsiConnection>> {
    const socket = connectTcp({ host: identity.host, port: identity.port });
    // Until the login has ended, an end of the connection is the login's failure and nobody else's business.
    let fail: (reason: string) => void = () => {};
    const early: ConnectionSink = { ...sink, closed: (reason) => fail(reason) };
    const connection = new IscsiConnection(socket, early);
    const timer = setTimeout(() => connection.close(`no login in ${deadlineMs} ms`), deadlineMs);
    try {
      const problem = await new Promise<string | undefined>((resolve) => {
        fail = resolve;
        socket.once("connect", () => {
          void connection.#login(identity).then(resolve);
        });
      });
      if (problem !== undefined) {
        connection.close(problem);
        return failed("diskLost", "iSCSI login", `${identity.host}:${identity.port}: ${problem}`);
      }
      connection.#sink = sink;
      return good(connection);
    } finally {
      clearTimeout(timer);
    }
  }

  send(request: Request, data: Buffer = empty): void {
    if (this.#closed) return;
    if (!this.#corked) {
      // All PDUs of one turn leave together: a burst of small writes is one segment, header and data are never two.
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#socket.uncork();
      });
    }
    const digests = this.#loginReply === undefined ? this.#digests() : NO_DIGESTS;
    for (const part of framePdu(encodeRequest(request), data, digests)) this.#socket.write(part);
  }

  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#parser.stop();
    this.#socket.destroy();
    this.#loginReply?.(reason);
    this.#sink.closed(reason);
  }

  #digests() {
    return { header: this.parameters.headerDigest, data: this.parameters.dataDigest };
  }

  #receive(chunk: Buffer): void {
    if (this.#closed) return;
    const problem = this.#parser.push(chunk, ({ header, data }) => {
      const decoded = decodeResponse(header);
      if (!decoded.ok) {
        this.close(`malformed PDU: ${decoded.problem}`);
      } else if (decoded.value.op === "loginResponse") {
        if (this.#loginReply) this.#loginReply({ pdu: decoded.value, data });
        else this.close("login response outside a login");
      } else if (this.#loginReply) {
        this.close(`${decoded.value.op} during the login`);
      } else {
        this.#sink.received(decoded.value, data);
      }
    });
    if (problem !== null) this.close(`malformed stream: ${problem}`);
  }

  /** Straight into the operational stage: without authentication the security stage has nothing to say. */
  async #login(identity: IscsiIdentity): Promise<string | undefined> {
    let pairs: readonly TextPair[] = [
      ["InitiatorName", identity.initiatorName],
      ["SessionType", "Normal"],
      ["TargetName", identity.targetName],
      ...offerPairs(own),
    ];
    let answers: TextPair[] = [];
    let text = empty;
    for (let round = 0; round < loginRoundsMax; round += 1) {
      const reply = await this.#exchange(identity, encodeText(pairs));
      if (typeof reply === "string") return reply;
      const { pdu, data } = reply;
      if (pdu.status !== LoginStatus.success)
        return `refused with status 0x${pdu.status.toString(16).padStart(4, "0")}`;
      this.expStatSn = (pdu.statSn + 1) >>> 0;
      this.maxCmdSn = pdu.maxCmdSn;
      text = Buffer.concat([text, data]);
      if (text.length > TEXT_BYTES_MAX) return "the target's text is too long";
      pairs = [];
      if (pdu.more) continue;
      const decoded = decodeText(text);
      if (!decoded.ok) return decoded.problem;
      text = empty;
      answers = [...answers, ...decoded.value];
      if (!pdu.transit) continue;
      if (pdu.nextStage !== LoginStage.fullFeature) return `unexpected stage ${pdu.nextStage}`;
      const accepted = acceptAnswers(answers, own);
      if (!accepted.ok) return accepted.problem;
      this.parameters = accepted.value;
      this.#parser.useDigests(this.#digests());
      return undefined;
    }
    return `no end after ${loginRoundsMax} exchanges`;
  }

  #exchange(
    identity: IscsiIdentity,
    text: Buffer,
  ): Promise<{ pdu: LoginResponse; data: Buffer } | string> {
    return new Promise((resolve) => {
      this.#loginReply = (answer) => {
        this.#loginReply = undefined;
        resolve(answer);
      };
      this.send(
        {
          op: "loginRequest",
          immediate: true,
          taskTag: 0,
          cmdSn: this.firstCmdSn,
          expStatSn: this.expStatSn,
          transit: true,
          more: false,
          stage: LoginStage.operational,
          nextStage: LoginStage.fullFeature,
          versionMax: 0,
          versionMin: 0,
          isid: identity.isid,
          // TSIH 0 with a known name and ISID reinstates the session: the target ends the old one and its tasks first
          // (RFC 7143 6.3.5).
          tsih: 0,
          connectionId: 0,
        },
        text,
      );
    });
  }
}
