/**
 * The fingerprint of what both controllers must agree on: the static part of the configuration (wire/configuration) and what every virtual
 * server is. It travels in every beat. Pure arithmetic, because the decisions make it anew with each change.
 */
import type { Definition } from "./definition.ts";

/** FNV-1a, 32 bits (RFC 9923): quick and even; nobody is kept from forging it, and beats that carry it are signed. */
const offsetBasis = 0x811c9dc5;
const prime = 0x01000193;

function withByte(hash: number, byte: number): number {
  return Math.imul(hash ^ byte, prime) >>> 0;
}

/** Both bytes of every UTF-16 unit, the lower first. */
function digestOfText(text: string): number {
  let hash = offsetBasis;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    hash = withByte(withByte(hash, unit & 0xff), unit >>> 8);
  }
  return hash;
}

/** JSON with sorted keys and no white space; what is undefined is left out. */
export function canonicalText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value)
    .filter(([, inner]) => inner !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, inner]) => `${JSON.stringify(key)}:${canonicalText(inner)}`).join(",")}}`;
}

/** Whether two configurations of virtual servers, or two definitions, say the same. */
export function isSame(one: unknown, other: unknown): boolean {
  return one === other || canonicalText(one) === canonicalText(other);
}

/** A number that nobody has ever used: nobody needs to agree on it. */
function isUnused({ wanted, sequence }: Definition): boolean {
  return wanted === "deleted" && sequence === 0;
}

/** The order of one server's addresses means nothing. */
function digestOf({ number, sequence, wanted, server }: Definition): number {
  const addresses = server.addresses.toSorted();
  return digestOfText(
    canonicalText({ number, sequence, wanted, server: { ...server, addresses } }),
  );
}

/** 32 bits over the fingerprint of the static part and all definitions, which are in the order of their numbers. */
export function fingerprintOf(staticPart: number, definitions: readonly Definition[]): number {
  const parts = definitions.filter((each) => !isUnused(each)).map(digestOf);
  let hash = offsetBasis;
  for (const part of [staticPart, ...parts])
    for (let shift = 0; shift < 32; shift += 8) hash = withByte(hash, (part >>> shift) & 0xff);
  return hash;
}
