/** The judgement of a history at its end: that service is back, and in time, for controllers and for clients. */
import { partnerOf } from "../../firmware-ts/schema/ids.ts";
import { darkBoundMs, mendedWithinMs } from "./bounds.ts";
import { strike, supervise } from "./chaos.ts";
import { whyNotLinearizable } from "./history.ts";
import { Violation } from "./invariants.ts";
import type { Pair } from "./pair.ts";
import type { PlainLoss } from "./plan.ts";
import { muteNoticedMs } from "./served-faults.ts";
import { isWhole, wantedAddresses, whyNotWhole } from "./wholeness.ts";

export function judgeReturn(pair: Pair): void {
  const endMs = pair.timeline.nowMs + mendedWithinMs(pair.timing);
  while (pair.timeline.nowMs < endMs) {
    supervise(pair);
    if (isWhole(pair)) {
      // Not by chance at one instant.
      pair.run(300);
      if (isWhole(pair)) return;
    }
    pair.run(50);
  }
  throw new Violation(
    `noEndlessDark: not whole ${mendedWithinMs(pair.timing)} ms after all was mended; ${whyNotWhole(pair)}`,
  );
}

/** Repeats, a new question for the address, grace and a session, and before that a file service that hangs: a client is served well within this. */
const clientWithinMs = 3000 + 1.5 * muteNoticedMs;

export function judgeClients(pair: Pair): void {
  if (pair.clients.length === 0) return;
  // A client of a virtual server that was stopped or deleted waits for better times.
  const wanted = wantedAddresses(pair);
  const clients = pair.clients.filter(({ address }) => wanted.includes(address));
  const before = clients.map(({ done }) => done);
  const served = () => clients.every(({ done }, i) => done >= (before[i] ?? 0) + 2);
  const endMs = pair.timeline.nowMs + clientWithinMs;
  while (!served() && pair.timeline.nowMs < endMs) pair.run(20);
  if (!served()) {
    const stuck = clients.filter(({ done }, i) => done < (before[i] ?? 0) + 2);
    throw new Violation(
      `noEndlessDark: ${stuck.length} clients are not served ${clientWithinMs} ms after service is back`,
    );
  }
}

/** A plain loss of a healthy pair: dark no longer than derived, and the survivor's own address not at all. */
export function judgeLoss(pair: Pair, loss: PlainLoss): void {
  const { victim, how } = loss;
  if (!isWhole(pair)) throw new Violation("noEndlessDark: a healthy pair does not serve");
  const lostAtMs = pair.timeline.nowMs;
  pair.say("-", `loss of ${victim}: ${how}`);
  if (how === "hang") pair.freeze(victim, "main");
  else if (how === "isolate") strike(pair, { do: "split", on: true, blind: victim });
  else pair[how](victim);
  pair.run(3000);
  const survivor = partnerOf(victim);
  const [own, taken] = survivor === "a" ? pair.addresses : pair.addresses.toReversed();
  const darkOf = (address: string | undefined) =>
    pair.dark.filter((each) => each.address === address && each.toMs > lostAtMs);
  if (darkOf(own).length > 0) throw new Violation(`noEndlessDark: the survivor's ${own} blinked`);
  if (pair.answers(taken ?? "") !== survivor)
    throw new Violation(`noEndlessDark: ${taken} is not served 3 s after a plain loss`);
  const darkMs = Math.max(...darkOf(taken).map(({ toMs }) => toMs)) - lostAtMs;
  const boundMs = darkBoundMs(pair.timing, how);
  if (darkMs > boundMs)
    throw new Violation(`noEndlessDark: dark for ${darkMs.toFixed(1)} ms, ${boundMs} are derived`);
}

/** All that clients saw could have come from one file each. */
export function judgeHistory(pair: Pair): void {
  const why = whyNotLinearizable(pair.history);
  if (why !== undefined) throw new Violation(`linearizable: ${why}`);
}

/** What the world threw, as a violation: an invariant of its own, or the machine that broke. */
export function violationOf(error: unknown): string {
  if (error instanceof Violation) return error.message;
  return `neverThrows: ${error instanceof Error ? (error.stack ?? error.message) : "?"}`;
}
