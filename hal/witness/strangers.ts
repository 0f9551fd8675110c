/**
 * Whoever comes without a key that the witness knows: told once for each address, and slowed down. Pure but for its own memory; times are
 * arguments, ms of one monotonic clock.
 */

/** So many attempts at once, then one each `refillMs`. A controller whose key is wrong asks less often than that. */
const burst = 10;
const refillMs = 1000;
/** Addresses that are remembered; the one that was quiet for longest goes first. */
const addressesMax = 256;
/** Lines in one hour. An attacker with many addresses must not fill the disk. */
const linesMax = 100;
const lineWindowMs = 3_600_000;

interface Stranger {
  readonly tokens: number;
  readonly atMs: number;
}

export function strangers(log: (line: string) => void) {
  const known = new Map<string, Stranger>();
  let window = { sinceMs: Number.NEGATIVE_INFINITY, lines: 0 };

  const tokensAt = ({ tokens, atMs }: Stranger, nowMs: number) =>
    Math.min(burst, tokens + (nowMs - atMs) / refillMs);

  function tell(line: string, nowMs: number): void {
    if (nowMs - window.sinceMs > lineWindowMs) window = { sinceMs: nowMs, lines: 0 };
    window = { ...window, lines: window.lines + 1 };
    if (window.lines < linesMax) log(line);
    if (window.lines === linesMax) log("more strangers are not told for an hour");
  }

  return {
    /** Whether a connection from there is worth a handshake now. */
    admits(address: string, nowMs: number): boolean {
      const stranger = known.get(address);
      return stranger === undefined || tokensAt(stranger, nowMs) >= 1;
    },
    /** A handshake from there has failed. */
    failed(address: string, why: string, nowMs: number): void {
      const stranger = known.get(address);
      if (stranger === undefined) tell(`refused ${address}: ${why}`, nowMs);
      const tokens = stranger === undefined ? burst : tokensAt(stranger, nowMs);
      known.delete(address);
      known.set(address, { tokens: tokens - 1, atMs: nowMs });
      const [quietest] = known.keys();
      if (known.size > addressesMax && quietest !== undefined) known.delete(quietest);
    },
  };
}
