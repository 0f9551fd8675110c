/**
 * Whether what clients saw could have come from one file that changes at single instants (linearizability), for registers and for logs.
 *
 * Every value of a file is written once, so it is known which write a read saw, and the question has a simple answer (Gibbons and Korach,
 * SIAM J. Comput. 26, 1997): a value is *in force* at least from the first end to the last beginning among its operations. If that is a
 * stretch forwards, no other value's forward stretch may overlap it; if it is backwards (all its operations overlap), it must not lie wholly
 * within another one's forward stretch. A log is a register whose value is its length: a read of n records is a read of the value n.
 */
export interface Operation {
  readonly client: number;
  readonly kind: "read" | "write";
  readonly file: string;
  value: number;
  readonly beginMs: number;
  /** Infinite while it is not answered: a write may then have happened, at any time since. */
  endMs: number;
  readonly stable?: boolean;
}

interface Zone {
  readonly value: number;
  firstEndMs: number;
  lastBeginMs: number;
  writeBeginMs: number;
  read: boolean;
}

/** The first contradiction in the histories of all files, or undefined. */
export function whyNotLinearizable(history: readonly Operation[]): string | undefined {
  const files = new Map<string, Operation[]>();
  for (const operation of history) {
    const list = files.get(operation.file);
    if (list) list.push(operation);
    else files.set(operation.file, [operation]);
  }
  for (const [file, operations] of files) {
    const why = whyNotOne(operations);
    if (why !== undefined) return `${file}: ${why}`;
  }
  return undefined;
}

function whyNotOne(operations: readonly Operation[]): string | undefined {
  const zones = new Map<number, Zone>();
  // Every file begins as 0, before anything.
  const before = Number.NEGATIVE_INFINITY;
  zones.set(0, {
    value: 0,
    firstEndMs: before,
    lastBeginMs: before,
    writeBeginMs: before,
    read: true,
  });
  for (const { kind, value, beginMs, endMs } of operations) {
    if (kind !== "write") continue;
    if (zones.has(value)) return `value ${value} was written twice`;
    const zone = { value, firstEndMs: endMs, lastBeginMs: beginMs, writeBeginMs: beginMs };
    zones.set(value, { ...zone, read: false });
  }
  for (const { kind, value, beginMs, endMs } of operations) {
    if (kind !== "read" || endMs === Number.POSITIVE_INFINITY) continue;
    const zone = zones.get(value);
    if (!zone) return `a read ended at ${endMs.toFixed(1)} with ${value}, which nobody wrote`;
    if (endMs < zone.writeBeginMs) return `${value} was read before it was written`;
    zone.firstEndMs = Math.min(zone.firstEndMs, endMs);
    zone.lastBeginMs = Math.max(zone.lastBeginMs, beginMs);
    zone.read = true;
  }
  // A write that was never answered and that nobody saw need not have happened.
  const counted = [...zones.values()].filter(
    (zone) => zone.read || zone.firstEndMs !== Number.POSITIVE_INFINITY,
  );
  return whyZonesClash(counted);
}

function whyZonesClash(zones: readonly Zone[]): string | undefined {
  const forward = zones
    .filter((zone) => zone.firstEndMs < zone.lastBeginMs)
    .sort((one, other) => one.firstEndMs - other.firstEndMs);
  let last: Zone | undefined;
  for (const zone of forward) {
    if (last && zone.firstEndMs < last.lastBeginMs) return clash(last, zone);
    last = zone;
  }
  const backward = zones.filter((zone) => zone.firstEndMs >= zone.lastBeginMs);
  for (const zone of backward) {
    const around = lastBefore(forward, zone.lastBeginMs);
    if (around && around.firstEndMs < zone.lastBeginMs && zone.firstEndMs < around.lastBeginMs)
      return clash(around, zone);
  }
  return undefined;
}

/** The last of the forward stretches, sorted and disjoint, that begins before a time. */
function lastBefore(sorted: readonly Zone[], atMs: number): Zone | undefined {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle]?.firstEndMs ?? 0) < atMs) low = middle + 1;
    else high = middle;
  }
  return sorted[low - 1];
}

function clash(one: Zone, other: Zone): string {
  const span = ({ value, firstEndMs, lastBeginMs }: Zone) =>
    `${value} (over at ${firstEndMs.toFixed(1)} at the earliest, seen again by an operation begun at ${lastBeginMs.toFixed(1)})`;
  return `the values ${span(one)} and ${span(other)} cannot have been there one after the other`;
}
