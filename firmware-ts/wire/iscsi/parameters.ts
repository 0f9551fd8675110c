/**
 * Operational parameters of a session and their negotiation (RFC 7143 clauses 6.2 and 13), for either side.
 *
 * Glossary: an *offer* is what one side proposes, the *answer* the other side's reply; `declared` keys are
 * statements and have no answer. The outcome of every negotiated key is a function of offer and answer.
 *
 * Obligations: values outside the RFC's range end the negotiation; a key that is not known is answered
 * "NotUnderstood" and changes nothing.
 */
import { type Decoded, decoded, malformed } from "../scsi/decoded.ts";
import type { TextPair } from "./text.ts";

/** What two sides agreed on; `sendDataBytesMax` is the other side's MaxRecvDataSegmentLength. */
export interface SessionParameters {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  readonly sendDataBytesMax: number;
  readonly initialR2t: boolean;
  readonly immediateData: boolean;
  readonly maxBurstBytes: number;
  readonly firstBurstBytes: number;
  readonly outstandingR2tMax: number;
}

/** The values of a session that negotiated nothing (RFC 7143 clause 13). */
export const DEFAULT_PARAMETERS: SessionParameters = {
  headerDigest: false,
  dataDigest: false,
  sendDataBytesMax: 8192,
  initialR2t: true,
  immediateData: true,
  maxBurstBytes: 262_144,
  firstBurstBytes: 65_536,
  outstandingR2tMax: 1,
};

/** What one side wants. Digests: "refuse" only None, "allow" lets the offering side choose, "require" only CRC32C. */
export interface OwnParameters {
  readonly digests: "refuse" | "allow" | "require";
  readonly receiveDataBytesMax: number;
  readonly initialR2t: boolean;
  readonly immediateData: boolean;
  readonly maxBurstBytes: number;
  readonly firstBurstBytes: number;
  readonly outstandingR2tMax: number;
}

const SEGMENT_BYTES_MIN = 512;
const SEGMENT_BYTES_MAX = 0xff_ffff;

/** Numeric keys: range, and how two values combine. */
const numeric: Readonly<
  Record<string, { readonly min: number; readonly max: number; readonly take: "min" | "max" }>
> = {
  MaxBurstLength: { min: SEGMENT_BYTES_MIN, max: SEGMENT_BYTES_MAX, take: "min" },
  FirstBurstLength: { min: SEGMENT_BYTES_MIN, max: SEGMENT_BYTES_MAX, take: "min" },
  MaxOutstandingR2T: { min: 1, max: 65_535, take: "min" },
  MaxConnections: { min: 1, max: 65_535, take: "min" },
  ErrorRecoveryLevel: { min: 0, max: 2, take: "min" },
  DefaultTime2Wait: { min: 0, max: 3600, take: "max" },
  DefaultTime2Retain: { min: 0, max: 3600, take: "min" },
};

/** Boolean keys: with "or" a Yes of either side wins, with "and" a No. */
const boolean: Readonly<Record<string, "or" | "and">> = {
  InitialR2T: "or",
  ImmediateData: "and",
  DataPDUInOrder: "or",
  DataSequenceInOrder: "or",
  // Markers are obsolete (RFC 7143 13.25); old initiators still offer them and take a No.
  IFMarker: "and",
  OFMarker: "and",
};

const yesNo = (value: boolean) => (value ? "Yes" : "No");

/** This side's value of each key, in the words of the wire. */
const ownValues = (own: OwnParameters): Readonly<Record<string, string>> => ({
  MaxBurstLength: `${own.maxBurstBytes}`,
  FirstBurstLength: `${own.firstBurstBytes}`,
  MaxOutstandingR2T: `${own.outstandingR2tMax}`,
  MaxConnections: "1",
  ErrorRecoveryLevel: "0",
  DefaultTime2Wait: "2",
  DefaultTime2Retain: "0",
  InitialR2T: yesNo(own.initialR2t),
  ImmediateData: yesNo(own.immediateData),
  DataPDUInOrder: "Yes",
  DataSequenceInOrder: "Yes",
  IFMarker: "No",
  OFMarker: "No",
});

const parseNumber = (key: string, value: string): Decoded<number> => {
  const range = numeric[key];
  // Hexadecimal constants are legal in text (RFC 7143 6.1).
  const isNumber = /^(\d{1,10}|0[xX][0-9a-fA-F]{1,8})$/.test(value);
  const parsed = isNumber ? Number(value) : Number.NaN;
  if (range === undefined || !(parsed >= range.min && parsed <= range.max)) {
    return malformed(`${key}=${value} is out of range`);
  }
  return decoded(parsed);
};

/** Combines the two sides' values of a numeric or boolean key. */
const combine = (key: string, offered: string, own: string): Decoded<string> => {
  const rule = boolean[key];
  if (rule !== undefined) {
    if (offered !== "Yes" && offered !== "No")
      return malformed(`${key}=${offered} is not Yes or No`);
    const isYes = rule === "or" ? [offered, own].includes("Yes") : offered === own && own === "Yes";
    return decoded(yesNo(isYes));
  }
  const value = parseNumber(key, offered);
  if (!value.ok) return value;
  const take = numeric[key]?.take === "max" ? Math.max : Math.min;
  return decoded(`${take(value.value, Number(own))}`);
};

