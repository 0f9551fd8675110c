/** IP addresses as text and as the bytes that packets and the kernel use. */

export interface IpAddress {
  readonly family: 4 | 6;
  /** 4 or 16 bytes in network order. */
  readonly bytes: Uint8Array;
}

const ipv4 = /^(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;
const ipv6Group = /^[0-9a-f]{1,4}$/i;

/** An address with its prefix: `10.0.0.1/24`. */
export interface Prefix {
  readonly address: IpAddress;
  /** Bits; at most those of the address. */
  readonly length: number;
}

/** The address of `address/prefix`. */
export function bareAddress(text: string): string {
  return text.split("/")[0] ?? text;
}

/** Undefined when the text is not `address/prefix`. */
export function parsePrefix(text: string): Prefix | undefined {
  const [bare = "", bits = "", extra] = text.split("/");
  const address = parseAddress(bare);
  const length = Number(bits);
  if (!address || extra !== undefined || !/^\d{1,3}$/.test(bits)) return undefined;
  return length <= 8 * address.bytes.length ? { address, length } : undefined;
}

/** Undefined when the text is no IPv4 or IPv6 address (RFC 4291 2.2); zone indices are not accepted. */
export function parseAddress(text: string): IpAddress | undefined {
  const four = parse4(text);
  if (four) return { family: 4, bytes: Uint8Array.from(four) };
  const [head = "", tail, ...more] = text.split("::");
  if (more.length > 0) return undefined;
  const front = groupBytes(head, tail === undefined);
  const back = tail === undefined ? [] : groupBytes(tail, true);
  if (!front || !back) return undefined;
  const missing = 16 - front.length - back.length;
  // Two colons stand for at least one group of zeros.
  if (tail === undefined ? missing !== 0 : missing < 2) return undefined;
  const gap = new Array<number>(missing).fill(0);
  return { family: 6, bytes: Uint8Array.from([...front, ...gap, ...back]) };
}

function parse4(text: string): number[] | undefined {
  return ipv4.test(text) ? text.split(".").map(Number) : undefined;
}

/** Groups between colons; the last of an address may be an IPv4 address. */
function groupBytes(text: string, isEnd: boolean): number[] | undefined {
  if (text === "") return [];
  const groups = text.split(":");
  const bytes: number[] = [];
  for (const [i, group] of groups.entries()) {
    const four = isEnd && i === groups.length - 1 ? parse4(group) : undefined;
    if (!four && !ipv6Group.test(group)) return undefined;
    const value = Number.parseInt(group, 16);
    bytes.push(...(four ?? [value >> 8, value & 0xff]));
  }
  return bytes;
}

/** The canonical text of 4 or 16 bytes (RFC 5952). */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(2 * i));
  const gap = longestZeros(groups);
  const text = (list: readonly number[]) => list.map((group) => group.toString(16)).join(":");
  // RFC 5952 4.2.2: one group of zeros is written out.
  if (gap.length < 2) return text(groups);
  return `${text(groups.slice(0, gap.start))}::${text(groups.slice(gap.start + gap.length))}`;
}

function longestZeros(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let length = 0;
  for (const [index, group] of groups.entries()) {
    length = group === 0 ? length + 1 : 0;
    if (length > best.length) best = { start: index - length + 1, length };
  }
  return best;
}
