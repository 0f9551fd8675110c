/** What virtual servers use, looked at now and then: those who ask are shown the last look, and cost nothing. */
import type { Config } from "../schema/config.ts";
import type { UsageStatus } from "../schema/status.ts";

/** All of them are looked at once in this time, by turns: a look takes 0.3 ms of the main loop. */
const roundMs = 10_000;

export interface UsageWatch {
  /** The last look at each, by name. */
  readonly seen: ReadonlyMap<string, UsageStatus>;
}

export function watchUsage(
  { virtualServers }: Pick<Config, "virtualServers">,
  look: (name: string) => UsageStatus,
): UsageWatch {
  const seen = new Map<string, UsageStatus>();
  let next = 0;
  setInterval(() => {
    const server = virtualServers[next % virtualServers.length];
    next += 1;
    if (server) seen.set(server.name, look(server.name));
  }, roundMs / virtualServers.length).unref();
  return { seen };
}
