/**
 * The fingerprint of that part of what both controllers must agree on which no command changes. With the definitions of all virtual servers
 * (schema/definition-digest) it travels in every beat (schema/beat); controllers whose fingerprints differ do not pair, because different time
 * limits would void the safety argument.
 */
import { crc32 } from "node:zlib";
import type { Config } from "../schema/config.ts";
import { canonicalText } from "../schema/definition-digest.ts";

/**
 * CRC-32 over the canonical form (JSON, keys sorted, no white space) of pair id, timing, shelf target and coordinator disks. The order of coordinators
 * does not count.
 */
export function sharedConfigurationCrc(config: Config): number {
  const shared = {
    pair: config.pair.id,
    timing: config.timing,
    target: config.shelf.target,
    coordinators: config.shelf.coordinators.toSorted(),
  };
  return crc32(canonicalText(shared));
}
