/**
 * Text of login and text PDUs: `key=value` pairs, each ended by a zero byte (RFC 7143 6.1).
 *
 * Obligations: pairs keep their order and may repeat (SendTargets answers do); `uniquePairs` refuses repeats, as
 * a negotiation must (RFC 7143 6.2).
 */
import { type Decoded, decoded, malformed } from "../scsi/decoded.ts";

/** All text of one exchange, over however many PDUs (RFC 7143 6.2 leaves the bound to us). */
export const TEXT_BYTES_MAX = 65_536;
export const TEXT_PAIRS_MAX = 1024;
/** RFC 7143 6.1: a key name has at most 63 bytes. */
export const TEXT_KEY_BYTES_MAX = 63;
/** RFC 7143 6.1 gives 255 bytes for values unless a key says otherwise; CHAP and lists need more. */
export const TEXT_VALUE_BYTES_MAX = 8192;

export type TextPair = readonly [key: string, value: string];

export const encodeText = (pairs: Iterable<TextPair>): Buffer =>
  Buffer.from(Array.from(pairs, ([key, value]) => `${key}=${value}\0`).join(""), "utf8");

const parsePair = (line: string): TextPair | undefined => {
  const at = line.indexOf("=");
  const key = line.slice(0, at);
  const value = line.slice(at + 1);
  const isShort = key.length <= TEXT_KEY_BYTES_MAX && value.length <= TEXT_VALUE_BYTES_MAX;
  return at > 0 && isShort && /^[A-Za-z0-9.\-+@_#]+$/.test(key) ? [key, value] : undefined;
};

/** Reads a text segment. The last pair's zero byte may be missing: initiators in use leave it out. */
export const decodeText = (data: Buffer): Decoded<readonly TextPair[]> => {
  if (data.length > TEXT_BYTES_MAX) return malformed(`text exceeds ${TEXT_BYTES_MAX} bytes`);
  const pairs: TextPair[] = [];
  for (const line of data.toString("utf8").split("\0")) {
    if (line === "") continue;
    const pair = parsePair(line);
    if (pair === undefined) return malformed("text is not of the form key=value");
    if (pairs.length === TEXT_PAIRS_MAX) return malformed(`more than ${TEXT_PAIRS_MAX} keys`);
    pairs.push(pair);
  }
  return decoded(pairs);
};

/** The pairs as a map; fails when a key repeats. */
export const uniquePairs = (pairs: readonly TextPair[]): Decoded<ReadonlyMap<string, string>> => {
  const map = new Map(pairs);
  return map.size === pairs.length ? decoded(map) : malformed("a key is repeated");
};
