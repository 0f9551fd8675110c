/**
 * How both ends of the built-in witness prove to each other who they are: TLS with a key that both have (RFC 5489, ECDHE_PSK: what was
 * recorded stays unreadable when the key becomes known later). No certificates, no names, no dates: clocks have no say in it.
 */
import { witnessPairSchema } from "../../firmware-ts/schema/witness.ts";

/**
 * One version and one cipher suite, so that there is nothing to negotiate: this one exists only with a key, and no connection comes to be by
 * a certificate. TLS 1.3 has keys, too (RFC 8446 4.2.11), but none of its suites says that there must be one.
 */
export const pskTls = {
  minVersion: "TLSv1.2",
  maxVersion: "TLSv1.2",
  ciphers: "ECDHE-PSK-CHACHA20-POLY1305",
} as const;

const prefix = "dyad-witness/";

/** What a pair's client calls itself in the handshake. */
export function identityOf(pair: string): string {
  return `${prefix}${pair}`;
}

/** The pair that an identity names; undefined when it is none of ours. */
export function pairOfIdentity(identity: string): string | undefined {
  if (!identity.startsWith(prefix)) return undefined;
  const parsed = witnessPairSchema.safeParse(identity.slice(prefix.length));
  return parsed.success ? parsed.data : undefined;
}
