/**
 * The login phase of one connection (RFC 7143 clauses 6 and 13.2), as a value that is fed login requests.
 *
 *     security ──▶ operational ──▶ full feature        (either of the first two may be left out)
 *
 * Obligations: no I/O; text over several PDUs is bounded; an answer with a status other than success ends the
 * connection. Nothing is authenticated here: the shelf belongs on a private network.
 */
import {
  answerOffer,
  DEFAULT_PARAMETERS,
  type OwnParameters,
  type SessionParameters,
} from "../../../firmware-ts/wire/iscsi/parameters.ts";
import { type LoginRequest, LoginStage, LoginStatus } from "../../../firmware-ts/wire/iscsi/pdu.ts";
import {
  decodeText,
  encodeText,
  TEXT_BYTES_MAX,
  type TextPair,
  uniquePairs,
} from "../../../firmware-ts/wire/iscsi/text.ts";

/** The login text of one exchange, however it is split; far above what any initiator sends. */
const LOGIN_TEXT_BYTES_MAX = TEXT_BYTES_MAX;
const LOGIN_REQUESTS_MAX = 16;
const NAME_BYTES_MAX = 223;
const TARGET_PORTAL_GROUP = "1";

/** Who logged in, and on what terms. `target` is null for a discovery session. */
export interface LoggedIn {
  readonly initiator: string;
  readonly isid: string;
  readonly target: string | null;
  readonly parameters: SessionParameters;
}

export interface LoginStep {
  readonly status: number;
  readonly transit: boolean;
  readonly stage: number;
  readonly nextStage: number;
  readonly text: Buffer;
  /** Set when this answer ends the login. */
  readonly done?: LoggedIn;
}

/** What the target knows and decides during a login. */
export interface LoginHost {
  readonly own: OwnParameters;
  readonly targets: readonly string[];
}

const isName = (name: string) => /^(iqn|eui|naa)\.[ -~]+$/i.test(name);

/** One connection's login. */
export class Login {
  readonly #host: LoginHost;
  #text: Buffer = Buffer.alloc(0);
  #requests = 0;
  #stage: number | null = null;
  #parameters = DEFAULT_PARAMETERS;
  #initiator: string | null = null;
  #isid = "";
  #target: string | null = null;
  #isDiscovery = false;
  #toldPortalGroup = false;

  constructor(host: LoginHost) {
    this.#host = host;
  }

  /** The initiator's name, once it has been told. */
  get initiator(): string | null {
    return this.#initiator;
  }

  /** Takes a login request with its text and says what to answer. */
  take(request: LoginRequest, data: Buffer): LoginStep {
    const problem = this.#refuse(request, data);
    if (problem !== null) return this.#fail(request, problem);
    this.#stage = request.stage;
    this.#isid = request.isid;
    this.#text = Buffer.concat([this.#text, data]);
    // More text of this exchange follows; an empty answer asks for it (RFC 7143 6.2).
    if (request.more) return this.#answer(request, [], false);
    const pairs = decodeText(this.#text);
    this.#text = Buffer.alloc(0);
    if (!pairs.ok) return this.#fail(request, LoginStatus.initiatorError);
    const keys = uniquePairs(pairs.value);
    if (!keys.ok) return this.#fail(request, LoginStatus.initiatorError);
    return this.#negotiate(request, keys.value);
  }

  #refuse(request: LoginRequest, data: Buffer): number | null {
    this.#requests += 1;
    if (this.#requests > LOGIN_REQUESTS_MAX) return LoginStatus.initiatorError;
    if (this.#text.length + data.length > LOGIN_TEXT_BYTES_MAX) return LoginStatus.initiatorError;
    if (request.versionMin > 0) return LoginStatus.unsupportedVersion;
    if (request.transit && request.more) return LoginStatus.initiatorError;
    const { stage, nextStage, transit } = request;
    const isStage = stage === LoginStage.security || stage === LoginStage.operational;
    const isForward = this.#stage === null || stage >= this.#stage;
    const isNext = nextStage > stage && nextStage !== 2;
    if (!isStage || !isForward || (transit && !isNext)) return LoginStatus.initiatorError;
    // A session has one connection here, and an old one cannot be joined (RFC 7143 6.3.1).
    return request.tsih === 0 ? null : LoginStatus.sessionDoesNotExist;
  }

  #negotiate(request: LoginRequest, keys: ReadonlyMap<string, string>): LoginStep {
    const answers: TextPair[] = [];
    const problem = this.#identify(keys);
    if (problem !== null) return this.#fail(request, problem);
    const methods = keys.get("AuthMethod");
    if (methods !== undefined) {
      if (!methods.split(",").includes("None")) {
        return this.#fail(request, LoginStatus.authenticationFailure);
      }
      answers.push(["AuthMethod", "None"]);
    }
    const offer = answerOffer(keys, this.#host.own, this.#parameters);
    if (!offer.ok) return this.#fail(request, LoginStatus.initiatorError);
    this.#parameters = offer.value.parameters;
    answers.push(...offer.value.answers);
    if (!this.#isDiscovery && !this.#toldPortalGroup) {
      this.#toldPortalGroup = true;
      answers.push(["TargetPortalGroupTag", TARGET_PORTAL_GROUP]);
    }
    return this.#answer(request, answers, request.transit);
  }

  /** Names are told once, in the first request (RFC 7143 6.3.2). */
  #identify(keys: ReadonlyMap<string, string>): number | null {
    if (this.#initiator !== null) return null;
    const initiator = keys.get("InitiatorName");
    if (initiator === undefined) return LoginStatus.missingParameter;
    if (initiator.length > NAME_BYTES_MAX || !isName(initiator)) return LoginStatus.initiatorError;
    const sessionType = keys.get("SessionType") ?? "Normal";
    if (sessionType !== "Normal" && sessionType !== "Discovery") return LoginStatus.initiatorError;
    this.#isDiscovery = sessionType === "Discovery";
    const wanted = keys.get("TargetName");
    if (!this.#isDiscovery) {
      if (wanted === undefined) return LoginStatus.missingParameter;
      const found = this.#host.targets.find((name) => name === wanted.toLowerCase());
      if (found === undefined) return LoginStatus.notFound;
      this.#target = found;
    }
    this.#initiator = initiator.toLowerCase();
    return null;
  }

  #answer(request: LoginRequest, answers: readonly TextPair[], transit: boolean): LoginStep {
    const step = {
      status: LoginStatus.success,
      transit,
      stage: request.stage,
      nextStage: transit ? request.nextStage : 0,
      text: encodeText(answers),
    };
    if (!transit || request.nextStage !== LoginStage.fullFeature || this.#initiator === null) {
      return step;
    }
    const { firstBurstBytes, maxBurstBytes } = this.#parameters;
    return {
      ...step,
      done: {
        initiator: this.#initiator,
        isid: this.#isid,
        target: this.#target,
        // FirstBurstLength must not exceed MaxBurstLength (RFC 7143 13.14).
        parameters: {
          ...this.#parameters,
          firstBurstBytes: Math.min(firstBurstBytes, maxBurstBytes),
        },
      },
    };
  }

  #fail(request: LoginRequest, status: number): LoginStep {
    return { status, transit: false, stage: request.stage, nextStage: 0, text: Buffer.alloc(0) };
  }
}