const answerDigest = (key: string, offered: string, own: OwnParameters): Decoded<string> => {
  const allowed = { refuse: ["None"], allow: ["None", "CRC32C"], require: ["CRC32C"] }[own.digests];
  const chosen = offered.split(",").find((name) => allowed.includes(name));
  return chosen === undefined ? malformed(`${key}=${offered}: no common digest`) : decoded(chosen);
};

/** Parameters after one more agreed key; keys without a meaning for data transfer leave them unchanged. */
const withKey = (parameters: SessionParameters, key: string, value: string): SessionParameters => {
  switch (key) {
    case "HeaderDigest":
      return { ...parameters, headerDigest: value === "CRC32C" };
    case "DataDigest":
      return { ...parameters, dataDigest: value === "CRC32C" };
    case "InitialR2T":
      return { ...parameters, initialR2t: value === "Yes" };
    case "ImmediateData":
      return { ...parameters, immediateData: value === "Yes" };
    case "MaxBurstLength":
      return { ...parameters, maxBurstBytes: Number(value) };
    case "FirstBurstLength":
      return { ...parameters, firstBurstBytes: Number(value) };
    case "MaxOutstandingR2T":
      return { ...parameters, outstandingR2tMax: Number(value) };
    case "MaxRecvDataSegmentLength":
      return { ...parameters, sendDataBytesMax: Number(value) };
    default:
      return parameters;
  }
};

const isDigest = (key: string) => key === "HeaderDigest" || key === "DataDigest";
const SEGMENT_KEY = "MaxRecvDataSegmentLength";

const parseSegment = (value: string): Decoded<string> => {
  const parsed = /^(\d{1,10}|0[xX][0-9a-fA-F]{1,8})$/.test(value) ? Number(value) : Number.NaN;
  const isValid = parsed >= SEGMENT_BYTES_MIN && parsed <= SEGMENT_BYTES_MAX;
  return isValid ? decoded(`${parsed}`) : malformed(`${SEGMENT_KEY}=${value} is out of range`);
};

/** Keys that name or describe and are never negotiated; the login itself reads them. */
const declarations: ReadonlySet<string> = new Set([
  "InitiatorName",
  "InitiatorAlias",
  "TargetName",
  "TargetAlias",
  "TargetAddress",
  "TargetPortalGroupTag",
  "SessionType",
  "AuthMethod",
]);

/** Answers an offer: the pairs to send back, and the parameters as they stand afterwards. */
export const answerOffer = (
  offer: Iterable<TextPair>,
  own: OwnParameters,
  before: SessionParameters = DEFAULT_PARAMETERS,
): Decoded<{ readonly answers: readonly TextPair[]; readonly parameters: SessionParameters }> => {
  const values = ownValues(own);
  const answers: TextPair[] = [];
  let parameters = before;
  for (const [key, offered] of offer) {
    if (declarations.has(key)) continue;
    if (key === SEGMENT_KEY) {
      const segment = parseSegment(offered);
      if (!segment.ok) return segment;
      parameters = withKey(parameters, key, segment.value);
      answers.push([key, `${own.receiveDataBytesMax}`]);
      continue;
    }
    const ours = values[key];
    if (ours === undefined && !isDigest(key)) {
      answers.push([key, "NotUnderstood"]);
      continue;
    }
    const outcome = isDigest(key)
      ? answerDigest(key, offered, own)
      : combine(key, offered, ours ?? "");
    if (!outcome.ok) return outcome;
    answers.push([key, outcome.value]);
    parameters = withKey(parameters, key, outcome.value);
  }
  return decoded({ answers, parameters });
};

/** What an initiator proposes: every key that its limits speak about. */
export const offerPairs = (own: OwnParameters): readonly TextPair[] => {
  const digests = { refuse: "None", allow: "None,CRC32C", require: "CRC32C" }[own.digests];
  const values = ownValues(own);
  const keys = Object.keys(values).filter((key) => !key.endsWith("Marker"));
  return [
    ["HeaderDigest", digests],
    ["DataDigest", digests],
    [SEGMENT_KEY, `${own.receiveDataBytesMax}`],
    ...keys.map((key): TextPair => [key, values[key] ?? ""]),
  ];
};

/** Reads the answers to `offerPairs(own)`: fails when the other side answers outside what was offered. */
export const acceptAnswers = (
  answers: Iterable<TextPair>,
  own: OwnParameters,
  before: SessionParameters = DEFAULT_PARAMETERS,
): Decoded<SessionParameters> => {
  const values = ownValues(own);
  let parameters = before;
  for (const [key, value] of answers) {
    if (value === "NotUnderstood" || value === "Irrelevant") continue;
    if (value === "Reject") return malformed(`${key} was rejected`);
    if (key === SEGMENT_KEY) {
      const segment = parseSegment(value);
      if (!segment.ok) return segment;
      parameters = withKey(parameters, key, segment.value);
      continue;
    }
    const ours = values[key];
    if (ours === undefined && !isDigest(key)) continue;
    // Combining an honest answer with our offer once more gives the answer itself.
    const outcome = isDigest(key) ? answerDigest(key, value, own) : combine(key, value, ours ?? "");
    if (!outcome.ok) return outcome;
    if (!isDigest(key) && outcome.value !== `${isNumeric(key) ? Number(value) : value}`) {
      return malformed(`${key}=${value} exceeds our offer of ${ours}`);
    }
    parameters = withKey(parameters, key, outcome.value);
  }
  return decoded(parameters);
};

const isNumeric = (key: string) => numeric[key] !== undefined;
