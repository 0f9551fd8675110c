/**
 * The fingerprint of what both controllers must agree on. It travels in every beat (schema/beat); controllers whose
 * fingerprints differ do not pair, because different time limits or a different numbering of virtual servers would
 * void the safety argument.
 */
import { crc32 } from "node:zlib";
import type { Config } from "../schema/config.ts";

/**
 * CRC-32 over the canonical form (JSON, keys sorted, no white space) of pair id, timing, shelf target, coordinator
 * disks and virtual servers. The order of virtual servers counts (beats number them by position); the order of
 * coordinators and of one server's addresses does not.
 */
export function sharedConfigurationCrc(config: Config): number {
  const shared = {
    pair: config.pair.id,
    timing: config.timing,
    target: config.shelf.target,
    coordinators: config.shelf.coordinators.toSorted(),
    virtualServers: config.virtualServers.map((server) => ({
      ...server,
      addresses: server.addresses.toSorted(),
    })),
  };
  return crc32(canonical(shared));
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value)
    .filter(([, inner]) => inner !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, inner]) => `${JSON.stringify(key)}:${canonical(inner)}`).join(",")}}`;
}
