/** What virtual servers use, looked at now and then: those who ask are shown the last look, and cost nothing. */
import type { UsageStatus } from "../schema/status.ts";

/** All of them are looked at once in this time, by turns: a look takes 0.3 ms of the main loop. */
const roundMs = 10_000;

export interface UsageWatch {
  /** The last look at each that there is, by name. */
  readonly seen: ReadonlyMap<string, UsageStatus>;
}

/** `names` are asked for anew with each look: virtual servers come and go. `look` is undefined for one that is not here. */
export function watchUsage(
  names: () => readonly string[],
  look: (name: string) => UsageStatus | undefined,
): UsageWatch {
  const seen = new Map<string, UsageStatus>();
  let last: string | undefined;
  const next = () => {
    const all = names();
    for (const name of seen.keys()) if (!all.includes(name)) seen.delete(name);
    const name = all[(last === undefined ? 0 : all.indexOf(last) + 1) % all.length];
    last = name;
    const found = name === undefined ? undefined : look(name);
    if (name !== undefined && found) seen.set(name, found);
    else if (name !== undefined) seen.delete(name);
    soon(all.length);
  };
  const soon = (count: number) => setTimeout(next, roundMs / Math.max(1, count)).unref();
  soon(names().length);
  return { seen };
}
