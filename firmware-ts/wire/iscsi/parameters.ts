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

interface Range {
  readonly min: number;
  readonly max: number;
}

/** How the values of two sides become one, and this side's value: a number in its range, or Yes or No. */
type Rule =
  | (Range & {
      readonly take: (one: number, other: number) => number;
      readonly own: (own: OwnParameters) => number;
    })
  | {
      /** With "or" a Yes of either side wins, with "and" a No. */
      readonly take: "or" | "and";
      readonly own: (own: OwnParameters) => boolean;
    };

const segment: Range = { min: 512, max: 0xff_ffff };
const count: Range = { min: 1, max: 65_535 };
const seconds: Range = { min: 0, max: 3600 };

/** The negotiated keys in the order of our offer, digests aside. A map, because keys come from the other side. */
const rules: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ["MaxBurstLength", { ...segment, take: Math.min, own: (own) => own.maxBurstBytes }],
  ["FirstBurstLength", { ...segment, take: Math.min, own: (own) => own.firstBurstBytes }],
  ["MaxOutstandingR2T", { ...count, take: Math.min, own: (own) => own.outstandingR2tMax }],
  ["MaxConnections", { ...count, take: Math.min, own: () => 1 }],
  ["ErrorRecoveryLevel", { min: 0, max: 2, take: Math.min, own: () => 0 }],
  ["DefaultTime2Wait", { ...seconds, take: Math.max, own: () => 2 }],
  ["DefaultTime2Retain", { ...seconds, take: Math.min, own: () => 0 }],
  ["InitialR2T", { take: "or", own: (own) => own.initialR2t }],
  ["ImmediateData", { take: "and", own: (own) => own.immediateData }],
  ["DataPDUInOrder", { take: "or", own: () => true }],
  ["DataSequenceInOrder", { take: "or", own: () => true }],
  // Markers are obsolete (RFC 7143 13.25); old initiators still offer them and take a No.
  ["IFMarker", { take: "and", own: () => false }],
  ["OFMarker", { take: "and", own: () => false }],
]);

const inWords = (value: number | boolean) =>
  typeof value === "number" ? `${value}` : value ? "Yes" : "No";

const parseNumber = (key: string, text: string, { min, max }: Range): Decoded<number> => {
  // Hexadecimal constants are legal in text (RFC 7143 6.1).
  const value = /^(\d{1,10}|0[xX][0-9a-fA-F]{1,8})$/.test(text) ? Number(text) : Number.NaN;
  return value >= min && value <= max
    ? decoded(value)
    : malformed(`${key}=${text} is out of range`);
};

/** Combines the two sides' values of a key that has a rule. */
const combine = (key: string, rule: Rule, offered: string, own: OwnParameters): Decoded<string> => {
  if ("min" in rule) {
    const value = parseNumber(key, offered, rule);
    return value.ok ? decoded(inWords(rule.take(value.value, rule.own(own)))) : value;
  }
  if (offered !== "Yes" && offered !== "No") return malformed(`${key}=${offered} is not Yes or No`);
  const both = [offered === "Yes", rule.own(own)];
  return decoded(inWords(rule.take === "or" ? both.includes(true) : !both.includes(false)));
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
    default:
      return parameters;
  }
};

const SEGMENT_KEY = "MaxRecvDataSegmentLength";

/** The outcome of a value of the other side; undefined for a key that is not negotiated here. */
const negotiate = (key: string, value: string, own: OwnParameters): Decoded<string> | undefined => {
  if (key === "HeaderDigest" || key === "DataDigest") return answerDigest(key, value, own);
  const rule = rules.get(key);
  return rule && combine(key, rule, value, own);
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
  const answers: TextPair[] = [];
  let parameters = before;
  for (const [key, offered] of offer) {
    if (declarations.has(key)) continue;
    if (key === SEGMENT_KEY) {
      const bytes = parseNumber(key, offered, segment);
      if (!bytes.ok) return bytes;
      parameters = { ...parameters, sendDataBytesMax: bytes.value };
      answers.push([key, `${own.receiveDataBytesMax}`]);
      continue;
    }
    const outcome = negotiate(key, offered, own);
    if (outcome === undefined) {
      answers.push([key, "NotUnderstood"]);
      continue;
    }
    if (!outcome.ok) return outcome;
    answers.push([key, outcome.value]);
    parameters = withKey(parameters, key, outcome.value);
  }
  return decoded({ answers, parameters });
};

/** What an initiator proposes: every key that its limits speak about. */
export const offerPairs = (own: OwnParameters): readonly TextPair[] => {
  const digests = { refuse: "None", allow: "None,CRC32C", require: "CRC32C" }[own.digests];
  const offered = [...rules].filter(([key]) => !key.endsWith("Marker"));
  return [
    ["HeaderDigest", digests],
    ["DataDigest", digests],
    [SEGMENT_KEY, `${own.receiveDataBytesMax}`],
    ...offered.map(([key, rule]): TextPair => [key, inWords(rule.own(own))]),
  ];
};

/** Reads the answers to `offerPairs(own)`: fails when the other side answers outside what was offered. */
export const acceptAnswers = (
  answers: Iterable<TextPair>,
  own: OwnParameters,
  before: SessionParameters = DEFAULT_PARAMETERS,
): Decoded<SessionParameters> => {
  let parameters = before;
  for (const [key, value] of answers) {
    if (value === "NotUnderstood" || value === "Irrelevant") continue;
    if (value === "Reject") return malformed(`${key} was rejected`);
    if (key === SEGMENT_KEY) {
      const bytes = parseNumber(key, value, segment);
      if (!bytes.ok) return bytes;
      parameters = { ...parameters, sendDataBytesMax: bytes.value };
      continue;
    }
    const outcome = negotiate(key, value, own);
    if (outcome === undefined) continue;
    if (!outcome.ok) return outcome;
    // Combining an honest answer with our offer once more gives the answer itself.
    if (![value, `${Number(value)}`].includes(outcome.value))
      return malformed(`${key}=${value} is not within our offer`);
    parameters = withKey(parameters, key, outcome.value);
  }
  return decoded(parameters);
};
