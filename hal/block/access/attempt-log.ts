/**
 * What is logged of attempts to use an access program without the right to: the first of each kind and peer at once, then one line for
 * all that came in a stretch of time. Whoever hammers at the door fills no disk, and whoever tries once is seen.
 */

export interface AttemptLogLimits {
  /** The least time between two lines of one peer and kind. */
  readonly everyMs: number;
  /** So many peers and kinds are told apart; all others share one line. */
  readonly entriesMax: number;
}

interface Entry {
  loggedMs: number;
  unlogged: number;
}

const defaultLimits: AttemptLogLimits = { everyMs: 60_000, entriesMax: 64 };

export class AttemptLog {
  readonly #limits: AttemptLogLimits;
  readonly #entries = new Map<string, Entry>();

  constructor(limits: Partial<AttemptLogLimits> = {}) {
    this.#limits = { ...defaultLimits, ...limits };
  }

  /** The line to log now, or undefined while this attempt is only counted. `nowMs` never falls. */
  note(nowMs: number, peer: string, what: string): string | undefined {
    const own = `${peer || "a local process"}: ${what}`;
    const key = this.#entries.has(own) || this.#hasRoom(nowMs) ? own : "others";
    const entry = this.#entries.get(key);
    if (entry === undefined) {
      this.#entries.set(key, { loggedMs: nowMs, unlogged: 0 });
      return own;
    }
    if (nowMs - entry.loggedMs < this.#limits.everyMs) {
      entry.unlogged += 1;
      return undefined;
    }
    const { unlogged } = entry;
    this.#entries.set(key, { loggedMs: nowMs, unlogged: 0 });
    const whose = key === own ? "" : " of others";
    return unlogged === 0 ? own : `${own} (and ${unlogged} more${whose} since the last line)`;
  }

  /** An entry is forgotten when its next attempt would be logged anyway: a count that nobody asks for must not keep a later peer's line away. */
  #hasRoom(nowMs: number): boolean {
    if (this.#entries.size < this.#limits.entriesMax) return true;
    for (const [key, { loggedMs }] of this.#entries)
      if (key !== "others" && nowMs - loggedMs >= this.#limits.everyMs) this.#entries.delete(key);
    return this.#entries.size < this.#limits.entriesMax;
  }
}
